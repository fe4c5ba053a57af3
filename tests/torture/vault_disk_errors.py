"""A disk that fails under the client's vault: EIO on a sync, ENOSPC on a write, once or for good.

Nothing is claimed that is not on disk, the person gets one sentence and an exit status, and the
next start is clean: 0 lost, 0 shown twice, 0 out of order.
"""

from pathlib import Path

from tests.client.programs import House
from tests.torture.straced import (
    Moment,
    Traced,
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
SENTENCE = "saltline: "
NOT_SAVED = "nothing of this was saved or sent"
DONE, INTERNAL, UNREACHABLE, TIMED_OUT = 0, 2, 3, 7
WAIT = ("--timeout", "3")


def strace_at(moment: Moment, *, for_good: bool) -> list[str]:
    """One call fails, or that and all of its kind and file after it."""
    command = moment.strace(f"error={ERRORS[moment.call]}")
    return [each + "+" if for_good and "inject" in each else each for each in command]


def check_words(traced: Traced) -> None:
    """Done; or one sentence, and a status that is not 0."""
    lines = [line for line in traced.err.splitlines() if line.startswith(SENTENCE)]
    if traced.code == DONE:
        assert not lines, traced
        return
    assert traced.code in (INTERNAL, UNREACHABLE, TIMED_OUT), traced
    assert traced.code != INTERNAL or "disk" in lines[0], traced
    assert len(lines) == 1 and len(lines[0]) < 500, traced
    assert "Internal error" not in lines[0], traced


def send(town: Town, strace: list[str], level: str) -> Traced:
    """What was said to be queued is; what was said not to be saved is not."""
    alice, number = town.profile("alice"), town.next("alice", "bob")
    text = ("-m", f"text {number}")
    traced = run_traced(strace, alice, "send", "bob", *text, "--wait", level, *WAIT, "--json")
    check_words(traced)
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


def receive(town: Town, strace: list[str]) -> Traced:
    """What was not printed comes with the next start; what was, may come again from there on."""
    for _ in range(2):
        town.say("alice", "bob")
    bob = town.profile("bob")
    traced = run_traced(strace, bob, "recv", "--once", *WAIT, "--json")
    check_words(traced)
    next_start = fine(bob, "recv", "--once", "--json")
    failed = traced.code != DONE
    town.shown("bob", traced.records, next_start.records, may_repeat=failed)
    return traced


def act(town: Town, action: str, strace: list[str]) -> Traced:
    """One command of the three."""
    return receive(town, strace) if action == "recv" else send(town, strace, action)


def failing(log: Path, scale: Scale) -> list[tuple[Moment, bool]]:
    """The calls that are to fail, and whether those after them do too."""
    most = scale.of(2, 40)
    found = [each for each in moments(log) if each.call in ERRORS]
    syncs = spread([each for each in found if each.call != "pwrite64"], most)
    writes = spread([each for each in found if each.call == "pwrite64"], most)
    if scale is Scale.LONG:
        return [(each, for_good) for each in (*syncs, *writes) for for_good in (False, True)]
    return [(each, number % 2 == 0) for number, each in enumerate((*syncs, *writes))]


def run(scale: Scale, folder: Path) -> Figures:
    """Failing moments of `send` and `recv`, once and for good; quick: a few."""
    need_strace()
    failures = refusals = 0
    with House.running(folder) as house:
        town = Town(house)
        town.settle("alice", "bob")
        town.stock("alice", "bob")
        town.befriend("alice", "bob")
        for action in ("relay", "recv"):
            act(town, action, watching(folder / "calls"))
            for moment, for_good in failing(folder / "calls", scale):
                try:
                    traced = act(town, action, strace_at(moment, for_good=for_good))
                except AssertionError as error:
                    error.add_note(f"{action}: {moment} fails{' for good' * for_good}")
                    raise
                failures += 1
                refusals += traced.code != DONE
        town.check_timeline("bob", "@alice")
        figures = town.ledger.hold(scale.of(8, 100))
    assert refusals, "no failure was noticed"
    return {"failures": failures, "refusals": refusals, **figures}
