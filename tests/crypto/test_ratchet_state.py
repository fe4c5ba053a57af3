"""The ratchet alone: its bounds, and its state as bytes."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto.chains import MAX_STORED_KEYS, STORED_KEY_LIFE_MS
from saltline.crypto.encoding import Malformed
from saltline.crypto.ratchet import (
    MAX_PAST_CHAINS,
    MAX_SKIPPED,
    Consumed,
    NotYetAllowed,
    OurTurn,
    Ratchet,
    TheirTurn,
    TooFarAhead,
)
from tests.crypto.ends import End, ends, talking
from tests.crypto.people import NOW_MS, flips, refusal, with_field

# --- bounds ---------------------------------------------------------------------------------


def test_at_most_a_thousand_are_skipped_in_a_chain() -> None:
    alice, bob = talking()
    messages = alice.sends_many(MAX_SKIPPED + 2)
    assert bob.misses(messages[MAX_SKIPPED + 1]) is TooFarAhead
    bob.gets(messages[MAX_SKIPPED])
    assert len(bob.ratchet.skipped) == MAX_SKIPPED
    bob.gets(messages[MAX_SKIPPED + 1])
    bob.gets(messages[0])


def test_at_most_a_thousand_are_skipped_in_a_running_chain() -> None:
    alice, bob = talking()
    messages = alice.sends_many(MAX_SKIPPED + 3)
    bob.gets(messages[0])
    assert bob.misses(messages[MAX_SKIPPED + 2]) is TooFarAhead
    bob.gets(messages[MAX_SKIPPED + 1])


@pytest.mark.parametrize(("in_old", "in_new"), [(600, 400), (1000, 0), (0, 1000)])
def test_at_most_a_thousand_are_skipped_over_both_chains(in_old: int, in_new: int) -> None:
    alice, bob = talking()
    old = alice.sends_many(in_old + 1)
    bob.gets(old[0])
    alice.gets(bob.sends())
    new = alice.sends_many(in_new + 2)
    assert bob.misses(new[in_new + 1]) is TooFarAhead
    bob.gets(new[in_new])
    assert len(bob.ratchet.skipped) == 1000
    for message in (*old[1:], *new[:in_new]):
        bob.gets(message)
    assert len(bob.ratchet.skipped) == 0


def test_a_header_cannot_ask_for_four_billion_steps() -> None:
    alice, bob = talking()
    header, key = alice.sends()
    for name in ("PN", "N"):
        assert bob.misses((with_field(header, name, b"\xff" * 4), key)) is TooFarAhead


def test_two_thousand_keys_are_kept_and_the_oldest_go() -> None:
    alice, bob = talking()
    messages = alice.sends_many(3 * MAX_SKIPPED)
    for at in range(999, 3000, 1000):
        bob.gets(messages[at])
    assert len(bob.ratchet.skipped) == MAX_STORED_KEYS
    lost = 3 * 999 - MAX_STORED_KEYS
    assert bob.misses(messages[lost - 1]) is Consumed
    bob.gets(messages[lost])
    bob.gets(messages[2998])


def test_keys_are_kept_for_thirty_days() -> None:
    alice, bob = talking()
    messages = alice.sends_many(5)
    bob.gets(messages[1])
    bob.gets(messages[3], NOW_MS + 1)
    end_ms = NOW_MS + STORED_KEY_LIFE_MS
    assert bob.misses(messages[0], end_ms) is Consumed
    bob.gets(messages[2], end_ms)
    assert len(bob.ratchet.skipped) == 0
    bob.gets(messages[4], end_ms)


def test_nor_longer_where_the_clock_was_set_back_meanwhile() -> None:
    alice, bob = talking()
    messages = alice.sends_many(4)
    bob.gets(messages[1], NOW_MS + 1)
    bob.gets(messages[3], NOW_MS)
    end_ms = NOW_MS + STORED_KEY_LIFE_MS
    assert bob.misses(messages[2], end_ms) is Consumed
    bob.gets(messages[0], end_ms)


def test_old_keys_go_without_any_message() -> None:
    alice, bob = talking()
    bob.gets(alice.sends_many(3)[2])
    end_ms = NOW_MS + STORED_KEY_LIFE_MS
    assert bob.ratchet.expire(end_ms - 1) is bob.ratchet
    assert len(bob.ratchet.expire(end_ms).skipped) == 0


def test_a_hundred_chains_are_remembered() -> None:
    alice, bob = talking()
    first = alice.sends_many(2)
    bob.gets(first[0])
    for _ in range(MAX_PAST_CHAINS):
        alice.gets(bob.sends())
        bob.gets(alice.sends())
    bob.gets(first[1])  # skipped, so its key was kept
    assert len(bob.ratchet.past) == MAX_PAST_CHAINS
    assert bob.misses(first[0]) is Consumed
    alice.gets(bob.sends())
    bob.gets(alice.sends())
    assert len(bob.ratchet.past) == MAX_PAST_CHAINS
    assert bob.misses(first[0]) is NotYetAllowed
    bob.sends()
    # Forgotten, it counts as a new chain, and gives another key.
    assert bob.tries(first[0][0]) != first[0][1]


# --- state ----------------------------------------------------------------------------------


STATES: dict[str, Callable[[], Ratchet]] = {
    "initiator": lambda: ends()[0].ratchet,
    "first chain": lambda: sent_once().ratchet,
    "our turn": lambda: talking()[0].ratchet,
    "their turn": lambda: talking()[1].ratchet,
    "skipped": lambda: skipped_three().ratchet,
}


def sent_once() -> End:
    alice, _ = ends()
    alice.sends()
    return alice


def skipped_three() -> End:
    alice, bob = talking()
    bob.gets(alice.sends_many(4)[3])
    return bob


@pytest.mark.parametrize("state", STATES)
def test_a_state_survives_its_bytes_and_nothing_else_passes(state: str) -> None:
    ratchet = STATES[state]()
    stored = ratchet.to_bytes()
    assert Ratchet.from_bytes(stored) == ratchet
    for size in range(0, len(stored)):
        with pytest.raises(Malformed):
            Ratchet.from_bytes(stored[:size])
    for wrong in (stored + b"\x00", b"\x02" + stored[1:]):
        with pytest.raises(Malformed):
            Ratchet.from_bytes(wrong)
    for _, changed in flips(stored):
        if refusal(Ratchet.from_bytes, changed) is None:
            assert Ratchet.from_bytes(changed).to_bytes() == changed


def test_a_conversation_goes_on_from_its_bytes() -> None:
    alice, bob = talking()
    held = alice.sends_many(3)
    bob.gets(held[2])
    for end in (alice, bob):
        end.ratchet = Ratchet.from_bytes(end.ratchet.to_bytes())
    for message in (held[0], held[1], alice.sends()):
        bob.gets(message)
    alice.gets(bob.sends())


def test_a_responder_that_has_not_received_is_not_stored() -> None:
    stored = ends()[1].ratchet.to_bytes()
    with pytest.raises(Malformed):
        Ratchet.from_bytes(stored)


def test_used_keys_leave_the_state() -> None:
    """Message keys, chain keys, root keys and ratchet keys of what is over, on both ends."""
    alice, bob = talking()
    used: list[bytes] = []
    for sender, receiver in ((alice, bob), (bob, alice)) * 2:
        asked, answered = sender.ratchet.turn, receiver.ratchet.turn
        assert isinstance(asked, OurTurn) and isinstance(answered, TheirTurn)
        used += [asked.root, answered.root, answered.ours.secret, answered.ours.kem_seed]
        for _ in range(2):
            message = sender.sends()
            receiver.gets(message)
            turn = sender.ratchet.turn
            assert isinstance(turn, TheirTurn) and turn.sending
            used += [message[1], turn.sending.key]
    # Still needed: the keys of the chains that may go on, and the root of the next one.
    assert alice.ratchet.receiving and bob.ratchet.receiving
    needed = {alice.ratchet.receiving.key, bob.ratchet.receiving.key, alice.ratchet.turn.root}
    for end in (alice, bob):
        stored = end.ratchet.to_bytes()
        assert [secret for secret in used if secret in stored and secret not in needed] == []


def test_a_ratchet_shows_nothing_secret() -> None:
    for make in STATES.values():
        ratchet = make()
        stored, shown = ratchet.to_bytes(), repr(ratchet)
        turn = ratchet.turn
        secrets: list[bytes] = [turn.root]
        if isinstance(turn, TheirTurn) and turn.sending:
            secrets += [turn.ours.secret, turn.ours.kem_seed, turn.sending.key]
        if ratchet.receiving:
            secrets.append(ratchet.receiving.key)
        if len(ratchet.skipped):
            secrets.append(ratchet.skipped.to_bytes()[44:76])
        for secret in filter(None, secrets):
            assert secret in stored
            assert repr(secret)[2:-1] not in shown and secret.hex() not in shown


def test_two_states_with_the_same_keys_are_equal() -> None:
    one, other = skipped_three().ratchet, skipped_three().ratchet
    assert one.skipped != other.skipped  # the KEM draws its own randomness
    copy = Ratchet.from_bytes(one.to_bytes())
    assert copy.skipped == one.skipped and hash(copy.skipped) == hash(one.skipped)
    assert replace(one, skipped=other.skipped) != one
