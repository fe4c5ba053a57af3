"""Sessions end to end: what is read, and what is refused."""

import random
import time

import pytest

from saltline.crypto.encoding import Malformed
from saltline.crypto.primitives import RefusedKey
from saltline.crypto.session import (
    BadCommitment,
    CannotAccept,
    CannotDecrypt,
    Consumed,
    NotYetAllowed,
    TooFarAhead,
)
from tests.crypto.people import (
    NOW_MS,
    Device,
    acquainted,
    flips,
    header_places,
    plaintext_of,
    refusal,
    resealed,
    sealed_for,
    strangers,
    torsioned,
    with_field,
)

# --- a conversation -------------------------------------------------------------------------


def test_a_conversation() -> None:
    alice, bob = strangers()
    first = alice.says(b"hello")
    second = alice.says(b"are you there?")
    assert bob.hears(second) == b"are you there?"
    assert bob.hears(first) == b"hello"
    assert alice.hears(bob.says(b"yes")) == b"yes"
    assert bob.hears(alice.says("schön".encode())) == "schön".encode()
    assert bob.hears(alice.says(b"")) == b""
    assert alice.hears(bob.says(b"long " * 5000)) == b"long " * 5000


def test_the_setup_is_repeated_until_something_comes_back() -> None:
    alice, bob = strangers()
    opened = [bob.opens(alice.says(b"hello")) for _ in range(3)]
    assert opened[0].setup == opened[1].setup == opened[2].setup == alice.now.setup != b""
    assert alice.now.initiator and not alice.now.confirmed
    bob.session, _ = bob.accepts(opened[2])
    assert bob.now.confirmed and not bob.now.initiator
    answer = bob.says(b"hi")
    assert bob.opens(sealed_for(bob, plaintext_of(alice.opens(answer)))).setup == b""
    alice.hears(answer)
    assert alice.now.confirmed and alice.now.setup == b""
    assert bob.opens(alice.says(b"again")).setup == b""


def test_any_message_of_the_first_chain_may_come_first() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        alice, bob = strangers()
        envelopes = [alice.says(bytes((number,))) for number in range(3)]
        assert [bob.hears(envelopes[at]) for at in order] == [bytes((at,)) for at in order]


def test_both_sides_know_each_other_and_the_session() -> None:
    alice, bob = strangers()
    bob.hears(alice.says(b"hello"))
    assert alice.now.id == bob.now.id and len(alice.now.id) == 16
    assert alice.now.peer == bob.keys.identity and bob.now.peer == alice.keys.identity
    assert alice.now.started_ms == bob.now.started_ms == NOW_MS
    assert alice.now.associated_data == bob.now.associated_data


@pytest.mark.parametrize("seed", range(4))
def test_loss_disorder_and_repeats(seed: int) -> None:
    """Whatever comes, each content is read once, and exactly as it was said."""
    chance = random.Random(seed)
    alice, bob = acquainted()
    under_way: list[tuple[Device, bytes, bytes]] = []
    read: set[bytes] = set()
    for number in range(300):
        sender, receiver = chance.choice([(alice, bob), (bob, alice)])
        content = f"{seed} {number}".encode()
        envelope = sender.says(content)
        under_way += [(receiver, envelope, content)] * chance.choice([0, 1, 1, 1, 1, 2])
        chance.shuffle(under_way)
        late = chance.randrange(4)
        for device, coming, expected in under_way[late:]:
            if expected in read:
                assert refusal(device.hears, coming) is Consumed
            else:
                assert device.hears(coming) == expected
                read.add(expected)
        del under_way[late:]
    assert len(read) > 200


# --- every byte -----------------------------------------------------------------------------


def untouched(receiver: Device, envelope: bytes) -> type[Exception] | None:
    """How ``envelope`` is refused; the receiver's state is as it was."""
    before = receiver.now.to_bytes()
    how = refusal(receiver.hears, envelope)
    assert how is None or receiver.now.to_bytes() == before
    return how


def held(receiver: Device, envelope: bytes, content: bytes) -> None:
    """Every byte inside ``envelope`` is held, and the honest envelope is read after it all."""
    opened = receiver.opens(envelope)
    inside = plaintext_of(opened)
    header_at = 1 + 4 + len(opened.setup) + 4
    com_at = header_at + len(opened.header_bytes)
    setup = range(5, 5 + len(opened.setup))
    places = header_places(opened.header_bytes)
    for at, changed in flips(inside):
        if at in setup:
            continue
        how = untouched(receiver, sealed_for(receiver, changed))
        assert how is not None and issubclass(how, CannotDecrypt | Malformed), at
        if com_at <= at < com_at + 32:
            assert how is BadCommitment, at
        elif at >= com_at + 32:
            assert how is CannotDecrypt, at
        elif at - header_at in range(*places["session id"].indices(100)):
            assert how is CannotDecrypt, at
    for size in range(0, len(inside), 41):
        assert untouched(receiver, sealed_for(receiver, inside[:size])) in (
            Malformed,
            CannotDecrypt,
        ), size
    assert untouched(receiver, sealed_for(receiver, inside + b"\x00")) is CannotDecrypt
    assert receiver.hears(envelope) == content


def test_every_byte_of_a_new_chain_is_held() -> None:
    alice, bob = acquainted()
    held(bob, alice.says(b"begins a chain"), b"begins a chain")


def test_every_byte_within_a_chain_is_held() -> None:
    alice, bob = acquainted()
    bob.hears(alice.says(b"begins a chain"))
    held(bob, alice.says(b"goes on"), b"goes on")


def test_every_byte_of_a_late_message_is_held() -> None:
    alice, bob = acquainted()
    late, early = alice.says(b"late"), alice.says(b"early")
    bob.hears(early)
    held(bob, late, b"late")


