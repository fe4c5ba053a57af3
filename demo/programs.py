"""The real programs on this computer: a relay on a free loopback port, and profiles to use it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
START_DEADLINE_S = 20


class DemoFailed(Exception):
    """What was shown is not what should have been shown."""


@dataclass(frozen=True)
class RunningRelay:
    """A relay that is serving: where, and its certificate's pin."""

    folder: Path
    address: str
    pin: str


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """A private folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"saltline-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_relay(folder: Path) -> Iterator[RunningRelay]:
    """`saltline-server run` with a fresh certificate, until the block ends."""
    log = folder.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        [BIN / "saltline-server", "run", "--listen", "127.0.0.1:0", "--data", folder],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        yield _wait_until_it_serves(process, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        if process.stdout is not None:
            process.stdout.close()


def _wait_until_it_serves(process: "subprocess.Popen[str]", folder: Path) -> RunningRelay:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"--relay (\S+) .*--pin (sha256:[0-9a-f]{64})", line)
        if found:
            return RunningRelay(folder, found[1], found[2])
    raise DemoFailed(f"the relay did not start: see {folder.with_suffix('.log')}")


@dataclass(frozen=True)
class User:
    """A profile folder, and the commands that are run with it."""

    profile: Path

    def run(self, *words: str, stdin: str | None = None) -> str:
        """Run `saltline …`; its standard output. Raises DemoFailed unless it exits with 0."""
        done = subprocess.run(
            [BIN / "saltline", "--profile", self.profile, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"NO_COLOR": "1"},
        )
        if done.returncode:
            raise DemoFailed(f"saltline {' '.join(words)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def register(self, relay: RunningRelay, name: str) -> str:
        """Make an account; the demo's vault key lies in a file beside the vault."""
        return self.run(
            "register",
            "--relay",
            relay.address,
            "--pin",
            relay.pin,
            "--user",
            name,
            "--no-passphrase",
        )
