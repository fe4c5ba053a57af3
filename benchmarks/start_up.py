"""How long `saltline --help` takes, beside Python importing click alone.

python -m benchmarks.start_up [--rounds 21]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time


def cost(*command: str) -> tuple[float, float]:
    """(seconds, CPU seconds) of one run."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system
    return seconds, used - before.children_user - before.children_system


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=21)
    rounds = arguments.parse_args().rounds
    runs = {"import click": ["-c", "import click"]}
    runs["saltline --help"] = ["-m", "saltline.client.cli", "--help"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):  # in turns, so that a noisy minute hits both
        for name, command in runs.items():
            found[name].append(cost(*command))
    medians = {}
    for name, costs in found.items():
        medians[name] = [statistics.median(column) for column in zip(*costs, strict=True)]
        print(f"{name:18}{medians[name][0] * 1e3:7.0f} ms{medians[name][1] * 1e3:7.0f} ms CPU")
    ratio = medians["saltline --help"][0] / medians["import click"][0]
    print(f"ratio {ratio:.2f} (medians of {rounds}; at most 3 is wanted)")


if __name__ == "__main__":
    main()
