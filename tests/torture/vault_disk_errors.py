"""A disk that fails under the client's vault: EIO on a sync, ENOSPC on a write, once or for good.

Nothing is claimed that is not on disk, the person gets one sentence and an exit status, and the
next start is clean: 0 lost, 0 shown twice, 0 out of order. strace wrote down what became of the
file: only what was made good, or can be, ends in exit status 0.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from tests.client.programs import House
from tests.torture.straced import (
    Logged,
    Moment,
    Traced,
    logged,
    moments,
    need_strace,
    run_traced,
    spread,
    watching,
)
from tests.torture.town import Town, fine
from tests.torture.trial import Figures, Scale

# The error of each call; what a program cannot know is what a failed sync has left on the disk.
ERRORS = {"fsync": "EIO", "fdatasync": "EIO", "pwrite64": "ENOSPC"}
SYNCS = ("fsync", "fdatasync")
LOG_SYNCS, LOG_WRITES, SYNCS_BESIDE, WRITES_BESIDE = KINDS = (
    "syncs of the log",
    "writes of the log",
    "syncs beside it",
    "writes beside it",
)
# How many of each kind fail, quick and long.
QUICK, LONG = (2, 1, 1, 0), (40, 40, 12, 12)
LOG, DATABASE, LOCK = "vault.db-wal", "vault.db", "lock"
SENTENCE = "saltline: "
NOT_SAVED = "nothing of this was saved or sent"
DONE, INTERNAL, UNREACHABLE, TIMED_OUT = 0, 2, 3, 7
WAIT = ("--timeout", "3")


class Fate:
    """What became of the file under a failing call."""

    def __init__(self) -> None:
        self.hits = 0
        self.owes = False  # a write or a sync failed, and was not made good by both
        self._first = 0  # the first byte of what it owes
        self._unsynced: int | None = None  # the first byte that no sync was for
        self._is_written_again = False

    @classmethod
    def read(cls, log: Path) -> Self:
        """Raises AssertionError where a log goes on behind what may not be on the disk."""
        fate = cls()
        for call in logged(log):
            fate.hits += call.was_injected
            if call.name == "pwrite64":
                fate._write(call)
            elif call.name in SYNCS:
                fate._sync(call)
        return fate

    def _write(self, call: Logged) -> None:
        if call.has_failed:
            self._fail(call.offset)
            return
        if self.owes and call.offset <= self._first:
            self._is_written_again = True
        behind = self.owes and not self._is_written_again and call.file.endswith(LOG)
        assert not behind, f"{call} stands on {self._first}, which failed"
        if self._unsynced is None or call.offset < self._unsynced:
            self._unsynced = call.offset

    def _sync(self, call: Logged) -> None:
        if call.has_failed:
            if self._unsynced is not None:
                self._fail(self._unsynced)
            return
        self._unsynced = None
        self.owes = self.owes and not self._is_written_again

    def _fail(self, offset: int) -> None:
        self._first = min(offset, self._first) if self.owes else offset
        self.owes, self._is_written_again = True, False


@dataclass
class Attempt:
    """A command on a disk of which one call fails, or that and all like it after it."""

    log: Path
    moment: Moment | None = None  # none: it is only watched
    for_good: bool = False
    fate: Fate = field(default_factory=Fate)

    def __str__(self) -> str:
        return f"{self.moment} fails{' for good' * self.for_good}"

    @property
    def strace(self) -> list[str]:
        if self.moment is None:
            return watching(self.log)
        command = self.moment.strace(f"error={ERRORS[self.moment.call]}", self.log)
        return [each + "+" if self.for_good and "inject" in each else each for each in command]

    def run(self, profile: Path, *arguments: str) -> Traced:
        """The command; what it said, and its status, are as its disk was."""
        traced = run_traced(self.strace, profile, *arguments, *WAIT, "--json")
        check_words(traced)
        if self.moment is not None:
            self.fate = Fate.read(self.log)
            self._check_status(self.moment.file, profile, traced)
        return traced

    def _check_status(self, file: str, profile: Path, traced: Traced) -> None:
        """What may end in status 0 is in docs/testing.md."""
        name, is_done = Path(file).name, traced.code == DONE
        if name == LOG:
            assert not (self.fate.owes and is_done), f"done, and not on the disk: {traced}"
        elif name == DATABASE:
            log = profile / LOG
            stays = log.exists() and log.stat().st_size > 0
            assert stays or not self.fate.owes, "the log is gone, and is not at home"
        elif name != LOCK and file != str(profile):
            assert not (self.fate.hits and is_done), f"done all the same: {traced}"


def check_words(traced: Traced) -> None:
    """Done; or one sentence, and a status that is not 0."""
    lines = [line for line in traced.err.splitlines() if line.startswith(SENTENCE)]
    if traced.code == DONE:
        assert not lines, traced
        return
    assert traced.code in (INTERNAL, UNREACHABLE, TIMED_OUT), traced
    assert len(lines) == 1 and len(lines[0]) < 500, traced
    assert traced.code != INTERNAL or "disk" in lines[0], traced
    assert "Internal error" not in lines[0], traced


def send(town: Town, attempt: Attempt) -> Traced:
    """What was said to be queued is; what was said not to be saved is not."""
    alice, number = town.profile("alice"), town.next("alice", "bob")
    text = ("-m", f"text {number}")
    traced = attempt.run(alice, "send", "bob", *text, "--wait", "relay")
    fine(alice, "recv", "--once")
    is_held = town.holds("alice", "bob", number)
    assert is_held or not traced.records, f"said to be queued, and lost: {traced}"
    assert not (is_held and NOT_SAVED in traced.err and not traced.records), (
        f"it is there: {traced}"
    )
    if not is_held:
        assert traced.code != DONE, traced
        fine(alice, "send", "bob", *text)
    town.acknowledged("alice", "bob", number)
    town.receive("bob")
    return traced


def receive(town: Town, attempt: Attempt) -> Traced:
    """What was not printed comes with the next start; what was, may come again from there on."""
    for _ in range(2):
        town.say("alice", "bob")
    bob = town.profile("bob")
    traced = attempt.run(bob, "recv", "--once")
    next_start = fine(bob, "recv", "--once", "--json")
    failed = traced.code != DONE
    town.shown("bob", traced.records, next_start.records, may_repeat=failed)
    return traced


ACTIONS: Final = (("send", send), ("recv", receive))


def failing(log: Path, scale: Scale, action: int) -> list[tuple[str, Moment, bool]]:
    """The calls that are to fail, of each kind some, and whether those after them do too."""
    found = [each for each in moments(log) if each.call in ERRORS]
    chosen: list[tuple[str, Moment]] = []
    for kind, quick, long in zip(KINDS, QUICK, LONG, strict=True):
        each_of_it = [each for each in found if kind_of(each) == kind]
        if scale is Scale.QUICK and len(each_of_it) > 2:
            each_of_it = each_of_it[: len(each_of_it) * 3 // 4]  # the last may not come again
        chosen += [(kind, each) for each in spread(each_of_it, scale.of(quick, long))]
    if scale is Scale.LONG:
        return [(*each, for_good) for each in chosen for for_good in (False, True)]
    return [(*each, number % 2 == action) for number, each in enumerate(chosen)]


def kind_of(moment: Moment) -> str:
    """One of KINDS."""
    if moment.file.endswith(LOG):
        return LOG_SYNCS if moment.call in SYNCS else LOG_WRITES
    return SYNCS_BESIDE if moment.call in SYNCS else WRITES_BESIDE


@dataclass
class Tally:
    """How many of a kind were to fail, did, and ended in a refusal."""

    tried: int = 0
    hits: int = 0
    refusals: int = 0

    def add(self, attempt: Attempt, traced: Traced) -> None:
        self.tried += 1
        self.hits += attempt.fate.hits > 0
        self.refusals += traced.code != DONE

    def __str__(self) -> str:
        return f"{self.refusals} refused of {self.hits} of {self.tried}"


def check_hits(scale: Scale, tallies: Mapping[str, Tally]) -> Figures:
    """Enough of them failed, and syncs of the log were seen to be refused."""
    tried = sum(each.tried for each in tallies.values())
    hits = sum(each.hits for each in tallies.values())
    # A run may make a call or two less than the one that was watched.
    missed_max = scale.of(tried // 5 + 1, tried // 20)
    figures = {name: str(each) for name, each in tallies.items()}
    assert tried - hits <= missed_max, f"only {hits} of {tried} failed: {figures}"
    for name, _ in ACTIONS:
        assert tallies[f"{name}: {LOG_SYNCS}"].refusals, f"no failed commit was noticed: {figures}"
    return {"failures": hits, **figures}


def run(scale: Scale, folder: Path) -> Figures:
    """Failing moments of `send` and `recv`, once and for good; quick: a few."""
    need_strace()
    log = folder / "calls"
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    with House.running(folder) as house:
        town = Town(house)
        town.settle("alice", "bob")
        town.stock("alice", "bob")
        town.befriend("alice", "bob")
        for action, (name, act) in enumerate(ACTIONS):
            act(town, Attempt(log))
            for kind, moment, for_good in failing(log, scale, action):
                attempt = Attempt(log, moment, for_good)
                try:
                    tallies[f"{name}: {kind}"].add(attempt, act(town, attempt))
                except AssertionError as error:
                    error.add_note(f"{name}: {attempt}")
                    raise
        town.check_timeline("bob", "@alice")
        figures = town.ledger.hold(scale.of(8, 100))
    return {**check_hits(scale, tallies), **figures}
