"""A server on one core, the generator on another, and what they say."""

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

SERVER_CORE: Final = 0
GENERATOR_CORE: Final = 1
_FILES_WANTED: Final = 20_000
_START_S: Final = 30.0
_STOP_S: Final = 20.0
_POLL_S: Final = 0.05
_LOG_SHOWN_BYTES: Final = 2_000

Figures = dict[str, Any]


class RunFailed(Exception):
    """A server did not start, or a generator gave no figures."""


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """The command, pinned, and before others where we may say so."""
    first = ["nice", "-n", "-10"] if os.geteuid() == 0 else []
    return [*first, "taskset", "-c", str(core), *command]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def connect(port: int) -> ssl.SSLSocket:
    """A TLS connection for what a peer wants prepared. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost")


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text("ascii").split():
                pids += _tree(int(child))
    return pids


class Server:
    """A running server; `pids` are all its processes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.pids = _tree(process.pid)


def files_max() -> int:
    """How many files, connections among them, a process here may have open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max(), hard))


@contextmanager
def serving(command: Sequence[str], port: int, folder: Path) -> Iterator[Server]:
    """Run a server until the block ends. Raises RunFailed."""
    log = folder / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            on_core(SERVER_CORE, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            preexec_fn=_allow_files,
        )
    try:
        _wait_until_open(process, port, log)
        yield Server(process, port)
    finally:
        _stop(process)


def _wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_s = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < give_up_s:
        try:
            connect(port).close()
        except OSError:
            time.sleep(_POLL_S)
            continue
        time.sleep(0.5)  # what it does once, after its first connection
        return
    said = log.read_bytes()[-_LOG_SHOWN_BYTES:].decode("utf-8", "replace")
    raise RunFailed(f"{process.args!r} does not serve: {said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        for pid in _tree(process.pid):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def generate(program: str, plans: Sequence[Path], server: Server, *options: object) -> Figures:
    """Run one generator for each plan, all at once; their figures as one. Raises RunFailed."""
    pids = ",".join(map(str, server.pids))
    several = len(plans) > 1
    running = [
        subprocess.Popen(
            on_core(
                GENERATOR_CORE,
                [
                    program,
                    str(plan),
                    *("--port", str(server.port), "--pids", pids),
                    *("--barrier", str(int(several))),
                    *map(str, options),
                ],
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if not several else subprocess.PIPE,
            text=True,
        )
        for plan in plans
    ]
    try:
        if several:
            _meet(running)
        outputs = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    codes = [process.returncode for process in running]
    if any(codes):
        raise RunFailed(f"the generator gave up ({codes}); its reason stands above")
    return merge([json.loads(output) for output in outputs])


def _meet(running: Sequence[subprocess.Popen[str]]) -> None:
    """Let all begin when all are logged in."""
    for process in running:
        assert process.stderr is not None
        for line in process.stderr:
            if line == "ready\n":
                break
            print(line, end="")
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


_SUMS: Final = frozenset(
    "connections sent delivered acknowledged per_s lost dead errors generator_share"
    " all_sent all_expected all_delivered all_acknowledged".split()
)


def merge(figures: Sequence[Figures]) -> Figures:
    """Counts of several generators together; of times, shares and sizes the greatest."""
    merged: Figures = {}
    for key in dict.fromkeys(key for each in figures for key in each):
        values = [each[key] for each in figures if key in each]
        merged[key] = sum(values) if key in _SUMS else max(values)
    if len(figures) > 1 and merged.get("per_s"):
        merged["cpu_us"] = merged["server_share"] * 1e6 / merged["per_s"]
    return merged
