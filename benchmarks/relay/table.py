"""The figures of all runs, and what is made of them: medians and ratios."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One run of one peer at one work."""

    work: str
    peer: str
    figures: Figures


@dataclass
class Table:
    """All rows, in the order of the runs."""

    rows: list[Row] = field(default_factory=list)

    def add(self, work: str, peer: str, figures: Figures) -> None:
        """Another run."""
        self.rows.append(Row(work, peer, figures))

    def works(self) -> list[str]:
        """In the order of their first runs."""
        return list(dict.fromkeys(row.work for row in self.rows))

    def peers(self, work: str) -> list[str]:
        """Who did a work, in the order of the first runs."""
        return list(dict.fromkeys(row.peer for row in self.rows if row.work == work))

    def values(self, work: str, peer: str, key: str) -> list[float]:
        """A figure of every run that has it."""
        return [
            float(row.figures[key])
            for row in self.rows
            if (row.work, row.peer) == (work, peer) and row.figures.get(key) is not None
        ]

    def median(self, work: str, peer: str, key: str) -> float | None:
        """None where no run has the figure."""
        values = self.values(work, peer, key)
        return median(values) if values else None

    def ratio(self, work: str, key: str, peer: str, other: str) -> float | None:
        """A peer's median of another's; None where one is missing or the other's is 0."""
        ours, theirs = self.median(work, peer, key), self.median(work, other, key)
        return None if ours is None or not theirs else ours / theirs

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, Figures]]) -> "Table":
        """From (work, peer, figures)."""
        return cls([Row(*row) for row in rows])
