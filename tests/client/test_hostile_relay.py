"""A relay that lies: the client says so, sends nothing in the clear, loses nothing it had."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from saltline.client.model import ConnectionState, Delivery, LineKind
from saltline.client.rooms import WHOLE_EVERY_MS
from saltline.crypto.keylog import LogKey
from saltline.protocol import to_client
from tests.client.conftest import Meet
from tests.client.world import SPKI, MemoryRelay, Person, settle
from tests.pushes import Heard


def talk(alice: Person, bob: Person) -> None:
    alice.send("bob", "hello")
    settle(alice, bob)
    bob.send("alice", "hello too")
    settle(alice, bob)


def test_another_persons_key_in_a_bundle(meet: Meet, alice: Person, bob: Person) -> None:
    mallory = meet("mallory")
    bundles: list[to_client.Claimed] = []

    def steal(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Claimed):
            bundles.append(message)
        yield message

    mallory.offline()
    alice.offline()
    spy = meet("spy")
    spy.offline()
    spy.tamper = steal
    spy.online()
    spy.send("mallory", "give me your bundle")
    settle(spy)
    (stolen,) = bundles

    def swap(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Claimed):
            message = msgspec.structs.replace(stolen, id=message.id)
        yield message

    alice.tamper = swap
    alice.online()
    line = alice.send("bob", "for bob alone")
    settle(alice)
    assert alice.delivery(line) is Delivery.FAILED
    assert "another key for bob" in alice.reason(line)
    assert any("not bob's" in notice for notice in alice.notices("@bob"))
    mallory.online()
    assert mallory.texts("@alice") == []

    alice.offline()
    alice.tamper = None
    alice.online()
    alice.perform(alice.core.retry(line.row, alice.now))
    settle(alice, bob)
    assert bob.texts("@alice") == ["for bob alone"]


def test_other_entries_for_a_known_name(meet: Meet, alice: Person, bob: Person) -> None:
    talk(alice, bob)
    mallory = meet("mallory")
    seen: list[to_client.LookedUp] = []

    def keep(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.LookedUp):
            seen.append(message)
        yield message

    mallory.offline()
    alice.offline()
    alice.tamper = keep
    alice.online()
    alice.ask(lambda t, now: alice.core.fetch_contact("mallory", t, now))
    forged = seen[-1].accounts[0].entries

    def lie(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.LookedUp):
            page = to_client.AccountPage("bob", 1, forged)
            message = msgspec.structs.replace(message, accounts=(page,))
        yield message

    alice.offline()
    alice.tamper = lie
    alice.online()
    alice.ask(lambda t, now: alice.core.fetch_contact("bob", t, now))
    assert any("do not follow" in notice for notice in alice.notices("@bob"))
    alice.offline()
    alice.tamper = None
    alice.online()
    line = alice.send("bob", "still you?")
    settle(alice, bob)
    assert bob.texts("@alice")[-1] == "still you?"
    assert alice.delivery(line) is Delivery.DELIVERED


def test_a_replayed_and_a_reordered_mailbox(alice: Person, bob: Person) -> None:
    talk(alice, bob)
    bob.offline()
    kept: list[to_client.Deliver] = []

    def shuffle(message: Heard) -> Iterable[Heard]:
        """Deliveries last come first, and everything comes twice."""
        if isinstance(message, to_client.Deliver):
            kept.append(message)
            return
        if isinstance(message, to_client.CaughtUp):
            for each in reversed(kept):
                yield each
                yield msgspec.structs.replace(each, number=each.number + 1000)
        yield message

    for number in range(5):
        alice.send("bob", f"text {number}")
    settle(alice)
    bob.tamper = shuffle
    bob.online()
    received = [text for text in bob.texts("@alice") if text.startswith("text")]
    assert sorted(received) == [f"text {number}" for number in range(5)]
    assert any("gap of 4 messages" in notice for notice in bob.notices("@alice"))
    bob.offline()
    bob.tamper = lambda message: [*kept[:5], message]
    bob.online()
    assert len([text for text in bob.texts("@alice") if text.startswith("text")]) == 5


def test_garbage_in_the_mailbox_is_said_and_acknowledged(alice: Person, bob: Person) -> None:
    talk(alice, bob)
    bob.offline()

    def spoil(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Deliver):
            yield msgspec.structs.replace(message, envelope=b"garbage")
            yield msgspec.structs.replace(message, envelope=message.envelope[:-1] + b"\x00")
        yield message

    alice.send("bob", "in between")
    settle(alice)
    bob.tamper = spoil
    bob.online()
    assert bob.texts("@alice")[-1] == "in between"
    assert any("could not be opened" in notice for notice in bob.notices("@saltline"))
    assert bob.core.idle()


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91\xa7unknown", b"\x93" * 1000, b"\x92\xa7deliver\xff"]
)
def test_bytes_that_are_no_message_end_the_connection(
    alice: Person, bob: Person, body: bytes
) -> None:
    talk(alice, bob)
    alice.perform(alice.core.received([body], alice.now))
    assert alice.link is None
    assert alice.last_disconnect is not None and alice.last_disconnect.retry
    assert "nothing was lost" in alice.last_disconnect.detail
    alice.online()
    alice.send("bob", "and on")
    settle(alice, bob)
    assert bob.texts("@alice")[-1] == "and on"


def test_another_relay_at_the_same_address(alice: Person, tmp_path: Path) -> None:
    alice.offline()
    (tmp_path / "other").mkdir()
    other = MemoryRelay(tmp_path / "other")
    other.log_key = LogKey.generate(lambda n: bytes(range(1, n + 1)))
    other.store.close()
    (tmp_path / "other" / "relay.db").unlink()
    other._start()
    alice.relay = other
    alice.online()
    assert not alice.core.ready and alice.last_disconnect is not None
    assert alice.last_disconnect.state is ConnectionState.REFUSED
    assert "Another relay answers" in alice.last_disconnect.detail
    assert not alice.last_disconnect.retry


def test_a_certificate_that_the_log_key_did_not_sign(alice: Person) -> None:
    alice.offline()
    alice.perform(alice.core.link_up(bytes(32), alice.now))
    alice.online()
    assert alice.core.ready

    def forge(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Challenge):
            message = msgspec.structs.replace(message, certificate_signature=bytes(64))
        yield message

    alice.offline()
    alice.tamper = forge
    alice.online()
    assert not alice.core.ready and alice.last_disconnect is not None
    assert "did not sign this certificate" in alice.last_disconnect.detail
    assert SPKI.hex() not in alice.last_disconnect.detail


def test_who_has_not_proved_to_be_our_relay_ends_no_device(alice: Person, bob: Person) -> None:
    """Before the challenge, whoever an authority vouches for may be at the other end."""
    alice.offline()
    line = alice.send("bob", "it waits")

    def end(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Challenge):
            yield to_client.Error(0, "removed", "This device was ended.", 0)
        else:
            yield message

    alice.tamper = end
    alice.online()
    assert alice.last_disconnect is not None
    assert alice.delivery(line) is Delivery.QUEUED
    alice.tamper = None
    alice.online()
    settle(alice, bob)
    assert bob.texts("@alice") == ["it waits"]


def test_a_message_out_of_turn(alice: Person) -> None:
    alice.offline()
    early = to_client.Deliver(1, 1, b"x")

    def interrupt(message: Heard) -> Iterable[Heard]:
        yield early
        yield message

    alice.tamper = interrupt
    alice.online()
    assert not alice.core.ready and alice.last_disconnect is not None
    assert "out of turn" in alice.last_disconnect.detail


def test_answers_to_nothing_change_nothing(alice: Person, bob: Person) -> None:
    talk(alice, bob)
    before = alice.lines("@bob")
    zero = bytes(32)
    from saltline.protocol.messages import encode_message

    for answer in (
        to_client.Submitted(4_000_000),
        to_client.Posted(4_000_001, "#lobby", 99),
        to_client.Joined(4_000_002, "#lobby", 5, 0, zero),
        to_client.HistoryPage(4_000_003, "#lobby", 0, zero, 0, ()),
        to_client.LookedUp(4_000_004, ()),
        to_client.Error(4_000_005, "name_taken", "x", 0),
        to_client.Pong(4_000_006),
    ):
        alice.perform(alice.core.received([encode_message(answer)], alice.now))
    assert alice.core.ready and alice.lines("@bob") == before


def test_messages_withheld_before_the_first_that_arrives_show(alice: Person, bob: Person) -> None:
    """A first message that expired looks the same."""
    withheld: list[Heard] = []

    def withhold(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Deliver) and len(withheld) < 2:
            withheld.append(message)
        else:
            yield message

    bob.offline()
    for number in range(4):
        alice.send("bob", f"text {number}")
    settle(alice)
    bob.tamper = withhold
    bob.online()
    settle(alice, bob)
    assert bob.texts("@alice") == ["text 2", "text 3"]
    assert any("a gap of 2 messages from alice" in each for each in bob.notices("@alice"))


def in_entries(message: Heard, **changed: Any) -> Heard:
    """Every room entry, pushed or of history, with other fields."""
    if isinstance(message, to_client.RoomEntry):
        return msgspec.structs.replace(message, **changed)
    if isinstance(message, to_client.HistoryPage):
        entries = tuple(msgspec.structs.replace(each, **changed) for each in message.entries)
        return msgspec.structs.replace(message, entries=entries)
    return message


def test_a_pushed_entry_that_was_tampered_with_is_fetched_whole(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    alice.offline()
    alice.tamper = lambda m: [
        in_entries(m, signature=bytes(64)) if isinstance(m, to_client.RoomEntry) else m
    ]
    alice.online()
    bob.post("#lobby", "signed by bob")
    settle(alice, bob)
    assert alice.texts("#lobby") == ["signed by bob"]
    assert not any("not signed" in notice for notice in alice.notices("#lobby"))


def test_so_is_one_that_waited_for_its_authors_key(
    meet: Meet, alice: Person, relay: MemoryRelay
) -> None:
    """Or a relay that split the room could pass off a stranger's other history as a forgery."""
    alice.offline()
    alice.tamper = lambda m: [
        in_entries(m, signature=bytes(64)) if isinstance(m, to_client.RoomEntry) else m
    ]
    alice.online()
    carol = meet("carol")
    settle(alice, carol)
    carol.post("#lobby", "signed by carol")
    settle(alice, carol)
    relay.now_ms += WHOLE_EVERY_MS
    alice.tick()
    settle(alice)
    assert alice.texts("#lobby") == ["signed by carol"]
    assert not any("not signed" in notice for notice in alice.notices("#lobby"))


