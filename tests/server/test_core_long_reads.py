"""Long answers: a few at a time, in turn, so that nobody else waits for all of them."""

from collections.abc import Callable, Sequence

import pytest

from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import ClientMessage
from saltline.protocol.to_client import Error, HistoryPage, Submitted
from saltline.protocol.to_relay import History, ListRooms, Lookup, LookupName, Who
from saltline.server.administration import RemoveUser
from saltline.server.effects import Persist
from saltline.server.switchboard import LONG_READS_AT_ONCE
from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay

READERS = LONG_READS_AT_ONCE + 3


def readers(relay: MemoryRelay, count: int = READERS) -> list[Person]:
    """Members of #lobby, who have taken what came so far."""
    people = [Person(relay, f"reader-{number}") for number in range(count)]
    for person in people:
        person.register()
        person.join("#lobby")
    for person in people:
        person.take()
    return people


def ask_all(people: Sequence[Person]) -> None:
    for person in people:
        person.connection.send(History(person.next_id(), "#lobby", 0, 10))


def asked_of_the_store(relay: MemoryRelay) -> int:
    return sum(isinstance(effect, Persist) for effect in relay.effects)


def who_has_a_page(people: Sequence[Person]) -> list[bool]:
    return [bool(person.connection.take_all(HistoryPage)) for person in people]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda number: History(number, "#lobby", 0, 10),
        lambda number: Who(number, "#lobby"),
        ListRooms,
        lambda number: Lookup(number, (LookupName("reader-0", 0),)),
    ],
    ids=["history", "who", "list_rooms", "lookup"],
)
def test_the_store_reads_a_few_at_a_time(request_of: Callable[[int], ClientMessage]) -> None:
    relay = MemoryRelay()
    people = readers(relay)
    relay.hold()
    relay.effects.clear()
    for person in people:
        person.connection.send(request_of(person.next_id()))
    assert asked_of_the_store(relay) == LONG_READS_AT_ONCE
    relay.release_one_group()
    answered = [len(person.connection.take()) for person in people]
    assert answered == [1] * LONG_READS_AT_ONCE + [0] * 3
    relay.release()
    assert [len(person.connection.take()) for person in people[LONG_READS_AT_ONCE:]] == [1] * 3
    assert relay.core.idle


def test_who_waits_for_a_turn_is_read_again_when_it_comes() -> None:
    relay = MemoryRelay()
    people = readers(relay)
    relay.hold()
    ask_all(people)
    waiting = [False] * LONG_READS_AT_ONCE + [True] * 3
    assert [person.connection.is_paused for person in people] == waiting
    relay.release_one_group()
    now_waiting = [False] * len(people)
    now_waiting[2 * LONG_READS_AT_ONCE :] = [True] * (READERS - 2 * LONG_READS_AT_ONCE)
    assert [person.connection.is_paused for person in people] == now_waiting
    relay.release()
    assert not any(person.connection.is_paused for person in people)


def test_a_line_passes_those_who_wait_for_pages() -> None:
    relay = MemoryRelay()
    *people, ada, bob = readers(relay, READERS + 2)
    relay.hold()
    ask_all(people)
    ada.submit(bob, b"a line")
    relay.release_one_group()
    assert who_has_a_page(people) == [True] * LONG_READS_AT_ONCE + [False] * 3
    assert isinstance(ada.take()[0], Submitted)


def test_nothing_is_read_for_who_has_left_and_the_others_come_sooner() -> None:
    relay = MemoryRelay()
    people = readers(relay)
    relay.hold()
    ask_all(people)
    for person in people[LONG_READS_AT_ONCE:-1]:
        person.connection.cut()
    relay.effects.clear()
    relay.release_one_group()
    assert asked_of_the_store(relay) == 1
    relay.release()
    assert who_has_a_page(people[-1:]) == [True]
    assert relay.core.idle
    assert relay.core._desk._waiting_bytes == 0


def test_when_all_have_left_the_next_is_served_at_once() -> None:
    relay = MemoryRelay()
    people = readers(relay)
    relay.hold()
    ask_all(people)
    for person in people[1:]:
        person.connection.cut()
    relay.release()
    ask_all(people[:1])
    assert who_has_a_page(people[:1]) == [True]
    assert relay.core.idle


def test_what_waits_for_its_turn_is_finished_before_the_relay_stops() -> None:
    relay = MemoryRelay()
    people = readers(relay)
    relay.hold()
    ask_all(people)
    relay.stop()
    relay.release_one_group()
    assert not relay.core.idle
    assert people[-1].connection.is_open
    relay.release()
    assert relay.core.idle
    assert who_has_a_page(people) == [True] * READERS
    assert not any(person.connection.is_open for person in people)


def test_who_was_removed_meanwhile_reads_nothing_any_more() -> None:
    relay = MemoryRelay()
    people = readers(relay)
    relay.hold()
    ask_all(people)
    relay.ask(RemoveUser(people[-1].username))
    relay.release()
    *others, removed = people
    assert who_has_a_page(others) == [True] * (READERS - 1)
    assert [error.code for error in removed.connection.take_all(Error)] == [ErrorCode.REMOVED]
    assert relay.core.idle
