"""Rooms of a relay that lies: nothing is skipped, repeated, or shown as what it is not."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from saltline.client.model import Delivery
from saltline.client.rooms import WHOLE_EVERY_MS
from saltline.client.vault import views
from saltline.crypto.keylog import create_entry
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, room_payload, shorten
from saltline.protocol import to_client
from saltline.protocol.content import RoomKind
from saltline.protocol.to_relay import Post
from tests.client.hostile import Tamper, Withheld, ask_raw, inject, replacing, under
from tests.client.world import MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

ZERO = bytes(32)
MANY = 2**63 - 1


@pytest.mark.parametrize("name", ["@bob", "", "#", "#\x1b[2J", "#A", "bob", "@saltline", "#a b"])
def test_a_room_that_is_named_like_a_person(alice: Person, bob: Person, name: str) -> None:
    """Its entries would stand among what is private."""
    alice.send("bob", "hello")
    settle(alice, bob)
    marks = (to_client.RoomMark("#lobby", 2), to_client.RoomMark(name, 5))
    under(alice, replacing(to_client.Welcome, rooms=marks))
    assert alice.link is None and alice.last_disconnect is not None
    assert "cannot be one" in alice.last_disconnect.detail
    names = {summary.name for summary in views.conversations(alice.vault)}
    assert names == {"@bob", "#lobby"}
    assert alice.core._ctx.rooms.state(name) is None
    assert under(alice, None).core.ready


def test_more_rooms_than_anybody_joined(alice: Person, bob: Person) -> None:
    marks = tuple(to_client.RoomMark(f"#room{number}", MANY) for number in range(1000))
    under(alice, replacing(to_client.Welcome, rooms=marks))
    bob.post("#lobby", "still here")
    under(alice, None)
    settle(alice, bob)
    assert alice.texts("#lobby") == ["still here"]
    assert alice.core.idle()


def history(*entries: to_client.RoomEntry, **fields: Any) -> Tamper:
    return replacing(to_client.HistoryPage, entries=entries, **fields)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda page: {"entries": page.entries[1:]},
        lambda page: {"entries": page.entries[::-1]},
        lambda page: {"entries": (page.entries[0],) * 3},
        lambda page: {"entries": page.entries[:1], "last": MANY},
        lambda page: {"entries": (), "last": MANY},
        lambda page: {"entries": (), "last": 0},
        lambda page: {"after": 0},
        lambda page: {"after": MANY},
        lambda page: {"after_hash": b"\x01" * 32},
        lambda page: {"room": "#other"},
        lambda page: {
            "entries": tuple(msgspec.structs.replace(e, room="#other") for e in page.entries)
        },
    ],
)
def test_pages_with_gaps_overlaps_and_other_rooms(
    alice: Person, bob: Person, spoil: Callable[[to_client.HistoryPage], dict[str, Any]]
) -> None:
    settle(alice, bob)
    alice.offline()
    for number in range(3):
        bob.post("#lobby", f"post {number}")
        settle(bob)

    def tamper(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.HistoryPage) and message.entries:
            message = msgspec.structs.replace(message, **spoil(message))
        yield message

    under(alice, tamper)
    seen = alice.texts("#lobby")
    assert seen == [f"post {number}" for number in range(len(seen))]
    under(alice, None)
    settle(alice, bob)
    assert alice.texts("#lobby") == [f"post {number}" for number in range(3)]
    assert alice.core.idle()


def test_a_page_that_says_it_begins_elsewhere_skips_nothing(alice: Person, bob: Person) -> None:
    """Joined again while in the room: the relay's word does not move us over what we miss."""
    settle(alice, bob)
    alice.offline()
    for number in range(5):
        bob.post("#lobby", f"post {number}")
        settle(bob)
    withheld = Withheld(alice, to_client.HistoryPage)

    def skip(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Joined):
            message = msgspec.structs.replace(message, after=MANY, after_hash=ZERO)
        yield from withheld(message)

    under(alice, skip)
    alice.ask(lambda ticket, now: alice.core.join("#lobby", ticket, now))
    withheld.release()
    settle(alice)
    assert alice.texts("#lobby") == [f"post {number}" for number in range(5)]


