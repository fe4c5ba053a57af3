"""Nobody keeps a worker reading.

OpenSSL handles records that carry nothing, such as KeyUpdate (RFC 8446, section 4.6.3), within the
call that reads, as many as come, at some 30 us each, and `ssl` cannot tell it to stop: a megabyte a
second of them would hold up everybody. So a thread looks at what each worker reads, ends the
connection whose share of a turn takes too much of the processor, and its address stays out for a
while.
"""

import gc
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from saltline.server.threads import OnFailure, RelayThread

LOOK_EVERY_S: Final = 0.02
# A connection's share of a turn, 64 records, takes some 2 ms here, and 50 on a small board without
# AES. Counted is the worker's own time, where the system tells it: a computer that was asleep, or
# busy, is nobody's fault.
READ_MAX_S: Final = 0.15
# A stranger says hello, and logs in: two records.
STRANGERS_READ_MAX_S: Final = 0.02
# How long an address stays out that did this, and how many are remembered.
BARRED_S: Final = 60.0
_BARRED_MAX: Final = 4096
_OLDEST_GENERATION: Final = 2  # of the garbage collector
_NOT_SEEN: Final = (0, 0.0)  # no read has this number


class Reader(Protocol):
    """A connection, as far as it matters here."""

    sock: ssl.SSLSocket
    address: str

    @property
    def is_stranger(self) -> bool:
        """Whether nobody has logged in on it."""


class ReadWatch:
    """What one worker reads, and from where it takes nobody. Only `cut` is for the overseer."""

    __slots__ = ("_barred", "_clock", "reading", "reads", "was_cut")

    def __init__(self) -> None:
        self.reading: Reader | None = None
        self.reads = 0  # so far: tells one read of a connection from the next
        self.was_cut = False  # the connection that is read, or was read last
        self._barred: dict[str, float] = {}
        self._clock: int | None = None

    def begin(self) -> None:
        """The worker's thread runs: its time is the one that counts."""
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS
            self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def spent_s(self) -> float:
        """The worker's processor time, or else the time. Raises OSError when its thread ended."""
        return time.monotonic() if self._clock is None else time.clock_gettime(self._clock)

    def cut(self, reader: Reader) -> None:
        """End what is being read: no further byte comes. Called by the overseer."""
        self.was_cut = True
        try:
            socket.socket.shutdown(reader.sock, socket.SHUT_RDWR)
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
        while not self._is_stopping.wait(LOOK_EVERY_S):
            self.look()

    def _after_collection(self, phase: str, info: dict[str, int]) -> None:
        """A full one takes longer than a read may, and comes in the midst of any: look anew."""
        if phase == "stop" and info["generation"] == _OLDEST_GENERATION:
            self._seen = [_NOT_SEEN] * len(self._watches)

    def look(self) -> None:
        """End each read that has gone on since the last look, and worked too much meanwhile."""
        for index, watch in enumerate(self._watches):
            reads, reader = watch.reads, watch.reading
            if reader is None:
                continue
            try:
                spent_s = watch.spent_s()
            except OSError:
                continue
            seen_reads, seen_s = self._seen[index]
            if seen_reads != reads:
                self._seen[index] = (reads, spent_s)
                continue
            may_s = STRANGERS_READ_MAX_S if reader.is_stranger else READ_MAX_S
            if spent_s - seen_s >= may_s and watch.reads == reads:
                watch.cut(reader)
