"""What goes over the wires, read at the relay's end: what was asked, and what was promised."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from saltline.protocol.frames import FrameDecoder
from saltline.protocol.messages import (
    ClientMessage,
    RelayMessage,
    decode_client_message,
    decode_relay_message,
)
from saltline.protocol.to_client import (
    Deliver,
    Error,
    Joined,
    Posted,
    Submitted,
    Welcome,
)
from saltline.protocol.to_relay import Acknowledge, Login, Post, Register, Submit
from tests.simulation.laboratory import require
from tests.simulation.network import Wire

CANARY = b"canary"
INTRUDER = "intruder"


@dataclass(frozen=True, slots=True)
class Promise:
    """The relay has just said that it has this on its disk: one of the three."""

    envelope: bytes = b""
    entry: tuple[str, int] = ("", 0)  # room, number
    account: str = ""


@dataclass
class Tapped:
    """One connection."""

    up: FrameDecoder = field(default_factory=FrameDecoder)
    requests: dict[int, ClientMessage] = field(default_factory=dict)  # not answered yet
    in_flight: dict[int, str] = field(default_factory=dict)  # Submits at the client's end
    greeting: Register | Login | None = None
    pushed: dict[int, bytes] = field(
        default_factory=dict
    )  # number -> H(envelope), not acknowledged
    last_pushed: int = 0


class Wiretap:
    """All connections."""

    def __init__(self) -> None:
        self._taps: dict[int, Tapped] = {}
        self.window = 256
        self.accounts: set[str] = set()  # who was welcomed
        self.taken: dict[bytes, str] = {}  # H(envelope) that the relay took -> for whom
        self.handed: set[bytes] = set()  # those that their recipient acknowledged
        self.numbers: dict[tuple[str, int], bytes] = {}  # (mailbox's owner, number) -> H(envelope)
        self.posts: set[tuple[str, int]] = set()  # (room, number) that the relay acknowledged
        self.submitted = 0
        self.fresh: list[Promise] = []  # not looked up yet

    def of(self, wire: Wire) -> Tapped:
        return self._taps.setdefault(wire.number, Tapped())

    # --- the client's end ------------------------------------------------------------------------

    def client_sends(self, wire: Wire, data: bytes) -> None:
        """Whole frames leave."""
        require(CANARY not in data, "no private text leaves a client in the clear")
        tap = self.of(wire)
        for body in tap.up.feed(data):
            message = decode_client_message(body)
            if isinstance(message, Submit):
                require(
                    message.username not in tap.in_flight.values(),
                    "one envelope at a time is on its way to each device",
                )
                tap.in_flight[message.id] = message.username

    def client_heard(self, wire: Wire, bodies: Sequence[bytes]) -> None:
        """Answers arrived."""
        tap = self.of(wire)
        for body in bodies:
            message = decode_relay_message(body)
            if isinstance(message, Submitted | Error):
                tap.in_flight.pop(message.id, None)

    # --- the relay's end -------------------------------------------------------------------------

    def relay_took(self, wire: Wire, bodies: Sequence[bytes]) -> None:
        """The core is about to hear this."""
        tap = self.of(wire)
        for body in bodies:
            message = decode_client_message(body)
            if isinstance(message, Register | Login):
                tap.greeting = message
            elif isinstance(message, Acknowledge):
                for number in message.numbers:
                    digest = tap.pushed.pop(number, None)
                    if digest is not None:
                        self.handed.add(digest)
            elif isinstance(message, Submit | Post):
                tap.requests[message.id] = message

    def relay_says(self, wire: Wire, frames: bytes) -> None:
        """Whole frames for a client."""
        require(CANARY not in frames, "the relay has no private text to say")
        for body in FrameDecoder().feed(frames):
            self._said(wire, decode_relay_message(body))

    def _said(self, wire: Wire, message: RelayMessage) -> None:
        tap = self.of(wire)
        if isinstance(message, Submitted):
            request = self._asked(tap, message.id)
            assert isinstance(request, Submit)
            self.taken[sha256(request.envelope).digest()] = request.username
            self.submitted += 1
            self.fresh.append(Promise(envelope=request.envelope))
        elif isinstance(message, Deliver):
            self._pushed(wire, tap, message)
        elif isinstance(message, Posted):
            self._asked(tap, message.id)
            self._numbered(message.room, message.number)
        elif isinstance(message, Joined):
            self._numbered(message.room, message.number)
        elif isinstance(message, Welcome):
            require(wire.client != INTRUDER, "nobody logs in without the key")
            assert tap.greeting is not None
            self.accounts.add(tap.greeting.username)
            self.fresh.append(Promise(account=tap.greeting.username))
        elif isinstance(message, Error):
            tap.requests.pop(message.id, None)

    def _numbered(self, room: str, number: int) -> None:
        self.posts.add((room, number))
        self.fresh.append(Promise(entry=(room, number)))

    def _asked(self, tap: Tapped, number: int) -> ClientMessage:
        request = tap.requests.pop(number, None)
        require(request is not None, "the relay answers what was asked, once")
        assert request is not None
        return request

    def _pushed(self, wire: Wire, tap: Tapped, message: Deliver) -> None:
        digest = sha256(message.envelope).digest()
        known = self.numbers.setdefault((wire.client, message.number), digest)
        require(known == digest, f"number {message.number} of a mailbox names one envelope")
        require(message.number > tap.last_pushed, "what waits is pushed in order")
        tap.last_pushed = message.number
        tap.pushed[message.number] = digest
        require(len(tap.pushed) <= self.window, "no more is pushed than the window holds")
