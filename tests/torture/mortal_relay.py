"""A real relay on one port, that can be killed and started again; and what its log says."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from tests.server.edge import TIMEOUT_S
from tests.server.wire_client import WireClient

PROGRAM = (sys.executable, "-c", "from saltline.server.cli import main; main()")
# Everybody comes from one address here, and at once after each start.
MANY_FROM_HERE = """
[limits]
unauthenticated_per_address = 1000
registrations_per_minute_and_address = 100000
requests_per_second = 100000
requests_burst = 1000000
"""
_ANNOUNCED = re.compile(r"--relay (\S+):([0-9]+) .*--pin (sha256:[0-9a-f]{64})")


class MortalRelay:
    """`saltline-server run` on `data`, or `folder`/data; its log is `folder`/relay.log.

    `serving` is set from its announcement to the moment before it is ended. `start` may be given
    what runs in its place (`program`) or before it (`prefix`).
    """

    def __init__(
        self, folder: Path, *, data: Path | None = None, config: str = MANY_FROM_HERE
    ) -> None:
        self.data = data or folder / "data"
        self.log = folder / "relay.log"
        self.serving = threading.Event()
        self.port = 0
        self.pin = ""
        self.seconds_to_serve = 0.0
        self._config = folder / "relay.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(config)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.log.exists():
            error.add_note("The relay logged last:\n" + self.log_text[-2_000:])
        if self._process is not None:
            self.kill()

    @property
    def address(self) -> str:
        """As a user types it."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_text(self) -> str:
        """Everything that it logged so far, over all starts."""
        return self.log.read_text()

    # --- its life ------------------------------------------------------------------------------

    def launch(
        self, *, program: Sequence[str] = PROGRAM, prefix: Sequence[str] = (), **options: Any
    ) -> None:
        """Start it, and do not wait."""
        assert self._process is None
        arguments = ("run", "--listen", self.address, "--data", self.data)
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*prefix, *program, *arguments, "--config", self._config],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                **options,
            )

    def start(self, **options: Any) -> None:
        """Start it, and return when clients can connect. Raises AssertionError if it ends."""
        assert self.tries_to_start(**options), self.log_text

    def tries_to_start(self, **options: Any) -> bool:
        """The same; False if it ends instead, and is to be waited for."""
        started_s = monotonic()
        self.launch(**options)
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if found := _ANNOUNCED.search(line):
                self.port, self.pin = int(found[2]), found[3]
                self.seconds_to_serve = monotonic() - started_s
                self.serving.set()
                return True
        return False

    def kill(self) -> None:
        """SIGKILL, whatever it does."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self.end(signal.SIGTERM)

    def kill_after_launch(self, seconds: float) -> bool:
        """Start it, and kill it so much later; whether it had announced itself by then."""
        self.launch()
        assert self._process is not None and self._process.stdout is not None
        sleep(seconds)
        self._process.kill()
        had_announced = _ANNOUNCED.search(self._process.stdout.read()) is not None
        self.wait()
        return had_announced

    def stop_and_kill(self, seconds: float) -> int:
        """SIGTERM, and SIGKILL so much later; the exit code, 0 if it had ended by then."""
        self.serving.clear()
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        sleep(seconds)
        self._process.kill()
        return self.wait()

    def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end; the exit code."""
        self.serving.clear()
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None and self._process.stdout is not None
        try:
            return self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self.serving.clear()
            self._process.stdout.close()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """If it runs: between two of its instructions, for a copy of one moment."""
        if self._process is None:
            yield
            return
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    # --- those who talk to it ------------------------------------------------------------------

    def connect(self, name: str = "") -> WireClient:
        """Somebody who has said nothing yet."""
        return WireClient(self.port, name)

    def admin(self, *words: str) -> subprocess.CompletedProcess[str]:
        """An admin's command on the same folder."""
        return subprocess.run(
            [*PROGRAM, *words, "--data", self.data], capture_output=True, text=True, timeout=60
        )

    def check(self) -> None:
        """`saltline-server check` finds every page of the database in order."""
        done = self.admin("check")
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert "Database: ok, every page of it." in done.stdout, done.stdout
