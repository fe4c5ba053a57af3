"""A contact, or a stranger, whose program is their own."""

from pathlib import Path

import pytest

from saltline.client.model import Delivery, LineKind
from saltline.crypto.keylog import create_entry
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.session import Session
from saltline.protocol import to_client
from saltline.protocol.content import Content, Kind, Receipt, encode_content, encode_receipt
from saltline.server.administration import Code, ResetUser
from tests.client.conftest import Meet
from tests.client.hostile import (
    Withheld,
    bundle_of,
    forge,
    known_session,
    replacing,
    session_with,
    submit,
    under,
)
from tests.client.world import MemoryRelay, Person, settle

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def mallory(meet: Meet) -> Person:
    return meet("mallory")


def text(to: str, number: int, body: bytes = b"psst", seq: int = 0) -> Content:
    return Content(Kind.TEXT, number.to_bytes(16, "big"), to, seq, 0, b"", body)


def shown(person: Person, conversation: str) -> list[str]:
    return [line.body for line in person.lines(conversation) if line.kind is LineKind.TEXT]


def claiming_to_be(username: str, mallory: Person, recipient: str) -> bytes:
    """A first message under somebody else's name, with keys that no log holds."""
    me = mallory.core._ctx.me.identity
    random = mallory.core._ctx.random
    keys = IdentityKeys.generate(me.relay_id, username, 7, random)
    bundle = bundle_of(mallory, recipient)
    session = Session.initiate(keys, bundle, 1, mallory.now, random)
    return forge(mallory, session, text(recipient, 1))[1]


def test_a_stranger_who_takes_somebodys_name_does_not_change_their_order(
    alice: Person, bob: Person, mallory: Person, relay: MemoryRelay
) -> None:
    """Both began at once, and bob went on in alice's session: one of his waits, one need not."""
    withheld = Withheld(alice, to_client.Deliver)
    alice.offline()
    alice.tamper = withheld
    alice.online()
    submit(mallory, "alice", claiming_to_be("bob", mallory, "alice"))
    withheld_at_bob = Withheld(bob, to_client.Deliver)
    bob.offline()
    bob.tamper = withheld_at_bob
    bob.online()
    bob.send("alice", "one")
    settle(alice, bob)
    relay.now_ms += 1000
    alice.send("bob", "hello")
    settle(alice, bob)
    withheld_at_bob.release()
    settle(alice, bob)
    bob.send("alice", "two")
    settle(alice, bob)
    withheld.release()
    settle(alice, bob)
    assert shown(alice, "@bob") == ["hello", "one", "two"]
    assert alice.notices("@bob") == []


def test_a_session_that_is_pushed_out_and_begun_again_does_not_lock_anybody_out(
    meet: Meet, bob: Person
) -> None:
    """Six sessions while their sender is looked up: the lowest goes at once, and comes twice."""
    bob.offline()
    mallory = meet("mallory")
    for _ in range(10):  # no one-time prekeys are handed out any more
        session_with(mallory, "bob", 1)
    for number in range(5):
        session = session_with(mallory, "bob", mallory.now + number)
        submit(mallory, "bob", forge(mallory, session, text("bob", number))[1])
    lowest = session_with(mallory, "bob", 1)
    for number in (10, 11):
        lowest, envelope = forge(mallory, lowest, text("bob", number))
        submit(mallory, "bob", envelope)
    withheld = Withheld(bob, to_client.LookedUp)
    bob.tamper = withheld
    bob.online()
    withheld.release()
    settle(bob)
    assert bob.core.ready and bob.last_disconnect is None
    bob.offline()
    bob.online()
    assert bob.core.idle()
    mallory.send("bob", "and an honest one")
    settle(mallory, bob)
    assert shown(bob, "@mallory")[-1] == "and an honest one"


def test_what_is_addressed_to_somebody_else_is_not_shown(
    mallory: Person, alice: Person, bob: Person
) -> None:
    session = session_with(mallory, "bob", mallory.now)
    submit(mallory, "bob", forge(mallory, session, text("alice", 1))[1])
    settle(mallory, alice, bob)
    assert shown(bob, "@mallory") == [] and shown(bob, "@alice") == []
    assert any("addressed to somebody else" in notice for notice in bob.notices("@mallory"))


