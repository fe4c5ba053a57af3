"""Space on the disk: a part stays free, so that a full disk can be emptied again.

Deleting writes too: pages change in the write-ahead log before anything is free, and the log must
fit into the database when it is copied home. A relay that filled its disk to the last byte could
neither hand over what it holds nor start again.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from saltline.server.store import operations as ask
from saltline.server.store.interface import Operation
from saltline.server.store.schema import PAGE_BYTES

# (free, in all), in bytes, of the file system under the database.
Measure = Callable[[], tuple[int, int]]

# Deleting a full delivery window of 1 MiB changes some 300 pages of 8 KiB.
_KEPT_BYTES: Final = 4 * 1024 * 1024
# Of a small file system: as much as the rest, all of which may be deleted at once.
_KEPT_PART: Final = 2
# With so much nobody counts; for a moment, in which no disk takes as much.
_PLENTY_BYTES: Final = 1024 * 1024 * 1024
_PLENTY_S: Final = 0.1
_MAY_SPLIT_BYTES: Final = 2 * PAGE_BYTES
# What a text takes besides its statement, in pages that are half full at least.
_TEXT_OVERHEAD_BYTES: Final = 512


def measure_at(path: Path) -> Measure:
    """For the file system of a folder."""
    folder = os.fspath(path)

    def measure() -> tuple[int, int]:
        try:
            found = os.statvfs(folder)
        except OSError:  # whatever is wrong there, writing will say it
            return plenty()
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    return measure


def plenty() -> tuple[int, int]:
    """Where nothing is known."""
    return _PLENTY_BYTES, _PLENTY_BYTES


def growth_bytes(operation: Operation) -> int:
    """How much an operation may add; 0 if it only reads, changes or removes."""
    match operation:
        case ask.StoreEnvelope(envelope=envelope):
            return len(envelope) + _MAY_SPLIT_BYTES
        case ask.LeaveRoom(entry=entry) | ask.JoinRoom(entry=entry):
            return len(entry.statement) + _MAY_SPLIT_BYTES
        case ask.StoreTexts(entries=entries):
            size = sum(2 * len(entry.statement) + _TEXT_OVERHEAD_BYTES for entry in entries)
            return size + _MAY_SPLIT_BYTES
        case ask.StorePrekeys(prekeys=prekeys):
            return sum(len(prekey.encoded) for prekey in prekeys) + _MAY_SPLIT_BYTES
        case ask.CreateAccount() | ask.ResetAccount() | ask.AddCode():
            return 4 * _MAY_SPLIT_BYTES
        case _:
            return 0


class Space:
    """How much more the disk may take. `clock` tells seconds."""

    def __init__(self, measure: Measure, clock: Callable[[], float] = monotonic) -> None:
        self._measure = measure
        self._clock = clock
        self._is_plenty_until_s = float("-inf")

    def lacks(self, operations: Sequence[Operation], log_bytes: int, spare_bytes: int) -> bool:
        """Whether these do not fit beside what is kept free.

        What is new is written twice: into the log, and home, as is what the log holds already.
        `spare_bytes` at home are left by what was deleted; what finds its place there may use half
        of what is kept.
        """
        now_s = self._clock()
        if now_s < self._is_plenty_until_s:
            return False
        free, in_all = self._measure()
        if free >= _PLENTY_BYTES:
            self._is_plenty_until_s = now_s + _PLENTY_S
            return False
        growth = sum(map(growth_bytes, operations))
        home = max(0, log_bytes + growth - spare_bytes)
        kept = self._kept(in_all)
        return free < growth + home + (kept if home else kept // 2)

    def is_ample(self) -> bool:
        """Whether twice as much is free as must be."""
        free, in_all = self._measure()
        return free >= min(2 * self._kept(in_all), _PLENTY_BYTES)

    @staticmethod
    def _kept(in_all: int) -> int:
        return min(_KEPT_BYTES, in_all // _KEPT_PART)
