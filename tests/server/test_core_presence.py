"""Who came, who went: told once a second, to those in small rooms with them."""

from collections.abc import Iterator
from typing import Any

from saltline.protocol.to_client import Presence
from saltline.server.administration import RemoveUser
from saltline.server.settings import Settings
from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay


def members(relay: MemoryRelay, *names: str, room: str = "#lobby") -> list[Person]:
    """Members of a room; everyone knows who is there."""
    people = [Person(relay, name) for name in names]
    for person in people:
        person.register()
        person.take()
        person.join(room)
    relay.advance(1_000)
    for person in people:
        person.take()
    return people


def told(person: Person) -> list[Presence]:
    return person.connection.take_all(Presence)


def test_members_are_told_who_went_and_who_came_back() -> None:
    relay = MemoryRelay()
    ada, bob, eve = members(relay, "ada", "bob", "eve")
    bob.connection.cut()
    assert told(ada) == [], "once a second"
    relay.advance(1_000)
    assert told(ada) == told(eve) == [Presence("bob", False)]
    relay.advance(1_000)
    assert told(ada) == []
    bob.login()
    relay.advance(1_000)
    assert told(ada) == told(eve) == [Presence("bob", True)]
    assert told(bob) == [Presence("ada", True), Presence("eve", True)], "who is there already"


class Counted(list[Any]):
    """Counts how often somebody looks at all of it."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        self.looks += 1
        return super().__iter__()


def test_who_shares_many_rooms_is_looked_at_once() -> None:
    """Who comes costs what its neighbours do, not its rooms times their members."""
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    for number in range(20):
        ada.join(f"#room{number}")
        bob.join(f"#room{number}")
    bob.connection.cut()
    (account,) = relay.core._desk.accounts.values()
    account.connections = counted = Counted(account.connections)
    told(ada)
    relay.advance(1_000)
    assert told(ada) == [Presence("bob", False)]
    assert counted.looks == 1


def test_who_comes_back_at_once_was_never_gone() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    bob.connection.cut()
    bob.login()
    relay.advance(1_000)
    bob.login()  # replaces itself
    relay.advance(1_000)
    assert told(ada) == []


def test_who_was_there_for_a_moment_was_never_there() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    bob.connection.cut()
    relay.advance(1_000)
    told(ada)
    bob.login()
    bob.connection.cut()
    relay.advance(1_000)
    assert told(ada) == []


def test_strangers_to_a_room_are_told_nothing() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    (eve,) = members(relay, "eve", room="#garden")
    ada.take()
    bob.connection.cut()
    relay.advance(1_000)
    assert told(eve) == []
    assert told(ada) == [Presence("bob", False)]


def test_who_shares_two_rooms_is_told_once() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    ada.join("#garden")
    bob.join("#garden")
    bob.connection.cut()
    relay.advance(1_000)
    assert told(ada) == [Presence("bob", False)]


def test_nobody_is_told_in_large_rooms() -> None:
    relay = MemoryRelay(settings=Settings(presence_max_members=2))
    ada, bob, eve = members(relay, "ada", "bob", "eve")
    eve.connection.cut()
    relay.advance(1_000)
    assert told(ada) == []
    # Members count, connected or not; now there are two.
    eve.login()
    eve.leave("#lobby")
    told(ada)
    bob.connection.cut()
    relay.advance(1_000)
    assert told(ada) == [Presence("bob", False)]


def test_a_removed_member_is_gone() -> None:
    relay = MemoryRelay()
    ada, _ = members(relay, "ada", "bob")
    relay.admin(RemoveUser("bob"))
    relay.advance(1_000)
    assert told(ada) == [Presence("bob", False)]


def test_the_slow_are_told_too_as_this_cannot_be_caught_up_by_number() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    ada.connection.congest(True)
    bob.connection.cut()
    relay.advance(1_000)
    assert told(ada) == [Presence("bob", False)]


def test_a_newcomer_learns_who_of_its_small_rooms_is_there() -> None:
    relay = MemoryRelay(settings=Settings(presence_max_members=2))
    ada, bob, eve = members(relay, "ada", "bob", "eve")  # three: #lobby is large here
    ada.join("#dev")
    bob.join("#dev")
    bob.connection.cut()
    bob.login()
    relay.advance(1_000)
    assert told(bob) == [Presence("ada", True)]
    eve.connection.cut()
    eve.login()
    relay.advance(1_000)
    assert told(eve) == []
    eve.login()
    eve.connection.cut()
    relay.advance(1_000)
    assert told(eve) == []
