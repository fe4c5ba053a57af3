"""Plan files for the load generator: who logs in how, and what one message looks like.

`load/plan.c` reads what `Plan.encode` writes: integers big-endian, byte strings as u32 length and
bytes. A message's body is filled by the generator: the mark `^`, a time in 16 hexadecimal digits,
and `x` up to its size.
"""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import Final

MAGIC: Final = b"SLPLAN1\n"
MARK: Final = b"^"
STAMP_BYTES: Final = 17  # the mark and the time
_U32: Final = Struct(">I")
_SPOT: Final = Struct(">IIQQ")
NOBODY: Final = -1


class Framing(IntEnum):
    """How a server's bytes are cut into messages."""

    BY_MARK = 0
    SALTLINE = 1
    MQTT = 2


class Flag(IntFlag):
    """What a connection does; NONE only logs in."""

    NONE = 0
    RECEIVES = 1
    SENDS = 2
    ACKNOWLEDGES = 4


class StepKind(IntEnum):
    """SIGN takes a challenge and signs it."""

    SEND = 0
    SIGN = 1


@dataclass(frozen=True, slots=True)
class Step:
    """Send something, then wait for a message with these bytes in it (b"": for nothing)."""

    send: bytes
    wait: bytes = b""

    def encode(self) -> bytes:
        """As `load/plan.c` reads it."""
        return _U32.pack(StepKind.SEND) + _text(self.send) + _text(self.wait)


@dataclass(frozen=True, slots=True)
class SignStep:
    """Saltline's login (docs/protocol.md §6, Greeting).

    Sends the frame `send`, takes one frame, and signs payload ‖ H(both frames) ‖ spki with the
    Ed25519 `seed` (32 bytes); sends `before`, the signature's 64 bytes, `after`.
    """

    send: bytes
    wait: bytes
    seed: bytes = field(repr=False)
    payload: bytes
    spki: bytes
    before: bytes
    after: bytes

    def encode(self) -> bytes:
        """As `load/plan.c` reads it."""
        parts = (self.send, self.wait, self.seed, self.payload, self.spki, self.before, self.after)
        return _U32.pack(StepKind.SIGN) + b"".join(map(_text, parts))


@dataclass(frozen=True, slots=True)
class Spot:
    """A number in a message that grows with each: `width` bytes at `offset`, from `base` on."""

    offset: int
    width: int
    base: int = 0
    modulo: int = 0

    def encode(self) -> bytes:
        """As `load/plan.c` reads it."""
        return _SPOT.pack(self.offset, self.width, self.base, self.modulo)


@dataclass(frozen=True, slots=True)
class Message:
    """What a sender sends: prefix, a body of this many bytes, suffix."""

    prefix: bytes
    body_bytes: int
    suffix: bytes = b""
    spots: tuple[Spot, ...] = ()

    def encode(self) -> bytes:
        """As `load/plan.c` reads it."""
        if self.body_bytes < STAMP_BYTES:
            raise ValueError(f"a body has at least {STAMP_BYTES} bytes")
        return b"".join(
            (
                _text(self.prefix),
                _U32.pack(self.body_bytes),
                _text(self.suffix),
                _U32.pack(len(self.spots)),
                *(spot.encode() for spot in self.spots),
            )
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """One client. `fanout` is how many deliveries a message of it makes; `peer` gets them."""

    steps: tuple[Step | SignStep, ...]
    flags: Flag = Flag.NONE
    peer: int = NOBODY
    fanout: int = 1
    message: Message | None = None

    def encode(self) -> bytes:
        """As `load/plan.c` reads it."""
        if (self.message is not None) != bool(self.flags & Flag.SENDS):
            raise ValueError("who sends has a message, and nobody else")
        return b"".join(
            (
                _U32.pack(self.flags),
                _U32.pack(self.peer & 0xFFFF_FFFF),
                _U32.pack(self.fanout),
                _U32.pack(len(self.steps)),
                *(step.encode() for step in self.steps),
                b"" if self.message is None else self.message.encode(),
            )
        )


@dataclass(frozen=True, slots=True)
class Wire:
    """How deliveries, acknowledgements and errors are told apart, and how one acknowledges.

    By the first bytes of a frame's body; without framing, `ack_head` is one byte that each
    acknowledgement has once. A delivery's frame may hold several: a room's `entries`.
    """

    framing: Framing = Framing.BY_MARK
    delivery_head: bytes = b""
    holds_entries: bool = False
    ack_head: bytes = b""
    error_head: bytes = b""
    reply_before: bytes = b""
    reply_after: bytes = b""
    ping_ms: int = 0
    ping: bytes = b""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one generator does."""

    wire: Wire
    connections: tuple[Connection, ...]

    def encode(self) -> bytes:
        """As `load/plan.c` reads it."""
        wire = self.wire
        return b"".join(
            (
                MAGIC,
                _U32.pack(wire.framing),
                _text(wire.delivery_head),
                _U32.pack(wire.holds_entries),
                _text(wire.ack_head),
                _text(wire.error_head),
                _text(wire.reply_before),
                _text(wire.reply_after),
                _U32.pack(wire.ping_ms),
                _text(wire.ping),
                _U32.pack(len(self.connections)),
                *(connection.encode() for connection in self.connections),
            )
        )

    def write(self, path: Path) -> Path:
        """Write it for one run; it holds seeds, and is for this user alone."""
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_bytes(self.encode())
        return path


def _text(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data
