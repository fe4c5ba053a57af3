"""Input: what a worker's connections sent, each read for its share of a turn, and watched."""

from collections.abc import Iterable
from time import monotonic
from typing import Final

from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.server.connection import READS_PER_TURN, Connection, PeerGone
from saltline.server.connection_table import ConnectionTable
from saltline.server.driver import log
from saltline.server.overseer import ReadWatch
from saltline.server.pace import Pace

# How many requests of one connection the core gets at once. Between two helpings the worker looks
# whether the answers pile up: a request of 20 bytes may have an answer of 200 KB.
HELPING: Final = 64
# From so many connections with something to read no second look is spared: turns are longer then.
_CROWD: Final = 8


class Reader:
    """Used by its worker's thread alone, but for `watch`, which the overseer looks at.

    A frame that is begun has to be whole within `frame_s` seconds.
    """

    def __init__(self, table: ConnectionTable, pace: Pace, frame_s: float) -> None:
        self.watch = ReadWatch()
        self._table = table
        self._pace = pace
        self._frame_s = frame_s
        self._again: dict[int, Connection] = {}  # to be read without waiting for the selector
        self._fed: dict[int, Connection] = {}  # with something for the core
        self._turns = 0
        self._is_crowded = False

    @property
    def is_in_haste(self) -> bool:
        """Whether somebody is to be read at once."""
        return bool(self._again)

    @property
    def has_work(self) -> bool:
        """Whether somebody is to be read, or was, without waiting for the selector."""
        return bool(self._fed or self._again)

    def begin_turn(self, ready: int) -> None:
        """The worker's next turn, in which so many connections are ready."""
        self._turns += 1
        self._is_crowded = ready >= _CROWD

    def read_soon(self, connection: Connection) -> None:
        """Something may be there of which the selector will not tell."""
        self._again[connection.number] = connection

    def read_again(self, now_s: float) -> None:
        """Read those who had more than their share of the last turn."""
        if self._again:
            again, self._again = self._again, {}
            for connection in again.values():
                self.read(connection, now_s)

    def read(self, connection: Connection, now_s: float) -> None:
        """Read what is there, of a quiet connection one record, while it is its turn."""
        if not connection.may_read:
            self._table.watch(connection)
            return
        waiting, decoder = connection.waiting, connection.decoder
        # A quiet connection has mostly one record, and a look for a second costs as much as that;
        # a busy worker, which comes back late, looks all the same. A stranger has no more to say:
        # behind half a frame a megabyte of frames of a byte each would be taken apart at once.
        may_talk = not connection.is_stranger and (
            connection.talks
            or self._is_crowded
            or self._pace.is_busy
            or connection.read_in_turn == self._turns - 1
        )
        connection.read_in_turn = self._turns
        connection.talks = False
        self.watch.begin_read(connection)
        size_bytes = 0
        try:
            for count in range(READS_PER_TURN if may_talk else 1):
                if len(waiting) >= HELPING or (data := connection.read()) is None:
                    break  # of tiny frames a megabyte takes ten, and one helping is enough
                size_bytes += len(data)
                waiting += decoder.feed(data)
                connection.talks = count > 0
            else:
                if may_talk:
                    self._again[connection.number] = connection
        except PeerGone:
            connection.has_ended = True
        except ProtocolError as error:
            connection.fault = error
        finally:
            wastes = self.watch.end_read(connection, size_bytes)
        if wastes:
            self._drop_flood(connection, now_s)
            return
        if not decoder.unfinished_bytes:
            connection.frame_by_s = 0.0
        elif waiting or not connection.frame_by_s:
            connection.frame_by_s = now_s + self._frame_s
        self._fed[connection.number] = connection

    def feed(self, connection: Connection) -> None:
        """It has something for the core, or may have: after those of whom that is known.

        It is not read until that was handed over; the time that takes is not the peer's.
        """
        self._put_off_deadline(connection)
        self._fed.pop(connection.number, None)
        self._fed[connection.number] = connection

    def take_fed(self) -> Iterable[Connection]:
        """Those with something for the core since the last time."""
        fed, self._fed = self._fed, {}
        return fed.values()

    def read_on(self, connection: Connection) -> None:
        """Reading was held up; the time that took is not the peer's."""
        self._put_off_deadline(connection)
        connection.is_held_up = False
        self._fed[connection.number] = connection
        self._table.watch(connection)

    def _put_off_deadline(self, connection: Connection) -> None:
        if connection.frame_by_s:
            connection.frame_by_s = monotonic() + self._frame_s

    def check_frame(self, connection: Connection, now_s: float) -> None:
        """End it if the frame that it began is late."""
        if 0.0 < connection.frame_by_s <= now_s and connection.may_read:
            connection.fault = ProtocolError(
                ErrorCode.TOO_SLOW,
                f"A frame did not arrive whole within {self._frame_s:g} seconds.",
            )
            self._fed[connection.number] = connection

    def say_goodbye(self, connection: Connection, now_s: float) -> None:
        """To end TLS also looks for the peer's end: through records without end, like any read."""
        self.watch.begin_read(connection)
        try:
            self._table.say_goodbye(connection, now_s)
        finally:
            wastes = self.watch.end_read(connection, 0)
        if wastes:
            self._drop_flood(connection, now_s)

    def _drop_flood(self, connection: Connection, now_s: float) -> None:
        """Its reads take too long: with it go the strangers of its address."""
        self.watch.bar(connection.address, now_s)
        log.warning("A connection sent TLS records without end that carry nothing: cut off.")
        self._table.drop(connection)
        for each in list(self._table.live.values()):
            if each.address == connection.address and each.is_stranger:
                self._table.drop(each)
