"""`saltline` under strace: which calls change the disk or the wire, and what happens at one.

strace counts the calls of each thread by themselves, so a moment is named by the file that a call
works on, or by the thread that makes it: no two threads reach the same one.
"""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.client.programs import PROGRAM
from tests.torture.trial import Lacking

DEADLINE_S = 120.0
# What a client's disk and relay see of it.
CHANGES = (
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "write",
    "sendto",
    "unlink",
    "rename",
    "mkdir",
)
# What decides whether a file is on the disk.
SAVING = "pwrite64,fdatasync,fsync,ftruncate"
# Calls on a descriptor, and the file that it stands for: `31 pwrite64(5</p/vault.db-wal>, …`.
_CALL = re.compile(r"^(\d+) +(\w+)\((?:\d+<([^>]*)>)?(.*)$")
# The end of a call in whose midst strace wrote down another thread's.
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_DONE = re.compile(r"\) += \d")
_UNFINISHED = " <unfinished ...>"
_KILLED = -signal.SIGKILL


def need_strace() -> None:
    """Raises Lacking where programs cannot be traced."""
    if not _can_trace():
        raise Lacking("strace")


@functools.cache
def _can_trace() -> bool:
    if not sys.platform.startswith("linux") or shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-qq", "-e", "none", "true"], capture_output=True).returncode == 0
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """The `number`-th time that a thread makes `call`; on `file` alone, unless that is ""."""

    call: str
    file: str
    number: int
    main_thread: bool = False

    def __str__(self) -> str:
        where = f" on {Path(self.file).name}" if self.file else ""
        return f"{self.call}{where} {self.number}{' (main)' if self.main_thread else ''}"

    def strace(self, what: str, log: Path = Path(os.devnull)) -> list[str]:
        """The command that does `what` ("signal=KILL", "error=EIO") at this moment.

        `log`: where it writes down the writes and syncs of the same file, for `logged`.
        """
        options = ["-qq", "-o", str(log), f"-einject={self.call}:{what}:when={self.number}"]
        options += [f"-etrace={SAVING}", "-y", "-s0"] if log != Path(os.devnull) else []
        options += [] if self.main_thread else ["-f"]
        options += ["-P", self.file] if self.file else []
        return ["strace", *options]


@dataclass(frozen=True, slots=True)
class Traced:
    """What a command left: its exit status (-9: killed), and what it said."""

    code: int
    out: str
    err: str

    @property
    def was_killed(self) -> bool:
        return self.code == _KILLED

    @property
    def records(self) -> list[dict[str, Any]]:
        """The whole lines of standard output; a line without its end was not printed."""
        return [json.loads(line) for line in self.out.splitlines(keepends=True) if "\n" in line]


def command(profile: Path, *arguments: str) -> list[str]:
    """`saltline` for a profile, as a process of its own."""
    return [*PROGRAM, "--profile", str(profile), *arguments]


def run_traced(strace: Sequence[str], profile: Path, *arguments: str) -> Traced:
    """Run it to its end. Raises AssertionError for a traceback."""
    done = subprocess.run(
        [*strace, *command(profile, *arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_S,
    )
    traced = Traced(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in traced.err, traced.err
    return traced


def watching(log: Path) -> list[str]:
    """strace that only writes down every change, with the files' names."""
    calls = ",".join(CHANGES)
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s0", "-esignal=none"] + [
        "-o", str(log), f"-etrace={calls}",
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Logged:
    """A call on a file, as strace wrote it down when it was over; or never was."""

    thread: int
    name: str
    file: str
    rest: str

    @property
    def was_injected(self) -> bool:
        return "(INJECTED)" in self.rest

    @property
    def has_failed(self) -> bool:
        return _DONE.search(self.rest) is None

    @property
    def offset(self) -> int:
        """Where a pwrite64 began: `, ""..., 24, 4152) = 24`."""
        return int(self.rest.partition(")")[0].rpartition(",")[2])


def logged(log: Path) -> Iterator[Logged]:
    """All calls on files in a log of strace, in the order in which they were over."""
    begun: dict[int, Logged] = {}
    for line in log.read_text(errors="replace").splitlines():
        if found := _CALL.match(line):
            call = Logged(int(found[1]), found[2], found[3] or "", found[4])
            if call.rest.endswith(_UNFINISHED):
                begun[call.thread] = call
            elif call.file:
                yield call
        elif (found := _RESUMED.match(line)) and int(found[1]) in begun:
            call = begun.pop(int(found[1]))
            if call.file:
                yield replace(call, rest=call.rest.removesuffix(_UNFINISHED) + found[2])
    for call in begun.values():
        yield replace(call, rest=call.rest.removesuffix(_UNFINISHED))


def moments(log: Path) -> list[Moment]:
    """Every moment of what `watching` wrote down, call by call."""
    counts: Counter[tuple[int, str, str]] = Counter()
    main = 0
    for line in log.read_text(errors="replace").splitlines():
        if found := _CALL.match(line):
            thread, call, file = int(found[1]), found[2], found[3] or ""
            main = main or thread
            named = call not in ("write", "sendto") and file.startswith("/")
            counts[thread, call, file if named else ""] += 1
    most: Counter[tuple[str, str, bool]] = Counter()
    for (thread, call, file), count in counts.items():
        most[call, file, False] = max(most[call, file, False], count)
        if thread == main and not file:
            most[call, file, True] = count  # others come first with `-f`
    return list(_each(most))


def _each(most: Counter[tuple[str, str, bool]]) -> Iterator[Moment]:
    for (call, file, main_thread), count in most.items():
        if main_thread and most[call, file, False] == count and call not in ("write", "sendto"):
            continue  # only the main thread makes them
        for number in range(1, count + 1):
            yield Moment(call, file, number, main_thread)


def spread(found: Sequence[Moment], wanted: int) -> list[Moment]:
    """At most `wanted` of them, evenly from first to last; one: from the middle."""
    if len(found) <= wanted:
        return list(found)
    if wanted == 1:
        return [found[len(found) // 2]]
    return [found[round(index * (len(found) - 1) / (wanted - 1))] for index in range(wanted)]
