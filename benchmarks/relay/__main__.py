"""The relay and its peers under load, in turns: `make bench`, or

    python -m benchmarks.relay [--works room-256,idle] [--peers saltline,nats] [--runs 3]

Prints the table, and keeps it as results.md and results.json: beside this file if everything was
measured three times or more, else with what was built.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.relay.building import ROOT, Built, Missing, build
from benchmarks.relay.dialects import Unsupported
from benchmarks.relay.peers import (
    Asyncio,
    BareLoop,
    Inspircd,
    Mosquitto,
    Nats,
    RawRelay,
    Redis,
    ServerPeer,
)
from benchmarks.relay.plans import Plan
from benchmarks.relay.report import report
from benchmarks.relay.running import (
    SERVER_CORE,
    Figures,
    RunFailed,
    files_max,
    free_port,
    generate,
    on_core,
    serving,
)
from benchmarks.relay.saltline_relay import RAISED, FullSaltline, Saltline
from benchmarks.relay.table import Table
from benchmarks.relay.works import BLAST, COMMIT, WORKS, Work

HERE: Final = Path(__file__).parent
_SERVERS: Final[tuple[ServerPeer, ...]] = (
    Saltline(),
    FullSaltline(),
    Inspircd(),
    Nats(),
    Redis(),
    Mosquitto(),
    Asyncio(),
    BareLoop(),
    RawRelay(),
)
WHOLE_RUNS: Final = 3
_FILES_KEPT: Final = 200  # of a process's descriptors, for everything but connections


class Bench:
    """The programs, the servers that are here, and what was measured so far."""

    def __init__(self, built: Built, seconds: float | None) -> None:
        self.built = built
        self.table = Table()
        self.versions: dict[str, str] = {}
        self.left_out: list[str] = []
        self.seconds = seconds
        self._servers: dict[str, ServerPeer] = {}

    def find_servers(self, names: set[str]) -> None:
        """Of these, who is on this machine."""
        for server in _SERVERS:
            if server.name not in names:
                continue
            try:
                version = server.version()
            except Missing as missing:
                self.left_out.append(str(missing))
                print(missing, flush=True)
            else:
                self._servers[server.name] = server
                if version not in self.versions.values():
                    self.versions[server.name] = version

    def run(self, work: Work, peer: str) -> None:
        """Once. What fails is said, and its row stays out."""
        try:
            figures = self._measure(work, peer)
        except (RunFailed, OSError, subprocess.SubprocessError) as error:
            print(f"{work.name:14} {peer:16} failed: {error}", flush=True)
            self.left_out.append(f"{work.name} of {peer}, one run that failed")
            return
        except Unsupported:
            return
        self.table.add(work.name, peer, figures)
        print(f"{work.name:14} {peer:16} {_brief(figures)}", flush=True)

    def has(self, peer: str) -> bool:
        """Whether it can be run here."""
        return peer in self._servers or peer in (COMMIT, BLAST)

    def _measure(self, work: Work, peer: str) -> Figures:
        seconds = self.seconds or work.measure_s
        if peer == COMMIT:
            folder = self.built.fresh("commit")
            return self._program("durable", folder, work.commits_per_s, seconds)
        if peer == BLAST:
            built = self.built
            return self._program("blast", built.certificate_file, built.key_file, seconds)
        return self._serve(work, self._servers[peer], seconds)

    def _program(self, name: str, *arguments: object) -> Figures:
        command = on_core(SERVER_CORE, [self.built.program(name), *map(str, arguments)])
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        figures: Figures = json.loads(done.stdout)
        return figures

    def _serve(self, work: Work, server: ServerPeer, seconds: float) -> Figures:
        folder = self.built.fresh("server")
        port = free_port()
        try:
            begun = server.begin(folder, self.built, work.setup, port)
            plans = split(begun.plan, files_max() - _FILES_KEPT)
            paths = [plan.write(folder / f"plan-{at}") for at, plan in enumerate(plans)]
            times = ("--measure", seconds, "--drain", work.drain_s)
            options = (*shared(work.options, len(plans)), *times)
            with serving(begun.command, port, folder) as running:
                server.started(port, work.setup)
                return generate(self.built.program("lg"), paths, running, *options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def split(plan: Plan, connections_max: int) -> list[Plan]:
    """As many plans as it takes, where one process may not have as many connections."""
    everybody = plan.connections
    if len(everybody) <= connections_max:
        return [plan]
    parts = -(-len(everybody) // connections_max)
    size = -(-len(everybody) // parts)
    return [Plan(plan.wire, everybody[at : at + size]) for at in range(0, len(everybody), size)]


def shared(options: tuple[object, ...], parts: int) -> tuple[object, ...]:
    """The options for each of several generators: a rate is that of all of them."""
    values = list(options)
    if parts > 1 and "--rate" in values:
        at = values.index("--rate") + 1
        values[at] = int(str(values[at])) // parts
    return tuple(values)


def in_turn(peers: tuple[str, ...], run: int) -> tuple[str, ...]:
    """Somebody else begins in every run."""
    first = run % len(peers)
    return peers[first:] + peers[:first]


def _brief(figures: Figures) -> str:
    keys: tuple[str, ...]
    if "storm_s" in figures:
        keys = ("kib_each", "storm_cpu_ms_each", "storm_s", "storm_lost")
    else:
        keys = ("per_s", "cpu_us", "server_share", "generator_share", "p50_us", "p99_us", "errors")
    return "  ".join(f"{key} {figures[key]:,.4g}" for key in keys if key in figures)


def _about(bench: Bench) -> dict[str, Any]:
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {**bench.versions, "Python": platform.python_version()}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{processor}, {os.cpu_count()} cores, {memory_gib:.0f} GiB,"
        f" {platform.system()} {platform.release()}",
        "versions": {**versions, "gcc": compiler.stdout.strip()},
        "left_out": bench.left_out,
        "measured": "as long as each work plans"
        if bench.seconds is None
        else f"{bench.seconds:g} seconds of each work",
        "raised": RAISED,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", default="", help=", ".join(work.name for work in WORKS))
    parser.add_argument("--peers", default="", help="by name; without: all")
    parser.add_argument("--runs", type=int, default=WHOLE_RUNS)
    parser.add_argument("--seconds", type=float, help="measure so long, instead of as planned")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--keep", type=_folder, help="where the results go")
    return parser.parse_args()


def _folder(text: str) -> Path:
    """Made before an hour's work, not missed after it."""
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"it cannot be made: {error.strerror}") from None
    return folder


