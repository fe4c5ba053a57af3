"""Whose keys are these? Lookups that come late, by halves, not at all, or with lies."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from saltline.client.model import Delivery, LineKind
from saltline.crypto.keylog import create_entry
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import RoomStatement, room_payload
from saltline.protocol import to_client
from saltline.protocol.content import RoomKind
from saltline.server.administration import Code, ResetUser
from tests.client.conftest import Meet
from tests.client.hostile import Withheld, inject, refusing, under
from tests.client.test_conversation import reset
from tests.client.world import MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

MINUTE_MS = 60_000


def withholding_lookups(person: Person) -> Withheld:
    person.offline()
    withheld = Withheld(person, to_client.LookedUp)
    person.tamper = withheld
    person.online()
    return withheld


# --- rooms ----------------------------------------------------------------------------------------


def test_two_newcomers_speak_while_the_first_is_looked_up(meet: Meet, alice: Person) -> None:
    withheld = withholding_lookups(alice)
    carol, dave = meet("carol"), meet("dave")
    carol.post("#lobby", "I am carol")
    dave.post("#lobby", "I am dave")
    settle(alice, carol, dave)
    assert alice.texts("#lobby") == []
    withheld.release()
    settle(alice)
    assert alice.texts("#lobby") == ["I am carol", "I am dave"]
    assert alice.notices("#lobby") == []
    assert alice.core.idle()


def test_a_member_with_a_new_key_is_still_heard_in_rooms(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    bob.post("#lobby", "with the old key")
    settle(alice, bob)
    code = relay.admin(ResetUser("bob", relay.now_ms + MINUTE_MS))
    assert isinstance(code, Code)
    bob.offline()
    new_bob = Person(relay, tmp_path / "bob2", "bob", code.code).online()
    new_bob.post("#lobby", "with the new key")
    settle(alice, new_bob)
    assert alice.texts("#lobby") == ["with the old key", "with the new key"]
    assert alice.notices("#lobby") == []
    assert any("bob's key changed" in notice for notice in alice.notices("@bob"))


def test_a_lookup_that_is_refused_does_not_make_an_author_a_forger(
    meet: Meet, alice: Person, relay: MemoryRelay
) -> None:
    alice.offline()
    carol = meet("carol")
    carol.post("#lobby", "I am carol")
    settle(carol)
    alice.tamper = refusing(to_client.LookedUp, "rate_limited")
    alice.online()
    assert alice.texts("#lobby") == [] and alice.notices("#lobby") == []
    relay.now_ms += MINUTE_MS
    alice.tick()
    settle(alice)
    assert alice.texts("#lobby") == ["I am carol"]
    assert alice.notices("#lobby") == []


def test_history_that_is_refused_is_asked_for_again(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    settle(alice, bob)
    alice.offline()
    bob.post("#lobby", "meanwhile")
    settle(bob)
    alice.tamper = refusing(to_client.HistoryPage, "storage_failed")
    alice.online()
    assert alice.texts("#lobby") == []
    relay.now_ms += MINUTE_MS
    alice.tick()
    settle(alice)
    assert alice.texts("#lobby") == ["meanwhile"]


# --- private messages -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["rate_limited", "storage_failed", "link_lost", "no_answer"])
def test_a_strangers_first_message_outlives_a_refused_lookup(
    meet: Meet, bob: Person, relay: MemoryRelay, code: str
) -> None:
    bob.offline()
    carol = meet("carol")
    carol.send("bob", "we have not met")
    settle(carol)
    bob.tamper = refusing(to_client.LookedUp, code)
    bob.online()
    relay.now_ms += MINUTE_MS
    bob.tick()
    settle(bob)
    assert bob.texts("@carol") == ["we have not met"]
    assert bob.notices("@saltline") == []
    assert bob.core.idle()


def test_names_that_an_answer_left_out_are_asked_for_again(meet: Meet, alice: Person) -> None:
    people = [meet(f"person{number}") for number in range(5)]
    for person in people:
        person.offline()

    def one_at_a_time(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.LookedUp):
            message = msgspec.structs.replace(message, accounts=message.accounts[:1])
        yield message

    alice.offline()
    alice.tamper = one_at_a_time
    lines = [alice.send(person.name, "hello") for person in people]
    alice.online()
    settle(alice)
    assert {alice.delivery(line) for line in lines} == {Delivery.RELAYED}


def test_an_answer_without_any_name_is_not_asked_for_for_ever(alice: Person, bob: Person) -> None:
    asked = 0

    def nothing(message: Heard) -> Iterable[Heard]:
        nonlocal asked
        if isinstance(message, to_client.LookedUp):
            asked += 1
            message = msgspec.structs.replace(message, accounts=())
        yield message

    alice.offline()
    alice.tamper = nothing
    line = alice.send("bob", "hello")
    alice.online()
    settle(alice)
    assert asked < 5
    assert alice.delivery(line) is Delivery.QUEUED
    alice.offline()
    alice.tamper = None
    alice.online()
    settle(alice, bob)
    assert bob.texts("@alice") == ["hello"]


def test_a_message_that_comes_twice_while_its_sender_is_looked_up(meet: Meet, bob: Person) -> None:
    withheld = withholding_lookups(bob)
    carol = meet("carol")
    carol.send("bob", "once")
    settle(carol, bob)
    (parked,) = [each for waiting in bob.core._parts.incoming._parked.values() for each in waiting]
    again = msgspec.structs.replace(parked[0], number=parked[0].number + 7)
    inject(bob, again)
    withheld.release()
    settle(bob)
    assert bob.texts("@carol") == ["once"]
    assert bob.notices("@carol") == [] and bob.notices("@saltline") == []


# --- ourselves ------------------------------------------------------------------------------------


def test_the_relay_shows_another_key_under_our_own_name(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    """Entries that such a key signs would be shown as our own words."""
    settle(alice, bob)
    thief = IdentityKeys.generate(relay.log_key.relay_id, "alice", 1, alice.core._ctx.random)
    entry = create_entry(thief.identity, thief.identity_signature, relay.now_ms, thief.sign)

    def lie(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.LookedUp):
            pages = tuple(
                to_client.AccountPage("alice", 1, (entry.encode(),))
                if page.username == "alice"
                else page
                for page in message.accounts
            )
            message = msgspec.structs.replace(message, accounts=pages)
        yield message

    alice.offline()
    with alice.vault.transaction():
        alice.vault.run("DELETE FROM entries WHERE username = 'alice'")
    alice.crash()
    alice.tamper = lie
    alice.online()
    state = alice.core._ctx.rooms.state("#lobby")
    assert state is not None
    time_ms = relay.now_ms + 1
    words = RoomStatement(
        RoomKind.TEXT, bytes(16), time_ms, state.last, state.hash, b"I never said this"
    ).encode()
    payload = room_payload(relay.log_key.relay_id, "#lobby", thief.identity.hash, words)
    forged = to_client.RoomEntry("#lobby", state.last + 1, "alice", 2, words, thief.sign(payload))
    inject(alice, forged)
    settle(alice)
    assert "I never said this" not in alice.texts("#lobby")
    assert any("your own account" in notice for notice in alice.notices("@saltline"))
    assert [line.kind for line in alice.lines("#lobby")][-1] is LineKind.ALERT


def test_what_was_on_its_way_when_its_device_ended_is_no_forgery(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    settle(alice, bob)
    withheld = Withheld(alice, to_client.RoomEntry)
    under(alice, withheld)
    bob.post("#lobby", "my last words on this computer")
    settle(alice, bob)
    new_bob = reset(relay, bob, tmp_path / "bob2")
    alice.send("bob", "are you there?")
    settle(alice, new_bob)
    assert any("bob's key changed" in notice for notice in alice.notices("@bob"))
    withheld.release()
    settle(alice, new_bob)
    assert alice.texts("#lobby") == ["my last words on this computer"]
    assert not any("not signed" in notice for notice in alice.notices("#lobby"))
