"""The checker is checked: a simulation that no bug can break would show nothing."""

from functools import cache

import pytest

from tests.simulation.planted_bugs import BUGS, KNOWN_SEEDS, seed_that_notices, seeds_for
from tests.simulation.planting import Bug
from tests.simulation.simulation import Simulation

SEEDS_MAX = 40


@cache
def holds_without_it(seed: int) -> bool:
    """The same seed, and the product as it is."""
    Simulation(seed).run()
    return True


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 20
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert KNOWN_SEEDS.keys() <= {bug.name for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    seed, why = seed_that_notices(bug, seeds_for(bug, SEEDS_MAX))

    assert seed is not None, f"{SEEDS_MAX} seeds hold although the product {bug.name}"
    assert why
    assert holds_without_it(seed)
