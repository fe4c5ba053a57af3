"""Several sessions with one device: both sides find the same one without a word."""

from itertools import permutations

import pytest

from saltline.crypto.bundles import DAY_MS
from saltline.crypto.chains import STORED_KEY_LIFE_MS
from saltline.crypto.envelope import open_envelope
from saltline.crypto.session import Session
from saltline.crypto.sessions import (
    MAX_SESSIONS,
    RECEIVING_LIFE_MS,
    UNCONFIRMED_LIFE_MS,
    SessionSet,
)
from tests.crypto.people import NOW_MS, Device, acquainted, strangers


class Side:
    """A device with all its sessions with one other."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.sessions = SessionSet()

    def starts(self, other: "Side", now_ms: int = NOW_MS) -> bytes:
        """Starts a session, whatever there is, and returns its first envelope."""
        keys, random = self.device.keys, self.device.random
        started_ms = self.sessions.next_started_ms(now_ms)
        bundle = other.device.bundle()
        session = Session.initiate(keys, bundle, started_ms, now_ms, random)
        session, envelope = session.encrypt(b"start", random)
        self.sessions, _ = self.sessions.add(session, now_ms)
        return envelope

    def says(self, content: bytes, now_ms: int = NOW_MS) -> bytes:
        session = self.sessions.choose(now_ms)
        assert session is not None
        session, envelope = session.encrypt(content, self.device.random)
        self.sessions = self.sessions.replace(session)
        return envelope

    def hears(self, envelope: bytes, now_ms: int = NOW_MS) -> bytes:
        opened = open_envelope(self.device.keys, envelope)
        known = self.sessions.get(opened.session_id)
        if known is None:
            session, content = self.device.accepts(opened, now_ms)
            self.sessions, _ = self.sessions.add(session, now_ms)
        else:
            session, content = known.decrypt(opened, now_ms)
            self.sessions = self.sessions.replace(session)
        return content

    def sends_on(self, now_ms: int = NOW_MS) -> bytes | None:
        session = self.sessions.choose(now_ms)
        return session.id if session else None


def sides() -> tuple[Side, Side]:
    return Side(Device("alice")), Side(Device("bob"))


def several(count: int) -> list[Session]:
    """Sessions of Alice with Bob, each started a little later."""
    alice, bob = strangers()
    found = []
    for number in range(count):
        alice.initiates(bob.bundle(), NOW_MS + number)
        found.append(alice.now)
    return found


def test_without_sessions_there_is_none_to_send_on() -> None:
    assert SessionSet().choose(NOW_MS) is None
    assert SessionSet().next_started_ms(NOW_MS) == NOW_MS
    assert len(SessionSet()) == 0 and SessionSet().get(bytes(16)) is None


# --- converging -----------------------------------------------------------------------------


@pytest.mark.parametrize("alice_first", [False, True])
@pytest.mark.parametrize("alices_clock_ms", [-60_000, 0, 60_000])
def test_simultaneous_starts_converge_on_the_greatest(
    alice_first: bool, alices_clock_ms: int
) -> None:
    alice, bob = sides()
    from_alice = alice.starts(bob, NOW_MS + alices_clock_ms)
    from_bob = bob.starts(alice)
    assert alice.sends_on() != bob.sends_on()
    both = [(s.started_ms, s.id) for side in (alice, bob) for s in side.sessions.sessions]
    deliveries = [(bob, from_alice), (alice, from_bob)]
    for receiver, envelope in deliveries if alice_first else reversed(deliveries):
        assert receiver.hears(envelope) == b"start"
    assert alice.sends_on() == bob.sends_on() == max(both)[1]
    for _ in range(3):
        assert bob.hears(alice.says(b"a")) == b"a"
        assert alice.hears(bob.says(b"b")) == b"b"
    assert alice.sends_on() == bob.sends_on() == max(both)[1]
    assert len(alice.sessions) == len(bob.sessions) == 2


def test_three_starts_crossing_in_any_order_converge() -> None:
    for order in permutations(range(3)):
        alice, bob = sides()
        coming = [
            (bob, alice.starts(bob)),
            (alice, bob.starts(alice)),
            (bob, alice.starts(bob)),
        ]
        for at in order:
            receiver, envelope = coming[at]
            receiver.hears(envelope)
        assert alice.sends_on() == bob.sends_on()


def test_equal_starts_are_told_apart_by_the_session_id() -> None:
    alice, bob = strangers()
    found = []
    for _ in range(3):
        alice.initiates(bob.bundle())
        found.append(alice.now)
    for order in permutations(found):
        chosen = SessionSet.of(order).choose(NOW_MS)
        assert chosen is not None and chosen.id == max(session.id for session in found)


def test_a_new_session_is_above_all_others_whatever_the_clock_says() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob, NOW_MS + 40 * DAY_MS))
    assert bob.sessions.next_started_ms(NOW_MS) == NOW_MS + 40 * DAY_MS + 1
    envelope = bob.starts(alice)
    newest = bob.sends_on()
    alice.hears(envelope, NOW_MS)
    assert alice.sends_on() == newest


def test_an_old_session_does_not_pull_the_talk_back() -> None:
    """A thief of an old session writes on it: it is read, and nobody answers there."""
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    alice.hears(bob.says(b"confirmed"))
    thief = Side(alice.device)
    thief.sessions = alice.sessions
    alice.hears(bob.starts(alice))
    newest = alice.sends_on()
    bob.hears(alice.says(b"on the newest"))
    assert bob.hears(thief.says(b"as Alice")) == b"as Alice"
    assert bob.sends_on() == alice.sends_on() == newest


# --- unconfirmed ----------------------------------------------------------------------------


def test_an_unanswered_session_is_used_for_seven_days() -> None:
    alice, bob = sides()
    alice.starts(bob)
    assert alice.sends_on(NOW_MS + UNCONFIRMED_LIFE_MS - 1) is not None
    assert alice.sends_on(NOW_MS + UNCONFIRMED_LIFE_MS) is None


def test_an_answered_session_is_used_for_as_long_as_it_is_the_greatest() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    alice.hears(bob.says(b"answer"))
    later_ms = NOW_MS + 1000 * DAY_MS
    for side in (alice, bob):
        side.sessions, dropped = side.sessions.prune(later_ms)
        assert dropped == () and side.sends_on(later_ms) is not None


def test_below_an_unanswered_session_no_older_one_is_used() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    alice.hears(bob.says(b"answer"))
    alice.starts(bob, NOW_MS + 1)
    assert alice.sends_on(NOW_MS + 1 + UNCONFIRMED_LIFE_MS) is None


def test_an_unanswered_session_still_hears_for_31_days_more() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    answer = bob.says(b"late answer")
    end_ms = NOW_MS + UNCONFIRMED_LIFE_MS + RECEIVING_LIFE_MS
    alice.sessions, dropped = alice.sessions.prune(end_ms - 1)
    assert dropped == ()
    over, dropped = alice.sessions.prune(end_ms)
    assert len(dropped) == 1 and len(over) == 0
    assert alice.hears(answer, end_ms - 1) == b"late answer"
    assert alice.sends_on(end_ms - 1) is not None


# --- superseded -----------------------------------------------------------------------------


def test_a_superseded_session_hears_for_31_days_and_is_dropped() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    alice.hears(bob.says(b"confirmed"))
    late = bob.says(b"late, on the old session")
    later_ms = NOW_MS + 5 * DAY_MS
    alice.starts(bob, later_ms)
    old, new = alice.sessions.sessions
    assert (old.superseded_ms, new.superseded_ms) == (later_ms, None)
    assert alice.hears(late, later_ms) == b"late, on the old session"
    end_ms = later_ms + RECEIVING_LIFE_MS
    kept, dropped = alice.sessions.prune(end_ms - 1)
    assert dropped == () and len(kept) == 2
    kept, dropped = alice.sessions.prune(end_ms)
    assert dropped == (old.id,) and [each.id for each in kept.sessions] == [new.id]


def test_hearing_on_a_superseded_session_does_not_lengthen_its_time() -> None:
    first, second = several(2)
    held, _ = SessionSet().add(first, NOW_MS)
    held, _ = held.add(second, NOW_MS + 1)
    held, _ = held.prune(NOW_MS + DAY_MS)
    unmarked = held.replace(first)  # a state from before it was superseded
    known = unmarked.get(first.id)
    assert known is not None and known.superseded_ms == NOW_MS + 1


def test_five_are_kept_and_the_lowest_go() -> None:
    sessions = several(7)
    for order in (sessions, sessions[::-1], sessions[3:] + sessions[:3]):
        held, gone = SessionSet(), set()
        for session in order:
            held, dropped = held.add(session, NOW_MS)
            gone |= set(dropped)
            assert len(held) <= MAX_SESSIONS
        assert [each.id for each in held.sessions] == [each.id for each in sessions[2:]]
        assert gone == {each.id for each in sessions[:2]}


def test_old_skipped_keys_go_when_sessions_are_pruned() -> None:
    alice, bob = acquainted()
    alice.says(b"lost")
    bob.hears(alice.says(b"heard"))
    held, _ = SessionSet().add(bob.now, NOW_MS)
    assert len(held.sessions[0].ratchet.skipped) == 1
    held, _ = held.prune(NOW_MS + STORED_KEY_LIFE_MS)
    assert len(held.sessions[0].ratchet.skipped) == 0


# --- abandoned ------------------------------------------------------------------------------


def test_an_abandoned_session_hears_and_does_not_send() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    alice.hears(bob.says(b"confirmed"))
    first = alice.sends_on()
    alice.starts(bob)
    second = alice.sends_on()
    assert second is not None and first is not None
    alice.sessions = alice.sessions.abandon({second}, NOW_MS)
    assert alice.sends_on() == first
    assert [each.superseded_ms for each in alice.sessions.sessions] == [None, NOW_MS]
    alice.sessions = alice.sessions.abandon([first], NOW_MS)
    assert alice.sends_on() is None
    assert alice.hears(bob.says(b"still on the first")) == b"still on the first"
    assert alice.sends_on() is None
    started_ms = [each.started_ms for each in alice.sessions.sessions]
    assert alice.sessions.next_started_ms(NOW_MS) == max(started_ms) + 1
    kept, dropped = alice.sessions.prune(NOW_MS + RECEIVING_LIFE_MS)
    assert set(dropped) == {first, second} and len(kept) == 0


def test_a_session_state_from_before_does_not_undo_its_abandonment() -> None:
    (session,) = several(1)
    held, _ = SessionSet().add(session, NOW_MS)
    held = held.abandon([session.id], NOW_MS).replace(session)
    assert held.choose(NOW_MS) is None


def test_the_session_below_a_lost_one_sends_again_and_is_kept() -> None:
    alice, bob = sides()
    bob.hears(alice.starts(bob))
    alice.hears(bob.says(b"confirmed"))
    first = alice.sends_on()
    later_ms = NOW_MS + DAY_MS
    alice.starts(bob, later_ms)
    alice.sessions = alice.sessions.abandon([alice.sessions.sessions[1].id], later_ms)
    assert alice.sends_on(later_ms) == first
    much_later_ms = later_ms + 10 * RECEIVING_LIFE_MS
    alice.sessions, dropped = alice.sessions.prune(much_later_ms)
    assert len(dropped) == 1 and alice.sends_on(much_later_ms) == first


def test_a_session_that_outlives_a_greater_one_sends_again_and_is_kept() -> None:
    """Bob's start comes late, below one of Alice's that never arrives and ends."""
    alice, bob = sides()
    from_bob = bob.starts(alice)
    alice.starts(bob, NOW_MS + 1)
    alice.hears(from_bob, NOW_MS + 20 * DAY_MS)
    over_ms = NOW_MS + 1 + UNCONFIRMED_LIFE_MS + RECEIVING_LIFE_MS
    alice.sessions, dropped = alice.sessions.prune(over_ms)
    assert len(dropped) == 1 and alice.sends_on(over_ms) == bob.sends_on()
    alice.sessions, dropped = alice.sessions.prune(over_ms + 100 * DAY_MS)
    assert dropped == () and alice.sends_on(over_ms + 100 * DAY_MS) == bob.sends_on()


# --- misuse ---------------------------------------------------------------------------------


def test_sets_are_of_one_device_and_without_doubles() -> None:
    alice, bob = strangers()
    mine = alice.now
    alice.initiates(Device("carol").bundle())
    with pytest.raises(ValueError, match="two devices"):
        SessionSet.of([mine, alice.now])
    held, _ = SessionSet().add(mine, NOW_MS)
    with pytest.raises(ValueError, match="twice"):
        held.add(mine, NOW_MS)
    with pytest.raises(KeyError):
        held.replace(alice.now)


def test_stored_sessions_make_the_same_set_again() -> None:
    held = SessionSet()
    for session in several(4):
        held, _ = held.add(session, session.started_ms)
    stored = [each.to_bytes() for each in held.sessions]
    again = SessionSet.of(Session.from_bytes(each) for each in reversed(stored))
    assert again == held
