"""Prekeys and bundles: what an initiator, and a relay, must refuse."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto.bundles import (
    DAY_MS,
    PREKEY_LIFE_MS,
    BadBundle,
    Bundle,
    Prekey,
    PrekeyKind,
    prekey_payload,
)
from saltline.crypto.encoding import Malformed, lp, u8, u32, u64
from saltline.crypto.keys import generate_prekey
from tests.crypto.people import NOW_MS, REFUSALS, Device, flips, seeded

BOB = Device("bob")
MALLORY = Device("mallory")


def test_what_a_prekey_signs_is_laid_out_as_written() -> None:
    identity_hash = BOB.keys.identity.hash
    payload = prekey_payload(PrekeyKind.ONE_TIME, 7, 9, identity_hash, b"k" * 32)
    fields = u8(2) + u32(7) + u64(9) + identity_hash + lp(b"k" * 32)
    assert payload == b"saltline/1 prekey\x00" + fields


@pytest.mark.parametrize("kind", list(PrekeyKind))
def test_a_prekey_survives_its_encoding(kind: PrekeyKind) -> None:
    prekey = BOB.prekeys[kind].public
    assert Prekey.decode(prekey.encode()) == prekey
    prekey.verify(BOB.keys.identity, NOW_MS)


@pytest.mark.parametrize("kind", [PrekeyKind.ONE_TIME, PrekeyKind.ONE_TIME_KEM])
def test_every_byte_of_a_prekey_is_held_by_its_signature(kind: PrekeyKind) -> None:
    encoded = BOB.prekeys[kind].public.encode()
    step = 1 if kind is PrekeyKind.ONE_TIME else 7
    for at, changed in flips(encoded):
        if at % step:
            continue
        with pytest.raises(REFUSALS):
            Prekey.decode(changed).verify(BOB.keys.identity, NOW_MS)
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            Prekey.decode(encoded[:size])
    with pytest.raises(Malformed, match="left over"):
        Prekey.decode(encoded + b"\x00")


def test_a_prekey_is_good_from_a_day_early_to_its_end() -> None:
    prekey = generate_prekey(BOB.keys, PrekeyKind.SIGNED, 1, NOW_MS, seeded("spk")).public
    assert prekey.not_after_ms == NOW_MS + PREKEY_LIFE_MS
    prekey.verify(BOB.keys.identity, NOW_MS - DAY_MS)
    prekey.verify(BOB.keys.identity, NOW_MS + PREKEY_LIFE_MS - 1)
    with pytest.raises(BadBundle, match="expired"):
        prekey.verify(BOB.keys.identity, NOW_MS + PREKEY_LIFE_MS)
    with pytest.raises(BadBundle, match="too long"):
        prekey.verify(BOB.keys.identity, NOW_MS - DAY_MS - 1)


def signed_by_bob(prekey: Prekey) -> Prekey:
    return replace(prekey, signature=BOB.keys.sign(prekey.payload(BOB.keys.identity.hash)))


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        (PrekeyKind.SIGNED, bytes(32), "low order"),
        (PrekeyKind.SIGNED, b"\xff" * 32, "not canonical"),
        (PrekeyKind.SIGNED, b"k" * 31, "wrong size"),
        (PrekeyKind.SIGNED, b"k" * 1568, "wrong size"),
        (PrekeyKind.LAST_RESORT_KEM, b"\xff" * 1568, "ML-KEM-1024"),
        (PrekeyKind.LAST_RESORT_KEM, b"k" * 32, "wrong size"),
    ],
)
def test_a_bad_key_is_refused_even_if_its_owner_signed_it(
    kind: PrekeyKind, key: bytes, reason: str
) -> None:
    prekey = signed_by_bob(replace(BOB.prekeys[kind].public, key=key))
    with pytest.raises(BadBundle, match=reason):
        prekey.verify(BOB.keys.identity, NOW_MS)


def test_a_prekey_without_an_id_is_refused() -> None:
    prekey = signed_by_bob(replace(BOB.prekeys[PrekeyKind.ONE_TIME].public, id=0))
    with pytest.raises(BadBundle, match="no id"):
        prekey.verify(BOB.keys.identity, NOW_MS)


def test_bundles() -> None:
    BOB.bundle().verify(NOW_MS)
    BOB.bundle(one_time=False, one_time_kem=False).verify(NOW_MS)


MALLORYS: dict[str, Callable[[Bundle], Bundle]] = {
    "identity": lambda bundle: replace(bundle, identity=MALLORY.keys.identity),
    "identity signature": lambda bundle: replace(
        bundle, identity_signature=MALLORY.keys.identity_signature
    ),
    "signed prekey": lambda bundle: replace(
        bundle, signed_prekey=MALLORY.prekeys[PrekeyKind.SIGNED].public
    ),
    "KEM prekey": lambda bundle: replace(
        bundle, kem_prekey=MALLORY.prekeys[PrekeyKind.ONE_TIME_KEM].public
    ),
    "one-time prekey": lambda bundle: replace(
        bundle, one_time_prekey=MALLORY.prekeys[PrekeyKind.ONE_TIME].public
    ),
    "agreement key": lambda bundle: replace(
        bundle,
        identity=replace(bundle.identity, agreement_key=MALLORY.keys.identity.agreement_key),
    ),
}


@pytest.mark.parametrize("part", MALLORYS)
def test_a_bundle_with_a_part_of_someone_else_is_refused(part: str) -> None:
    with pytest.raises(BadBundle, match="signature does not match|not signed"):
        MALLORYS[part](BOB.bundle()).verify(NOW_MS)


@pytest.mark.parametrize("field", ["signed_prekey", "kem_prekey", "one_time_prekey"])
@pytest.mark.parametrize("kind", list(PrekeyKind))
def test_each_place_in_a_bundle_takes_its_own_kind(field: str, kind: PrekeyKind) -> None:
    places = {
        "signed_prekey": {PrekeyKind.SIGNED},
        "kem_prekey": {PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME_KEM},
        "one_time_prekey": {PrekeyKind.ONE_TIME},
    }
    prekey = BOB.prekeys[kind].public
    bundle = BOB.bundle()
    if field == "signed_prekey":
        bundle = replace(bundle, signed_prekey=prekey)
    elif field == "kem_prekey":
        bundle = replace(bundle, kem_prekey=prekey)
    else:
        bundle = replace(bundle, one_time_prekey=prekey)
    if kind in places[field]:
        bundle.verify(NOW_MS)
    else:
        with pytest.raises(BadBundle, match="wrong kind"):
            bundle.verify(NOW_MS)


def test_a_kind_cannot_be_relabelled() -> None:
    """The last-resort key as a one-time key would promise forward secrecy that it lacks."""
    last = BOB.prekeys[PrekeyKind.LAST_RESORT_KEM].public
    with pytest.raises(BadBundle, match="signature"):
        replace(last, kind=PrekeyKind.ONE_TIME_KEM).verify(BOB.keys.identity, NOW_MS)


@pytest.mark.parametrize("kind", [0, 5, 255])
def test_unknown_kinds_are_refused(kind: int) -> None:
    encoded = BOB.prekeys[PrekeyKind.ONE_TIME].public.encode()
    with pytest.raises(Malformed, match="unknown kind"):
        Prekey.decode(u8(kind) + encoded[1:])
