"""Which cores a process may use: the relay has one to itself, or nobody has."""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Cores:
    """What this process had, divided: the relay's, and everybody else's; alike if not divided."""

    relay: Set[int]
    others: Set[int]

    @classmethod
    @contextmanager
    def divided(cls, *, really: bool = True) -> Iterator[Self]:
        """One for the relay, if there are two; this process and its children have the others.

        At the end this process has them all again. `really`: whether to do it at all.
        """
        if not really or not hasattr(os, "sched_setaffinity"):
            yield cls(frozenset(), frozenset())
            return
        usual = os.sched_getaffinity(0)
        first, *rest = sorted(usual)
        cores = cls({first}, frozenset(rest) or usual) if rest else cls(usual, usual)
        os.sched_setaffinity(0, cores.others)
        try:
            yield cores
        finally:
            os.sched_setaffinity(0, usual)

    def give(self, pid: int) -> None:
        """The relay's core to all threads of a process."""
        _confine(pid, self.relay)

    def share(self, pid: int) -> None:
        """Everybody, that process too, has every core from now on."""
        everything = self.relay | self.others
        _confine(pid, everything)
        _confine(os.getpid(), everything)

    def __str__(self) -> str:
        if self.relay == self.others:
            return "not divided"
        return f"{len(self.relay)} for the relay, {len(self.others)} for everybody else"


def _confine(pid: int, cores: Set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir() if cores else ():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)