def accepting(device: Device, envelope: bytes) -> None:
    device.accepts(device.opens(envelope))


def test_every_byte_of_a_first_message_is_held() -> None:
    alice, bob = strangers()
    envelope = alice.says(b"hello")
    inside = plaintext_of(bob.opens(envelope))
    for at, changed in flips(inside):
        how = refusal(accepting, bob, sealed_for(bob, changed))
        assert how is not None, at
        assert issubclass(how, CannotAccept | CannotDecrypt | Malformed | RefusedKey), at
    assert bob.hears(envelope) == b"hello"


def test_in_a_known_session_the_setup_means_nothing() -> None:
    """docs/protocol.md §3: the header's sid is known, so the setup is ignored."""
    alice, bob = strangers()
    bob.hears(alice.says(b"hello"))
    opened = bob.opens(alice.says(b"again"))
    assert bob.hears(resealed(bob, opened, setup=b"\xff" * 100)) == b"again"


# --- swapped, replayed, reflected -----------------------------------------------------------


def test_a_repeat_is_consumed() -> None:
    alice, bob = strangers()
    envelopes = [alice.says(b"one"), alice.says(b"two")]
    for envelope in envelopes:
        bob.hears(envelope)
    alice.hears(bob.says(b"three"))
    envelopes.append(alice.says(b"four"))
    bob.hears(envelopes[2])
    for envelope in envelopes:
        assert untouched(bob, envelope) is Consumed
        assert untouched(bob, resealed(bob, bob.opens(envelope))) is Consumed


def test_parts_of_two_messages_do_not_mix() -> None:
    alice, bob = acquainted()
    one, other = (bob.opens(alice.says(content)) for content in (b"one", b"other"))
    mixed = (
        resealed(bob, one, header_bytes=other.header_bytes),
        resealed(bob, one, header_bytes=other.header_bytes, commitment=other.commitment),
        resealed(bob, one, commitment=other.commitment),
        resealed(bob, one, inner=other.inner),
        resealed(bob, one, commitment=other.commitment, inner=other.inner),
    )
    for envelope in mixed:
        how = untouched(bob, envelope)
        assert how in (BadCommitment, CannotDecrypt)
    assert bob.now.decrypt(one, NOW_MS)[1] == b"one"


def test_messages_do_not_pass_between_sessions() -> None:
    """Same two devices, two sessions; an attacker moves a message and corrects its session id."""
    alice, bob = acquainted()
    other_alice, other_bob = acquainted()
    assert alice.now.id != other_alice.now.id
    for expected in (BadCommitment, NotYetAllowed):
        opened = bob.opens(alice.says(b"moved"))
        assert refusal(other_bob.now.decrypt, opened, NOW_MS) is CannotDecrypt
        header = with_field(opened.header_bytes, "session id", other_bob.now.id)
        moved = resealed(other_bob, opened, header_bytes=header)
        assert untouched(other_bob, moved) is expected
        assert other_bob.hears(other_alice.says(b"its own")) == b"its own"


def test_a_message_sent_back_to_its_sender_is_refused() -> None:
    alice, bob = strangers()
    envelopes = [alice.says(b"first")]
    bob.hears(envelopes[0])
    bobs = bob.says(b"answer")
    alice.hears(bobs)
    envelopes.append(alice.says(b"second"))
    for envelope in envelopes:
        reflected = sealed_for(alice, plaintext_of(bob.opens(envelope)))
        assert untouched(alice, reflected) in (CannotDecrypt, BadCommitment)
    reflected = sealed_for(bob, plaintext_of(alice.opens(bobs)))
    assert untouched(bob, reflected) in (CannotDecrypt, BadCommitment)
    assert bob.hears(envelopes[1]) == b"second"


def test_an_own_setup_sent_back_starts_nothing() -> None:
    alice, bob = strangers()
    reflected = alice.opens(sealed_for(alice, plaintext_of(bob.opens(alice.says(b"first")))))
    with pytest.raises(CannotAccept, match="this very device"):
        alice.accepts(reflected)


def test_torsioned_ratchet_keys_do_not_pass() -> None:
    alice, bob = acquainted()
    opened = bob.opens(alice.says(b"text"))
    key = torsioned(opened.header.ratchet_key)
    header = with_field(opened.header_bytes, "dh", key)
    assert untouched(bob, resealed(bob, opened, header_bytes=header)) is BadCommitment


def test_too_far_ahead_and_out_of_turn_are_told_apart() -> None:
    alice, bob = acquainted()
    opened = bob.opens(alice.says(b"text"))
    header = with_field(opened.header_bytes, "N", b"\x00\x00\x10\x00")
    assert untouched(bob, resealed(bob, opened, header_bytes=header)) is TooFarAhead
    twin = Device("alice")
    twin.session = alice.now
    bob.hears(alice.says(b"another"))
    alice.hears(bob.says(b"answer"))
    bob.hears(alice.says(b"next chain"))
    header = with_field(opened.header_bytes, "dh", torsioned(opened.header.ratchet_key))
    assert untouched(bob, resealed(bob, opened, header_bytes=header)) is NotYetAllowed


# --- speed ----------------------------------------------------------------------------------


def test_messages_are_read_well_below_a_millisecond_each() -> None:
    alice, bob = acquainted()
    envelopes = [alice.says(b"text") for _ in range(500)]
    best_s = min(timed(bob, envelopes[at : at + 100]) for at in range(0, 500, 100))
    assert best_s / 100 < 0.001


def timed(device: Device, envelopes: list[bytes]) -> float:
    start_s = time.perf_counter()
    for envelope in envelopes:
        device.hears(envelope)
    return time.perf_counter() - start_s
