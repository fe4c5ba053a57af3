"""The virtual clock: what is to happen, when, in one order that the seed decides."""

import hashlib
import heapq
from collections.abc import Callable
from itertools import count


class Agenda:
    """Things to do, by time. `trace` is a hash of all that was done: equal for equal runs."""

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms
        self.steps = 0
        self.told: list[str] | None = None  # every step in words, where somebody wants to read it
        self._trace = hashlib.sha256()
        self._heap: list[tuple[int, int, str, Callable[[], None]]] = []
        self._order = count()

    def later(self, delay_ms: int, label: str, action: Callable[[], None]) -> None:
        """Do something in `delay_ms`."""
        at_ms = self.now_ms + max(0, delay_ms)
        heapq.heappush(self._heap, (at_ms, next(self._order), label, action))

    def step(self) -> None:
        """Do what comes next; the clock goes to its time."""
        at_ms, _, label, action = heapq.heappop(self._heap)
        self.now_ms = max(self.now_ms, at_ms)
        self.steps += 1
        self.note(label)
        action()

    def jump(self, ms: int) -> None:
        """Everybody sleeps: what was to be done meanwhile is late."""
        self.now_ms += ms

    @property
    def next_ms(self) -> int:
        """When the next thing is due."""
        return self._heap[0][0]

    def note(self, what: str) -> None:
        """Something that happened, for the trace."""
        line = f"{self.now_ms} {what}"
        self._trace.update(line.encode() + b"\n")
        if self.told is not None:
            self.told.append(line)

    @property
    def trace(self) -> str:
        """64 hexadecimal digits."""
        return self._trace.hexdigest()
