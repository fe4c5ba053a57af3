"""Signed layouts: exact, so that what decodes is, byte for byte, what its fields encode to."""

from collections.abc import Callable
from functools import cache
from typing import Final

from saltline.crypto.bundles import DAY_MS, BadBundle, Bundle, Prekey, PrekeyKind
from saltline.crypto.chains import Header, chain_fields
from saltline.crypto.encoding import Malformed, u32
from saltline.crypto.handshake import MAX_SETUP_BYTES, Setup
from saltline.crypto.keylog import (
    LOG_SIGNER,
    Account,
    BadEntry,
    Entry,
    add_device_entry,
    create_entry,
    replay,
    reset_entry,
    revoke_entry,
)
from saltline.crypto.primitives import SIGNATURE_BYTES, RefusedKey, sha256
from saltline.crypto.signatures import MAX_IDENTITY_BYTES, Identity, RoomStatement
from saltline.protocol.limits import (
    KEYLOG_ENTRY_MAX_BYTES,
    PREKEY_MAX_BYTES,
    ROOM_STATEMENT_MAX_BYTES,
    TEXT_MAX_BYTES,
)
from tests.crypto.people import LOG, NOW_MS, Device
from tests.fuzzing.script import Script


def _header(data: bytes) -> tuple[bytes, int]:
    header = Header.decode(data)
    numbers = u32(header.previous_length) + u32(header.number)
    fields = chain_fields(header.ratchet_key, header.kem_key, header.kem_ciphertext)
    return b"\x01\x00" + header.session_id + numbers + fields, 2342


def _statement(data: bytes) -> tuple[bytes, int]:
    return RoomStatement.decode(data, TEXT_MAX_BYTES).encode(), ROOM_STATEMENT_MAX_BYTES


def _identity(data: bytes) -> tuple[bytes, int]:
    identity = Identity.decode(data)
    assert identity.username.isascii() and identity.username.isprintable()
    return identity.encode(), MAX_IDENTITY_BYTES


LAYOUTS: Final[tuple[Callable[[bytes], tuple[bytes, int]], ...]] = (
    _statement,
    lambda data: (Entry.decode(data).encode(), KEYLOG_ENTRY_MAX_BYTES),
    _identity,
    lambda data: (Prekey.decode(data).encode(), PREKEY_MAX_BYTES),
    lambda data: (Setup.decode(data).encode(), MAX_SETUP_BYTES),
    _header,
)


def layouts(data: bytes) -> None:
    """Which layout, then its bytes. What encodes to all of them has no second encoding."""
    script = Script(data)
    layout = script.choose(LAYOUTS)
    body = script.rest()
    try:
        again, most = layout(body)
    except (Malformed, RefusedKey):
        return
    assert again == body, "two byte strings decode to one value"
    assert len(body) <= most


# --- the key log ----------------------------------------------------------------------------------


_PHONE, _LAPTOP, _TABLET = (Device("ada", number) for number in (1, 2, 3))


@cache
def life() -> tuple[bytes, ...]:
    """All entries of a name, from its creation until it is closed: every operation once."""
    phone, laptop, tablet = _PHONE.keys, _LAPTOP.keys, _TABLET.keys
    entries = [create_entry(phone.identity, phone.identity_signature, NOW_MS, phone.sign)]

    def account() -> Account:
        return replay([each.encode() for each in entries], LOG.public)

    two = (laptop.identity, laptop.identity_signature, NOW_MS + 1, 1, phone.sign)
    entries.append(add_device_entry(account(), *two))
    entries.append(revoke_entry(account(), phone.identity, NOW_MS + 2, 2, laptop.sign))
    three = (tablet.identity, tablet.identity_signature, NOW_MS + 3, LOG.sign)
    entries.append(reset_entry(account(), *three))
    entries.append(revoke_entry(account(), tablet.identity, NOW_MS + 4, LOG_SIGNER, LOG.sign))
    return tuple(each.encode() for each in entries)


def _signed_again(entry: bytes, script: Script) -> bytes:
    """As a device, or the relay, would sign that."""
    signers: list[Callable[[bytes], bytes]] = [LOG.sign]
    signers += [device.keys.sign for device in (_PHONE, _LAPTOP, _TABLET)]
    unsigned = entry[:-SIGNATURE_BYTES]
    return unsigned + script.choose(signers)(unsigned)


def keylogs(data: bytes) -> None:
    """The entries that a relay shows for a name: some of the true ones, spoilt or signed anew."""
    script = Script(data)
    shown: list[bytes] = []
    is_forged = False
    while not script.is_over and len(shown) < 8:
        true = script.choose(life())
        entry = script.spoil(true)
        if script.byte() & 1:
            entry = _signed_again(entry, script)
            is_forged = is_forged or entry != true
        shown.append(entry)
    try:
        account = replay(shown, LOG.public)
    except (BadEntry, Malformed, RefusedKey):
        assert not shown or tuple(shown) != life()[: len(shown)], "the truth is refused"
        return
    assert account.username == "ada"
    assert account.last_hash == sha256(shown[-1])
    if not is_forged:
        # Nobody lost a key: only what really happened is believed, from its beginning.
        assert tuple(shown) == life()[: len(shown)]


# --- bundles --------------------------------------------------------------------------------------


@cache
def honest_parts() -> tuple[tuple[bytes, ...], ...]:
    """What each of two devices published, encoded: ID, sigID, then a prekey of each kind."""
    return tuple(
        (
            device.keys.identity.encode(),
            device.keys.identity_signature,
            *(device.prekeys[kind].public.encode() for kind in PrekeyKind),
        )
        for device in (Device("bob"), Device("mallory"))
    )


def bundles(data: bytes) -> None:
    """A claimed bundle whose parts are spoilt, or are those of another device or place."""
    script = Script(data)
    everything = [part for parts in honest_parts() for part in parts]
    identity, signature, signed, one_time, _last_resort, kem = honest_parts()[0]
    parts = [identity, signature, signed, kem, one_time]
    for place in range(len(parts)):
        parts[place] = script.spoil(parts[place], everything)
    now_ms = NOW_MS + (script.byte() - 128) * DAY_MS
    try:
        bundle = Bundle(
            Identity.decode(parts[0]),
            parts[1],
            Prekey.decode(parts[2]),
            Prekey.decode(parts[3]),
            Prekey.decode(parts[4]) if parts[4] else None,
        )
        bundle.verify(now_ms)
    except (Malformed, RefusedKey, BadBundle):
        is_honest = parts == [identity, signature, signed, kem, one_time]
        assert not is_honest or not 0 <= now_ms - NOW_MS < 43 * DAY_MS, "the truth is refused"
        return
    owner = next(each for each in honest_parts() if each[0] == parts[0])
    kinds = (PrekeyKind.SIGNED, PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME_KEM)
    assert parts[1] == owner[1], "another signature of an identity is taken"
    assert parts[2] == owner[1 + kinds[0]], "a signed prekey that its owner did not publish"
    assert parts[3] in (owner[1 + kinds[1]], owner[1 + kinds[2]])
    assert parts[4] in (b"", owner[1 + PrekeyKind.ONE_TIME])
    assert all(each.not_after_ms > now_ms for each in (bundle.signed_prekey, bundle.kem_prekey))
