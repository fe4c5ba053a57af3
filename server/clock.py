"""Two times: one that nobody sets, for whatever lasts, and the date, for what is written down."""

import time
from typing import Final

_NS_PER_MS: Final = 1_000_000
# Goes on while the computer sleeps; as CLOCK_MONOTONIC does on macOS, but not on Linux.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Begins at the date of its making, and goes on evenly, whatever the computer's clock does."""

    def __init__(self) -> None:
        self._began_ns = time.time_ns() - time.clock_gettime_ns(_STEADY)

    def now_ms(self) -> int:
        """In ms. Never goes back or jumps."""
        return (time.clock_gettime_ns(_STEADY) + self._began_ns) // _NS_PER_MS

    def date_ms(self) -> int:
        """Unix ms. Goes wherever somebody sets it."""
        return time.time_ns() // _NS_PER_MS
