"""`make torture`: every promise tried the long way; figures for docs/testing.md.

python -m tests.torture            all of them
python -m tests.torture NAME ...   some of them
python -m tests.torture --quick    as short as in the suite
"""

import argparse
import faulthandler
import sys
import tempfile
import traceback
from pathlib import Path
from time import monotonic

from tests.torture.catalogue import TORTURES
from tests.torture.trial import LEFT_OUT, Figures, Lacking, Scale, Torture


def main() -> int:
    """Run what was asked for; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="make torture")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="as short as in the suite")
    options = parser.parse_args()
    unknown = set(options.names) - {torture.name for torture in TORTURES}
    if unknown:
        known = ", ".join(torture.name for torture in TORTURES)
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {known}")
    faulthandler.enable()
    scale = Scale.QUICK if options.quick else Scale.LONG
    chosen = [each for each in TORTURES if not options.names or each.name in options.names]
    held = 0
    broken: list[str] = []
    left_out: list[str] = []
    for number, torture in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {torture.name}: {torture.promise}", flush=True)
        started_s = monotonic()
        try:
            figures = _run(torture, scale)
        except Lacking as lacking:
            left_out.append(f"{torture.name} (this machine lacks {lacking})")
            print(f"    {LEFT_OUT}: this machine lacks {lacking}", flush=True)
        except Exception:
            broken.append(torture.name)
            traceback.print_exc()
            print("    BROKEN", flush=True)
        else:
            held += 1
            left_out += [
                f"{name} of {torture.name}"
                for name, value in figures.items()
                if str(value).startswith(LEFT_OUT)
            ]
            told = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"    holds in {monotonic() - started_s:.0f} s: {told}", flush=True)
    print(f"{held} of {len(chosen)} held; broken: {', '.join(broken) or 'none'}", end="; ")
    print(f"left out: {', '.join(left_out) or 'none'}.")
    return 1 if broken else 0


def _run(torture: Torture, scale: Scale) -> Figures:
    with tempfile.TemporaryDirectory(prefix="saltline-torture-") as folder:
        return torture.run(scale, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
