"""Public rooms: numbered without a gap, chained, for members."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saltline.crypto.signatures import (
    EMPTY_HISTORY,
    RoomStatement,
    lengthen,
    next_history_hash,
    shorten,
)
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import (
    Posted,
    RoomEntry,
)
from saltline.protocol.to_relay import Join, Post
from saltline.server.effects import Broadcast
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import history, members, refused, texts

TEXT, JOIN, LEAVE = RoomKind.TEXT, RoomKind.JOIN, RoomKind.LEAVE


# --- entries -------------------------------------------------------------------------------------


def test_a_post_reaches_every_member_with_its_number() -> None:
    relay = MemoryRelay()
    ada, bob, eve = members(relay, "ada", "bob", "eve")
    request = ada.post_request("#lobby", ada.statement(TEXT, b"hello"))
    ada.connection.send(request)
    short = shorten(request.statement)
    assert lengthen(short, EMPTY_HISTORY) == request.statement
    entry = RoomEntry("#lobby", 4, "ada", 1, short, request.signature)
    assert ada.take() == [Posted(request.id, "#lobby", 4), entry]
    assert bob.take() == [entry]
    assert eve.take() == [entry]


def test_an_entry_is_encoded_once_for_all_members() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.effects.clear()
    ada.post("#lobby", "one")
    ada.post("#lobby", "two")
    first, second = [effect for effect in relay.effects if isinstance(effect, Broadcast)]
    assert sorted(first.connections) == [ada.connection.number, bob.connection.number]
    assert second.connections is first.connections, "nobody came or went between them"


def test_nothing_is_posted_before_the_commit() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.hold()
    ada.connection.send(ada.post_request("#lobby", ada.statement(TEXT, b"hello")))
    assert (ada.take(), bob.take()) == ([], [])
    relay.release()
    assert len(bob.take()) == 1


def test_numbers_have_no_gap_whatever_is_refused() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.hold()
    for body in (b"one", b"two"):
        ada.connection.send(ada.post_request("#lobby", ada.statement(TEXT, body)))
        bob.connection.send(bob.post_request("#nowhere", bob.statement(TEXT, body)))
    relay.release()
    ada.take()
    assert [entry.number for entry in bob.connection.take_all(RoomEntry)] == [3, 4]
    assert ada.post("#lobby", "three").number == 5


def test_the_history_hash_chains_what_was_signed(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = members(relay, "ada", "bob")
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
        expected.append(
            next_history_hash(
                expected[-1], entry.username, entry.device, entry.statement, entry.signature
            )
        )
    for after in range(38):
        assert history(ada, after=after).after_hash == expected[after]


def test_a_retry_gets_the_number_it_had_and_no_second_entry(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = members(relay, "ada", "bob")
    statement = ada.statement(TEXT, b"once")
    relay.hold()
    ada.connection.send(
        ada.post_request("#lobby", statement), ada.post_request("#lobby", statement)
    )
    relay.release()
    assert [posted.number for posted in ada.connection.take_all(Posted)] == [3, 3]
    bob.post("#lobby", "between")
    # The answer was lost, with the relay.
    relay.crash()
    ada.login()
    ada.take()
    ada.connection.send(ada.post_request("#lobby", statement))
    assert ada.connection.take_one(Posted).number == 3
    assert texts(history(ada)) == ["once", "between"]


def test_a_message_id_counts_for_its_author_and_room_alone() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    ada.join("#garden")
    same = bytes(16)
    numbers = []
    for person, room in ((ada, "#lobby"), (bob, "#lobby"), (ada, "#garden")):
        statement = person.statement(TEXT, b"x", message_id=same)
        person.connection.send(person.post_request(room, statement))
        numbers += [posted.number for posted in person.connection.take_all(Posted)]
    assert numbers == [3, 4, 2]


def wrong_kind(statement: RoomStatement) -> RoomStatement:
    return statement._replace(kind=9)


def join_as_a_post(statement: RoomStatement) -> RoomStatement:
    return statement._replace(kind=JOIN)


def from_the_day_after_tomorrow(statement: RoomStatement) -> RoomStatement:
    return statement._replace(time_ms=statement.time_ms + DAY_MS + 1)


def more_seen_than_there_is(statement: RoomStatement) -> RoomStatement:
    return statement._replace(seen=3)


def another_history(statement: RoomStatement) -> RoomStatement:
    return statement._replace(seen=1, seen_hash=b"another history, or a lie of his")


def not_later_than_the_join(statement: RoomStatement) -> RoomStatement:
    return statement._replace(time_ms=statement.time_ms - 1)


@pytest.mark.parametrize(
    "change",
    [
        wrong_kind,
        join_as_a_post,
        from_the_day_after_tomorrow,
        more_seen_than_there_is,
        another_history,
        not_later_than_the_join,
    ],
)
def test_a_wrong_statement_is_refused(change: Callable[[RoomStatement], RoomStatement]) -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    statement = change(ada.statement(TEXT, b"x"))
    assert refused(ada, ada.post_request("#lobby", statement)).code == ErrorCode.BAD_STATEMENT
    assert bob.take() == []
    assert history(ada).last == 2


def test_what_can_be_wrong_by_a_day_or_may_have_been_seen_is_taken() -> None:
    relay = MemoryRelay()
    ada, _ = members(relay, "ada", "bob")
    last = history(ada, after=2).after_hash
    statement = ada.statement(TEXT, b"x", seen=2, seen_hash=last)
    late = statement._replace(time_ms=relay.now_ms + DAY_MS)
    ada.connection.send(ada.post_request("#lobby", late))
    assert isinstance(ada.take()[0], Posted)


def test_the_signature_is_for_the_members_to_check() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    signed = ada.statement(TEXT, b"x").encode()
    ada.connection.send(Post(1, "#lobby", signed, bytes(64)))
    assert isinstance(ada.take()[0], Posted)
    assert bob.connection.take_one(RoomEntry).signature == bytes(64)


@pytest.mark.parametrize("signed", [b"", b"x", bytes(64)])
def test_bytes_that_are_no_statement_are_refused(signed: bytes) -> None:
    (ada,) = members(MemoryRelay(), "ada")
    assert refused(ada, Post(5, "#lobby", signed, bytes(64))).code == ErrorCode.BAD_STATEMENT
    assert refused(ada, Join(6, "#lobby", signed, bytes(64))).code == ErrorCode.BAD_STATEMENT
