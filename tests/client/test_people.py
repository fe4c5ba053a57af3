"""What is decided about people, and about ourselves."""

from pathlib import Path

import pytest

from saltline.client.model import Delivery, ExitCode, Refused
from saltline.client.vault import views
from saltline.protocol import to_client, to_relay
from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.protocol.messages import decode_client_message, encode_message
from saltline.server.administration import RemoveUser
from tests.client.hostile import Withheld, inject, replacing, under
from tests.client.world import SPKI, Link, MemoryRelay, Person, settle
from tests.server.relay_harness import DAY_MS


def test_nobody_decides_about_themselves(alice: Person) -> None:
    for decide in (alice.core.block, alice.core.unblock, alice.core.accept):
        with pytest.raises(Refused, match="That is you"):
            decide("alice", alice.now)
    assert views.contacts(alice.vault) == []
    assert [s.name for s in views.conversations(alice.vault)] == ["#lobby"]


@pytest.mark.parametrize("number", ["12345", "x" * 60, "", "1" * 61, "\u0661" * 60])
def test_a_number_that_is_none_is_no_attack(alice: Person, bob: Person, number: str) -> None:
    alice.send("bob", "hello")
    settle(alice, bob)
    with pytest.raises(Refused, match="A safety number has 60 digits") as refused:
        alice.core.verify("bob", number, alice.now)
    assert refused.value.code is ExitCode.USAGE


def test_somebody_who_does_not_exist_is_no_contact(alice: Person) -> None:
    line = alice.send("nobody-here", "hello?")
    settle(alice)
    assert alice.delivery(line) is Delivery.FAILED
    assert views.contacts(alice.vault) == []


def test_what_a_block_refused_is_no_gap(alice: Person, bob: Person) -> None:
    alice.send("bob", "one")
    settle(alice, bob)
    bob.perform(bob.core.block("alice", bob.now))
    alice.send("bob", "unheard")
    settle(alice, bob)
    bob.perform(bob.core.unblock("alice", bob.now))
    alice.send("bob", "three")
    settle(alice, bob)
    assert bob.texts("@alice") == ["one", "three"]
    assert bob.notices("@alice") == []


def test_a_message_that_was_sent_again_leaves_no_gap(alice: Person, bob: Person) -> None:
    """The relay had it and said the opposite; its sender sends it again."""
    alice.send("bob", "one")
    settle(alice, bob)
    under(alice, Withheld(alice, to_client.Submitted))
    line = alice.send("bob", "two")
    settle(alice, bob)
    inject(alice, to_client.Error(0, "removed", "Gone.", 0))
    assert alice.delivery(line) is Delivery.FAILED
    under(alice, None)
    alice.perform(alice.core.retry(line.row, alice.now))
    alice.send("bob", "three")
    settle(alice, bob)
    assert bob.texts("@alice") == ["one", "two", "three"]
    assert bob.notices("@alice") == []


def test_an_ended_device_sends_nothing_and_says_what_to_do(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    alice.offline()
    private, public = alice.send("bob", "before I knew"), alice.post("#lobby", "before I knew")
    relay.admin(RemoveUser("alice"))
    alice.online()
    assert not alice.core.ready
    for line in (private, public):
        assert alice.delivery(line) is Delivery.FAILED
        assert "reset code" in alice.reason(line)
    with pytest.raises(Refused, match="this device was ended.*reset code") as refused:
        alice.send("bob", "can I?")
    assert refused.value.code is ExitCode.NOT_TRUSTED
    with pytest.raises(Refused, match="this device was ended"):
        alice.post("#lobby", "can I?")
    for line in (private, public):
        with pytest.raises(Refused, match="this device was ended"):
            alice.core.retry(line.row, alice.now)
        assert alice.delivery(line) is Delivery.FAILED
    assert alice.core.queued() == 0


def test_a_relay_that_was_wrong_about_the_end_is_believed_again(alice: Person) -> None:
    with alice.vault.transaction():
        alice.vault.set_meta("ended", 1)
    alice.offline()
    alice.online()
    assert alice.post("#lobby", "still here").delivery is Delivery.QUEUED


class Wrong(Link):
    """A relay that takes no envelope, as if it knew a device no more: its own or the other's."""

    def __init__(self, relay: MemoryRelay, code: str) -> None:
        none = to_client.AccountPage("alice", 0, ())
        super().__init__(relay, replacing(to_client.LookedUp, accounts=(none,)))
        self._code = code
        self._refusals: list[bytes] = []

    def send(self, data: bytes) -> None:
        for body in FrameDecoder().feed(data):
            message = decode_client_message(body)
            if isinstance(message, to_relay.Submit):
                number = 0 if self._code == "removed" else message.id
                refusal = to_client.Error(number, self._code, "Not known.", 0)
                self._refusals.append(encode_message(refusal))
            else:
                super().send(encode_frame(body))

    def take(self) -> list[bytes]:
        refusals, self._refusals = self._refusals, []
        return super().take() + refusals


@pytest.mark.parametrize("code", ["removed", "unknown_device"])
def test_a_receipt_outlives_a_relay_that_was_wrong(
    alice: Person, bob: Person, relay: MemoryRelay, code: str
) -> None:
    """A message that fails can be sent again by hand; of a receipt nobody would ever know."""
    alice.send("bob", "one")
    settle(alice, bob)
    bob.send("alice", "two")
    settle(alice, bob)
    bob.offline()
    line = alice.send("bob", "three")
    settle(alice)
    bob.link = Wrong(relay, code)
    bob.perform(bob.core.link_up(SPKI, bob.now))
    settle(bob)
    assert bob.texts("@alice") == ["one", "two", "three"]
    assert bob.core._ctx.outbox.count(receipts=True) == 0
    assert alice.delivery(line) is Delivery.RELAYED
    under(bob, None)
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.DELIVERED
    assert alice.notices("@bob") == []


def test_what_nobody_fetched_for_thirty_days_is_gone_and_its_mark_stays(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    bob.offline()
    line = alice.send("bob", "are you still there?")
    settle(alice)
    alice.offline()
    relay.advance(1_000)
    relay.advance(30 * DAY_MS + 60_000)

    bob.online()
    alice.online()
    settle(alice, bob)

    assert bob.texts("@alice") == []
    assert alice.delivery(line) is Delivery.RELAYED
