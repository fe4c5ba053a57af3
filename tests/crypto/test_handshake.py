"""PQXDH: what both sides agree on, and what no stranger can make them agree on."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto import handshake
from saltline.crypto.bundles import PREKEY_LIFE_MS, BadBundle, Bundle, Prekey, PrekeyKind
from saltline.crypto.encoding import Malformed
from saltline.crypto.handshake import (
    MAX_SETUP_BYTES,
    MAX_STARTED_MS,
    Agreement,
    CannotAccept,
    Setup,
    consume_setup,
    create_setup,
)
from saltline.crypto.keylog import LogKey
from saltline.crypto.keys import PrekeyPair
from saltline.crypto.primitives import ML_KEM_1024, RefusedKey, agree, x25519_generate
from saltline.crypto.session import BadCommitment, CannotDecrypt, Session
from saltline.crypto.signatures import Identity, identity_payload
from tests.crypto.people import (
    NOW_MS,
    REFUSALS,
    Device,
    flips,
    refusal,
    resealed,
    seeded,
    strangers,
    torsioned,
)

ALICE, BOB, MALLORY = Device("alice"), Device("bob"), Device("mallory")


def consumed(
    bob: Device, setup_bytes: bytes, session_id: bytes | None = None, setup: Setup | None = None
) -> Agreement:
    """Bob's half; the session id is what follows from the setup if none is given."""
    setup = setup or Setup.decode(setup_bytes)
    one_time = bob.prekeys[PrekeyKind.ONE_TIME] if setup.one_time_prekey_id else None
    signed, kem = bob.prekeys[PrekeyKind.SIGNED], bob.prekeys[setup.kem_kind]
    if session_id is None:
        ad = handshake.associated_data(setup.initiator, bob.keys.identity)
        one_time_key = one_time.public.key if one_time else b""
        transcript = handshake._transcript(
            ad, setup_bytes, signed.public.key, one_time_key, kem.public.key
        )
        session_id = handshake._session_id(transcript)
    return consume_setup(bob.keys, setup, setup_bytes, session_id, signed, kem, one_time)


def created() -> Agreement:
    return create_setup(ALICE.keys, BOB.bundle(), NOW_MS, NOW_MS, seeded("handshake"))


@pytest.mark.parametrize("one_time_kem", [False, True])
@pytest.mark.parametrize("one_time", [False, True])
def test_both_sides_agree(one_time: bool, one_time_kem: bool) -> None:
    bundle = BOB.bundle(one_time=one_time, one_time_kem=one_time_kem)
    hers = create_setup(ALICE.keys, bundle, NOW_MS, NOW_MS, ALICE.random)
    his = consumed(BOB, hers.setup, hers.session_id)
    assert his == hers
    assert len(hers.secret) == 32 and len(hers.session_id) == 16
    setup = Setup.decode(hers.setup)
    assert bool(setup.one_time_prekey_id) == one_time
    assert setup.kem_kind.is_one_time == one_time_kem


def test_every_handshake_is_new() -> None:
    assert created().secret != created().secret  # the KEM draws its own randomness
    assert created().session_id != created().session_id


def test_a_setup_is_exact() -> None:
    encoded = created().setup
    assert Setup.decode(encoded).encode() == encoded
    for size in range(0, len(encoded)):
        with pytest.raises(Malformed):
            Setup.decode(encoded[:size])
    with pytest.raises(Malformed, match="left over"):
        Setup.decode(encoded + b"\x00")
    for version in (0, 2, 255):
        with pytest.raises(Malformed, match="unknown version"):
            Setup.decode(bytes((version,)) + encoded[1:])
    longest = create_setup(
        Device("a" * 32).keys, BOB.bundle(), MAX_STARTED_MS - 1, NOW_MS, ALICE.random
    )
    assert len(longest.setup) == MAX_SETUP_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"signed_prekey_id": 0},
        {"kem_id": 0},
        {"kem_kind": PrekeyKind.SIGNED},
        {"kem_kind": PrekeyKind.ONE_TIME},
        {"started_ms": MAX_STARTED_MS},
        {"kem_ciphertext": b""},
        {"kem_ciphertext": bytes(1567)},
    ],
)
def test_setups_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    setup = Setup.decode(created().setup)
    with pytest.raises(Malformed):
        Setup.decode(replace(setup, **change).encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ephemeral", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, bytes(31) + b"\x80"]
)
def test_setups_with_a_refused_key(ephemeral: bytes) -> None:
    setup = Setup.decode(created().setup)
    with pytest.raises(RefusedKey):
        Setup.decode(replace(setup, ephemeral=ephemeral).encode())


def test_every_byte_of_a_setup_changes_the_session_or_is_refused() -> None:
    """Whoever changes the setup cannot keep the session id, and gets another secret anyway."""
    hers = created()
    for at, changed in flips(hers.setup):
        how = refusal(consumed, BOB, changed, hers.session_id)
        assert how in (Malformed, RefusedKey, CannotAccept), at
        try:
            # The identity is followed in the key log, ids lead to prekeys; both are for the caller.
            other = consumed(BOB, changed)
        except REFUSALS:
            continue
        assert other.secret != hers.secret and other.session_id != hers.session_id, at


