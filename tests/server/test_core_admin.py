"""What the admin asks for while the relay serves."""

import re
from pathlib import Path

import pytest

from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.keylog import replay
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import Error, LookedUp, Presence, RoomEntry
from saltline.protocol.to_relay import Join, Lookup, LookupName
from saltline.server.administration import (
    AdminRequest,
    Code,
    CreateInvite,
    ListRooms,
    ListUsers,
    ReadStats,
    Refused,
    Removed,
    RemoveUser,
    ResetUser,
    RoomRow,
    Rooms,
    Stats,
    UserRow,
    Users,
)
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, START_MS, MemoryRelay
from tests.server.scenes import count_rows, members, registered


def test_users_are_listed_by_name() -> None:
    relay = MemoryRelay()
    bob, ada = registered(relay, "bob", "ada")
    registered(relay, "gone")
    relay.admin(RemoveUser("gone"))
    ada.join("#lobby")
    bob.connection.cut()
    ada.submit(bob, b"12345")
    assert relay.admin(ListUsers()) == Users(
        (
            UserRow("ada", START_MS, False, True, 1, 1, 0, 0),
            UserRow("bob", START_MS, False, False, 1, 0, 1, 5),
            UserRow("gone", START_MS, True, False, 0, 0, 0, 0),
        )
    )


def test_stats_count_what_is_stored_and_who_is_connected() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    relay.connect()
    ada.join("#lobby")
    ada.submit(bob, b"12345")
    stats = relay.admin(ReadStats())
    assert isinstance(stats, Stats)
    assert (stats.accounts, stats.closed_accounts, stats.log_entries) == (2, 0, 2)
    assert (stats.rooms, stats.room_entries) == (1, 1)
    assert (stats.waiting, stats.waiting_bytes) == (1, 5)
    assert (stats.connections, stats.strangers, stats.accounts_online) == (3, 1, 2)
    assert (stats.requests, stats.delivered, stats.broadcast) == (2, 1, 1)
    assert stats.database_bytes > 8192


def test_codes_are_random_readable_and_shown_once() -> None:
    relay = MemoryRelay()
    codes = set()
    for _ in range(50):
        code = relay.admin(CreateInvite(1, relay.now_ms + DAY_MS))
        assert isinstance(code, Code)
        assert re.fullmatch(r"([0-9a-hjkmnp-tv-z]{4}-){5}[0-9a-hjkmnp-tv-z]{4}", code.code)
        assert code.code not in repr(code)
        codes.add(code.code)
    assert len(codes) == 50


@pytest.mark.parametrize(
    "request_",
    [
        CreateInvite(0, START_MS + DAY_MS),
        CreateInvite(-1, START_MS + DAY_MS),
        CreateInvite(10**9, START_MS + DAY_MS),
        CreateInvite(1, START_MS),
        CreateInvite(1, 2**64),
        ResetUser("ada", START_MS - 1),
    ],
)
def test_codes_that_are_good_for_nothing_are_not_made(request_: AdminRequest) -> None:
    relay = MemoryRelay()
    registered(relay, "ada")
    refused = relay.admin(request_)
    assert isinstance(refused, Refused)
    assert refused.code == ErrorCode.BAD_INVITE
    assert count_rows(relay, "code") == 0


def test_a_removed_account_is_closed_for_good(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = registered(relay, "ada", "bob")
    ada.submit(bob, b"waits for bob")
    bob.take()
    bob.publish(*bob.make(PrekeyKind.SIGNED, 1), *bob.make(PrekeyKind.ONE_TIME, 1))
    bob.take()
    assert relay.admin(RemoveUser("bob")) == Removed("bob", 1)
    error = bob.connection.take_one(Error)
    assert (error.id, error.code) == (0, ErrorCode.REMOVED)
    assert not bob.connection.is_open

    # Everyone can see it in the log, signed by the log key.
    ada.take()
    ada.connection.send(Lookup(1, (LookupName("bob", 0),)))
    (page,) = ada.connection.take_one(LookedUp).accounts
    account = replay(page.entries, relay.log_key.public)
    assert account.closed
    assert account.live == ()

    relay.restart()
    for name in ("bob", "b0b", "bo-b"):
        again = Person(relay, name)
        again.connect()
        again.connection.send(again.registration(again.entry()))
        assert again.connection.take_one(Error).code == ErrorCode.NAME_TAKEN
    assert count_rows(relay, "envelope") == 0
    assert count_rows(relay, "prekey") == 0


def join_request(person: Person, room: str) -> Join:
    post = person.post_request(room, person.statement(RoomKind.JOIN))
    return Join(post.id, room, post.statement, post.signature)


def test_what_waits_behind_a_removal_changes_no_room() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.hold()
    ticket = relay.ask(RemoveUser("bob"))
    relay.release_one_group()  # bob is found, and about to be closed
    assert ticket not in relay.answers
    bob.connection.send(
        bob.post_request("#lobby", bob.statement(RoomKind.TEXT, b"too late")),
        join_request(bob, "#garden"),
    )
    relay.release()
    assert relay.answers[ticket] == Removed("bob", 1)
    assert bob.connection.take_one(Error).code == ErrorCode.REMOVED
    assert ada.connection.take_all(RoomEntry) == []
    assert relay.admin(ListRooms()) == Rooms((RoomRow("#lobby", 1, 1, 2),))
    assert count_rows(relay, "member") == 1


def test_who_is_not_there_cannot_be_removed() -> None:
    relay = MemoryRelay()
    registered(relay, "ada")
    relay.admin(RemoveUser("ada"))
    for name in ("nobody-here", "ada"):
        for request in (RemoveUser(name), ResetUser(name, relay.now_ms + DAY_MS)):
            refused = relay.admin(request)
            assert isinstance(refused, Refused)
            assert refused.code == ErrorCode.UNKNOWN_USER


def test_two_removals_in_one_group_are_one() -> None:
    relay = MemoryRelay()
    registered(relay, "ada")
    relay.hold()
    first, second = relay.ask(RemoveUser("ada")), relay.ask(RemoveUser("ada"))
    relay.release()
    assert relay.answers[first] == Removed("ada", 1)
    assert isinstance(relay.answers[second], Refused)
    assert count_rows(relay, "log") == 2


def test_the_relay_serves_on_while_the_admin_asks() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    relay.hold()
    tickets = [relay.ask(request) for request in (ListUsers(), ListRooms(), ReadStats())]
    ada.submit(bob, b"meanwhile")
    relay.release()
    assert [
        type(message).__name__ for message in bob.take() if not isinstance(message, Presence)
    ] == ["Deliver"]
    assert all(ticket in relay.answers for ticket in tickets)


def test_a_stopping_relay_does_nothing_for_the_admin() -> None:
    relay = MemoryRelay()
    relay.stop()
    refused = relay.admin(CreateInvite(1, relay.now_ms + DAY_MS))
    assert isinstance(refused, Refused)
    assert refused.code == ErrorCode.STOPPING
