"""What one commit adds to rooms leaves together, in as few frames as there are rooms in a row."""

from saltline.crypto.signatures import shorten
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import FRAME_MAX_BYTES, PAGE_MAX_ENTRIES, TEXT_MAX_BYTES
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import Author, Entries, Error, Joined, Posted, Pushed, RoomEntry
from saltline.protocol.to_relay import Ping, Post
from saltline.server.effects import Broadcast, Persist
from saltline.server.settings import Settings
from saltline.server.store.operations import LeaveRoom, StoreTexts
from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay
from tests.server.scenes import members, registered


def text(person: Person, body: bytes, room: str = "#lobby") -> Post:
    return person.post_request(room, person.statement(RoomKind.TEXT, body))


def leave(person: Person) -> Post:
    return person.post_request("#lobby", person.statement(RoomKind.LEAVE))


def pushes(relay: MemoryRelay) -> list[Entries]:
    """The frames for many that left since the effects were cleared."""
    messages = [
        decode_relay_message(effect.frame[4:])
        for effect in relay.effects
        if isinstance(effect, Broadcast)
    ]
    return [message for message in messages if isinstance(message, Entries)]


def asked(relay: MemoryRelay) -> list[object]:
    """What the store was asked since then."""
    return [effect.operation for effect in relay.effects if isinstance(effect, Persist)]


def test_one_frame_names_the_room_and_each_author_once() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.effects.clear()
    relay.hold()
    one, two, three = text(ada, b"one"), text(bob, b"two"), text(ada, b"three")
    for author, request in ((ada, one), (bob, two), (ada, three)):
        author.connection.send(request)
    relay.release()
    (push,) = pushes(relay)
    assert push == Entries(
        "#lobby",
        3,
        (Author("ada", 1), Author("bob", 1)),
        (
            Pushed(0, shorten(one.statement), one.signature),
            Pushed(1, shorten(two.statement), two.signature),
            Pushed(0, shorten(three.statement), three.signature),
        ),
    )
    assert [entry.number for entry in bob.connection.take_all(RoomEntry)] == [3, 4, 5]


def test_texts_that_arrive_together_are_one_operation_and_an_answer_each() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.effects.clear()
    requests = [text(ada, b"%d" % number) for number in range(5)]
    ada.connection.send(*requests)
    (work,) = asked(relay)
    assert isinstance(work, StoreTexts)
    assert [entry.message_id for entry in work.entries] == [
        request.statement[1:17] for request in requests
    ]
    answers = ada.connection.take()
    assert answers[:5] == [
        Posted(request.id, "#lobby", number) for number, request in enumerate(requests, 3)
    ]
    assert [type(each) for each in answers[5:]] == [RoomEntry] * 5
    assert len(bob.take()) == 5


def test_long_texts_are_not_one_operation() -> None:
    relay = MemoryRelay()
    (ada,) = members(relay, "ada")
    relay.effects.clear()
    sizes = (60_000, 10_000, 10_000, 60_000, 1, 1)
    ada.connection.send(*(text(ada, b"x" * size) for size in sizes))
    works = [work for work in asked(relay) if isinstance(work, StoreTexts)]
    assert [len(work.entries) for work in works] == [2, 2, 2]
    assert [type(each) for each in ada.take()].count(Posted) == len(sizes)


def test_what_is_between_texts_keeps_its_place() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    ada.join("#other")
    ada.take()
    bob.take()
    relay.effects.clear()
    relay.hold()
    first, other, last = text(ada, b"first"), text(ada, b"other", "#other"), text(ada, b"last")
    ada.connection.send(first, Ping(9), other, last, leave(ada), text(ada, b"too late"))
    kinds = [(type(work), getattr(work, "entries", (None,))) for work in asked(relay)]
    assert [(kind, len(entries)) for kind, entries in kinds] == [
        (StoreTexts, 1),
        (StoreTexts, 1),
        (StoreTexts, 1),
        (LeaveRoom, 1),
        (StoreTexts, 1),
    ]
    relay.release()
    numbers = [entry.number for entry in bob.connection.take_all(RoomEntry)]
    assert numbers == [3, 4, 5], "two texts and the leaving"
    refusals = [each for each in ada.take() if isinstance(each, Error)]
    assert [refusal.code for refusal in refusals] == [ErrorCode.NOT_A_MEMBER]


