"""`recv --follow` under strace: owns a profile, prints what comes, queues what others send."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from saltline.client.control import OwnerGone
from tests.client.programs import owner_serves
from tests.torture.straced import DEADLINE_S, Traced, command
from tests.torture.town import Town, fine
from tests.waiting import wait_until


class Owner:
    """The process, until its end."""

    def __init__(self, strace: list[str], profile: Path) -> None:
        self._out = profile.with_name(profile.name + ".out")
        self._err = profile.with_name(profile.name + ".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*strace, *command(profile, "recv", "--follow", "--json")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self._is_traced = bool(strace)
        self.profile = profile

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def said(self, text: str) -> bool:
        return text in self._out.read_text()

    def ask_to_end(self) -> None:
        """SIGTERM to the program, not to strace."""
        pid = self._process.pid
        if self._is_traced:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            pids = [int(word) for word in children.read_text().split()]
        else:
            pids = [pid]
        for each in pids:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGTERM)

    def end(self) -> Traced:
        with suppress(FileNotFoundError):
            self.ask_to_end()
        try:
            code = self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        traced = Traced(code, self._out.read_text(), self._err.read_text())
        assert "Traceback" not in traced.err, traced.err
        return traced


def serve(town: Town, strace: list[str], owner: str, other: str) -> Traced:
    """A command sends through the owner, a message comes for it; then it ends, and starts again."""
    profile = town.profile(owner)
    process = Owner(strace, profile)
    try:
        wait_until(lambda: process.is_over or _serves(profile), "it serves, or is killed")
        number = town.next(owner, other)
        fine(profile, "send", other, "-m", f"text {number}", "--wait", "queued")
        town.acknowledged(owner, other, number)
        number = town.say(other, owner)
        wait_until(lambda: process.is_over or process.said(f'"text {number}"'))
    finally:
        traced = process.end()
    next_start = fine(profile, "recv", "--once", "--json")
    town.shown(owner, traced.records, next_start.records, may_repeat=traced.was_killed)
    town.receive(other)
    return traced


def _serves(profile: Path) -> bool:
    with suppress(OwnerGone):  # killed in the middle of the answer
        return owner_serves(profile)
    return False
