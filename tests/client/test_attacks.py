"""A relay that lies in every message: nothing crashes, hangs, has no end or is shown wrong."""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from saltline.client.model import Delivery, ExitCode, LineKind, Refused
from saltline.protocol import to_client
from saltline.server.administration import Code, ResetUser
from tests.client.hostile import Tamper, Withheld, inject, refusing, under
from tests.client.world import MemoryRelay, Person, refusal, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

ZERO = bytes(32)
MANY = 2**63 - 1


def one_of_each(number: int) -> list[Heard]:
    """Every message of the wire with an id, at the edges of its bounds."""
    entry = to_client.RoomEntry("#lobby", MANY, "x" * 32, 2**32 - 1, b"", bytes(64))
    page = to_client.AccountPage("bob", MANY, (b"", b"x" * 1024))
    return [
        to_client.Invited(number, "\x1b" * 32, 1, MANY, ZERO),
        to_client.Published(number, 0, 0),
        to_client.LookedUp(number, (page,) * 64),
        to_client.Claimed(number, b"", bytes(64), b"", b"", b""),
        to_client.Submitted(number),
        to_client.Joined(number, "#lobby", MANY, MANY, ZERO),
        to_client.Posted(number, "@bob", MANY),
        to_client.HistoryPage(number, "#lobby", MANY, ZERO, MANY, (entry,) * 3),
        to_client.Members(number, "", MANY, (to_client.Member("", True),)),
        to_client.RoomList(number, (to_client.RoomInfo("", MANY, MANY, MANY),)),
        to_client.Pong(number),
        to_client.Error(number, "", "\x1b[2J", MANY),
        to_client.Error(number, "link_lost", "", 0),
        to_client.Error(number, "unknown_user", "There is no such user on this relay.", 0),
    ]


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(len(one_of_each(1))))
def test_every_question_gets_every_answer(
    alice: Person, bob: Person, relay: MemoryRelay, kind: int
) -> None:
    """Whatever the answer: nobody waits for ever, and what was queued leaves later, once."""
    settle(alice, bob)

    def lie(message: Heard) -> Iterable[Heard]:
        number = getattr(message, "id", 0)
        if number and not isinstance(message, to_client.Error):
            message = one_of_each(number)[kind]
        yield message

    under(alice, lie)
    questions = [
        lambda t, now: alice.core.fetch_contact("bob", t, now),
        lambda t, now: alice.core.join("#dev", t, now),
        lambda t, now: alice.core.who("#lobby", t, now),
        lambda t, now: alice.core.list_rooms(t, now),
    ]
    for number, question in enumerate(questions):
        alice.send("bob", f"text {number}")
        alice.post("#lobby", f"post {number}")
        if alice.link is None:
            alice.online()
        if alice.core.ready:
            alice.ask(question)
        relay.now_ms += 31_000
        alice.tick()
        settle(alice, bob)
    assert len(alice.answers) == alice._tickets
    under(alice, None)
    for _ in range(5):
        relay.now_ms += 61_000
        alice.tick()
        bob.tick()
        settle(alice, bob)
    for line in alice.lines("@bob") + alice.lines("#lobby"):
        if line.mine and line.kind is LineKind.TEXT:
            assert line.delivery is not Delivery.QUEUED
            where = "#lobby" if line.conversation == "#lobby" else "@alice"
            reached = bob.texts(where).count(line.body)
            lied = kind in (4, 6)  # it said that it had what it had not
            assert reached == 1 or (reached == 0 and (line.delivery is Delivery.FAILED or lied))


@pytest.mark.parametrize("kind", range(len(one_of_each(1))))
def test_every_answer_comes_before_login(alice: Person, kind: int) -> None:
    def early(message: Heard) -> Iterable[Heard]:
        for number in (1, 2**32 - 1):
            yield one_of_each(number)[kind]
        yield message

    before = alice.lines("#lobby")
    under(alice, early)
    assert under(alice, None).core.ready
    assert alice.lines("#lobby") == before


