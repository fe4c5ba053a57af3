"""Public rooms between real cores: numbered, signed, caught up, never twice."""

import random

import pytest

from saltline.client.model import Delivery, ExitCode, LineKind, Refused
from saltline.client.vault import views
from saltline.server.settings import Settings
from tests.client.conftest import Meet
from tests.client.world import MemoryRelay, Person, refusal, settle


def join(person: Person, room: str) -> None:
    answer = person.ask(lambda ticket, now: person.core.join(room, ticket, now))
    assert answer is None


def test_everybody_sees_the_same_room(meet: Meet, alice: Person, bob: Person) -> None:
    line = alice.post("#lobby", "hello everybody")
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.RELAYED
    assert bob.texts("#lobby") == ["hello everybody"]
    carol = meet("carol")
    settle(alice, bob, carol)
    assert carol.texts("#lobby") == ["hello everybody"]  # newcomers see what was said
    assert alice.lines("#lobby")[-1].author == "carol"
    assert alice.lines("#lobby")[-1].kind is LineKind.JOIN
    numbers = [entry.number for entry in carol.lines("#lobby")]
    assert numbers == sorted(numbers) == list(range(1, 5))


def test_posting_joins_a_room_and_makes_it(alice: Person, bob: Person) -> None:
    alice.post("#dev", "first")
    settle(alice)
    assert [line.kind for line in alice.lines("#dev")] == [LineKind.TEXT, LineKind.JOIN]
    join(bob, "#dev")
    bob.post("#dev", "second")
    settle(alice, bob)
    assert alice.texts("#dev") == ["first", "second"]
    assert bob.texts("#dev") == ["first", "second"]


def test_leaving_is_seen_and_ends_the_membership(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    assert alice.ask(lambda t, now: alice.core.leave("#lobby", t, now)) is None
    settle(alice, bob)
    assert bob.lines("#lobby")[-1].kind is LineKind.LEAVE
    bob.post("#lobby", "alone")
    settle(alice, bob)
    assert "alone" not in alice.texts("#lobby")
    with pytest.raises(Refused, match="not in #lobby"):
        alice.core.leave("#lobby", 99, alice.now)
    join(alice, "#lobby")
    settle(alice, bob)
    assert "alone" in alice.texts("#lobby")


def test_membership_outlives_a_connection(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    alice.offline()
    for number in range(230):
        bob.post("#lobby", f"post {number}")
        settle(bob)
    alice.online()
    assert alice.texts("#lobby") == [f"post {number}" for number in range(230)]


def test_pages_go_on_after_one_whose_authors_were_strangers(
    meet: Meet, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.client.rooms.PAGE_MAX_ENTRIES", 4)
    settle(alice, bob)
    alice.offline()
    carol = meet("carol")
    carol.post("#lobby", "carol was never here before")
    settle(bob, carol)
    posts = [f"post {number}" for number in range(10)]
    for text in posts:
        bob.post("#lobby", text)
        settle(bob, carol)
    alice.online()
    assert alice.texts("#lobby") == ["carol was never here before", *posts]
    assert alice.core.idle()


def test_posts_typed_offline_leave_in_order(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    alice.offline()
    for number in range(20):
        alice.post("#lobby", f"post {number}")
    alice.crash()
    alice.online()
    settle(alice, bob)
    assert bob.texts("#lobby") == [f"post {number}" for number in range(20)]


def test_random_cuts_lose_and_repeat_nothing(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    rng = random.Random(3)
    people = [alice, bob]
    said = []
    for number in range(200):
        person = rng.choice(people)
        person.post("#lobby", f"{person.name} {number}")
        said.append(f"{person.name} {number}")
        relay.now_ms += rng.randrange(2000)
        if rng.random() < 0.15:
            rng.choice(people).crash()
        if rng.random() < 0.05:
            alice.offline()
            bob.offline()
            relay.crash()
        if rng.random() < 0.5:
            settle(*people)
        for each in people:
            if each.link is None and rng.random() < 0.6:
                each.online()
    for each in people:
        if each.link is None:
            each.online()
    settle(*people)
    for person in people:
        assert sorted(person.texts("#lobby")) == sorted(said)
        assert not person.notices("#lobby")
        ours = [text for text in person.texts("#lobby") if text.startswith("alice")]
        assert ours == [text for text in said if text.startswith("alice")]


def test_mentions_are_counted(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    for text in ("alice: look", "malice", "hey Alice!", "alice_x", "nothing"):
        bob.post("#lobby", text)
    settle(alice, bob)
    (summary,) = [s for s in views.conversations(alice.vault) if s.name == "#lobby"]
    assert (summary.unread, summary.mentions) == (5, 2)


def test_who_is_here_and_which_rooms(alice: Person, bob: Person) -> None:
    join(alice, "#dev")
    members = alice.ask(lambda t, now: alice.core.who("#lobby", t, now))
    assert sorted((m.username, m.online) for m in members) == [("alice", True), ("bob", True)]
    rooms = alice.ask(lambda t, now: alice.core.list_rooms(t, now))
    assert {room.room: room.members for room in rooms} == {"#lobby": 2, "#dev": 1}
    bob.offline()
    members = alice.ask(lambda t, now: alice.core.who("#lobby", t, now))
    assert dict((m.username, m.online) for m in members)["bob"] is False
    denied = bob.online().ask(lambda t, now: bob.core.who("#dev", t, now))
    assert refusal(denied).code in (ExitCode.USAGE, ExitCode.UNKNOWN_NAME)


def test_questions_need_a_relay(alice: Person) -> None:
    alice.offline()
    with pytest.raises(Refused, match="Not connected") as refused:
        alice.core.list_rooms(1, alice.now)
    assert refused.value.code is ExitCode.UNREACHABLE
    with pytest.raises(Refused, match="A room is #"):
        alice.post("lobby", "x")


def test_a_text_that_a_full_room_refuses_has_failed_and_says_why(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    settle(alice, bob)
    relay.core.settings_changed(Settings(room_max_bytes=1))
    line = alice.post("#lobby", "too much")
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.FAILED
    assert alice.core.idle()
    assert bob.texts("#lobby") == []
