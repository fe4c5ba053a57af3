"""Two hundred towns in which everything goes wrong, and nothing is lost, shown twice or told."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.laboratory import Broken
from tests.simulation.planted_bugs import BUGS
from tests.simulation.simulation import Outcome, Simulation

ROOT = Path(__file__).parent.parent.parent
SEEDS = 200
AT_ONCE = 20


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_every_promise_holds_in_every_town(first: int) -> None:
    outcomes = [Simulation(seed).run() for seed in range(first, first + AT_ONCE)]

    # The towns are what they are meant to be: people talk, machines die, wires break.
    assert all(outcome.commits and outcome.audits for outcome in outcomes)
    for figure in ("said", "shown", "client_deaths", "cuts"):
        assert sum(getattr(outcome, figure) for outcome in outcomes) >= AT_ONCE // 2, figure
    assert sum(outcome.relay_starts - 1 for outcome in outcomes) >= AT_ONCE // 2
    assert max(outcome.days for outcome in outcomes) > 0


def test_a_seed_means_the_same_run_in_every_process() -> None:
    seeds = ("3", "5", "14", "19")

    def replay(hash_seed: str) -> list[str]:
        told = []
        for seed in seeds:
            done = subprocess.run(
                [sys.executable, "-m", "tests.simulation", "--seed", seed],
                env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")},
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            told.append(done.stdout)
        return told

    first, second = replay("1"), replay("2")

    assert first == second
    assert len(set(first)) == len(seeds)
    assert all("trace=" in told for told in first)


def test_another_seed_is_another_run() -> None:
    runs = [Simulation(seed).run() for seed in (1, 2)]
    assert runs[0].trace != runs[1].trace


def test_a_broken_promise_is_one_line_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own no bug can be planted from here: the runs fail in this one."""
    bug = next(bug for bug in BUGS if bug.name == "logs_what_is_written")
    with bug.planted():
        monkeypatch.setattr(sys, "argv", ["simulate", "--seed", "0", "--tell"])
        assert main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "broken: no log tells a text"
    assert lines[-1].startswith("Outcome(seed=0, steps=")
    assert len(lines) > 100, "every step is told"


def test_many_seeds_end_with_their_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["simulate", "--first", "300", "--count", "4", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 of 4 seeds, ")
    assert lines[1].startswith("4 of 4 seeds hold (scenario ")


def test_the_outcome_is_there_also_when_a_promise_broke() -> None:
    bug = next(bug for bug in BUGS if bug.name == "says_read_for_stored")
    simulation = Simulation(0)
    with bug.planted(), pytest.raises(Broken, match="reads read only if it was read"):
        simulation.run()
    assert isinstance(simulation.outcome, Outcome)
    assert simulation.outcome.steps > 0
