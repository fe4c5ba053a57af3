"""The relay as a process: signals that come while it is busy with earlier ones."""

import os
import signal
from pathlib import Path

import pytest

from saltline.protocol.names import RelayAddress
from saltline.server import process
from saltline.server.config import Config


class QuietRelay:
    """Serves nobody. Its start is where the first signal comes."""

    address = pin = register_line = register_line_vouched = ""
    failure = ""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    def reload(self, _config: Config) -> None:
        pass

    def needs_restart(self, _config: Config) -> list[str]:
        return []

    def stop(self) -> None:
        pass


def test_a_stop_does_not_wait_for_the_reloads_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "Relay", QuietRelay)
    for changes_this_process in ("set_up_log", "harden", "calm_collector"):
        monkeypatch.setattr(process, changes_this_process, lambda *_: None)
    config = Config(listen=RelayAddress("127.0.0.1", 0), data=tmp_path)
    loads = 0

    def load() -> Config:
        nonlocal loads
        loads += 1
        if loads == 2:  # the first reload is under way
            for number in [signal.SIGHUP] * 50 + [signal.SIGTERM]:
                os.kill(os.getpid(), number)
        return config

    assert process.serve(load) == process.EXIT_DONE
    assert loads == 2
