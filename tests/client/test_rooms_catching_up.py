"""Catching up with a room whose relay refuses, or answers late: nothing stays behind."""

from collections.abc import Iterable

import msgspec
import pytest

from saltline.client.rooms import HELD_BACK_ALL_MAX_BYTES, HELD_BACK_MAX_BYTES
from saltline.crypto.signatures import RoomStatement
from saltline.protocol import to_client
from tests.client.conftest import Meet
from tests.client.hostile import Withheld, inject, under
from tests.client.world import MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

MANY = 2**63 - 1


def test_a_refused_page_is_asked_for_once_more_and_when_the_relay_said(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    """Whatever is pushed meanwhile: each entry asked again, and each refusal was remembered."""
    settle(alice, bob)
    alice.offline()
    bob.post("#lobby", "0")
    settle(bob)
    asked = []

    def refuse(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.HistoryPage):
            asked.append(message)
            message = to_client.Error(message.id, "rate_limited", "Not now.", 60_000)
        yield message

    under(alice, refuse)
    for number in range(1, 5):
        bob.post("#lobby", str(number))
        settle(alice, bob)
    assert len(asked) == 1 and len(alice.core._ctx._later) == 1
    assert not alice.core.idle()  # `recv` would say that all was exchanged
    assert alice.link is not None
    alice.link._tamper = None
    for _ in range(4):
        relay.now_ms += 20_000
        alice.tick()
        settle(alice, bob)
    assert alice.texts("#lobby") == [str(number) for number in range(5)]
    assert alice.core.idle()


def test_an_author_who_is_looked_up_for_longer_than_another_was_refused_for(
    alice: Person, bob: Person, meet: Meet, relay: MemoryRelay
) -> None:
    settle(alice, bob)
    alice.offline()
    for name in ("charlie", "dora"):
        meet(name).post("#lobby", name)
    pages, lookups = Withheld(alice, to_client.HistoryPage), Withheld(alice, to_client.LookedUp)
    under(alice, lambda message: [m for each in pages(message) for m in lookups(each)])
    alice.ask(lambda ticket, now: alice.core.fetch_contact("dora", ticket, now))
    pages.release()
    settle(alice)
    of_dora, of_charlie = lookups.kept
    assert isinstance(of_charlie, to_client.LookedUp)
    inject(alice, to_client.Error(of_charlie.id, "rate_limited", "Not now.", 1000))
    relay.now_ms += 2000
    alice.tick()
    lookups.open = True
    inject(alice, of_dora)
    for _ in range(3):
        relay.now_ms += 1000
        alice.tick()
        settle(alice)
    assert alice.texts("#lobby") == ["charlie", "dora"]


def test_a_page_that_is_older_than_what_was_pushed_before_it(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    alice.offline()
    bob.post("#lobby", "one")
    settle(bob)
    withheld = Withheld(alice, to_client.HistoryPage)
    under(alice, withheld)
    bob.post("#lobby", "two")
    settle(alice, bob)
    withheld.release()
    settle(alice)
    assert alice.texts("#lobby") == ["one", "two"]
    assert alice.core.idle()


def test_a_number_above_all_is_asked_for_once(alice: Person, bob: Person) -> None:
    """A relay that pushes what it does not have keeps nobody asking."""
    settle(alice, bob)
    asked = []

    def listen(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.HistoryPage):
            asked.append(message)
        yield message

    under(alice, listen)
    for _ in range(2):
        inject(alice, to_client.RoomEntry("#lobby", MANY, "bob", 1, bytes(33), bytes(64)))
    settle(alice)
    assert len(asked) == 2 and alice.core.idle()


def test_what_is_held_back_in_many_rooms_is_bounded(alice: Person) -> None:
    """The relay says that we are in them, and never tells who its authors are."""
    rooms = [f"#room{number}" for number in range(30)]
    text = RoomStatement(1, bytes(16), 5, 0, bytes(32), b"x" * 64_000).encode()

    def tamper(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Welcome):
            marks = tuple(to_client.RoomMark(room, 16) for room in rooms)
            message = msgspec.structs.replace(message, rooms=marks)
        if not isinstance(message, to_client.LookedUp | to_client.Error):
            yield message

    under(alice, tamper)
    asked = {each.room: number for number, each in alice.core._ctx._pending.items() if each.room}
    for room in rooms:
        entries = [
            to_client.RoomEntry(room, number, "stranger", 1, text, bytes(64))
            for number in range(1, 17)
        ]
        page = tuple(entries[:2])
        inject(alice, to_client.HistoryPage(asked[room], room, 0, bytes(32), 2, page))
        inject(alice, *entries[2:])
    held = alice.core._parts.rooms._held
    assert len(held) == len(rooms)
    one_each = len(rooms) * len(text)
    assert sum(each.size_bytes for each in held.values()) < HELD_BACK_ALL_MAX_BYTES + 2 * one_each


def test_what_is_held_back_in_one_room_is_bounded(alice: Person) -> None:
    text = RoomStatement(1, bytes(16), 5, 0, bytes(32), b"x" * 64_000).encode()
    withheld = Withheld(alice, to_client.LookedUp)
    under(alice, withheld)
    inject(
        alice,
        *[
            to_client.RoomEntry("#lobby", number, "stranger", 1, text, bytes(64))
            for number in range(2, 102)
        ],
    )
    (held,) = alice.core._parts.rooms._held.values()
    assert held.refetch, "what is too much is fetched again"
    assert sum(len(each.statement) for each in held.entries) <= HELD_BACK_MAX_BYTES
