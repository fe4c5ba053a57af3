"""What the relay's core asks its edge to do. The core performs nothing itself."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from saltline.server.administration import AdminResult
from saltline.server.store.interface import Operation

# The levels of a line for the log: those of the standard library's logging.
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40


class Effect(Struct, frozen=True, gc=False):
    """Base of all effects. They are carried out in the order in which they were returned."""


class Send(Effect, frozen=True, gc=False):
    """Whole frames, each with its length in front, for one connection."""

    connection: int
    frame: bytes


class Broadcast(Effect, frozen=True, gc=False):
    """The same frame for many connections, encoded once.

    The sequence is the core's own and is kept between broadcasts: the very same object comes again
    until the membership changes, and it is never changed in place.
    """

    connections: Sequence[int]
    frame: bytes


class Promote(Effect, frozen=True, gc=False):
    """A stranger has logged in: raise the bound on its frames to FRAME_MAX_BYTES."""

    connection: int


class Pause(Effect, frozen=True, gc=False):
    """Read nothing more from this connection, until Resume (`peers.Pausing` says why)."""

    connection: int


class Resume(Effect, frozen=True, gc=False):
    """Read again from a connection that was paused."""

    connection: int


class Close(Effect, frozen=True, gc=False):
    """Close the connection once what was sent before has left, within a bounded wait.

    The core has forgotten the connection already; `closed` for it is harmless. `reason` is for the
    log: our own words only.
    """

    connection: int
    reason: str


class Persist(Effect, frozen=True, gc=False):
    """Hand an operation to the storage thread, in this order; answer with `stored`."""

    operation: Operation
    token: int


class Answer(Effect, frozen=True, gc=False):
    """The result of the admin's request that was given with this ticket."""

    ticket: int
    result: AdminResult


class Log(Effect, frozen=True, gc=False):
    """A line for the log: sanitised, and without secrets. `level` is one of the above."""

    level: int
    text: str


class Stop(Effect, frozen=True, gc=False):
    """The disk failed: stop the relay with this sentence. Nothing more is acknowledged."""

    reason: str
