"""Where the relay's CPU goes in a busy room, layer by layer, as docs/performance.md tells it.

    python -m benchmarks.relay_layers [--work room-256] [--seconds 10]

Runs one work of `make bench` against the relay as shipped, samples it with Linux's `perf` in the
kernel's clock meanwhile, and prints what each layer has of the samples.
"""

import argparse
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.relay.building import ROOT, Built, Missing, build
from benchmarks.relay.running import (
    GENERATOR_CORE,
    RunFailed,
    free_port,
    generate,
    on_core,
    serving,
)
from benchmarks.relay.saltline_relay import Saltline
from benchmarks.relay.works import WORKS, Work

_SAMPLES_PER_S: Final = 2000
_WARM_S: Final = 2.0  # the generator's own, and a little


class Sample(NamedTuple):
    """A group of equal samples: which thread, which file, which function, how many of them."""

    thread: int
    file: str
    symbol: str
    hits: int


# The first whose patterns are found in a sample's file and function.
_LAYERS: Final[tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...]] = tuple(
    (layer, re.compile(file), re.compile(symbol))
    for layer, file, symbol in (
        ("disk, in the kernel", r"kernel|ext4|jbd2", r"ext4|jbd2|fsync|blk_|bio_|virtblk|overlay"),
        ("TCP, and all else of the kernel", r"kernel|\[", r""),
        ("SHA-256, of the history", r"libcrypto|_hashlib|_sha", r"(?i)sha256"),
        ("AES-GCM and OpenSSL around it", r"libcrypto|libssl|_ssl\.", r""),
        ("msgpack", r"^_core\.", r""),  # msgspec's
        ("SQLite and apsw", r"^__init__\.|apsw|sqlite", r""),
        ("copying in user space", r"libc[.-]|vdso", r"mem(cpy|move|set)"),
        ("Python", r"python|libc[.-]|libpthread|vdso|ld-linux|\.so", r""),
    )
)


def layer_of(sample: Sample) -> str:
    """What a sample counts for."""
    for layer, file, symbol in _LAYERS:
        if file.search(sample.file) and symbol.search(sample.symbol):
            return layer
    return "unknown"


def shares(samples: Iterable[Sample]) -> dict[str, float]:
    """Per cent of all samples, largest first. Python's are told apart by thread.

    The storage thread is the one in which SQLite runs most.
    """
    samples = list(samples)
    in_sqlite = Counter[int]()
    for sample in samples:
        if layer_of(sample) == "SQLite and apsw":
            in_sqlite[sample.thread] += sample.hits
    storage = in_sqlite.most_common(1)[0][0] if in_sqlite else 0
    counts = Counter[str]()
    for sample in samples:
        layer = layer_of(sample)
        if layer == "Python":
            of_storage = sample.thread == storage
            layer = "Python: storage thread" if of_storage else "Python: I/O and core"
        counts[layer] += sample.hits
    total = counts.total()
    return {layer: 100 * count / total for layer, count in counts.most_common()}


def parse(report: str) -> list[Sample]:
    """The lines of `perf report -F sample,pid,dso,symbol -t ;`."""
    found = []
    for line in report.splitlines():
        fields = [field.strip() for field in line.split(";")]
        if line.startswith("#") or len(fields) < 4 or not fields[0].isdigit():
            continue
        thread = re.search(r"\d+", fields[1])
        found.append(Sample(int(thread[0]) if thread else 0, fields[2], fields[3], int(fields[0])))
    return found


def measure(work: Work, built: Built, seconds: float) -> list[Sample]:
    """Run the work once, and sample the relay while it is busy. Raises RunFailed, OSError."""
    folder = built.fresh("layers")
    port = free_port()
    begun = Saltline().begin(folder, built, work.setup, port)
    plan = begun.plan.write(folder / "plan")
    data = folder / "perf.data"
    with serving(begun.command, port, folder) as server:
        options = (*work.options, "--measure", seconds + _WARM_S, "--drain", work.drain_s)
        pids = ",".join(map(str, server.pids))
        timer = threading.Timer(_WARM_S, _sample, (pids, data, seconds))
        timer.start()
        figures = generate(built.program("lg"), [plan], server, *options)
        timer.join()
        print(f"{work.name}: {figures['per_s']:,.0f} deliveries/s while it was sampled")
        samples = parse(_perf("report", "-i", data, "-F", "sample,pid,dso,symbol", "-t", ";"))
        if not samples:
            raise RunFailed("perf saw nothing; may it sample here (kernel.perf_event_paranoid)?")
        return samples


def _sample(pids: str, data: Path, seconds: float) -> None:
    clock = ("-e", "cpu-clock", "-F", _SAMPLES_PER_S)
    _perf("record", "-q", *clock, "-p", pids, "-o", data, "--", "sleep", seconds)


def _perf(*arguments: object) -> str:
    command = on_core(GENERATOR_CORE, ["perf", *map(str, arguments)])
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Run a work, and print what each layer took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="room-256", choices=[work.name for work in WORKS])
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    if shutil.which("perf") is None:
        sys.exit("There is no perf here. Debian has it in linux-perf; it samples the relay.")
    work = next(work for work in WORKS if work.name == given.work)
    try:
        samples = measure(work, build(ROOT / "build" / "bench"), given.seconds)
    except Missing as missing:
        sys.exit(str(missing))
    except (RunFailed, subprocess.CalledProcessError) as error:
        sys.exit(f"It could not be measured: {error}")
    for layer, share in shares(samples).items():
        print(f"{share:5.1f} %  {layer}")


if __name__ == "__main__":
    main()
