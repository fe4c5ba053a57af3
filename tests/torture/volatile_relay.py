"""A whole relay in this process, TLS and threads and all, on a disk that can lose power."""

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from saltline.protocol.names import RelayAddress
from saltline.server.config import Config
from saltline.server.relay import Relay
from saltline.server.settings import Settings
from saltline.server.store.sqlite import SqliteStore
from tests.server.edge import QUICK, TIMEOUT_S
from tests.volatile_disk import VolatileDisk

SETTINGS = Settings(
    unauthenticated_per_address=1_000,
    registrations_per_minute_and_address=100_000,
    requests_per_second=100_000,
    requests_burst=1_000_000,
)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What relays of this process log, for this block alone to read."""
    logger = logging.getLogger("saltline")
    said: list[str] = []
    handler = _Listener(said)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


class _Listener(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


class VolatileRelay:
    """Its secrets lie in `folder`; its database on `disk`, which has room for so many bytes."""

    def __init__(self, folder: Path, room_bytes: int | None = None) -> None:
        self.disk = VolatileDisk()
        self.disk.room_bytes = room_bytes
        self.serving = threading.Event()
        self.port = 0
        self._folder = folder
        self._relay: Relay | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.disk.forget()

    @property
    def relay(self) -> Relay:
        """While it runs."""
        assert self._relay is not None
        return self._relay

    def start(self) -> None:
        """Return when clients can connect."""
        config = Config(
            listen=RelayAddress("127.0.0.1", self.port),
            data=self._folder,
            settings=SETTINGS,
            deadlines=QUICK,
        )
        relay = Relay(config, open_store=self._open_store)
        relay.start()
        self._relay, self.port = relay, relay.address.port
        self.serving.set()

    def _open_store(self, _path: Path, relay_id: bytes) -> SqliteStore:
        space = None if self.disk.room_bytes is None else self._space
        return SqliteStore(self.disk.path("relay.db"), relay_id, vfs=self.disk.vfs, space=space)

    def _space(self) -> tuple[int, int]:
        room = self.disk.room_bytes or 0
        return room - sum(map(len, self.disk.files().values())), room

    def lose_power(self, rng: random.Random, within: int) -> None:
        """At one of the next `within` operations on the disk; then come back."""
        self.disk.cut_after(rng.randrange(1, within + 1))
        assert self.relay.wait(TIMEOUT_S), "the power is gone, and the relay goes on"
        self.stop()
        self.disk.cut(rng)
        self.start()

    def stop(self) -> None:
        """In good order, if nothing has failed."""
        self.serving.clear()
        if self._relay is not None:
            self._relay.stop()
            self._relay = None
