"""Nobody keeps a worker reading, nor saying goodbye, which reads too.

OpenSSL handles records that carry nothing, such as KeyUpdate (RFC 8446, section 4.6.3), within the
call that reads, as many as come, at some 30 us each, and `ssl` cannot tell it to stop: a megabyte a
second of them would hold up everybody. So a thread looks at what each worker reads, and ends the
connection whose share of a turn takes too much of the processor. Who sends them by handfuls has
each of its reads measured, and is ended when they took too much together. Its address stays out for
a while.
"""

import gc
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, thread_time
from typing import Final, Protocol

from saltline.server.threads import OnFailure, RelayThread

LOOK_EVERY_S: Final = 0.05
LOOK_AGAIN_S: Final = 0.02  # where a worker was reading
# A connection's share of a turn, 64 records, takes some 2 ms here, and 50 on a small board without
# AES. Counted is the worker's own time, where the system tells it: a computer that was asleep, or
# busy, is nobody's fault.
READ_MAX_S: Final = 0.15
# A stranger says hello, and logs in: two records.
STRANGERS_READ_MAX_S: Final = 0.005
# What reads may take in all: of a stranger everything; of a user, who may send much, what goes
# beyond this for each share and each byte, of which a small board without AES takes a fifth.
STRANGERS_IN_ALL_S: Final = 0.05
WASTED_MAX_S: Final = 0.15
_SHARE_S: Final = 0.001
_BYTE_S: Final = 1e-6
# The processor's time is asked for only where reads took so long by the clock, which is cheap and
# counts what others did meanwhile; and no longer after so many that were quick.
_LAG_MAX_S: Final = 0.01
_QUICK_ENOUGH: Final = 64
# How long an address stays out that did this, and how many are remembered.
BARRED_S: Final = 60.0
_BARRED_MAX: Final = 4096
_OLDEST_GENERATION: Final = 2  # of the garbage collector
_NOT_SEEN: Final = (0, 0.0)  # no read has this number


class Suspicion:
    """Of a connection whose reads take long."""

    __slots__ = ("lag_s", "quick", "spent_s")

    def __init__(self) -> None:
        self.lag_s = 0.0  # by the clock
        self.spent_s = 0.0  # of the processor, since its time is asked for
        self.quick = 0  # reads on end that took no time worth speaking of


class Watched(Protocol):
    """A connection, as far as it matters here."""

    sock: ssl.SSLSocket
    address: str
    suspicion: Suspicion | None

    @property
    def is_stranger(self) -> bool:
        """Whether nobody has logged in on it."""


class ReadWatch:
    """What one worker reads, and from where it takes nobody. Only `cut` is for the overseer."""

    __slots__ = ("_barred", "_began_s", "_clock", "_cut_off", "_spent_s", "reading", "reads")

    def __init__(self) -> None:
        self.reading: Watched | None = None
        self.reads = 0  # so far: tells one read of a connection from the next
        self._cut_off: Watched | None = None  # the last one
        self._barred: dict[str, float] = {}
        self._clock: int | None = None
        self._began_s = 0.0  # this read
        self._spent_s = 0.0  # before it, if that is measured

    def begin(self) -> None:
        """The worker's thread runs: its time is the one that counts."""
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS
            self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def spent_s(self) -> float:
        """The worker's processor time, or else the time. Raises OSError when its thread ended."""
        return time.monotonic() if self._clock is None else time.clock_gettime(self._clock)

    def begin_read(self, connection: Watched) -> None:
        """A connection's share of a turn begins."""
        self.reads += 1
        self.reading = connection
        suspicion = connection.suspicion
        if suspicion is not None and suspicion.lag_s > _LAG_MAX_S:
            self._spent_s = thread_time()
        self._began_s = monotonic()

    def end_read(self, connection: Watched, size_bytes: int) -> bool:
        """It ended, and brought so much; whether this connection is to go."""
        self.reading = None
        took_s = monotonic() - self._began_s
        if connection.suspicion is None:
            if took_s < _SHARE_S:
                return False
            connection.suspicion = Suspicion()
        may_s = 0.0 if connection.is_stranger else _SHARE_S + size_bytes * _BYTE_S
        if connection.suspicion.lag_s <= _LAG_MAX_S:
            connection.suspicion.lag_s += max(0.0, took_s - may_s)
        elif self._wastes(connection, connection.suspicion, thread_time() - self._spent_s - may_s):
            return True
        return self._cut_off is connection

    def _wastes(self, connection: Watched, suspicion: Suspicion, wasted_s: float) -> bool:
        suspicion.spent_s += max(0.0, wasted_s)
        suspicion.quick = suspicion.quick + 1 if wasted_s < _SHARE_S else 0
        if connection.is_stranger:
            return suspicion.spent_s > STRANGERS_IN_ALL_S
        if suspicion.quick >= _QUICK_ENOUGH:
            connection.suspicion = None
        return suspicion.spent_s > WASTED_MAX_S

    def cut(self, connection: Watched) -> None:
        """End what is being read: no further byte comes. Called by the overseer."""
        self._cut_off = connection
        try:
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it ended by itself

    def bar(self, address: str, now_s: float) -> None:
        """Take nobody from there for a while."""
        if len(self._barred) >= _BARRED_MAX:
            self._barred = {each: until for each, until in self._barred.items() if until > now_s}
        if len(self._barred) < _BARRED_MAX:
            self._barred[address] = now_s + BARRED_S

    def bars(self, address: str, now_s: float) -> bool:
        """Whether somebody from there comes too early."""
        return bool(self._barred) and self._barred.get(address, 0.0) > now_s


class Overseer:
    """The thread that looks. `on_failure` hears what ended it too early."""

    def __init__(self, watches: Sequence[ReadWatch], on_failure: OnFailure) -> None:
        self._watches = watches
        self._seen: list[tuple[int, float]] = [_NOT_SEEN] * len(watches)
        self._is_stopping = threading.Event()
        self._thread = RelayThread("overseer", self._run, on_failure)

    def start(self) -> None:
        """Begin to look."""
        gc.callbacks.append(self._after_collection)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Look no more; False if the thread did not end."""
        self._is_stopping.set()
        with suppress(ValueError):  # it was not started
            gc.callbacks.remove(self._after_collection)
        return self._thread.has_ended(timeout_s)

    def _run(self) -> None:
        is_reading = False
        while not self._is_stopping.wait(LOOK_AGAIN_S if is_reading else LOOK_EVERY_S):
            is_reading = self.look()

    def _after_collection(self, phase: str, info: dict[str, int]) -> None:
        """A full one takes longer than a read may, and comes in the midst of any: look anew."""
        if phase == "stop" and info["generation"] == _OLDEST_GENERATION:
            self._seen = [_NOT_SEEN] * len(self._watches)

    def look(self) -> bool:
        """End each read that has gone on since the last look, and worked too much meanwhile.

        Whether any worker reads.
        """
        is_reading = False
        for index, watch in enumerate(self._watches):
            reads, connection = watch.reads, watch.reading
            if connection is None:
                continue
            is_reading = True
            try:
                spent_s = watch.spent_s()
            except OSError:
                continue
            seen_reads, seen_s = self._seen[index]
            if seen_reads != reads:
                self._seen[index] = (reads, spent_s)
                continue
            may_s = STRANGERS_READ_MAX_S if connection.is_stranger else READ_MAX_S
            if spent_s - seen_s >= may_s and watch.reads == reads:
                watch.cut(connection)
        return is_reading