def test_torsioned_keys_agree_but_do_not_pass() -> None:
    hers = created()
    setup = Setup.decode(hers.setup)
    signed = BOB.prekeys[PrekeyKind.SIGNED]
    twisted_key = torsioned(setup.ephemeral)
    assert agree(twisted_key, signed.secret) == agree(setup.ephemeral, signed.secret)
    initiator = setup.initiator
    twisted_identity = replace(initiator, agreement_key=torsioned(initiator.agreement_key))
    for twisted in (
        replace(setup, ephemeral=twisted_key),
        replace(setup, initiator=twisted_identity),
    ):
        with pytest.raises(CannotAccept, match="session id"):
            consumed(BOB, twisted.encode(), hers.session_id)
        assert consumed(BOB, twisted.encode()).secret != hers.secret


def test_a_re_encapsulated_secret_does_not_pass() -> None:
    hers = created()
    setup = Setup.decode(hers.setup)
    kem_secret, ciphertext = ML_KEM_1024.encapsulate(BOB.prekeys[setup.kem_kind].public.key)
    swapped = replace(setup, kem_ciphertext=ciphertext).encode()
    with pytest.raises(CannotAccept, match="session id"):
        consumed(BOB, swapped, hers.session_id)
    assert consumed(BOB, swapped).secret != hers.secret


def test_an_agreement_key_under_another_name_does_not_pass() -> None:
    """Mallory registers Alice's agreement key with a signing key of her own."""
    hers = created()
    setup = Setup.decode(hers.setup)
    stolen = Identity(
        ALICE.keys.identity.relay_id,
        "mallory",
        1,
        MALLORY.keys.identity.signing_key,
        ALICE.keys.identity.agreement_key,
    )
    misbound = replace(setup, initiator=stolen).encode()
    with pytest.raises(CannotAccept, match="session id"):
        consumed(BOB, misbound, hers.session_id)
    assert consumed(BOB, misbound).secret != hers.secret


def test_prekeys_under_another_name_do_not_pass() -> None:
    """Mallory publishes Bob's public keys as her own: Alice means Mallory, Bob would hear Alice."""
    posing = replace(MALLORY.keys.identity, agreement_key=BOB.keys.identity.agreement_key)
    sign = MALLORY.keys.sign

    def signed(prekey: Prekey) -> Prekey:
        return replace(prekey, signature=sign(prekey.payload(posing.hash)))

    bundle = Bundle(
        posing,
        sign(identity_payload(posing)),
        signed(BOB.prekeys[PrekeyKind.SIGNED].public),
        signed(BOB.prekeys[PrekeyKind.ONE_TIME_KEM].public),
    )
    alice = Device("alice")
    alice.initiates(bundle)
    opened = BOB.opens(alice.says(b"for Mallory"))
    with pytest.raises(CannotAccept, match="session id"):
        BOB.accepts(opened)
    hers, his = (
        handshake.associated_data(ALICE.keys.identity, each) for each in (posing, BOB.keys.identity)
    )
    assert hers != his


PREKEYS = BOB.prekeys
OTHERS = {
    "another signed prekey": (PrekeyKind.ONE_TIME, PrekeyKind.ONE_TIME_KEM, PrekeyKind.ONE_TIME),
    "another KEM prekey": (PrekeyKind.SIGNED, PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME),
    "no one-time prekey": (PrekeyKind.SIGNED, PrekeyKind.ONE_TIME_KEM, None),
    "another one-time prekey": (PrekeyKind.SIGNED, PrekeyKind.ONE_TIME_KEM, PrekeyKind.SIGNED),
}


@pytest.mark.parametrize("what", OTHERS)
def test_prekeys_other_than_the_named_ones_are_refused(what: str) -> None:
    signed, kem, one_time = OTHERS[what]
    hers = created()
    setup = Setup.decode(hers.setup)
    given = (PREKEYS[signed], PREKEYS[kem], PREKEYS[one_time] if one_time else None)
    with pytest.raises(CannotAccept, match="other prekeys"):
        consume_setup(BOB.keys, setup, hers.setup, hers.session_id, *given)


def test_a_prekey_of_the_same_id_and_another_key_is_refused() -> None:
    hers = created()
    for kind in (PrekeyKind.SIGNED, PrekeyKind.ONE_TIME_KEM, PrekeyKind.ONE_TIME):
        bob = Device("bob")
        bob.prekeys[kind] = MALLORY.prekeys[kind]
        with pytest.raises(CannotAccept, match="session id"):
            consumed(bob, hers.setup, hers.session_id)


def test_a_setup_for_one_device_is_nothing_to_another() -> None:
    """Carol, to whom Alice wrote, forwards it to Bob; Bob's prekey ids are the same."""
    hers = create_setup(ALICE.keys, Device("carol").bundle(), NOW_MS, NOW_MS, ALICE.random)
    with pytest.raises(CannotAccept, match="session id"):
        consumed(BOB, hers.setup, hers.session_id)
    with pytest.raises(CannotAccept, match="this very device"):
        consumed(ALICE, hers.setup, hers.session_id)


