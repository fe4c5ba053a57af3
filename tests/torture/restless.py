"""A relay of several threads of each kind, and an interpreter that switches as often as it can."""

import faulthandler
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saltline.server.config import Config
from saltline.server.relay import Relay
from saltline.server.settings import Settings
from tests.server.edge import config_in
from tests.waiting import wait_until

SWITCH_S = 1e-6
WORKERS = 3
JOIN_S = 120.0


@contextmanager
def restless() -> Iterator[None]:
    """Threads change places as often as the interpreter can; a hang shows all stacks and ends."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    faulthandler.dump_traceback_later(600, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        sys.setswitchinterval(before)


def config(folder: Path) -> Config:
    """Several of each kind of thread, and no limit that a stress would meet."""
    settings = Settings(
        registrations_per_minute_and_address=10**6,
        unauthenticated_per_address=10**4,
        requests_burst=10**9,
    )
    return config_in(folder, workers=WORKERS, handshake_threads=2, settings=settings)


class Threads:
    """They each do `work(place)`; `join` raises what the first of them raised."""

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._work = work
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(place,), name=f"talker {place}", daemon=True)
            for place in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, place: int) -> None:
        try:
            self._work(place)
        except BaseException as failure:
            self._failures.append(failure)

    @property
    def failed(self) -> bool:
        """Whether one of them has."""
        return bool(self._failures)

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self._failures:
            raise self._failures[0]


def await_quiet(relay: Relay) -> None:
    """Until nobody is connected and nothing is under way."""

    def is_quiet() -> bool:
        busy = sum(map(len, relay._workers)) + sum(map(len, relay._handshakes))
        return not busy and not relay._driver._core._desk.connections and relay._driver.is_idle

    wait_until(is_quiet, "every visitor forgotten")
