"""A relay that says anything at any time: nothing leaves the core but commands, nothing is lost."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from saltline.client.commands import Answer, Disconnect, Emit, Transmit
from saltline.client.model import Delivery
from saltline.client.vault import views
from saltline.protocol import to_client
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import RelayMessage
from tests.client.conftest import Meet
from tests.client.hostile import Withheld
from tests.client.world import SPKI, Link, Person, settle
from tests.protocol.wire_values import RELAY_STRUCTS, elements, good, largest, struct_type

pytestmark = pytest.mark.usefixtures("quick")

SOMEBODY_ELSES = 2**32 - 1


def offline(alice: Person) -> None:
    alice.offline()


def hello_sent(alice: Person) -> None:
    """The challenge is on its way."""
    alice.offline()
    alice.tamper = lambda message: []
    alice.link = Link(alice.relay, alice.tamper)
    alice.perform(alice.core.link_up(SPKI, alice.now))


def logging_in(alice: Person) -> None:
    """The welcome is on its way."""
    alice.offline()
    alice.tamper = Withheld(alice, to_client.Welcome)
    alice.online()
    assert not alice.core.ready


def logged_in(alice: Person) -> None:
    alice.offline()
    alice.tamper = None
    alice.online()
    assert alice.core.ready


def asking(alice: Person) -> None:
    """Every question is open: nothing is answered any more."""
    logged_in(alice)
    assert alice.link is not None
    alice.link._tamper = lambda message: []
    number = len(alice.answers) + 1000
    alice.send("carol", "to somebody new")
    alice.perform(alice.core.join(f"#room-{number}", number, alice.now))
    alice.perform(alice.core.who("#lobby", number + 1, alice.now))
    alice.perform(alice.core.list_rooms(number + 2, alice.now))
    alice.perform(alice.core.fetch_contact("bob", number + 3, alice.now))
    assert len(alice.core._ctx._pending) >= 4


def hung_up(alice: Person) -> None:
    """The core has said that it leaves; what comes now came too late."""
    logged_in(alice)
    alice.core.received([b"\xc1"], alice.now)


STATES: dict[str, Callable[[Person], None]] = {
    "offline": offline,
    "hello sent": hello_sent,
    "logging in": logging_in,
    "logged in": logged_in,
    "asking": asking,
    "hung up": hung_up,
}


def bodies(struct: type[Any], numbers: list[int]) -> Iterator[bytes]:
    """A message with its fields smallest and largest, about names that are known or not."""
    kind = struct_type(struct)
    names = [field.name for field in kind.fields]
    sizes = ((good, "#lobby", "bob"), (lambda each: largest(each, 1), "", "mallory"))
    for value, room, user in sizes:
        fields = [value(field.type) for field in kind.fields]
        for number in numbers if "id" in names else [0]:
            known = {"id": number, "room": room, "username": user}
            array = [known.get(name, each) for name, each in zip(names, fields, strict=True)]
            yield msgspec.msgpack.encode(elements(kind, array))
    if struct is to_client.Error:
        for place, code in enumerate((*ErrorCode, "link_lost")):
            number = 0 if place % 2 == len(numbers) % 2 else numbers[0]
            array = elements(kind, [number, str(code), "\x1b[2J", 2**63 - 1])
            yield msgspec.msgpack.encode(array)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("struct", RELAY_STRUCTS, ids=lambda struct: str(struct.__name__))
def test_any_message_in_any_state(
    alice: Person, bob: Person, meet: Meet, state: str, struct: type[Any]
) -> None:
    meet("carol").offline()
    alice.send("bob", "an introduction")
    bob.send("alice", "an answer")
    settle(alice, bob)
    me = alice.core._ctx.account.identity
    STATES[state](alice)
    line = alice.send("bob", "not to be lost") if state != "asking" else None
    trusted = {name: views.contact(alice.vault, name).trust for name in ("bob", "mallory")}
    numbers = [*list(alice.core._ctx._pending)[:2], SOMEBODY_ELSES]
    for number, body in enumerate(bodies(struct, numbers)):
        if number:
            STATES[state](alice)
        commands = alice.core.received([body], alice.now)
        assert all(isinstance(each, Transmit | Disconnect | Emit | Answer) for each in commands)
        alice.perform(commands)
        assert {name: views.contact(alice.vault, name).trust for name in trusted} == trusted
        if state in ("offline", "hung up"):
            assert commands == [], "nobody is there who could have said it"
        if state in ("hello sent", "logging in") and struct is not to_client.Welcome:
            assert not alice.core.ready
    assert alice.core._ctx.account.identity == me
    logged_in(alice)
    for _ in range(3):
        alice.relay.now_ms += 61_000
        alice.tick()
        bob.tick()
        settle(alice, bob)
    assert alice.core.ready, "no honest relay helps any more"
    assert line is None or is_where_it_says(alice, bob, line, struct)
    last = alice.send("bob", "and on")
    settle(alice, bob)
    assert bob.texts("@alice")[-1] == "and on"
    assert alice.delivery(last) is Delivery.DELIVERED


def is_where_it_says(alice: Person, bob: Person, line: Any, struct: type[RelayMessage]) -> bool:
    """Shown once; or said to have failed; or taken for sent, since the relay said so."""
    shown = bob.texts("@alice").count("not to be lost")
    if shown or struct is to_client.Submitted:
        return shown <= 1
    return alice.delivery(line) is Delivery.FAILED and alice.reason(line) != ""
