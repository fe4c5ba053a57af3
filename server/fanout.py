"""One buffer for many readers: the broadcasts of a turn, gathered by audience.

In a busy room a hundred members get the same fifty entries in one turn. Gathered, that is one
buffer and a hundred appends, instead of five thousand appends and a hundred copies: measured, a
third to a half of the relay's work for such a room.

What is kept: every connection gets the frames of one audience in order, and whatever was sent to it
alone in its place among them. Frames for different audiences may pass each other.
"""

from collections.abc import Callable, Sequence
from typing import Final

from saltline.server.connection import WRITE_BYTES

# For fewer readers gathering costs more than it saves.
GATHERED_MIN_READERS: Final = 16
# Each frame for one connection looks at all of them.
GATHERINGS_MAX: Final = 8

Put = Callable[[int, bytes], None]
"""Queues bytes (second) for a connection (first), if it is there."""
PutAll = Callable[[Sequence[int], bytes, bool], None]
"""The same for many connections; and whether nothing else is coming for them in this turn."""


class _Gathering:
    """Frames for one audience; `given` says how many of them a reader has already."""

    __slots__ = ("audience", "frames", "given", "readers", "size_bytes")

    def __init__(self, audience: Sequence[int]) -> None:
        self.audience = audience
        self.readers = frozenset(audience)
        self._start()

    def _start(self) -> None:
        self.frames: list[bytes] = []
        self.given: dict[int, int] = {}
        self.size_bytes = 0

    def catch_up(self, reader: int, put: Put) -> None:
        """Give one reader what it has not had."""
        given = self.given.get(reader, 0)
        if given < len(self.frames):
            self.given[reader] = len(self.frames)
            put(reader, b"".join(self.frames[given:]))

    def end(self, put: Put, put_all: PutAll, *, is_all: bool) -> None:
        """Give everyone what they have not had, and start anew."""
        frames, given = self.frames, self.given
        if not frames:
            return
        shared = frames[0] if len(frames) == 1 else b"".join(frames)
        self._start()
        if not given:
            put_all(self.audience, shared, is_all)
            return
        put_all([reader for reader in self.audience if reader not in given], shared, is_all)
        for reader, had in given.items():
            if had < len(frames):
                put(reader, b"".join(frames[had:]))


class Fanout:
    """Between what the core asks for in a turn and the output queues of one worker."""

    def __init__(self, put: Put, put_all: PutAll) -> None:
        self._put = put
        self._put_all = put_all
        self._gatherings: dict[int, _Gathering] = {}  # by the identity of the audience

    def broadcast(self, audience: Sequence[int], frame: bytes) -> None:
        """Queue a frame for all of an audience, soon. The sequence is never changed in place."""
        if len(audience) < GATHERED_MIN_READERS:
            for reader in audience:
                self.send(reader, frame)
            return
        gathering = self._gatherings.get(id(audience))
        if gathering is None:
            if len(self._gatherings) >= GATHERINGS_MAX:
                self.end()
            # It holds the audience: nothing else can have its identity meanwhile.
            gathering = self._gatherings[id(audience)] = _Gathering(audience)
        gathering.frames.append(frame)
        gathering.size_bytes += len(frame)
        if gathering.size_bytes >= WRITE_BYTES:
            self._end_up_to(gathering)

    def _end_up_to(self, last: _Gathering) -> None:
        """What is older goes first: a room has another audience as soon as somebody comes."""
        for gathering in self._gatherings.values():
            gathering.end(self._put, self._put_all, is_all=False)
            if gathering is last:
                return

    def send(self, reader: int, frame: bytes) -> None:
        """Queue a frame for one connection, after everything that was broadcast to it before."""
        if self._gatherings:
            self.catch_up(reader)
        self._put(reader, frame)

    def catch_up(self, reader: int) -> None:
        """Queue what was broadcast to one connection so far."""
        for gathering in self._gatherings.values():
            if reader in gathering.readers:
                gathering.catch_up(reader, self._put)

    def end(self) -> None:
        """Queue everything."""
        if self._gatherings:
            gatherings, self._gatherings = self._gatherings, {}
            is_all = len(gatherings) == 1
            for gathering in gatherings.values():
                gathering.end(self._put, self._put_all, is_all=is_all)
