"""Output: what a worker's connections have to say, written as seldom and as much as possible."""

from collections.abc import Callable, Sequence
from ssl import SSLWantReadError, SSLWantWriteError
from time import monotonic
from typing import Final

from saltline.server import events
from saltline.server.connection import (
    READ,
    RECORD_BYTES,
    UNREAD_MAX_BYTES,
    Connection,
    PeerGone,
)
from saltline.server.connection_table import ConnectionTable
from saltline.server.driver import log
from saltline.server.events import Event
from saltline.server.fanout import Fanout
from saltline.server.pace import Pace

# A reader so slow that not even the answers to what it asked before fit is cut off.
QUEUE_CUT_FACTOR: Final = 4
# Below this part of its bound a queue counts as drained.
QUEUE_DRAINED_PART: Final = 4


class Writer:
    """Used by its worker's thread alone.

    What it is to send comes through `fanout`. `tell` takes what the core has to hear, `read_on`
    the connections whose reading was held up until they had taken their answers, and `say_goodbye`
    those whose last words have left, with the time.
    """

    def __init__(
        self,
        table: ConnectionTable,
        pace: Pace,
        queue_max_bytes: int,
        tell: Callable[[Event], None],
        read_on: Callable[[Connection], None],
        say_goodbye: Callable[[Connection, float], None],
    ) -> None:
        self.fanout = Fanout(self._put, self._put_all)
        self._table = table
        self._pace = pace
        self._queue_max_bytes = queue_max_bytes
        self._tell = tell
        self._read_on = read_on
        self._say_goodbye = say_goodbye
        self._dirty: dict[int, Connection] = {}  # with output, or about to leave

    @property
    def has_work(self) -> bool:
        """Whether `write_all` would do something."""
        return bool(self._dirty)

    def touch(self, connection: Connection) -> None:
        """It may be able to write, or is about to leave."""
        self._dirty[connection.number] = connection

    def _put(self, number: int, frames: bytes) -> None:
        """Queue output for a connection, if it is there and this worker's."""
        connection = self._table.live.get(number)
        if connection is None:
            return
        connection.output.append(frames)
        connection.queued_bytes += len(frames)
        if connection.awaits_answer:
            connection.awaits_answer = False
            self._read_on(connection)
        if connection.queued_bytes > self._queue_max_bytes:
            self._on_full(connection)
        if not (connection.write_wants_write or connection.write_wants_read):
            self._dirty[number] = connection

    def _put_all(self, numbers: Sequence[int], frames: bytes, is_all: bool) -> None:
        """The same for many: written at once, where nothing is in the way, else queued.

        What came was read together, and has waited for company; what else is coming for the same
        readers in this turn is company, too.
        """
        if self._pace.is_busy and not is_all:
            for number in numbers:
                self._put(number, frames)
            return
        get, size, writes = self._table.live.get, len(frames), 0
        is_large = size > RECORD_BYTES
        for number in numbers:
            connection = get(number)
            if connection is None:
                continue
            if connection.output or connection.unsent is not None or connection.mask != READ:
                self._put(number, frames)  # blocked, or on its way out, or others come first
                continue
            try:
                sent = connection.send_large(frames) if is_large else connection.send(frames)
            except (SSLWantReadError, SSLWantWriteError):
                sent = 0
            except OSError:
                self._table.drop(connection)
                continue
            writes += 1
            if sent != size:
                connection.keep(frames, sent)
                self._dirty[number] = connection
        self._pace.wrote(writes, monotonic())

    def write_all(self, now_s: float) -> None:
        """Write to everyone what the sockets take, each its share."""
        dirty, self._dirty = self._dirty, {}
        writes = 0
        for number, connection in dirty.items():
            try:
                if connection.is_lingering:
                    continue
                writes += connection.write()
            except PeerGone:
                self._table.drop(connection)
                continue
            if connection.is_congested and (
                connection.queued_bytes * QUEUE_DRAINED_PART <= self._queue_max_bytes
            ):
                connection.is_congested = False
                self._tell(events.congested(number, False))
                self._read_on(connection)
            elif connection.is_held_up and connection.queued_bytes <= UNREAD_MAX_BYTES:
                self._read_on(connection)
            if connection.queued_bytes and not connection.is_blocked:
                self._dirty[number] = connection  # it had its share of this turn
            elif connection.is_leaving and not connection.queued_bytes:
                self._say_goodbye(connection, now_s)
            elif connection.mask != READ or connection.is_blocked:
                self._table.watch(connection)  # else it is watched for what it was
        self._pace.wrote(writes, now_s)

    def _on_full(self, connection: Connection) -> None:
        """If it does not take even that: ask the core for less, and read nothing more from it."""
        if not connection.is_blocked:
            try:
                connection.write()
            except PeerGone:
                self._table.drop(connection)
                return
            self._table.watch(connection)
            if connection.queued_bytes <= self._queue_max_bytes:
                return
        if connection.queued_bytes > QUEUE_CUT_FACTOR * self._queue_max_bytes:
            log.info("Connection %d does not read its answers: cut off.", connection.number)
            self._table.drop(connection)
        elif not connection.is_congested:
            connection.is_congested = True
            self._tell(events.congested(connection.number, True))
            self._table.watch(connection)
