"""What a torture is: a function that breaks things, and says in figures what it broke.

    def run(scale: Scale, folder: Path) -> Figures: ...

It raises AssertionError when the promise does not hold, and `Lacking` where this machine cannot try
it. The suite runs each at Scale.QUICK, `make torture` at Scale.LONG.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Figures = Mapping[str, int | float | str]
# So begins the figure of a part that this machine cannot try.
LEFT_OUT = "LEFT OUT"


class Scale(Enum):
    """How long to try."""

    QUICK = "quick"
    LONG = "long"

    def of(self, quick: int, long: int) -> int:
        """A number for each scale."""
        return quick if self is Scale.QUICK else long


class Lacking(Exception):
    """What this machine lacks, as a noun: "root", "loop mounts", "strace"."""


@dataclass(frozen=True, slots=True)
class Torture:
    """A promise in one sentence, and what tries to break it."""

    name: str
    promise: str
    run: Callable[[Scale, Path], Figures]