def test_room_entries_that_nobody_signed_are_not_shown(alice: Person, bob: Person) -> None:
    settle(alice, bob)

    def forge(message: Heard) -> Iterable[Heard]:
        yield in_entries(message, signature=bytes(64))

    alice.offline()
    alice.tamper = forge
    alice.online()
    bob.post("#lobby", "signed by bob")
    settle(alice, bob)
    assert "signed by bob" not in alice.texts("#lobby")
    assert any("not signed by the author" in notice for notice in alice.notices("#lobby"))


def test_an_entry_under_another_name_is_not_shown(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    alice.offline()

    def rename(message: Heard) -> Iterable[Heard]:
        yield in_entries(message, username="alice")

    alice.tamper = rename
    alice.online()
    bob.post("#lobby", "as alice")
    settle(alice, bob)
    assert "as alice" not in alice.texts("#lobby")
    assert any("not signed by the author" in notice for notice in alice.notices("#lobby"))


def test_a_room_that_is_split_shows(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    bob.post("#lobby", "one")
    settle(alice, bob)

    def hide(message: Heard) -> Iterable[Heard]:
        """Numbers go on, and one entry is another than bob's."""
        if isinstance(message, to_client.HistoryPage):
            message = msgspec.structs.replace(message, after_hash=bytes(32))
        if isinstance(message, to_client.RoomEntry):
            return
        yield message

    alice.offline()
    alice.tamper = hide
    bob.post("#lobby", "two")
    settle(bob)
    alice.online()
    settle(alice, bob)
    assert any("this room is split" in notice for notice in alice.notices("#lobby"))
    assert alice.texts("#lobby") == ["one"]


def test_a_room_whose_history_shrank_shows(alice: Person, bob: Person) -> None:
    bob.post("#lobby", "one")
    settle(alice, bob)

    def shrink(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Welcome):
            message = msgspec.structs.replace(message, rooms=(to_client.RoomMark("#lobby", 1),))
        yield message

    alice.offline()
    alice.tamper = shrink
    alice.online()
    assert any("this room is split" in notice for notice in alice.notices("#lobby"))
    assert [line.kind for line in alice.lines("#lobby")][-1] is LineKind.ALERT
