"""The relay is killed again and again: what it acknowledged arrives, once and in order."""

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.programs import BIN, RunningRelay, User

from saltline.client.messenger import Client
from saltline.client.model import ConnectionState, Delivery
from saltline.client.profile import Profile

MESSAGES = 1000
KILLS = 10
DEADLINE_S = 90


class MortalRelay:
    """A relay on one port, that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listen = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        self._log = self.folder.with_suffix(".log").open("ab")
        self._process = subprocess.Popen(
            [BIN / "saltline-server", "run", "--listen", self._listen, "--data", self.folder],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = re.search(r"--relay (\S+) .*--pin (sha256:[0-9a-f]{64})", line)
            if found:
                self.running = RunningRelay(self.folder, found[1], found[2])
                self._listen = found[1]
                return
        raise AssertionError(self.folder.with_suffix(".log").read_text())

    def stop(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[MortalRelay]:
    relay = MortalRelay(tmp_path / "relay")
    yield relay
    relay.stop(signal.SIGTERM)


def test_a_thousand_messages_and_ten_kills(relay: MortalRelay, tmp_path: Path) -> None:
    alice, bob = User(tmp_path / "alice"), User(tmp_path / "bob")
    for user in (alice, bob):
        user.register(relay.running, user.profile.name)
    bob.run("recv", "--once")
    rng = random.Random(11)
    profile = Profile(alice.profile)
    with Client.open(profile, profile.unlock(None)) as client:
        client.start()
        lines = [client.send("bob", f"text {number}") for number in range(MESSAGES)]
        kills = 0
        deadline = time.monotonic() + DEADLINE_S
        while client.status().queued:
            assert time.monotonic() < deadline, client.status()
            done = MESSAGES - client.status().queued
            if kills < KILLS and done >= (kills + rng.random()) * MESSAGES / KILLS:
                relay.stop(signal.SIGKILL)
                relay.start()
                kills += 1
            if client.status().connection is not ConnectionState.ONLINE:
                client.reconnect()
            time.sleep(0.02)
        assert kills == KILLS
        states = {found.delivery for line in lines if (found := client.line(line.row))}
        assert states == {Delivery.RELAYED}
    relay.stop(signal.SIGKILL)
    relay.start()
    printed = [json.loads(line) for line in bob.run("recv", "--once", "--json").splitlines()]
    texts = [each["body"] for each in printed if each["conversation"] == "@alice"]
    assert texts == [f"text {number}" for number in range(MESSAGES)]
    assert [each["type"] for each in printed if each["conversation"] == "@alice"] == [
        "message"
    ] * MESSAGES
    again = bob.run("recv", "--once", "--json").splitlines()
    assert [line for line in again if "@alice" in line] == []
