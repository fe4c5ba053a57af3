"""When a worker reads: at once while little happens, else at intervals."""

from typing import Final

# A TLS write costs some 5 us whatever it carries, and to look at one connection some 50 where
# nothing else is done. From a sixth of a core spent on writes, reading what came meanwhile all at
# once, for one commit and one write to each reader, is worth the delay; below a twelfth it is not.
_WINDOW_S: Final = 0.01
_BUSY_WRITES: Final = 300
_CALM_WRITES: Final = 150


class Pace:
    """Decides by the TLS writes of the last hundredth of a second. Times are monotonic seconds.

    One thread reads and writes; any may ask whether it is busy.
    """

    __slots__ = ("_interval_s", "_next_read_s", "_window_began_s", "_writes", "is_busy")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.is_busy = False
        self._next_read_s = 0.0
        self._window_began_s = 0.0
        self._writes = 0

    def wait_s(self, now_s: float) -> float:
        """How long what came may wait for company; 0: read now."""
        return max(0.0, self._next_read_s - now_s) if self.is_busy else 0.0

    def reads(self, now_s: float) -> None:
        """What came is being read."""
        self._next_read_s = now_s + self._interval_s

    def wrote(self, writes: int, now_s: float) -> None:
        """So many TLS writes were made."""
        self._writes += writes
        elapsed_s = now_s - self._window_began_s
        if elapsed_s < _WINDOW_S:
            return
        rate = self._writes * _WINDOW_S / elapsed_s
        self.is_busy = rate >= (_CALM_WRITES if self.is_busy else _BUSY_WRITES)
        self._window_began_s = now_s
        self._writes = 0