def test_an_answer_to_another_question_ends_the_connection_and_the_waiting(alice: Person) -> None:
    def swap(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Joined):
            message = msgspec.structs.replace(message, room="#other")
        yield message

    under(alice, swap)
    answer = alice.ask(lambda ticket, now: alice.core.join("#dev", ticket, now))
    assert refusal(answer).code is ExitCode.TIMED_OUT
    assert alice.last_disconnect is not None and alice.last_disconnect.retry
    assert "another question" in alice.last_disconnect.detail


def test_a_question_that_is_refused_here_leaves_nothing_waiting(
    alice: Person, relay: MemoryRelay
) -> None:
    with pytest.raises(Refused, match="A room is #"):
        alice.core.who("not a room", 77, alice.now)
    for _ in range(40):
        relay.now_ms += 1000
        alice.tick()
        settle(alice)
    assert alice.core.ready and alice.last_disconnect is None


def test_a_relay_that_says_nothing_after_tls(alice: Person, relay: MemoryRelay) -> None:
    under(alice, lambda message: [])
    for _ in range(25):
        relay.now_ms += 1000
        alice.tick()
    assert alice.link is None and alice.last_disconnect is not None
    assert alice.last_disconnect.retry and "does not answer" in alice.last_disconnect.detail


def test_refused_pings_are_a_sign_of_life(alice: Person, relay: MemoryRelay) -> None:
    under(alice, refusing(to_client.Pong, "rate_limited", times=1000))
    for _ in range(200):
        relay.now_ms += 1000
        alice.tick()
        settle(alice)
    assert alice.core.ready and alice.last_disconnect is None


def seconds(relay: MemoryRelay, alice: Person, most: int, comes: Callable[[], object]) -> int:
    """How many pass until she hangs up, at most; in each something comes."""
    for second in range(most):
        relay.now_ms += 1000
        comes()
        alice.tick()
        settle(alice)
        if alice.link is None:
            return second
    return most


def test_a_pong_behind_a_long_queue_is_waited_for(alice: Person, relay: MemoryRelay) -> None:
    """A megabyte takes a slow line minutes; then the relay reads on, and answers."""
    withheld = Withheld(alice, to_client.Pong)
    under(alice, withheld)

    def part_of_a_frame() -> None:
        alice.perform(alice.core.received([], alice.now))

    assert seconds(relay, alice, 250, part_of_a_frame) == 250
    withheld.release()
    assert seconds(relay, alice, 100, lambda: None) == 100
    under(alice, Withheld(alice, to_client.Pong))
    assert 15 < seconds(relay, alice, 100, lambda: None) < 60, "nothing comes any more"


