"""A session's state: what a thief can read with it, and its bytes."""

from dataclasses import replace

import pytest

from saltline.crypto.chains import ReceivingChain, ReceivingChainKey
from saltline.crypto.encoding import Malformed
from saltline.crypto.primitives import ML_KEM_768, agree
from saltline.crypto.ratchet import OurRatchetKey, OurTurn, TheirTurn, _root_step
from saltline.crypto.session import BadCommitment, CannotDecrypt, Session
from tests.crypto.people import (
    NOW_MS,
    Device,
    acquainted,
    flips,
    refusal,
    resealed,
    seeded,
    strangers,
)

# --- a stolen state -------------------------------------------------------------------------


def stolen_from(device: Device) -> Device:
    """A thief with a copy of all that ``device`` holds at this moment."""
    thief = Device(device.keys.identity.username)
    thief.session = Session.from_bytes(device.now.to_bytes())
    thief.random = seeded("thief")
    return thief


def test_a_stolen_state_opens_nothing_that_was_read_before() -> None:
    alice, bob = strangers()
    earlier: list[bytes] = []
    for number in range(4):
        earlier += [alice.says(b"a" + bytes((number,))), alice.says(b"b" + bytes((number,)))]
        bob.hears(earlier[-2])
        bob.hears(earlier[-1])
        alice.hears(bob.says(b"read"))
    thief = stolen_from(bob)
    for envelope in earlier:
        with pytest.raises(CannotDecrypt):
            thief.hears(envelope)
    # The thief is refused by what it holds, not by what it remembers as consumed.
    ratchet = replace(thief.now.ratchet, past=())
    for forgotten in (ratchet, replace(ratchet, receiving=None)):
        for envelope in earlier:
            opened = bob.opens(envelope)
            with pytest.raises(CannotDecrypt):
                replace(thief.now, ratchet=forgotten).decrypt(opened, NOW_MS)
    # What has not come yet is within reach, which shows that the theft is a real one.
    assert thief.hears(alice.says(b"next")) == b"next"


@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_one_round_trip_shuts_a_thief_out(victim: str) -> None:
    alice, bob = acquainted()
    if victim == "alice":
        bob.hears(alice.says(b"now Bob answers Alice's keys"))
    robbed, friend = (alice, bob) if victim == "alice" else (bob, alice)
    thief = stolen_from(robbed)
    # What is sent to the stolen keys is read, which shows that the theft is a real one.
    envelope = friend.says(b"to the stolen keys")
    assert thief.hears(envelope) == robbed.hears(envelope) == b"to the stolen keys"
    # One round trip: the robbed device makes new keys, the friend answers to them.
    friend.hears(robbed.says(b"new keys"))
    for _ in range(3):
        answer = friend.says(b"answer")
        with pytest.raises(CannotDecrypt):
            thief.hears(answer)
        assert robbed.hears(answer) == b"answer"
        friend.hears(robbed.says(b"more keys"))


@pytest.mark.parametrize("half", ["X25519", "ML-KEM", "both"])
def test_one_half_of_new_keys_keeps_a_thief_out(half: str) -> None:
    """The thief knows all else: the root key, the chains. Both halves let it in: the control."""
    alice, bob = acquainted()
    bob.hears(alice.says(b"question"))
    alice.hears(bob.says(b"new keys"))
    answer = bob.opens(alice.says(b"answer"))
    turn = bob.now.ratchet.turn
    assert isinstance(turn, TheirTurn)
    secret, seed = seeded("guess")(32), seeded("guess")(64)
    if half != "ML-KEM":
        secret = turn.ours.secret
    if half != "X25519":
        seed = turn.ours.kem_seed
    knows = replace(turn, ours=OurRatchetKey(secret, seed))
    thief = replace(bob.now, ratchet=replace(bob.now.ratchet, turn=knows))
    if half == "both":
        assert thief.decrypt(answer, NOW_MS)[1] == b"answer"
    else:
        with pytest.raises(BadCommitment):
            thief.decrypt(answer, NOW_MS)


