"""Public rooms: who is in them, what they may read, and who is too slow."""

import pytest

from saltline.crypto.signatures import EMPTY_HISTORY
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import PAGE_MAX_BYTES
from saltline.protocol.to_client import (
    Deliver,
    Error,
    Joined,
    Member,
    Members,
    Posted,
    RoomEntry,
    RoomInfo,
    RoomList,
)
from saltline.protocol.to_relay import History, ListRooms, Post, Who
from saltline.server.administration import ListRooms as AdminListRooms
from saltline.server.administration import RemoveUser, RoomRow
from saltline.server.administration import Rooms as AdminRooms
from saltline.server.settings import Settings
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import history, members, refused, texts

TEXT, JOIN, LEAVE = RoomKind.TEXT, RoomKind.JOIN, RoomKind.LEAVE


# --- members -------------------------------------------------------------------------------------


def test_the_lobby_is_there_from_the_start() -> None:
    relay = MemoryRelay()
    assert relay.admin(AdminListRooms()) == AdminRooms((RoomRow("#lobby", 0, 0, 0),))


def test_joining_an_unknown_room_opens_it() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    assert ada.join("#garden") == Joined(ada.last_request, "#garden", 1, 0, EMPTY_HISTORY)
    assert bob.take() == []
    assert bob.join("#garden").number == 2
    assert [entry.username for entry in ada.connection.take_all(RoomEntry)] == ["bob"]


def test_who_is_a_member_already_gets_no_second_join_entry() -> None:
    relay = MemoryRelay()
    (ada,) = members(relay, "ada")
    ada.post("#lobby", "one")
    ada.connection.send(ada.join_request("#lobby", ada.statement(JOIN)))
    assert ada.connection.take_one(Joined) == Joined(
        ada.last_request, "#lobby", 1, 0, EMPTY_HISTORY
    )
    assert history(ada).last == 2


@pytest.mark.parametrize("room", ["lobby", "#", "#Lobby", "#a", "#with.dot", "#-dash"])
def test_a_room_has_a_name_of_a_form(room: str) -> None:
    (ada,) = members(MemoryRelay(), "ada")
    assert refused(ada, ada.join_request(room, ada.statement(JOIN))).code == ErrorCode.BAD_NAME


@pytest.mark.parametrize("kind", [TEXT, LEAVE, 7])
def test_a_join_is_signed_as_a_join(kind: int) -> None:
    (ada,) = members(MemoryRelay(), "ada")
    request = ada.join_request("#garden", ada.statement(kind))
    assert refused(ada, request).code == ErrorCode.BAD_STATEMENT


def test_nothing_was_seen_in_a_room_that_is_not_there() -> None:
    (ada,) = members(MemoryRelay(), "ada")
    request = ada.join_request("#garden", ada.statement(JOIN, seen=1))
    assert refused(ada, request).code == ErrorCode.BAD_STATEMENT


def test_who_makes_a_room_cannot_give_it_another_beginning() -> None:
    (ada,) = members(MemoryRelay(), "ada")
    request = ada.join_request("#garden", ada.statement(JOIN, seen_hash=bytes([1]) * 32))
    assert refused(ada, request).code == ErrorCode.BAD_STATEMENT


def test_only_members_post_and_read() -> None:
    relay = MemoryRelay()
    ada, _ = members(relay, "ada", "bob", room="#garden")
    eve = Person(relay, "eve")
    eve.register()
    eve.take()
    post = eve.post_request("#garden", eve.statement(TEXT, b"x"))
    leave = eve.post_request("#garden", eve.statement(LEAVE))
    for request in (post, leave, History(8, "#garden", 0, 10), Who(9, "#garden")):
        assert refused(eve, request).code == ErrorCode.NOT_A_MEMBER
    post = eve.post_request("#nowhere", eve.statement(TEXT, b"x"))
    for request in (post, History(8, "#nowhere", 0, 10), Who(9, "no room at all")):
        assert refused(eve, request).code == ErrorCode.UNKNOWN_ROOM
    assert ada.take() == []


def test_who_leaves_is_told_and_told_no_more() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    bob.leave("#lobby")
    assert ada.connection.take_one(RoomEntry).username == "bob"
    ada.post("#lobby", "he is gone")
    assert bob.take() == []
    post = bob.post_request("#lobby", bob.statement(TEXT, b"x"))
    assert refused(bob, post).code == ErrorCode.NOT_A_MEMBER
    bob.login()
    bob.take()
    ada.post("#lobby", "still")
    assert bob.take() == []
    assert bob.join("#lobby").number == 6


def test_a_post_that_follows_a_leave_in_one_group_is_refused() -> None:
    relay = MemoryRelay()
    (ada,) = members(relay, "ada")
    relay.hold()
    ada.connection.send(ada.post_request("#lobby", ada.statement(LEAVE)))
    ada.connection.send(ada.post_request("#lobby", ada.statement(TEXT, b"x")))
    relay.release()
    posted, entry, error = ada.take()
    assert isinstance(posted, Posted)
    assert isinstance(entry, RoomEntry)
    assert isinstance(error, Error)
    assert error.code == ErrorCode.NOT_A_MEMBER


def test_a_leave_repeated_because_its_answer_was_lost_gets_its_number() -> None:
    relay = MemoryRelay()
    (ada,) = members(relay, "ada")
    statement = ada.statement(LEAVE)
    ada.connection.send(ada.post_request("#lobby", statement))
    ada.take()
    ada.connection.send(ada.post_request("#lobby", statement))
    assert ada.connection.take_one(Posted).number == 2


def test_a_join_of_long_ago_does_not_bring_a_member_back() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    request = ada.join_request("#lobby", ada.statement(JOIN))
    ada.connection.send(request)
    ada.take()
    ada.leave("#lobby")
    assert refused(ada, request).code == ErrorCode.BAD_STATEMENT


