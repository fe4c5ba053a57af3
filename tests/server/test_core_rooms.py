"""Public rooms: numbered without a gap, chained, for members."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, next_history_hash
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import PAGE_MAX_BYTES
from saltline.protocol.to_client import (
    Deliver,
    Error,
    HistoryPage,
    Joined,
    Member,
    Members,
    Posted,
    RoomEntry,
    RoomInfo,
    RoomList,
)
from saltline.protocol.to_relay import History, Join, ListRooms, Post, Who
from saltline.server.administration import ListRooms as AdminListRooms
from saltline.server.administration import RemoveUser, RoomRow
from saltline.server.administration import Rooms as AdminRooms
from saltline.server.effects import Broadcast
from saltline.server.settings import Settings
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay

TEXT, JOIN, LEAVE = RoomKind.TEXT, RoomKind.JOIN, RoomKind.LEAVE


def joined(relay: MemoryRelay, *names: str, room: str = "#lobby") -> list[Person]:
    """People who are members of a room, and have taken everything that came."""
    people = [Person(relay, name) for name in names]
    for person in people:
        person.register()
        person.take()
        person.join(room)
    for person in people:
        person.take()
    return people


def refused(person: Person, request: Join | Post | History | Who) -> ErrorCode:
    person.connection.send(request)
    error = person.connection.take_one(Error)
    assert error.id == request.id
    assert person.connection.is_open
    return ErrorCode(error.code)


def history(person: Person, room: str = "#lobby", after: int = 0, limit: int = 200) -> HistoryPage:
    person.connection.send(History(person.next_id(), room, after, limit))
    return person.connection.take_one(HistoryPage)


def texts(page: HistoryPage) -> list[str]:
    statements = [RoomStatement.decode(entry.signed, 1000) for entry in page.entries]
    return [each.body.decode() for each in statements if each.kind == TEXT]


# --- entries -------------------------------------------------------------------------------------


def test_a_post_reaches_every_member_with_its_number() -> None:
    relay = MemoryRelay()
    ada, bob, eve = joined(relay, "ada", "bob", "eve")
    request = ada.post_request(ada.statement("#lobby", TEXT, b"hello"))
    ada.connection.send(request)
    entry = RoomEntry("#lobby", 4, relay.now_ms, "ada", 1, request.signed, request.signature)
    assert ada.take() == [Posted(request.id, "#lobby", 4), entry]
    assert bob.take() == [entry]
    assert eve.take() == [entry]


def test_an_entry_is_encoded_once_for_all_members() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    relay.effects.clear()
    ada.post("#lobby", "one")
    ada.post("#lobby", "two")
    first, second = [effect for effect in relay.effects if isinstance(effect, Broadcast)]
    assert sorted(first.connections) == [ada.connection.number, bob.connection.number]
    assert second.connections is first.connections, "nobody came or went between them"


def test_nothing_is_posted_before_the_commit() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    relay.hold()
    ada.connection.send(ada.post_request(ada.statement("#lobby", TEXT, b"hello")))
    assert (ada.take(), bob.take()) == ([], [])
    relay.release()
    assert len(bob.take()) == 1


def test_numbers_have_no_gap_whatever_is_refused() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    relay.hold()
    for body in (b"one", b"two"):
        ada.connection.send(ada.post_request(ada.statement("#lobby", TEXT, body)))
        bob.connection.send(bob.post_request(bob.statement("#nowhere", TEXT, body)))
    relay.release()
    ada.take()
    assert [entry.number for entry in bob.connection.take_all(RoomEntry)] == [3, 4]
    assert ada.post("#lobby", "three").number == 5


def test_the_history_hash_chains_what_was_signed(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = joined(relay, "ada", "bob")
    for number in range(30):
        (ada if number % 3 else bob).post("#lobby", f"text {number}")
    relay.crash()
    ada.login()
    ada.take()
    for number in range(5):
        ada.post("#lobby", f"after the crash {number}")

    ada.take()
    first = history(ada)
    assert (first.after, first.after_hash, first.last) == (0, EMPTY_HISTORY, 37)
    assert [entry.number for entry in first.entries] == list(range(1, 38))
    expected = [EMPTY_HISTORY]
    for entry in first.entries:
        expected.append(next_history_hash(expected[-1], entry.signed))
    for after in range(38):
        assert history(ada, after=after).after_hash == expected[after]


def test_a_retry_gets_the_number_it_had_and_no_second_entry(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = joined(relay, "ada", "bob")
    statement = ada.statement("#lobby", TEXT, b"once")
    relay.hold()
    ada.connection.send(ada.post_request(statement), ada.post_request(statement))
    relay.release()
    assert [posted.number for posted in ada.connection.take_all(Posted)] == [3, 3]
    bob.post("#lobby", "between")
    # The answer was lost, with the relay.
    relay.crash()
    ada.login()
    ada.take()
    ada.connection.send(ada.post_request(statement))
    assert ada.connection.take_one(Posted).number == 3
    assert texts(history(ada)) == ["once", "between"]


def test_a_message_id_counts_for_its_author_and_room_alone() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    ada.join("#garden")
    same = bytes(16)
    numbers = []
    for person, room in ((ada, "#lobby"), (bob, "#lobby"), (ada, "#garden")):
        statement = person.statement(room, TEXT, b"x", message_id=same)
        person.connection.send(person.post_request(statement))
        numbers += [posted.number for posted in person.connection.take_all(Posted)]
    assert numbers == [3, 4, 2]


def wrong_relay(statement: RoomStatement) -> RoomStatement:
    return replace(statement, relay_id=bytes(32))


def wrong_author(statement: RoomStatement) -> RoomStatement:
    return replace(statement, author=bytes(32))


def wrong_kind(statement: RoomStatement) -> RoomStatement:
    return replace(statement, kind=9)


def join_as_a_post(statement: RoomStatement) -> RoomStatement:
    return replace(statement, kind=JOIN)


def from_the_day_after_tomorrow(statement: RoomStatement) -> RoomStatement:
    return replace(statement, time_ms=statement.time_ms + DAY_MS + 1)


def more_seen_than_there_is(statement: RoomStatement) -> RoomStatement:
    return replace(statement, seen=3)


@pytest.mark.parametrize(
    "change",
    [
        wrong_relay,
        wrong_author,
        wrong_kind,
        join_as_a_post,
        from_the_day_after_tomorrow,
        more_seen_than_there_is,
    ],
)
def test_a_wrong_statement_is_refused(change: Callable[[RoomStatement], RoomStatement]) -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    statement = change(ada.statement("#lobby", TEXT, b"x"))
    assert refused(ada, ada.post_request(statement)) == ErrorCode.BAD_STATEMENT
    assert bob.take() == []
    assert history(ada).last == 2


def test_what_can_be_wrong_by_a_day_or_may_have_been_seen_is_taken() -> None:
    relay = MemoryRelay()
    ada, _ = joined(relay, "ada", "bob")
    statement = ada.statement("#lobby", TEXT, b"x", seen=2)
    ada.connection.send(ada.post_request(replace(statement, time_ms=relay.now_ms + DAY_MS)))
    assert isinstance(ada.take()[0], Posted)


def test_the_signature_is_for_the_members_to_check() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    signed = ada.statement("#lobby", TEXT, b"x").encode()
    ada.connection.send(Post(1, signed, bytes(64)))
    assert isinstance(ada.take()[0], Posted)
    assert bob.connection.take_one(RoomEntry).signature == bytes(64)


@pytest.mark.parametrize("signed", [b"", b"x", bytes(300)])
def test_bytes_that_are_no_statement_are_refused(signed: bytes) -> None:
    (ada,) = joined(MemoryRelay(), "ada")
    assert refused(ada, Post(5, signed, bytes(64))) == ErrorCode.BAD_STATEMENT
    assert refused(ada, Join(6, signed, bytes(64))) == ErrorCode.BAD_STATEMENT


# --- members -------------------------------------------------------------------------------------


def test_the_lobby_is_there_from_the_start() -> None:
    relay = MemoryRelay()
    assert relay.admin(AdminListRooms()) == AdminRooms((RoomRow("#lobby", 0, 0, 0),))


def test_joining_an_unknown_room_opens_it() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    assert ada.join("#garden") == Joined(ada.last_request, "#garden", 1, 0, EMPTY_HISTORY)
    assert bob.take() == []
    assert bob.join("#garden").number == 2
    assert [entry.username for entry in ada.connection.take_all(RoomEntry)] == ["bob"]


def test_who_is_a_member_already_gets_no_second_join_entry() -> None:
    relay = MemoryRelay()
    (ada,) = joined(relay, "ada")
    ada.post("#lobby", "one")
    ada.connection.send(ada.join_request(ada.statement("#lobby", JOIN)))
    assert ada.connection.take_one(Joined) == Joined(
        ada.last_request, "#lobby", 1, 0, EMPTY_HISTORY
    )
    assert history(ada).last == 2


@pytest.mark.parametrize("room", ["lobby", "#", "#Lobby", "#a", "#with.dot", "#-dash"])
def test_a_room_has_a_name_of_a_form(room: str) -> None:
    (ada,) = joined(MemoryRelay(), "ada")
    assert refused(ada, ada.join_request(ada.statement(room, JOIN))) == ErrorCode.BAD_NAME


@pytest.mark.parametrize("kind", [TEXT, LEAVE, 7])
def test_a_join_is_signed_as_a_join(kind: int) -> None:
    (ada,) = joined(MemoryRelay(), "ada")
    request = ada.join_request(ada.statement("#garden", kind))
    assert refused(ada, request) == ErrorCode.BAD_STATEMENT


def test_nothing_was_seen_in_a_room_that_is_not_there() -> None:
    (ada,) = joined(MemoryRelay(), "ada")
    request = ada.join_request(ada.statement("#garden", JOIN, seen=1))
    assert refused(ada, request) == ErrorCode.BAD_STATEMENT


def test_only_members_post_and_read() -> None:
    relay = MemoryRelay()
    ada, _ = joined(relay, "ada", "bob", room="#garden")
    eve = Person(relay, "eve")
    eve.register()
    eve.take()
    post = eve.post_request(eve.statement("#garden", TEXT, b"x"))
    leave = eve.post_request(eve.statement("#garden", LEAVE))
    for request in (post, leave, History(8, "#garden", 0, 10), Who(9, "#garden")):
        assert refused(eve, request) == ErrorCode.NOT_A_MEMBER
    post = eve.post_request(eve.statement("#nowhere", TEXT, b"x"))
    for request in (post, History(8, "#nowhere", 0, 10), Who(9, "no room at all")):
        assert refused(eve, request) == ErrorCode.UNKNOWN_ROOM
    assert ada.take() == []


def test_who_leaves_is_told_and_told_no_more() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    bob.leave("#lobby")
    assert ada.connection.take_one(RoomEntry).username == "bob"
    ada.post("#lobby", "he is gone")
    assert bob.take() == []
    post = bob.post_request(bob.statement("#lobby", TEXT, b"x"))
    assert refused(bob, post) == ErrorCode.NOT_A_MEMBER
    bob.login()
    bob.take()
    ada.post("#lobby", "still")
    assert bob.take() == []
    assert bob.join("#lobby").number == 6


def test_a_post_that_follows_a_leave_in_one_group_is_refused() -> None:
    relay = MemoryRelay()
    (ada,) = joined(relay, "ada")
    relay.hold()
    ada.connection.send(ada.post_request(ada.statement("#lobby", LEAVE)))
    ada.connection.send(ada.post_request(ada.statement("#lobby", TEXT, b"x")))
    relay.release()
    posted, entry, error = ada.take()
    assert isinstance(posted, Posted)
    assert isinstance(entry, RoomEntry)
    assert isinstance(error, Error)
    assert error.code == ErrorCode.NOT_A_MEMBER


def test_a_leave_repeated_because_its_answer_was_lost_gets_its_number() -> None:
    relay = MemoryRelay()
    (ada,) = joined(relay, "ada")
    statement = ada.statement("#lobby", LEAVE)
    ada.connection.send(ada.post_request(statement))
    ada.take()
    ada.connection.send(ada.post_request(statement))
    assert ada.connection.take_one(Posted).number == 2


def test_a_join_of_long_ago_does_not_bring_a_member_back() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    request = ada.join_request(ada.statement("#lobby", JOIN))
    ada.connection.send(request)
    ada.take()
    ada.leave("#lobby")
    assert refused(ada, request) == ErrorCode.BAD_STATEMENT


def test_the_rooms_of_a_user_are_bounded() -> None:
    relay = MemoryRelay(settings=Settings(rooms_per_user=2))
    (ada,) = joined(relay, "ada")
    ada.join("#garden")
    request = ada.join_request(ada.statement("#third", JOIN))
    assert refused(ada, request) == ErrorCode.TOO_MANY_ROOMS
    ada.leave("#garden")
    ada.join("#third")


def test_the_rooms_of_a_relay_are_bounded() -> None:
    relay = MemoryRelay(settings=Settings(rooms_max=2))
    ada, bob = joined(relay, "ada", "bob")
    ada.join("#garden")
    request = ada.join_request(ada.statement("#third", JOIN))
    assert refused(ada, request) == ErrorCode.TOO_MANY_ROOMS
    bob.join("#garden")


# --- reading -------------------------------------------------------------------------------------


def test_a_page_has_as_many_entries_as_asked() -> None:
    relay = MemoryRelay()
    (ada,) = joined(relay, "ada")
    for number in range(2, 12):
        ada.post("#lobby", f"{number}")
    page = history(ada, after=3, limit=4)
    assert (page.after, page.last) == (3, 11)
    assert texts(page) == ["4", "5", "6", "7"]
    assert [entry.username for entry in page.entries] == ["ada"] * 4
    assert texts(history(ada, after=10)) == ["11"]
    assert texts(history(ada, after=11)) == []
    beyond = history(ada, after=2**62)
    assert (beyond.after, beyond.last, beyond.entries) == (11, 11, ())


def test_a_page_is_bounded_in_bytes_and_never_empty_before_the_end() -> None:
    relay = MemoryRelay()
    (ada,) = joined(relay, "ada")
    for _ in range(7):
        ada.post("#lobby", "x" * 65_000)
    numbers: list[int] = []
    after = 0
    while after < 8:
        page = history(ada, after=after)
        assert page.entries
        assert sum(len(entry.signed) for entry in page.entries) < PAGE_MAX_BYTES
        numbers += [entry.number for entry in page.entries]
        after = numbers[-1]
    assert numbers == list(range(1, 9))


def test_a_newcomer_sees_the_recent_entries_and_none_before() -> None:
    relay = MemoryRelay(settings=Settings(room_recent_entries=3))
    (ada,) = joined(relay, "ada")
    for number in range(2, 11):
        ada.post("#lobby", f"{number}")
    before = history(ada, after=7)
    eve = Person(relay, "eve")
    eve.register()
    eve.take()
    assert eve.join("#lobby") == Joined(eve.last_request, "#lobby", 11, 7, before.after_hash)
    page = history(eve)
    assert (page.after, page.after_hash) == (7, before.after_hash)
    assert texts(page) == ["8", "9", "10"]
    assert texts(history(eve, after=9)) == ["10"]


def test_who_lists_members_and_who_of_them_is_connected() -> None:
    relay = MemoryRelay()
    ada, bob, _ = joined(relay, "ada", "bob", "eve")
    bob.connection.cut()
    ada.connection.send(Who(5, "#lobby"))
    assert ada.connection.take_one(Members) == Members(
        5, "#lobby", 3, (Member("ada", True), Member("bob", False), Member("eve", True))
    )


def test_rooms_are_listed_largest_first() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob", room="#garden")
    ada.join("#attic")
    bob.connection.cut()
    ada.connection.send(ListRooms(6))
    assert ada.connection.take_one(RoomList) == RoomList(
        6,
        (
            RoomInfo("#garden", 2, 1, 2),
            RoomInfo("#attic", 1, 1, 1),
            RoomInfo("#lobby", 0, 0, 0),
        ),
    )


def test_a_removed_account_is_a_member_of_nothing() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    bob.post("#lobby", "something to remember")
    relay.admin(RemoveUser("bob"))
    ada.take()
    ada.connection.send(Who(5, "#lobby"))
    assert ada.connection.take_one(Members).members == (Member("ada", True),)
    assert texts(history(ada)) == ["something to remember"]
    assert ada.post("#lobby", "on my own").number == 4
    assert relay.admin(AdminListRooms()) == AdminRooms((RoomRow("#lobby", 1, 1, 4),))


# --- those who are too slow ----------------------------------------------------------------------


def test_who_is_too_slow_gets_the_newest_entry_once_there_is_room() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    bob.connection.congest(True)
    for number in range(5):
        ada.post("#lobby", f"{number}")
    assert bob.take() == []
    bob.connection.congest(False)
    # It sees that 3 to 6 are missing, and reads them.
    assert bob.connection.take_one(RoomEntry).number == 7
    assert texts(history(bob, after=2)) == ["0", "1", "2", "3", "4"]
    ada.post("#lobby", "on time")
    assert bob.connection.take_one(RoomEntry).number == 8


def test_who_was_too_slow_for_nothing_gets_nothing_again() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    ada.post("#lobby", "before")
    bob.take()
    bob.connection.congest(True)
    bob.connection.congest(False)
    assert bob.take() == []


def test_answers_and_mail_go_to_the_slow_too() -> None:
    relay = MemoryRelay()
    ada, bob = joined(relay, "ada", "bob")
    bob.connection.congest(True)
    ada.submit(bob, b"sealed")
    request = bob.post_request(bob.statement("#lobby", TEXT, b"still here"))
    bob.connection.send(request)
    deliver, posted = bob.take()
    assert isinstance(deliver, Deliver)
    assert posted == Posted(request.id, "#lobby", 3)