@pytest.mark.parametrize("knows_kem_secret", [False, True])
def test_every_x25519_secret_of_all_times_does_not_open_a_turn(knows_kem_secret: bool) -> None:
    """From a stolen state on, the thief knows every X25519 secret; only the KEM's are hidden.

    It computes Bob's step by itself. With the KEM's shared secret it could: the control.
    """
    alice, bob = acquainted()
    bob.hears(alice.says(b"to the stolen keys"))
    stolen = bob.now.ratchet
    assert isinstance(stolen.turn, OurTurn)
    envelope = bob.says(b"new keys")
    header = alice.opens(envelope).header
    fresh = bob.now.ratchet.turn
    assert isinstance(fresh, TheirTurn) and fresh.sending
    answers = alice.now.ratchet.turn
    assert isinstance(answers, TheirTurn)

    shared = agree(stolen.turn.theirs.key, fresh.ours.secret)
    kem_secret = bytes(32)
    if knows_kem_secret:
        kem_secret = ML_KEM_768.decapsulate(answers.ours.kem_seed, header.kem_ciphertext)
    _, chain_key = _root_step(stolen.turn.root, shared, kem_secret, header.chain_id)
    chain = ReceivingChain(header.chain_id, ReceivingChainKey(chain_key), 0)
    listening = replace(alice.now, ratchet=replace(alice.now.ratchet, receiving=chain))
    opened = alice.opens(envelope)
    if knows_kem_secret:
        assert listening.decrypt(opened, NOW_MS)[1] == b"new keys"
    else:
        with pytest.raises(BadCommitment):
            listening.decrypt(opened, NOW_MS)


# --- state as bytes -------------------------------------------------------------------------


def states() -> dict[str, Session]:
    alice, bob = strangers()
    found = {"initiated": alice.now}
    envelopes = [alice.says(b"1"), alice.says(b"2"), alice.says(b"3")]
    found["unconfirmed"] = alice.now
    bob.hears(envelopes[2])
    found["accepted, two skipped"] = bob.now
    alice.hears(bob.says(b"4"))
    found["confirmed"] = alice.now
    found["answered"] = bob.now
    found["abandoned"] = bob.now.marked(abandoned=True, superseded_ms=NOW_MS)
    return found


STATES = states()


@pytest.mark.parametrize("state", STATES)
def test_a_state_survives_its_bytes_and_nothing_else_passes(state: str) -> None:
    session = STATES[state]
    stored = session.to_bytes()
    assert Session.from_bytes(stored) == session
    for size in range(0, len(stored), 3):
        with pytest.raises(Malformed):
            Session.from_bytes(stored[:size])
    with pytest.raises(Malformed, match="left over"):
        Session.from_bytes(stored + b"\x00")
    for version in (0, 2, 255):
        with pytest.raises(Malformed, match="unknown version"):
            Session.from_bytes(bytes((version,)) + stored[1:])
    for _, changed in flips(stored):
        if refusal(Session.from_bytes, changed) is None:
            assert Session.from_bytes(changed).to_bytes() == changed


def test_encrypting_and_decrypting_leave_a_state_as_it_was() -> None:
    alice, bob = acquainted()
    before = alice.now.to_bytes()
    after, envelope = alice.now.encrypt(b"text", alice.random)
    assert alice.now.to_bytes() == before != after.to_bytes()
    before = bob.now.to_bytes()
    after, _ = bob.now.decrypt(bob.opens(envelope), NOW_MS)
    assert bob.now.to_bytes() == before != after.to_bytes()


def test_a_restored_sender_repeats_no_nonce() -> None:
    """Two messages under one message key, after a backup was restored: never one nonce."""
    alice, bob = acquainted()
    old = alice.now
    alice.says(b"begins the chain")
    forked = alice.now
    one = bob.opens(forked.encrypt(b"one", alice.random)[1])
    other = bob.opens(forked.encrypt(b"two", alice.random)[1])
    assert one.header_bytes == other.header_bytes and one.inner[:24] != other.inner[:24]
    assert old.encrypt(b"x", seeded("1"))[1] != old.encrypt(b"x", seeded("2"))[1]


@pytest.mark.parametrize("state", STATES)
def test_a_session_shows_nothing_secret(state: str) -> None:
    session = STATES[state]
    shown = repr(session) + repr(session.ratchet)
    turn = session.ratchet.turn
    secrets = [turn.root]
    if isinstance(turn, TheirTurn) and turn.sending:
        secrets += [turn.ours.secret, turn.ours.kem_seed, turn.sending.key]  # type: ignore[list-item]
    if session.ratchet.receiving:
        secrets.append(session.ratchet.receiving.key)  # type: ignore[arg-type]
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown and secret.hex() not in shown


def test_errors_show_nothing_secret() -> None:
    alice, bob = acquainted()
    opened = bob.opens(resealed(bob, bob.opens(alice.says(b"plain words")), commitment=bytes(32)))
    with pytest.raises(BadCommitment) as refused:
        bob.now.decrypt(opened, NOW_MS)
    assert len(str(refused.value)) < 100 and "plain words" not in str(refused.value)