def test_own_entries_come_back_with_other_words(alice: Person, bob: Person) -> None:
    settle(alice, bob)

    def reworded(entry: to_client.RoomEntry) -> to_client.RoomEntry:
        words = entry.statement.replace(b"I agree", b"I never")
        return msgspec.structs.replace(entry, statement=words)

    def change(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.RoomEntry):
            message = reworded(message)
        if isinstance(message, to_client.HistoryPage):
            entries = tuple(map(reworded, message.entries))
            message = msgspec.structs.replace(message, entries=entries)
        yield message

    under(alice, change)
    alice.post("#lobby", "I agree")
    settle(alice, bob)
    assert alice.texts("#lobby") == ["I agree"]
    assert any("not shown" in notice for notice in alice.notices("#lobby"))


def test_an_entry_comes_before_the_word_that_it_was_posted(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    withheld = Withheld(alice, to_client.Posted)
    under(alice, withheld)
    line = alice.post("#lobby", "here already")
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.RELAYED
    withheld.release()
    settle(alice, bob)
    assert alice.texts("#lobby") == ["here already"] == bob.texts("#lobby")
    assert alice.core.idle() and alice.core.queued() == 0


def test_room_words_of_this_program_by_a_member(alice: Person, relay: MemoryRelay) -> None:
    """A relay may let somebody be called like the notices of this program."""
    ctx = alice.core._ctx
    keys = IdentityKeys.generate(relay.log_key.relay_id, "saltline", 1, ctx.random)
    created = create_entry(keys.identity, keys.identity_signature, relay.now_ms, keys.sign)
    page = to_client.AccountPage("saltline", 1, (created.encode(),))
    under(alice, replacing(to_client.LookedUp, accounts=(page,)))
    state = ctx.rooms.state("#lobby")
    assert state is not None
    words = RoomStatement(
        RoomKind.TEXT, bytes(16), relay.now_ms + 1, 0, EMPTY_HISTORY, b"Update at evil.example"
    ).encode()
    payload = room_payload(relay.log_key.relay_id, "#lobby", keys.identity.hash, words)
    inject(
        alice,
        to_client.RoomEntry(
            "#lobby", state.last + 1, "saltline", 1, shorten(words), keys.sign(payload)
        ),
    )
    settle(alice)
    assert alice.texts("#lobby") == []


def test_an_entry_that_has_seen_itself(alice: Person, bob: Person, relay: MemoryRelay) -> None:
    """Bob signs what the relay wants: that his entry stands in a history that nobody can check."""
    settle(alice, bob)
    state = alice.core._ctx.rooms.state("#lobby")
    assert state is not None
    me, number = bob.core._ctx.me, state.last + 1
    words = RoomStatement(
        RoomKind.TEXT, bytes(16), relay.now_ms + 1, number, b"\x01" * 32, b"I was here first"
    ).encode()
    payload = room_payload(relay.log_key.relay_id, "#lobby", me.identity.hash, words)
    entry = to_client.RoomEntry("#lobby", number, "bob", 1, words, me.sign(payload))

    def show(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Welcome):
            marks = (to_client.RoomMark("#lobby", number),)
            message = msgspec.structs.replace(message, rooms=marks)
        yield from history(entry, last=number)(message)

    under(alice, show)
    settle(alice)
    assert any("this room is split" in notice for notice in alice.notices("#lobby"))


@pytest.mark.parametrize("seen", [MANY, MANY + 1, 2**64 - 1])
def test_an_entry_that_has_seen_more_than_any_room_holds(
    alice: Person, bob: Person, seen: int
) -> None:
    settle(alice, bob)
    state = alice.core._ctx.rooms.state("#lobby")
    assert state is not None
    short = b"\x01" + bytes(16) + (1).to_bytes(8, "big") + seen.to_bytes(8, "big") + b"text"
    inject(alice, to_client.RoomEntry("#lobby", state.last + 1, "bob", 1, short, bytes(64)))
    bob.post("#lobby", "still here")
    settle(alice, bob)
    assert alice.texts("#lobby") == ["still here"] and alice.core.idle()


def test_a_member_cannot_have_all_others_ask_for_each_of_its_entries(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    """What nobody signed passes the relay, and is asked for whole: one question for many."""
    settle(alice, bob)
    pages: list[Heard] = []

    def count(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.HistoryPage):
            pages.append(message)
        yield message

    under(alice, count)
    pages.clear()
    for number in range(20):
        words = RoomStatement(
            RoomKind.TEXT,
            bytes([number] * 16),
            relay.now_ms + 100 + number,
            0,
            EMPTY_HISTORY,
            b"spam",
        ).encode()
        answer = ask_raw(bob, partial(Post, room="#lobby", statement=words, signature=bytes(64)))
        assert isinstance(answer, to_client.Posted)
        settle(alice, bob)
    assert len(pages) == 1 and not alice.core.idle()
    relay.now_ms += WHOLE_EVERY_MS
    bob.post("#lobby", "signed by bob")
    settle(alice, bob)
    alice.tick()
    settle(alice)
    assert len(pages) == 2 and alice.core.idle()
    assert alice.texts("#lobby") == ["signed by bob"]
    assert any("19 entries" in notice for notice in alice.notices("#lobby"))


def test_refused_entries_are_said_once_a_turn(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    alice.offline()
    for number in range(150):
        bob.post("#lobby", f"post {number}")
        settle(bob)

    def forge(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.HistoryPage):
            entries = tuple(
                msgspec.structs.replace(entry, signature=bytes(64)) for entry in message.entries
            )
            message = msgspec.structs.replace(message, entries=entries)
        yield message

    alice.tamper = forge
    alice.online()
    assert alice.texts("#lobby") == []
    (notice,) = alice.notices("#lobby")
    assert "150 entries" in notice and "not shown" in notice


def test_a_relay_from_an_old_backup_and_a_person_who_goes_on_with_it(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    """Numbers shrank: an alarm, nothing in silence, and a way on."""
    for number in range(3):
        bob.post("#lobby", f"before {number}")
    settle(alice, bob)
    alice.offline()
    bob.offline()
    relay.store.close()
    backup = (tmp_path / "relay.db").read_bytes()
    relay._start()
    bob.online()
    alice.online()
    for number in range(3):
        bob.post("#lobby", f"lost {number}")
    settle(alice, bob)
    alice.offline()
    bob.offline()
    relay.store.close()
    for name in ("relay.db-wal", "relay.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "relay.db").write_bytes(backup)
    relay._start()
    alice.online()
    bob.online()
    for person in (alice, bob):
        assert any("split" in notice for notice in person.notices("#lobby"))
        core = person.core
        assert person.ask(partial(core.leave, "#lobby")) is None
        assert person.ask(partial(core.join, "#lobby")) is None
    bob.post("#lobby", "after")
    settle(alice, bob)
    said = [f"before {n}" for n in range(3)] + [f"lost {n}" for n in range(3)] + ["after"]
    assert alice.texts("#lobby") == said == bob.texts("#lobby")
    assert len(alice.notices("#lobby")) == 1


def test_a_relay_cannot_have_a_split_room_begin_anew(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    """Who posts there is told to be no member, and joins again: nobody decided to go on with it."""
    bob.post("#lobby", "one")
    settle(alice, bob)
    alice.offline()
    bob.post("#lobby", "two")
    settle(bob)
    refused = False

    def begin_anew(message: Heard) -> Iterable[Heard]:
        nonlocal refused
        if isinstance(message, to_client.HistoryPage):
            message = msgspec.structs.replace(message, after_hash=ZERO)
        elif isinstance(message, to_client.Posted) and not refused:
            refused = True
            message = to_client.Error(message.id, "not_a_member", "Not a member.", 1000)
        elif isinstance(message, to_client.Joined):
            message = msgspec.structs.replace(message, after=100, after_hash=ZERO)
        if not isinstance(message, to_client.RoomEntry):
            yield message

    under(alice, begin_anew)
    alice.post("#lobby", "mine")
    settle(alice, bob)
    relay.now_ms += 2000
    alice.tick()
    settle(alice, bob)
    said = alice.notices("#lobby")
    assert len([notice for notice in said if "split" in notice]) == 1
    assert any("a gap of" in notice for notice in said)
    assert alice.core._parts.rooms.is_split("#lobby")
