"""`make simulate`: many runs of a town in which everything goes wrong.

python -m tests.simulation                      10,000 seeds, in two processes
python -m tests.simulation --seed 7 [--tell]    one of them again, step by step
python -m tests.simulation --count 500 --first 20000
python -m tests.simulation --bugs [NAME ...]    planted bugs: which seed notices each
"""

import argparse
import sys

from tests.simulation.laboratory import Broken
from tests.simulation.many import run_many
from tests.simulation.planted_bugs import BUGS, seed_that_notices, seeds_for
from tests.simulation.simulation import Simulation


def replay(seed: int, *, tells: bool) -> int:
    """One seed; its steps, if wanted, its figures and what was broken."""
    simulation = Simulation(seed, tells=tells)
    try:
        simulation.run()
    except Broken as broken:
        print(f"broken: {broken}")
        return 1
    finally:
        for line in simulation.agenda.told or ():
            print(line)
        print(simulation.outcome)
    return 0


def try_bugs(names: list[str], seeds: int) -> int:
    """Each planted bug, until a seed notices it."""
    missed = 0
    for bug in BUGS:
        if names and bug.name not in names:
            continue
        seed, why = seed_that_notices(bug, seeds_for(bug, seeds))
        missed += seed is None
        found = "NOT NOTICED" if seed is None else f"noticed by seed {seed}"
        print(f"{bug.name}: {found}: {why[:110]}", flush=True)
    return 1 if missed else 0


def main() -> int:
    """Whatever was asked for."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--tell", action="store_true", help="print every step")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--bugs", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=40, help="how many seeds a bug gets")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, tells=options.tell)
    if options.bugs is not None:
        unknown = set(options.bugs) - {bug.name for bug in BUGS}
        if unknown:
            parser.error(f"no bug is called {', '.join(sorted(unknown))}")
        return try_bugs(options.bugs, options.seeds)
    return run_many(options.first, options.count, options.processes)


if __name__ == "__main__":
    sys.exit(main())
