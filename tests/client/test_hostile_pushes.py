"""Room entries as a relay that lies pushes them: each is judged by itself."""

from collections.abc import Iterable

import pytest

from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, room_payload
from saltline.protocol import to_client
from saltline.protocol.content import RoomKind
from saltline.protocol.frames import encode_frame
from saltline.protocol.messages import encode_message
from saltline.protocol.to_relay import Post
from tests.client.hostile import inject, replacing, under
from tests.client.world import MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

MANY = 2**63 - 1


def test_a_push_of_an_author_who_is_not_named(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    state = alice.core._ctx.rooms.state("#lobby")
    assert state is not None
    pushed = to_client.Pushed(1, bytes(37), bytes(64))
    author = to_client.Author("bob", 1)
    inject(alice, to_client.Entries("#lobby", state.last + 1, (author,), (pushed,)))
    assert alice.last_disconnect is not None
    assert "an author who was not named" in alice.last_disconnect.detail
    alice.online()
    bob.post("#lobby", "still here")
    settle(alice, bob)
    assert alice.texts("#lobby") == ["still here"]


def test_a_push_beyond_the_last_number_that_there_can_be(alice: Person, bob: Person) -> None:
    """A room held up to there, whose next number no vault can hold."""
    settle(alice, bob)
    end = {"number": MANY, "after": MANY, "after_hash": b"\x01" * 32}
    under(alice, replacing(to_client.Joined, **end))
    alice.post("#new", "hello")
    settle(alice)
    state = alice.core._ctx.rooms.state("#new")
    assert state is not None and state.last == MANY
    author, pushed = to_client.Author("#", 1), to_client.Pushed(0, bytes(33), bytes(64))
    inject(alice, to_client.Entries("#new", MANY, (author,), (pushed, pushed)))
    assert alice.last_disconnect is not None
    assert "a number above all" in alice.last_disconnect.detail
    under(alice, None)
    bob.post("#lobby", "still here")
    settle(alice, bob)
    assert alice.texts("#lobby") == ["still here"]


def test_a_forgery_among_pushed_entries_costs_none_of_the_others(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    settle(alice, bob)
    me = bob.core._ctx.me
    pushes: list[Heard] = []

    def look(message: Heard) -> Iterable[Heard]:
        pushes.extend([message] if isinstance(message, to_client.RoomEntry) else [])
        yield message

    under(alice, look)
    posts: list[bytes] = []
    for number, words in enumerate((b"one", b"two", b"three"), 1):
        said = RoomStatement(
            RoomKind.TEXT, bytes([number] * 16), relay.now_ms + number, 0, EMPTY_HISTORY, words
        ).encode()
        payload = room_payload(relay.log_key.relay_id, "#lobby", me.identity.hash, said)
        signature = bytes(64) if words == b"two" else me.sign(payload)
        request = 2**32 - number
        posts.append(encode_frame(encode_message(Post(request, "#lobby", said, signature))))
    assert bob.link is not None
    bob.link.send(b"".join(posts))
    settle(alice)
    assert len(pushes) == 3
    assert alice.texts("#lobby") == ["one", "three"]
    assert any("not signed by the author" in notice for notice in alice.notices("#lobby"))
