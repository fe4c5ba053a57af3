"""`make fuzz`: every target under a coverage-guided fuzzer; what reaches something new is kept.

python -m tests.fuzzing                    every target, a minute each
python -m tests.fuzzing --seconds 600 NAME ...

Needs atheris (the extra `fuzz`), whose wheels are for Linux. An input that finds fault is written
to tests/fuzzing/found/ and named; `--replay FILE NAME` tries it again.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.fuzzing.targets import CORPUS_MAX_FILES, TARGETS, Target, corpus_max_bytes

ROOT = Path(__file__).parent.parent.parent
FOUND = Path(__file__).parent / "found"
_MEMORY_MAX_MB = 1024
_INPUT_MAX_S = 20
_DONE = re.compile(
    r"^#(\d+)\s+(?:DONE|NEW|pulse|INITED|RELOAD|REDUCE)\s+cov: (\d+) ft: (\d+)", re.M
)


def main() -> int:
    """Fuzz what was asked for; 1 if anything found fault."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--replay", type=Path, help="only try this input on the named target")
    options = parser.parse_args()
    unknown = set(options.names) - {target.name for target in TARGETS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = [each for each in TARGETS if not options.names or each.name in options.names]
    if options.replay is not None:
        for target in chosen:
            target.fuzz_one(options.replay.read_bytes())
        return 0
    if find_spec("atheris") is None:
        print("make fuzz needs atheris, which cannot be installed here (pip install '.[fuzz]').")
        return 1
    faulty = [target.name for target in chosen if not _fuzz(target, options.seconds)]
    print(f"{len(chosen)} targets; found fault in: {', '.join(faulty) or 'none'}.")
    return 1 if faulty else 0


def _fuzz(target: Target, seconds: int) -> bool:
    """Fuzz from the seeds and the corpus; keep the smallest inputs that reach everything."""
    FOUND.mkdir(exist_ok=True)
    target.corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="saltline-fuzz-") as folder:
        work, merged = Path(folder) / "work", Path(folder) / "merged"
        work.mkdir()
        merged.mkdir()
        for number, data in enumerate(target.inputs()):
            (work / f"{number}").write_bytes(data)
        limits = [f"-max_len={target.max_bytes}", f"-timeout={_INPUT_MAX_S}"]
        limits += [f"-rss_limit_mb={_MEMORY_MAX_MB}", f"-artifact_prefix={FOUND}/{target.name}-"]
        launcher = _launcher(target, Path(folder))
        code, told = _run(launcher, [*limits, f"-max_total_time={seconds}", str(work)])
        done = _DONE.findall(told)
        runs, edges, features = done[-1] if done else ("0", "0", "0")
        if code:
            print(told[told.find(" === ") :], file=sys.stderr)
        _run(launcher, [*limits, "-merge=1", str(merged), str(work)])
        kept = _keep(target, merged)
        print(
            f"{target.name}: {runs} runs, {edges} edges, {features} features,"
            f" {kept} inputs kept{', FOUND FAULT' if code else ''}",
            flush=True,
        )
    return not code


def _launcher(target: Target, folder: Path) -> Path:
    """A program that fuzzes `target`: libFuzzer starts itself by its first argument."""
    launcher = folder / "fuzz"
    python = shlex.quote(sys.executable)
    launcher.write_text(f'#!/bin/sh\nexec {python} -m tests.fuzzing.run {target.name} "$0" "$@"\n')
    launcher.chmod(0o700)
    return launcher


def _run(launcher: Path, flags: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        [launcher, *flags],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(launcher.parent)},  # it ends without cleaning up
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _keep(target: Target, merged: Path) -> int:
    """Exchange the corpus for what was merged, the smallest first, as far as there is room."""
    found = sorted(merged.iterdir(), key=lambda file: (file.stat().st_size, file.name))
    if not found:
        return len(list(target.corpus.iterdir()))  # the merge failed: nothing is exchanged
    for old in target.corpus.iterdir():
        old.unlink()
    room, kept = corpus_max_bytes(), 0
    for file in found[:CORPUS_MAX_FILES]:
        data = file.read_bytes()
        room -= len(data)
        if room < 0:
            break
        (target.corpus / file.name).write_bytes(data)
        kept += 1
    return kept


if __name__ == "__main__":
    sys.exit(main())
