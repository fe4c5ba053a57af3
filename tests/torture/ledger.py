"""Who sent what, what was acknowledged, and what was shown: lost, shown twice, out of order.

    ledger = Ledger()
    ledger.sent("ada>bob", 1)            before it leaves; the numbers of a lane only grow
    ledger.acknowledged("ada>bob", 1)    its sender was told that it is safe
    ledger.handed_over("ada>bob", 1, 7)  the relay pushed it, as number 7 of Bob's mailbox
    ledger.shown("ada>bob", 1)           its recipient saw it
    figures = ledger.hold(10_000)        AssertionError unless 0 lost, 0 twice, 0 out of order

A lane is one sender's way to one recipient. What was sent and not acknowledged may be shown, once
and in its place, or not. What was sent again may have a number for each time that it left, and no
number is another's as well. Any thread may tell; nothing is forgotten.
"""

import threading
from collections import Counter
from dataclasses import dataclass

from tests.torture.trial import Figures

_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger found. `first` names the first of each kind, for whoever has to look."""

    acknowledged: int
    shown: int
    lost: int
    twice: int
    disordered: int
    foreign: int  # shown, and never sent
    first: str

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing twice, nothing out of order, nothing that nobody sent."""
        return not (self.lost or self.twice or self.disordered or self.foreign)

    @property
    def figures(self) -> Figures:
        """For a torture's report."""
        return {
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "twice": self.twice,
            "out of order": self.disordered,
        }


class _Lane:
    """What is known of one lane."""

    __slots__ = ("acknowledged", "handed_over", "highest", "sent", "shown", "shown_order")

    def __init__(self) -> None:
        self.sent: Counter[int] = Counter()  # how often each left
        self.handed_over: set[tuple[int, int]] = set()  # each, and its number in the mailbox
        self.highest = 0
        self.acknowledged: set[int] = set()
        self.shown: set[int] = set()
        self.shown_order: list[int] = []


class Ledger:
    """Keeps account of every message of every lane."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._owners: dict[tuple[str, int], tuple[str, int]] = {}  # (mailbox, number) -> whose
        self._reused: list[tuple[str, int]] = []  # under a number that was another's
        self._acknowledged = 0

    @property
    def acknowledged_count(self) -> int:
        """How many were acknowledged so far, each counted once."""
        return self._acknowledged

    def sent(self, lane: str, number: int) -> None:
        """It is about to leave, perhaps once more."""
        with self._lock:
            known = self._lanes.setdefault(lane, _Lane())
            assert number in known.sent or number > known.highest, (lane, number)
            known.sent[number] += 1
            known.highest = max(known.highest, number)

    def acknowledged(self, lane: str, number: int) -> None:
        """From now on it must not be lost."""
        with self._lock:
            known = self._lanes[lane]
            assert number in known.sent, f"acknowledged, and never sent: {lane} {number}"
            self._acknowledged += number not in known.acknowledged
            known.acknowledged.add(number)

    def handed_over(self, lane: str, number: int, place: int) -> None:
        """The relay pushed it, perhaps once more, as this number of its recipient's mailbox."""
        mailbox = lane.partition(">")[2]
        with self._lock:
            self._lanes.setdefault(lane, _Lane()).handed_over.add((number, place))
            owner = self._owners.setdefault((mailbox, place), (lane, number))
            if owner != (lane, number):
                self._reused.append((lane, number))

    def shown(self, lane: str, number: int) -> None:
        """Its recipient saw it."""
        with self._lock:
            known = self._lanes.setdefault(lane, _Lane())
            known.shown.add(number)
            known.shown_order.append(number)

    @property
    def outstanding(self) -> int:
        """How many are acknowledged and not shown yet."""
        with self._lock:
            return sum(len(lane.acknowledged - lane.shown) for lane in self._lanes.values())

    def verdict(self) -> Verdict:
        """Count what went wrong."""
        first: list[str] = []
        lost = twice = disordered = foreign = acknowledged = shown = 0

        def note(what: str, lane: str, numbers: list[int]) -> int:
            for number in numbers[: max(0, _NAMED_MAX - len(first))]:
                first.append(f"{what}: {lane} {number}")
            return len(numbers)

        with self._lock:
            for name, lane in self._lanes.items():
                acknowledged += len(lane.acknowledged)
                shown += len(lane.shown)
                again, late = _repeats_and_laggards(lane.shown_order)
                lost += note("lost", name, sorted(lane.acknowledged - lane.shown))
                twice += note("twice", name, again)
                twice += note("stored twice", name, _of_too_many_numbers(lane))
                disordered += note("out of order", name, late)
                foreign += note("never sent", name, sorted(lane.shown - lane.sent.keys()))
            for name, number in self._reused:
                twice += note("under another's number", name, [number])
        return Verdict(acknowledged, shown, lost, twice, disordered, foreign, "; ".join(first))

    def hold(self, least: int) -> Figures:
        """The figures. Raises AssertionError if something went wrong, or too little was tried."""
        verdict = self.verdict()
        assert verdict.is_clean, verdict
        assert verdict.acknowledged >= least, f"only {verdict.acknowledged} of {least} were tried"
        return verdict.figures


def _of_too_many_numbers(lane: _Lane) -> list[int]:
    """What has more numbers than times that it was sent: one submission, taken twice."""
    places = Counter(number for number, _ in lane.handed_over)
    return sorted(number for number, count in places.items() if count > lane.sent[number])


def _repeats_and_laggards(order: list[int]) -> tuple[list[int], list[int]]:
    """What was shown again, and what was first shown after a later one."""
    seen: set[int] = set()
    highest = 0
    again: list[int] = []
    late: list[int] = []
    for number in order:
        if number in seen:
            again.append(number)
        elif number < highest:
            late.append(number)
        seen.add(number)
        highest = max(highest, number)
    return again, late
