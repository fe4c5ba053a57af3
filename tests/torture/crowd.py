"""Many who write and read through a relay that dies under them: real keys, envelopes that are not.

Each sender has one lane, to one recipient, and keeps what was not acknowledged: after every cut it
sends that again, in order, as a client does. Each recipient remembers what it has seen, as a client
does, so that what comes again is dropped; and checks every byte. What may not come again counts as
shown twice: what the relay has surely deleted, and one submission under two numbers.
"""

import random
import threading
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Final, Protocol, Self

import msgspec

from saltline.crypto.keys import IdentityKeys
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import CaughtUp, Deliver, Error, Submitted
from saltline.protocol.to_relay import Acknowledge, Submit
from tests.server.wire_client import WireClient
from tests.torture.ledger import Ledger

_ERROR: Final = msgspec.msgpack.encode("error")
_LOOK_UP_S: Final = 0.2
_PATIENCE_S: Final = 60.0
_AT_ONCE: Final = 0.99
# After so many acknowledgements a recipient makes sure that they are on the relay's disk.
_SURE_EVERY: Final = 20


class AnyRelay(Protocol):
    """Where it is, and whether it serves."""

    @property
    def port(self) -> int:
        """The same after every start."""

    @property
    def serving(self) -> threading.Event:
        """Set while clients can connect."""


class Cut(Exception):
    """The relay is gone, or goes; whatever was under way is not known."""


class Caller(WireClient):
    """A connection to a relay that may go at any moment, and says so or not."""

    excused: Collection[str] = ()
    takes_refusals = False  # of single requests, as answers

    def receive(self) -> bytes:
        """Raises Cut if it went or said so, AssertionError for any other refusal."""
        try:
            body = super().receive()
        except AssertionError:  # it closed the connection
            raise Cut from None
        if body[1:].startswith(_ERROR):
            error = decode_relay_message(body)
            assert isinstance(error, Error)
            if error.id and self.takes_refusals:
                return body
            assert error.code in self.excused, f"{error.code}: {error.detail}"
            raise Cut
        return body


def envelope_of(lane: str, number: int) -> bytes:
    """What stands for a sealed message: its name, and 0 to 6,000 bytes that follow from it."""
    name = b"%s %d " % (lane.encode(), number)
    return name + random.Random(name).randbytes(number * 7919 % 6000)


def read_envelope(envelope: bytes) -> tuple[str, int]:
    """(lane, number). Raises AssertionError if a byte of it was changed."""
    lane, number, _ = envelope.split(b" ", 2)
    assert envelope == envelope_of(lane.decode(), int(number)), f"altered: {lane!r} {number!r}"
    return lane.decode(), int(number)


class _Somebody:
    """A thread that lives through the relay's deaths. What it cannot explain is a fault."""

    def __init__(self, crowd: "Crowd", name: str) -> None:
        self.crowd = crowd
        self.name = name
        self.keys: IdentityKeys | None = None
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)

    def register(self) -> None:
        with WireClient(self.crowd.relay.port, self.name) as wire:
            self.keys = wire.register()

    def _live(self) -> None:
        crowd = self.crowd
        while not self.is_done:
            if not crowd.relay.serving.wait(_LOOK_UP_S):
                continue
            try:
                with Caller(crowd.relay.port, self.name) as wire:
                    wire.excused = crowd.excused
                    assert self.keys is not None
                    wire.log_in(self.keys)
                    self.talk(wire)
            except (OSError, Cut):
                continue
            except BaseException as error:
                crowd.faults.append(error)
                return

    @property
    def is_done(self) -> bool:
        raise NotImplementedError

    def talk(self, wire: Caller) -> None:
        raise NotImplementedError


class Sender(_Somebody):
    """Sends its lane's messages, `window` at a time."""

    def __init__(self, crowd: "Crowd", name: str, recipient: str) -> None:
        super().__init__(crowd, name)
        self.recipient = recipient
        self.lane = f"{name}>{recipient}"
        self.last = 0
        self.unacknowledged: list[int] = []

    @property
    def is_done(self) -> bool:
        return self.crowd.is_quiet.is_set() and not self.unacknowledged

    def talk(self, wire: Caller) -> None:
        while not self.is_done:
            while len(self.unacknowledged) < self.crowd.window and not self.crowd.is_quiet.is_set():
                self.last += 1
                self.unacknowledged.append(self.last)
            wire.say(*(self._submit(number) for number in self.unacknowledged))
            while self.unacknowledged:
                answer = decode_relay_message(wire.receive())
                if isinstance(answer, Submitted):
                    self.crowd.ledger.acknowledged(self.lane, answer.id)
                    self.unacknowledged.remove(answer.id)

    def _submit(self, number: int) -> Submit:
        self.crowd.ledger.sent(self.lane, number)
        return Submit(number, self.recipient, 1, envelope_of(self.lane, number), b"")


