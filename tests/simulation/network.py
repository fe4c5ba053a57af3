"""Connections between clients and the relay: bytes in order, late, in pieces, or not at all.

TLS over TCP neither swaps nor repeats bytes within a connection. What can happen: they are late;
they come in pieces; the connection breaks in mid-frame; one end, both or none hears that it broke;
and an old connection lingers beside its successor, at the relay or at the client.
"""

import random as randomness
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Protocol

from tests.simulation.agenda import Agenda


@dataclass
class Stream:
    """One direction of a connection."""

    pieces: deque[bytes] = field(default_factory=deque)
    last_ms: int = 0  # when the last piece arrives
    waiting_bytes: int = 0
    stalled: int = 0  # arrivals that a partition held up

    def take_all(self) -> bytes:
        """What is under way."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        self.waiting_bytes = 0
        return data


@dataclass(eq=False)
class Wire:
    """A connection. `is_dead`: it carries nothing any more, whatever its ends believe."""

    number: int
    client: str
    up: Stream = field(default_factory=Stream)
    down: Stream = field(default_factory=Stream)
    is_dead: bool = False
    is_closing: bool = False  # the relay hangs up once what it said has arrived


class Ends(Protocol):
    """Who is at the two ends of all wires."""

    def relay_hears(self, wire: Wire, data: bytes) -> None: ...
    def client_hears(self, wire: Wire, data: bytes) -> None: ...
    def relay_lost(self, wire: Wire) -> None: ...
    def client_lost(self, wire: Wire) -> None: ...
    def drained(self, wire: Wire) -> None: ...


class Network:
    """Decides how late things are, and who cannot reach the relay at all."""

    def __init__(self, agenda: Agenda, random: randomness.Random, ends: Ends) -> None:
        self._agenda = agenda
        self._random = random
        self._ends = ends
        self._last = 0
        self.wires: dict[int, Wire] = {}
        self.partitioned: set[str] = set()
        self.slowest_ms = random.choice((5, 50, 400, 3_000))
        self.bytes = 0
        self.cuts = 0

    def connect(self, client: str) -> Wire:
        """A new connection."""
        self._last += 1
        wire = self.wires[self._last] = Wire(self._last, client)
        return wire

    def of(self, client: str) -> list[Wire]:
        """The living connections of a client."""
        return [wire for wire in self.wires.values() if wire.client == client]

    def delay_ms(self) -> int:
        """Of one piece: mostly short."""
        return 1 + int(self._random.random() ** 3 * self.slowest_ms)

    # --- bytes -----------------------------------------------------------------------------------

    def send_up(self, wire: Wire, data: bytes) -> None:
        """From the client."""
        self._send(wire, wire.up, data, "up")

    def send_down(self, wire: Wire, data: bytes) -> None:
        """From the relay."""
        self._send(wire, wire.down, data, "down")

    def _send(self, wire: Wire, stream: Stream, data: bytes, way: str) -> None:
        stream.waiting_bytes += len(data)
        if wire.is_dead:
            return  # it fills the sender's buffer, and goes nowhere
        self.bytes += len(data)
        agenda = self._agenda
        for piece in self._cut_up(data):
            stream.pieces.append(piece)
            stream.last_ms = max(stream.last_ms, agenda.now_ms + self.delay_ms())
            label = f"{way} {wire.client} {wire.number} {len(piece)}"
            agenda.later(stream.last_ms - agenda.now_ms, label, lambda: self._arrive(wire, stream))

    def _cut_up(self, data: bytes) -> Iterator[bytes]:
        random = self._random
        if len(data) < 2 or random.random() < 0.85:
            yield data
            return
        edges = sorted({0, len(data), *(random.randrange(len(data)) for _ in range(3))})
        for begin, end in pairwise(edges):
            yield data[begin:end]

    def _arrive(self, wire: Wire, stream: Stream) -> None:
        if not stream.pieces:
            return
        if wire.client in self.partitioned:
            stream.stalled += 1
            return
        piece = stream.pieces.popleft()
        stream.waiting_bytes -= len(piece)
        if stream is wire.up:
            self._ends.relay_hears(wire, piece)
            return
        self._ends.drained(wire)
        self._ends.client_hears(wire, piece)
        if wire.is_closing and not wire.down.pieces:
            self._gone(wire)

    # --- ends ------------------------------------------------------------------------------------

    def hang_up(self, wire: Wire) -> None:
        """The client closes; what it sent before may still arrive."""
        if wire.number not in self.wires or wire.is_dead:
            return
        data = wire.up.take_all()
        wire.is_dead = True
        kept = data if self._random.random() < 0.5 else b""
        self._agenda.later(self.delay_ms(), f"closed {wire.number}", lambda: self._end(wire, kept))

    def _end(self, wire: Wire, data: bytes) -> None:
        if data:
            self._ends.relay_hears(wire, data)
        self.wires.pop(wire.number, None)
        self._ends.relay_lost(wire)

    def close(self, wire: Wire) -> None:
        """The relay hangs up; what it said before still arrives."""
        wire.is_closing = True
        if not wire.down.pieces or wire.is_dead:
            delay_ms = self.delay_ms()
            self._agenda.later(delay_ms, f"hung up {wire.number}", lambda: self._gone(wire))

    def _gone(self, wire: Wire) -> None:
        self.wires.pop(wire.number, None)
        wire.is_dead = True
        self._ends.client_lost(wire)

    def tear(self, wire: Wire, *, relay_hears: bool, client_hears: bool) -> None:
        """It breaks, perhaps in mid-frame; who hears of it soon?"""
        if wire.is_dead or wire.number not in self.wires:
            return
        self.cuts += 1
        wire.is_dead = True
        for stream, hears in (
            (wire.up, self._ends.relay_hears),
            (wire.down, self._ends.client_hears),
        ):
            data = stream.take_all()
            if data and wire.client not in self.partitioned and self._random.random() < 0.6:
                hears(wire, data[: self._random.randrange(len(data)) + 1])
        if relay_hears:
            self.wires.pop(wire.number, None)
            self._ends.relay_lost(wire)
        if client_hears:
            self._ends.client_lost(wire)

    def reset(self, client: str, wire: Wire | None) -> None:
        """Whatever a client has of connections, dead or alive, ends at both ends."""
        for each in self.of(client):
            each.is_dead = True
            self.wires.pop(each.number)
            self._ends.relay_lost(each)
        if wire is not None:
            wire.is_dead = True
            self._ends.client_lost(wire)

    def relay_gone(self) -> None:
        """All connections end with the relay; clients hear of it soon, or when they ask."""
        wires, self.wires = list(self.wires.values()), {}
        for wire in wires:
            wire.is_dead = True
            data = wire.down.take_all()
            if data and wire.client not in self.partitioned and self._random.random() < 0.5:
                self._ends.client_hears(wire, data[: self._random.randrange(len(data)) + 1])
            delay_ms = self._random.choice((1, 200, 20_000))
            self._agenda.later(
                delay_ms, f"reset {wire.number}", partial(self._ends.client_lost, wire)
            )

    def heal(self, client: str) -> None:
        """A partition ends: what it held up arrives."""
        self.partitioned.discard(client)
        for wire in self.of(client):
            for stream in (wire.up, wire.down):
                stalled, stream.stalled = stream.stalled, 0
                for _ in range(stalled):
                    label = f"late {wire.number}"
                    self._agenda.later(1, label, partial(self._arrive, wire, stream))