def test_nobody_starts_with_himself_or_with_another_relay() -> None:
    with pytest.raises(BadBundle, match="very device"):
        ALICE.initiates(ALICE.bundle())
    elsewhere = LogKey.generate(seeded("another log")).relay_id
    foreigner = Device("bob", relay_id=elsewhere)
    with pytest.raises(BadBundle, match="another relay"):
        ALICE.initiates(foreigner.bundle())
    foreigner.initiates(Device("carol", relay_id=elsewhere).bundle())
    setup = foreigner.now.setup
    with pytest.raises(CannotAccept, match="another relay"):
        consumed(BOB, setup, foreigner.now.id)


def test_a_bundle_is_verified_before_its_use() -> None:
    with pytest.raises(BadBundle, match="expired"):
        create_setup(ALICE.keys, BOB.bundle(), NOW_MS, NOW_MS + PREKEY_LIFE_MS, ALICE.random)
    forged = replace(BOB.bundle(), signed_prekey=MALLORY.prekeys[PrekeyKind.SIGNED].public)
    with pytest.raises(BadBundle, match="signature"):
        create_setup(ALICE.keys, forged, NOW_MS, NOW_MS, ALICE.random)


def broken(pair: PrekeyPair, secret: bytes) -> PrekeyPair:
    """The public half as it is, with a private half that an attacker guesses."""
    return PrekeyPair(pair.public, secret)


GUESSES: dict[str, Callable[[Device], None]] = {
    "only the KEM seed is missing": lambda thief: thief.prekeys.update(
        {
            PrekeyKind.ONE_TIME_KEM: broken(
                thief.prekeys[PrekeyKind.ONE_TIME_KEM], seeded("guess")(64)
            )
        }
    ),
    "only the one-time prekey is missing": lambda thief: thief.prekeys.update(
        {PrekeyKind.ONE_TIME: broken(thief.prekeys[PrekeyKind.ONE_TIME], seeded("guess")(32))}
    ),
    "only the signed prekey is missing": lambda thief: thief.prekeys.update(
        {PrekeyKind.SIGNED: broken(thief.prekeys[PrekeyKind.SIGNED], seeded("guess")(32))}
    ),
}


@pytest.mark.parametrize("what", GUESSES)
def test_every_secret_is_needed(what: str) -> None:
    """A first message stays closed to a thief of all but one of Bob's secrets.

    The KEM's is the one that a quantum computer does not compute from what was sent.
    """
    alice, bob = strangers()
    opened = bob.opens(alice.says(b"secret"))
    thief = Device("bob")
    assert thief.accepts(opened)[1] == b"secret"
    GUESSES[what](thief)
    with pytest.raises(CannotDecrypt):
        thief.accepts(opened)


def test_only_the_initiator_passes_as_the_initiator() -> None:
    """Mallory has no secret of Alice's identity: her first message in Alice's name is refused."""
    mallory = Device("mallory")
    mallory.keys = replace(ALICE.keys, agreement_secret=mallory.keys.agreement_secret)
    mallory.initiates(BOB.bundle())
    with pytest.raises(BadCommitment):
        BOB.accepts(BOB.opens(mallory.says(b"it is me, Alice")))


def test_the_setup_inside_a_first_message_is_held_byte_by_byte() -> None:
    alice, bob = strangers()
    first = bob.opens(alice.says(b"hello"))
    for at, changed in flips(first.setup):
        envelope = resealed(bob, first, setup=changed)
        how = refusal(bob.accepts, bob.opens(envelope))
        assert how in (Malformed, RefusedKey, CannotAccept), at
    for wrong in (first.setup[:-1], first.setup + b"\x00", first.setup[:100]):
        envelope = resealed(bob, first, setup=wrong)
        assert refusal(bob.accepts, bob.opens(envelope)) is Malformed
    assert bob.accepts(first)[1] == b"hello"


def test_without_a_setup_there_is_no_session() -> None:
    alice, bob = strangers()
    opened = bob.opens(resealed(bob, bob.opens(alice.says(b"hello")), setup=b""))
    assert opened.setup_info is None
    with pytest.raises(CannotAccept, match="no setup"):
        bob.accepts(opened)


def test_a_handshake_shows_nothing_secret() -> None:
    hers = created()
    assert repr(hers.secret)[2:-1] not in repr(hers)
    assert hers.secret.hex() not in repr(hers)


def test_an_ephemeral_key_is_drawn_for_each_session() -> None:
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(seeded(str(len(drawn)))(size))
        return drawn[-1]

    one = Session.initiate(ALICE.keys, BOB.bundle(), NOW_MS, NOW_MS, draw)
    other = Session.initiate(ALICE.keys, BOB.bundle(), NOW_MS, NOW_MS, draw)
    keys = [Setup.decode(each.setup).ephemeral for each in (one, other)]
    assert keys == [x25519_generate(seeded(str(n)))[1] for n in range(2)]
    assert keys[0] != keys[1]