class Recipient(_Somebody):
    """Shows each message once; acknowledges most at once, and some only when they come again.

    Now and then it writes to itself: the relay does a connection's work in order, so that with that
    letter on its disk everything that was acknowledged before is deleted, and does not come again
    (a disk that was too full to delete aside).
    """

    def __init__(self, crowd: "Crowd", name: str) -> None:
        super().__init__(crowd, name)
        self.seen: set[tuple[str, int]] = set()
        self.deleted: set[int] = set()  # numbers that the relay has deleted for sure
        self.again = 0
        self._random = random.Random(name)
        self._has_everything = False
        self._lane = f"{name}>{name}"
        self._last = 0  # letter to itself
        # On this connection: the last number; what was acknowledged since the last letter to
        # itself, and before the one that is not answered yet.
        self._pushed = 0
        self._acknowledged: list[int] = []
        self._to_be_sure: list[int] = []

    @property
    def is_done(self) -> bool:
        return self._has_everything or self.crowd.is_over.is_set()

    def talk(self, wire: Caller) -> None:
        # What comes after the last call, up to "caught up", is all that there is.
        is_last_call = self.crowd.is_last_call.is_set()
        self._pushed, self._acknowledged, self._to_be_sure = 0, [], []
        wire.sock.settimeout(_LOOK_UP_S)
        for delivered in wire.aside:
            if isinstance(delivered, Deliver):
                self._take(wire, delivered, is_last_call)
        while not self.is_done:
            if self.crowd.is_last_call.is_set() and not is_last_call:
                raise Cut
            try:
                message = decode_relay_message(wire.receive())
            except TimeoutError:
                continue
            if isinstance(message, Deliver):
                self._take(wire, message, is_last_call)
            elif isinstance(message, Submitted):
                self.crowd.ledger.acknowledged(self._lane, message.id)
                self.deleted.update(self._to_be_sure)
                self._to_be_sure = []
            elif isinstance(message, CaughtUp):
                self._has_everything = is_last_call

    def _take(self, wire: Caller, delivered: Deliver, is_last_call: bool) -> None:
        number, found = delivered.number, read_envelope(delivered.envelope)
        assert number > self._pushed, f"{self.name}: number {number} after {self._pushed}"
        self._pushed = number
        self.crowd.ledger.handed_over(*found, number)
        is_new = found not in self.seen
        if is_new or number in self.deleted:
            self.seen.add(found)
            self.crowd.ledger.shown(*found)
        else:
            self.again += 1
        if is_last_call or not is_new or self._random.random() < _AT_ONCE:
            wire.say(Acknowledge((number,), b""))
            self._acknowledged.append(number)
            if len(self._acknowledged) >= _SURE_EVERY and not self._to_be_sure and not is_last_call:
                self._make_sure(wire)

    def _make_sure(self, wire: Caller) -> None:
        self._to_be_sure, self._acknowledged = self._acknowledged, []
        self._last += 1
        self.crowd.ledger.sent(self._lane, self._last)
        wire.say(Submit(self._last, self.name, 1, envelope_of(self._lane, self._last), b""))


class Crowd:
    """Senders and recipients over a relay, as threads of this process.

    The last `absent` recipients come only when all is sent. `excused` are the codes of errors after
    which a sender tries again; any other is a fault.
    """

    def __init__(
        self,
        relay: AnyRelay,
        ledger: Ledger,
        *,
        senders: int,
        recipients: int,
        absent: int = 0,
        window: int = 10,
        excused: Collection[str] = ("stopping",),
    ) -> None:
        self.relay = relay
        self.ledger = ledger
        self.window = window
        self.excused = excused
        self.is_quiet = threading.Event()  # nothing new is sent
        self.is_last_call = threading.Event()  # nothing is under way to a mailbox any more
        self.is_over = threading.Event()
        self.faults: list[BaseException] = []
        self.recipients = [Recipient(self, f"bob{number}") for number in range(recipients)]
        self.senders = [
            Sender(self, f"ada{number}", f"bob{number % recipients}") for number in range(senders)
        ]
        self._absent = self.recipients[recipients - absent :]

    def register(self) -> None:
        """Give everybody an account. Entering does, where nobody has one yet."""
        for somebody in (*self.recipients, *self.senders):
            somebody.register()

    def __enter__(self) -> Self:
        if self.recipients[0].keys is None:
            self.register()
        for somebody in (*self.recipients, *self.senders):
            if somebody not in self._absent:
                somebody.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_quiet.set()
        self.is_over.set()
        for sender in self.senders:
            sender.unacknowledged.clear()
        for somebody in (*self.recipients, *self.senders):
            if somebody.thread.ident is not None:
                somebody.thread.join(_PATIENCE_S)

    @property
    def handed_over_again(self) -> int:
        """Deliveries that a recipient had seen before."""
        return sum(recipient.again for recipient in self.recipients)

    @property
    def surely_deleted(self) -> int:
        """Deliveries that the relay had to forget, whatever happened to it afterwards."""
        return sum(len(recipient.deleted) for recipient in self.recipients)

    def await_acknowledged(self, count: int) -> None:
        """Until this many were acknowledged in all."""
        self._await(lambda: self.ledger.acknowledged_count >= count, f"{count} acknowledged")

    def finish(self) -> None:
        """Send nothing new; wait for the last acknowledgement, and empty every mailbox."""
        self.is_quiet.set()
        self._await_end(self.senders, "a sender still waits")
        self.is_last_call.set()
        for recipient in self._absent:
            recipient.thread.start()
        self._await_end(self.recipients, "a mailbox is never emptied")

    def _await_end(self, people: "Sequence[_Somebody]", otherwise: str) -> None:
        for somebody in people:
            somebody.thread.join(_PATIENCE_S)
        self.sound()
        assert not any(somebody.thread.is_alive() for somebody in people), otherwise

    def sound(self) -> None:
        """Raises the first fault that one of them met."""
        if self.faults:
            raise self.faults[0]

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        give_up_s = monotonic() + _PATIENCE_S
        while not condition():
            self.sound()
            assert monotonic() < give_up_s, f"never happened: {what}"
            self.is_over.wait(0.005)