def _chosen(text: str, known: list[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or known
    for name in names:
        if name not in known:
            sys.exit(f"There is no {what} {name}. There are: {', '.join(known)}.")
    return names


def keep(bench: Bench, folder: Path) -> str:
    """Write the results into a folder; the report."""
    about = _about(bench)
    text = report(bench.table, about)
    rows = [[row.work, row.peer, row.figures] for row in bench.table.rows]
    kept = json.dumps({"about": about, "rows": rows}, indent=1)
    (folder / "results.md").write_text(text, "utf-8")
    (folder / "results.json").write_text(kept + "\n", "utf-8")
    return text


def main() -> None:
    """Run after run, work after work, peer after peer."""
    given = _arguments()
    names = _chosen(given.works, [work.name for work in WORKS], "work")
    works = [work for work in WORKS if work.name in names]
    known = list(dict.fromkeys(peer for work in WORKS for peer in work.peers))
    peers = set(_chosen(given.peers, known, "peer"))
    try:
        bench = Bench(build(given.folder), given.seconds)
    except Missing as missing:
        sys.exit(str(missing))
    bench.find_servers(peers)
    began = time.monotonic()
    for number in range(given.runs):
        print(f"--- run {number + 1} of {given.runs}", flush=True)
        for work in works:
            for peer in in_turn(work.peers, number):
                if peer in peers and bench.has(peer):
                    bench.run(work, peer)
    is_whole = (len(works), peers, given.seconds) == (len(WORKS), set(known), None)
    is_whole = is_whole and not bench.left_out
    folder = given.keep or (HERE if is_whole and given.runs >= WHOLE_RUNS else given.folder)
    text = keep(bench, folder)
    shutil.rmtree(given.folder / "run", ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{text}\nThis took {minutes:.0f} minutes; it is kept in {folder / 'results.md'}.")


if __name__ == "__main__":
    main()