def test_an_envelope_that_is_passed_on_opens_for_nobody_else(
    mallory: Person, alice: Person, bob: Person
) -> None:
    alice.send("mallory", "between us")
    settle(mallory, alice)
    _, envelope = forge(alice, known_session(alice, "mallory"), text("mallory", 99))
    submit(mallory, "bob", envelope)
    settle(bob)
    assert shown(bob, "@alice") == [] and shown(bob, "@mallory") == []
    assert any("could not be opened" in notice for notice in bob.notices("@saltline"))


def test_receipts_act_only_on_what_was_sent_to_their_sender(
    mallory: Person, alice: Person, bob: Person
) -> None:
    line = alice.send("bob", "for bob")
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.RELAYED
    session = session_with(mallory, "alice", mallory.now)
    body = encode_receipt(Receipt((line.id,), True))
    content = Content(Kind.RECEIPT, bytes(16), "alice", 0, 0, b"", body)
    submit(mallory, "alice", forge(mallory, session, content)[1])
    settle(alice)
    assert alice.delivery(line) is Delivery.RELAYED


def test_nobody_overwrites_a_message_by_its_id(mallory: Person, bob: Person) -> None:
    session = session_with(mallory, "bob", mallory.now)
    for body in (b"I owe you ten", b"I owe you nothing"):
        session, envelope = forge(mallory, session, text("bob", 7, body))
        submit(mallory, "bob", envelope)
        settle(bob)
    assert shown(bob, "@mallory") == ["I owe you ten"]


@pytest.mark.parametrize(
    "content",
    [
        Content(Kind.RECEIPT, bytes(16), "bob", 0, 0, b"", b"\xc1"),
        Content(Kind.RECEIPT, bytes(16), "bob", 0, 0, b"", b"\x92\x90\xc3"),
        Content(Kind.TEXT, bytes(16), "bob", 0, 0, b"", b"\xff\xfe"),
        Content(Kind.TEXT, bytes(16), "bob", 0, 0, b"", b"x" * 65_537),
        Content(Kind.TEXT, bytes(16), "bob", 2**63 - 1, 2**63 - 1, bytes(128), b"\x00\x1b]0;x\x07"),
        Content(Kind.RESYNC, bytes(16), "bob", 2**63 - 1, 0, b"", b"\x90"),
        Content(255, bytes(16), "bob", 1, 2**63 - 1, b"", b"x" * 200_000),
    ],
)
def test_odd_contents_harm_nobody(mallory: Person, bob: Person, content: Content) -> None:
    session = session_with(mallory, "bob", mallory.now)
    for _ in range(2):
        session, envelope = forge(mallory, session, content)
        submit(mallory, "bob", envelope)
    mallory.send("bob", "hello")
    settle(mallory, bob)
    assert bob.core.ready and bob.last_disconnect is None
    assert shown(bob, "@mallory")[-1] == "hello"
    assert bob.core.idle()


