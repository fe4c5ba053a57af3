"""Many seeds, in several processes, and what they come to."""

import multiprocessing
from collections import Counter
from dataclasses import asdict
from time import monotonic

from tests.simulation.simulation import SCENARIO, Outcome, Simulation

TOLD_EVERY = 500
SUMMED = (
    "steps", "said", "shown", "relay_starts", "client_deaths", "cuts", "commits", "boxes", "audits",
    "looked_up", "days",
)  # fmt: skip


def try_seed(seed: int) -> Outcome | str:
    """A run's figures, or the line that replays it."""
    try:
        return Simulation(seed).run()
    except Exception as error:  # a failure of the town's own machinery is one too
        again = f"python -m tests.simulation --seed {seed}  (scenario {SCENARIO})"
        return f"{again}: {type(error).__name__}: {error}"


def run_many(first: int, count: int, processes: int) -> int:
    """All seeds; 1 if a promise was broken."""
    started_s = monotonic()
    totals: Counter[str] = Counter()
    broken: list[str] = []
    context = multiprocessing.get_context("spawn")
    # apsw keeps a cursor of each database that was open beside another: 0.1 MB a seed.
    with context.Pool(processes, maxtasksperchild=20) as pool:
        seeds = range(first, first + count)
        for done, outcome in enumerate(pool.imap_unordered(try_seed, seeds, chunksize=10), 1):
            if isinstance(outcome, str):
                broken.append(outcome)
                print(outcome, flush=True)
            else:
                figures = asdict(outcome)
                totals.update({name: figures[name] for name in SUMMED})
            if done % TOLD_EVERY == 0 or done == count:
                elapsed_s = monotonic() - started_s
                print(
                    f"{done} of {count} seeds, {elapsed_s:.0f} s, {len(broken)} broken", flush=True
                )
    told = ", ".join(f"{name.replace('_', ' ')} {totals[name]:,}" for name in SUMMED)
    print(f"{count - len(broken):,} of {count:,} seeds hold (scenario {SCENARIO}): {told}.")
    return 1 if broken else 0