def test_a_newcomer_gets_nothing_of_what_was_before() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    (eve,) = registered(relay, "eve")
    relay.hold()
    ada.connection.send(text(ada, b"before"))
    eve.connection.send(eve.join_request("#lobby", eve.statement(RoomKind.JOIN)))
    bob.connection.send(text(bob, b"after"))
    relay.release()
    came = [each for each in eve.take() if isinstance(each, RoomEntry | Joined)]
    assert [type(each) for each in came] == [Joined, RoomEntry, RoomEntry]
    assert [each.number for each in came] == [4, 4, 5]
    assert [entry.number for entry in ada.connection.take_all(RoomEntry)] == [3, 4, 5]


def test_who_leaves_gets_first_what_came_before() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.hold()
    ada.connection.send(text(ada, b"before"))
    bob.connection.send(leave(bob))
    ada.connection.send(text(ada, b"after"))
    relay.release()
    came = [
        (type(each), each.number) for each in bob.take() if isinstance(each, RoomEntry | Posted)
    ]
    assert came == [(RoomEntry, 3), (Posted, 4), (RoomEntry, 4)]
    assert [entry.number for entry in ada.connection.take_all(RoomEntry)] == [3, 4, 5]


def test_a_refused_text_does_not_stop_the_next() -> None:
    relay = MemoryRelay(settings=Settings(room_max_bytes=3000))
    ada, bob = members(relay, "ada", "bob")
    fits, too_long, fits_too = text(ada, b"fits"), text(ada, b"x" * 3000), text(ada, b"fits too")
    ada.connection.send(fits, too_long, fits_too)
    answers = {each.id: each for each in ada.take() if isinstance(each, Posted | Error)}
    assert answers[fits.id] == Posted(fits.id, "#lobby", 3)
    refusal = answers[too_long.id]
    assert isinstance(refusal, Error)
    assert refusal.code == ErrorCode.ROOM_FULL
    assert answers[fits_too.id] == Posted(fits_too.id, "#lobby", 4)
    assert [entry.number for entry in bob.connection.take_all(RoomEntry)] == [3, 4]


def test_every_text_is_answered_when_the_disk_fails() -> None:
    relay = MemoryRelay()
    (ada,) = members(relay, "ada")
    relay.hold()
    requests = [text(ada, b"lost") for _ in range(3)]
    ada.connection.send(*requests)
    relay.database._fail(OSError("no disk"))
    relay.release()
    refusals = ada.connection.take_all(Error)
    assert [refusal.id for refusal in refusals] == [request.id for request in requests]
    assert {refusal.code for refusal in refusals} == {ErrorCode.STORAGE_FAILED}
    later = [text(ada, b"after") for _ in range(2)]
    ada.connection.send(*later)
    refusals = ada.connection.take_all(Error)
    assert [refusal.id for refusal in refusals] == [request.id for request in later]


def test_a_frame_holds_a_page_at_most_whatever_one_commit_brings() -> None:
    relay = MemoryRelay()
    ada, bob = members(relay, "ada", "bob")
    relay.effects.clear()
    relay.hold()
    for _ in range(5):
        ada.connection.send(*(text(ada, b"short") for _ in range(PAGE_MAX_ENTRIES // 2)))
    for size in (TEXT_MAX_BYTES, 16_000, 16_000, TEXT_MAX_BYTES):
        bob.connection.send(text(bob, b"x" * size))
    relay.release()
    frames = pushes(relay)
    assert [len(push.entries) for push in frames] == [200, 200, 100, 1, 2, 1]
    first = 3
    for push in frames:
        assert push.first == first, "without a gap"
        first += len(push.entries)
    sizes = [len(effect.frame) for effect in relay.effects if isinstance(effect, Broadcast)]
    assert max(sizes) < FRAME_MAX_BYTES