def test_a_key_that_was_ended_speaks_for_nobody(
    meet: Meet, alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    """A thief has bob's old computer; bob's key was reset, and alice knows."""
    alice.send("bob", "hello")
    bob.send("alice", "hello too")
    settle(alice, bob)
    stolen = known_session(bob, "alice")
    code = relay.admin(ResetUser("bob", relay.now_ms + 60_000))
    assert isinstance(code, Code)
    bob.offline()
    new_bob = Person(relay, tmp_path / "bob2", "bob", code.code).online()
    new_bob.send("alice", "this is my new key")
    settle(alice, new_bob)
    thief = meet("thief")
    words = encode_content(text("alice", 1, b"send money"))
    _, envelope = stolen.encrypt(words, thief.core._ctx.random)
    submit(thief, "alice", envelope)
    settle(alice)
    assert "send money" not in shown(alice, "@bob")
    assert any("a key of bob that was ended" in notice for notice in alice.notices("@bob"))
    settle(alice, new_bob)
    assert "this is my new key" in shown(alice, "@bob")


@pytest.mark.parametrize("name", ["bob", "saltline", "Not!A!Name", "nobody-here"])
def test_keys_that_no_log_knows_speak_for_nobody(mallory: Person, bob: Person, name: str) -> None:
    ctx = mallory.core._ctx
    keys = IdentityKeys.generate(ctx.me.identity.relay_id, name, 7, ctx.random)
    bundle = bundle_of(mallory, "bob")
    session = Session.initiate(keys, bundle, mallory.now, mallory.now, ctx.random)
    submit(mallory, "bob", forge(mallory, session, text("bob", 1))[1])
    settle(bob)
    assert shown(bob, f"@{name}") == []
    assert any("could not be opened" in notice for notice in bob.notices("@saltline"))
    assert bob.core.idle() and bob.last_disconnect is None


def test_nobody_speaks_as_this_program_whatever_the_relay_shows(
    mallory: Person, bob: Person
) -> None:
    """The relay has an account of its name for whoever asks."""
    ctx = mallory.core._ctx
    keys = IdentityKeys.generate(ctx.me.identity.relay_id, "saltline", 7, ctx.random)
    entry = create_entry(keys.identity, keys.identity_signature, mallory.now, keys.sign)
    page = to_client.AccountPage("saltline", 1, (entry.encode(),))
    under(bob, replacing(to_client.LookedUp, accounts=(page,)))
    session = Session.initiate(
        keys, bundle_of(mallory, "bob"), mallory.now, mallory.now, ctx.random
    )
    submit(mallory, "bob", forge(mallory, session, text("bob", 1, b"your passphrase, please"))[1])
    settle(bob)
    assert shown(bob, "@saltline") == []
    assert any("could not be opened" in notice for notice in bob.notices("@saltline"))


def test_what_does_not_open_is_said_once_an_hour(
    mallory: Person, bob: Person, relay: MemoryRelay
) -> None:
    for _ in range(5):
        submit(mallory, "bob", b"sealed for nobody")
        settle(bob)
    assert len(bob.notices("@saltline")) == 1
    relay.now_ms += 3_600_000
    submit(mallory, "bob", b"sealed for nobody")
    settle(bob)
    _, again = bob.notices("@saltline")
    assert again.startswith("5 messages from the relay could not be opened")


def test_who_is_no_contact_is_not_even_named(alice: Person, mallory: Person, bob: Person) -> None:
    bob.ask(lambda ticket, now: bob.core.fetch_contact("alice", ticket, now))
    bundle = bundle_of(mallory, "bob")
    bob.vault.run("DELETE FROM prekeys WHERE kind = 1")  # as if the setup named one that never was
    posing = Session.initiate(
        alice.core._ctx.me, bundle, mallory.now, mallory.now, mallory.core._ctx.random
    )
    submit(mallory, "bob", posing.encrypt(b"who am I?", mallory.core._ctx.random)[1])
    settle(bob)
    assert bob.notices("@alice") == []
    assert any("could not be opened" in notice for notice in bob.notices("@saltline"))


def test_anybody_may_name_a_contact_in_a_setup_and_is_heard_once_an_hour(
    alice: Person, mallory: Person, bob: Person, relay: MemoryRelay
) -> None:
    alice.send("bob", "hello")
    settle(alice, bob)
    bob.send("alice", "hello")
    settle(alice, bob)
    bundle = bundle_of(mallory, "bob")
    bob.vault.run("DELETE FROM prekeys WHERE kind = 1")  # as if the setup named one that never was
    before = len(bob.notices("@alice"))
    for _ in range(5):
        posing = Session.initiate(
            alice.core._ctx.me, bundle, mallory.now, mallory.now, mallory.core._ctx.random
        )
        _, envelope = posing.encrypt(b"who am I?", mallory.core._ctx.random)
        submit(mallory, "bob", envelope)
        settle(bob)
    assert len(bob.notices("@alice")) == before + 1
    assert "claims to be alice" in bob.notices("@alice")[-1]
    assert bob.vault.value("SELECT count(*) FROM failed") == 0
    alice.send("bob", "still here")
    settle(alice, bob)
    assert bob.texts("@alice")[-1] == "still here"
    relay.now_ms += 3_600_000
    submit(mallory, "bob", envelope)
    settle(bob)
    assert len(bob.notices("@alice")) == before + 2