def test_the_rooms_of_a_user_are_bounded() -> None:
    relay = MemoryRelay(settings=Settings(rooms_per_user=2))
    (ada,) = members(relay, "ada")
    ada.join("#garden")
    request = ada.join_request("#third", ada.statement(JOIN))
    assert refused(ada, request).code == ErrorCode.TOO_MANY_ROOMS
    ada.leave("#garden")
    ada.join("#third")


def test_the_rooms_of_a_relay_are_bounded() -> None:
    relay = MemoryRelay(settings=Settings(rooms_max=2))
    ada, bob = members(relay, "ada", "bob")
    ada.join("#garden")
    request = ada.join_request("#third", ada.statement(JOIN))
    assert refused(ada, request).code == ErrorCode.TOO_MANY_ROOMS
    bob.join("#garden")


def test_an_account_opens_so_many_rooms_a_day() -> None:
    relay = MemoryRelay(settings=Settings(rooms_opened_per_day=2))
    ada, bob = members(relay, "ada", "bob")
    for room in ("#one", "#two"):
        ada.join(room)
        ada.leave(room)
        ada.join(room)  # it is there: this opens none
    request = ada.join_request("#three", ada.statement(JOIN))
    error = refused(ada, request)
    assert error.code == ErrorCode.TOO_MANY_ROOMS
    assert "you opened as many today as this relay allows" in error.detail
    bob.join("#three")
    ada.join("#three")
    relay.advance(DAY_MS)
    for person in (ada, bob):
        person.login()
        person.take()
    ada.join("#four")


def test_a_full_room_takes_no_texts_and_no_newcomers_and_can_be_left() -> None:
    relay = MemoryRelay(settings=Settings(room_max_bytes=2_000))
    ada, bob = members(relay, "ada", "bob")
    carol = Person(relay, "carol")
    carol.register()
    carol.take()

    def text(size: int) -> Post:
        return ada.post_request("#lobby", ada.statement(TEXT, b"x" * size))

    ada.post("#lobby", "x" * 500)
    assert refused(ada, text(500)).code == ErrorCode.ROOM_FULL
    for _ in range(2):
        ada.post("#lobby", "")
    assert refused(ada, text(0)).code == ErrorCode.ROOM_FULL
    assert refused(carol, carol.join_request("#lobby", carol.statement(JOIN))).code == (
        ErrorCode.ROOM_FULL
    )
    bob.leave("#lobby")
    ada.take()
    assert history(ada).entries[-1].username == "bob"
    ada.join("#garden")
    ada.post("#garden", "x" * 500)

    relay.core.settings_changed(Settings(room_max_bytes=10_000))
    ada.post("#lobby", "x" * 500)


# --- reading -------------------------------------------------------------------------------------


def test_a_page_has_as_many_entries_as_asked() -> None:
    relay = MemoryRelay()
    (ada,) = members(relay, "ada")
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
    (ada,) = members(relay, "ada")
    for _ in range(7):
        ada.post("#lobby", "x" * 65_000)
    numbers: list[int] = []
    after = 0
    while after < 8:
        page = history(ada, after=after)
        assert page.entries
        assert sum(len(entry.statement) for entry in page.entries) < PAGE_MAX_BYTES
        numbers += [entry.number for entry in page.entries]
        after = numbers[-1]
    assert numbers == list(range(1, 9))


def test_a_newcomer_sees_the_recent_entries_and_none_before() -> None:
    relay = MemoryRelay(settings=Settings(room_recent_entries=3))
    (ada,) = members(relay, "ada")
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
    ada, bob, _ = members(relay, "ada", "bob", "eve")
    bob.connection.cut()
    ada.connection.send(Who(5, "#lobby"))
    assert ada.connection.take_one(Members) == Members(
        5, "#lobby", 3, (Member("ada", True), Member("bob", False), Member("eve", True))
    )


def test_rooms_are_listed_largest_first() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob", room="#garden")
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
    ada, bob = members(relay, "ada", "bob")
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
    ada, bob = members(relay, "ada", "bob")
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
    ada, bob, carol = members(relay, "ada", "bob", "carol")
    carol.connection.congest(True)  # for her the newest entry is kept
    ada.post("#lobby", "before")
    bob.take()
    bob.connection.congest(True)
    bob.connection.congest(False)
    assert bob.take() == []


def test_answers_and_mail_go_to_the_slow_too() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    bob.connection.congest(True)
    ada.submit(bob, b"sealed")
    request = bob.post_request("#lobby", bob.statement(TEXT, b"still here"))
    bob.connection.send(request)
    deliver, posted = bob.take()
    assert isinstance(deliver, Deliver)
    assert posted == Posted(request.id, "#lobby", 3)


# --- what it costs -------------------------------------------------------------------------------


@pytest.mark.parametrize(("people", "lists"), [(2, 20), (1_000, 10), (5_000, 3), (10**6, 3)])
def test_a_list_of_members_costs_by_how_many_they_are(people: int, lists: int) -> None:
    """Up to 5,000 are listed."""
    relay = MemoryRelay(settings=Settings(requests_per_second=2_000, requests_burst=2_000))
    ada, _ = members(relay, "ada", "bob")
    relay.advance(1_000)
    ada.take()
    relay.core._presence.rooms["#lobby"].members = people
    ada.connection.send(*[Who(number, "#lobby") for number in range(1, 31)])
    received = ada.take()
    assert [type(each) for each in received].count(Members) == lists
    refusals = [each for each in received if isinstance(each, Error)]
    assert len(refusals) == 30 - lists
    assert {each.code for each in refusals} == {ErrorCode.RATE_LIMITED}