def test_an_answer_is_not_waited_for_for_ever(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    under(alice, Withheld(alice, to_client.Members))
    alice.perform(alice.core.who("#lobby", 77, alice.now))
    assert seconds(relay, alice, 100, lambda: None) < 60, "pongs come, so nothing is queued"
    alice.online()
    settle(alice)
    alice.perform(alice.core.who("#lobby", 78, alice.now))

    def letter() -> None:
        bob.send("alice", "more")
        settle(bob)

    assert 100 < seconds(relay, alice, 500, letter) < 400


def test_a_refusal_for_ever_ends_after_an_hour(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    done = False

    def never(message: Heard) -> Iterable[Heard]:
        nonlocal done
        if isinstance(message, to_client.Submitted) and not done:
            done = True
            message = to_client.Error(message.id, "mailbox_full", "Full.", MANY)
        yield message

    under(alice, never)
    alice.send("bob", "in a while")
    settle(alice)
    for _ in range(61):
        relay.now_ms += 60_000
        alice.tick()
        settle(alice, bob)
    assert bob.texts("@alice") == ["in a while"]


# --- without end ----------------------------------------------------------------------------------


def test_a_directory_that_is_always_empty(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prekeys are made up to a bound, whatever the relay says that it has left."""
    monkeypatch.setattr("saltline.client.publishing.HELD_MAX", 30)

    def empty(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Published | to_client.Welcome):
            message = msgspec.structs.replace(message, one_time_left=0, one_time_kem_left=0)
        if isinstance(message, to_client.Error) and message.id:
            message = to_client.Published(message.id, 0, 0)
        yield message

    under(alice, empty)
    held = dict(alice.vault.rows("SELECT kind, count(*) FROM prekeys GROUP BY kind"))
    assert held == {1: 1, 2: 30, 3: 1, 4: 30}
    assert under(alice, None).core.idle()


def test_a_device_that_is_there_and_is_not(alice: Person, bob: Person, relay: MemoryRelay) -> None:
    asked = 0

    def deny(message: Heard) -> Iterable[Heard]:
        nonlocal asked
        if isinstance(message, to_client.Claimed):
            asked += 1
            assert asked < 10
            message = to_client.Error(message.id, "unknown_device", "No.", 0)
        yield message

    under(alice, deny)
    line = alice.send("bob", "hello?")
    settle(alice)
    assert asked == 1
    relay.now_ms += 31_000
    alice.tick()
    settle(alice)
    assert asked == 2
    under(alice, None)
    settle(alice, bob)
    assert bob.texts("@alice") == ["hello?"]
    assert alice.delivery(line) is Delivery.RELAYED


def test_deliveries_beyond_every_window(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envelopes of unknown senders wait for a lookup that never ends."""
    monkeypatch.setattr("saltline.client.incoming.PARKED_MAX_BYTES", 20_000)
    under(alice, None)
    waiting = alice.core._parts.incoming
    stranger = Person(alice.relay, alice.folder / "s", "stranger").online()
    alice.offline()
    for number in range(5):
        stranger.send("alice", f"text {number}")
    settle(stranger)
    withheld = Withheld(alice, to_client.LookedUp)
    copies: list[Heard] = []

    def flood(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Deliver):
            copies.append(message)
        yield from withheld(message)

    under(alice, flood)
    inject(alice, *copies)
    assert alice.link is None and alice.last_disconnect is not None
    assert "more than was acknowledged" in alice.last_disconnect.detail
    assert waiting._parked == {}
    under(alice, None)
    assert alice.texts("@stranger") == [f"text {number}" for number in range(5)]


def test_keys_that_change_without_end(
    alice: Person, bob: Person, relay: MemoryRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("saltline.client.contacts.ENTRIES_MAX", 3)
    settle(alice, bob)
    for number in range(5):
        code = relay.admin(ResetUser("bob", relay.now_ms + 60_000))
        assert isinstance(code, Code)
        Person(relay, tmp_path / f"bob{number}", "bob", code.code).online().offline()

    def by_one(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.LookedUp):
            (page,) = message.accounts
            page = msgspec.structs.replace(page, entries=page.entries[:2], total=MANY)
            message = msgspec.structs.replace(message, accounts=(page,))
        yield message

    under(alice, by_one)
    alice.ask(lambda t, now: alice.core.fetch_contact("bob", t, now))
    assert len(alice.core._ctx.people.entries("bob")) <= 5
    assert any("do not follow" in notice for notice in alice.notices("@bob"))


def repeating(kind: type[Heard]) -> Tamper:
    def tamper(message: Heard) -> Iterable[Heard]:
        return [message, message] if isinstance(message, kind) else [message]

    return tamper


def test_welcome_twice_and_challenge_twice(alice: Person) -> None:
    for kind in (to_client.Welcome, to_client.Challenge):
        under(alice, repeating(kind))
        assert alice.link is None and alice.last_disconnect is not None
        assert "out of turn" in alice.last_disconnect.detail
        assert under(alice, None).core.ready


def test_a_thousand_times_shown_the_door(alice: Person, bob: Person) -> None:
    for number in range(200):
        code = ("rate_limited", "stopping", "too_slow", "???", "link_lost")[number % 5]
        inject(alice, to_client.Error(0, code, "", MANY))
        assert alice.link is None
        alice.online()
    alice.send("bob", "still here")
    settle(alice, bob)
    assert bob.texts("@alice") == ["still here"]
