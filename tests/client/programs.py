"""The real program and a real relay: commands in this process, or in processes of their own."""

import fcntl
import io
import json
import logging
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from saltline.client.certificates import parse_pin
from saltline.client.cli import run
from saltline.client.link_events import Target
from saltline.client.messenger import Client
from saltline.client.profile import Profile
from saltline.client.registration import Wish, finish_registration
from saltline.protocol import limits
from saltline.protocol.names import RelayAddress
from saltline.server.config import Config, Deadlines
from saltline.server.relay import Relay
from saltline.server.settings import Settings

TIMEOUT_S = 30.0
PROGRAM = [sys.executable, "-c", "from saltline.client.entry import main; main()"]
SETTINGS = Settings(registrations_per_minute_and_address=100_000)


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit status, and what it said."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class House:
    """A relay that can be switched off and on at the same address, and its users."""

    folder: Path
    settings: Settings = SETTINGS
    relay: Relay | None = None
    address: RelayAddress = RelayAddress("127.0.0.1", 0)
    pin: str = ""

    @classmethod
    @contextmanager
    def running(cls, folder: Path, settings: Settings = SETTINGS) -> "Iterator[House]":
        """For the length of a test module; accounts of this process make few prekeys."""
        with patch.multiple(
            limits,
            ONE_TIME_PREKEYS=8,
            ONE_TIME_PREKEYS_REFILL_BELOW=2,
            ONE_TIME_KEM_PREKEYS=4,
            ONE_TIME_KEM_PREKEYS_REFILL_BELOW=1,
        ):
            house = cls(folder, settings)
            house.open()
            try:
                yield house
            finally:
                house.close()

    def open(self) -> None:
        """Start the relay, unless it runs."""
        if self.relay is not None:
            return
        deadlines = Deadlines(stop_s=1.0, close_s=1.0, check_every_s=0.02)
        config = Config(
            listen=self.address,
            data=self.folder / "relay",
            settings=self.settings,
            log_level=logging.CRITICAL,
            deadlines=deadlines,
        )
        relay = Relay(config)
        relay.start()
        self.relay, self.address, self.pin = relay, relay.address, relay.pin

    def close(self) -> None:
        if self.relay is not None:
            self.relay.stop()
            self.relay = None

    @contextmanager
    def closed(self) -> Iterator[None]:
        """The relay is away for the length of the block."""
        self.close()
        try:
            yield
        finally:
            self.open()

    @property
    def target(self) -> Target:
        return Target(self.address, parse_pin(self.pin))

    def user(self, name: str) -> Path:
        """The profile of a new account."""
        folder = self.folder / name
        profile = Profile(folder, create=True)
        with Client.open(profile, profile.create_key(None)) as client:
            finish_registration(client, Wish(name, self.target))
        return folder


Command = Callable[..., Ran]


@dataclass
class Shell:
    """Runs `saltline` in this process, as one profile."""

    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def __call__(self, profile: Path | None, *arguments: str, stdin: bytes | None = None) -> Ran:
        before = [] if profile is None else ["--profile", str(profile)]
        self.capture.readouterr()
        with self.patch.context() as patched:
            if stdin is not None:
                patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
            code = run([*before, *arguments])
        said = self.capture.readouterr()
        assert "Traceback" not in said.err
        return Ran(code, said.out, said.err)


class Process:
    """`saltline` in a process of its own, without a controlling terminal."""

    def __init__(self, profile: Path, *arguments: str, environment: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [*PROGRAM, "--profile", str(profile), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )

    def line(self) -> str:
        """The next line on standard output, awaited."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def end(self, signal_number: int | None = None) -> Ran:
        """Wait for its end, after a signal where one is given."""
        if signal_number is not None:
            self.process.send_signal(signal_number)
        try:
            out, err = self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return Ran(self.process.returncode, out.decode(), err.decode())

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Terminal:
    """`saltline` on a terminal of its own, typed at."""

    def __init__(self, profile: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        take_terminal = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", take_terminal, *PROGRAM, "--profile", str(profile), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(slave)
        self.shown = ""

    def expect(self, text: str) -> None:
        give_up = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert time.monotonic() < give_up, self.shown
            self._read()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 0.1)
        if not ready:
            return True
        with suppress(OSError):  # the other end is closed
            data = os.read(self._master, 4096)
            self.shown += data.decode()
            return bool(data)
        return False

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        give_up = time.monotonic() + TIMEOUT_S
        while self._read():
            assert time.monotonic() < give_up, self.shown
        os.close(self._master)
        return self._process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """The end, however the test went."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            os.close(self._master)


def owner_serves(profile: Path) -> bool:
    """Whether some process owns a profile and answers others."""
    from saltline.client.control import ControlClient
    from saltline.client.requests import Account

    try:
        control = ControlClient(profile)
    except OSError:
        return False
    try:
        return bool(list(control.perform(Account())))
    finally:
        control.close()
