"""A relay with Alice and Bob on it, in memory; and a TLS server for the link alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from saltline.client.link import Link
from saltline.client.link_events import Target
from saltline.client.vault import database
from saltline.protocol import limits
from saltline.server.settings import Settings
from saltline.server.store.sqlite import SqliteStore
from tests.client.tls_peer import (
    QUICK_S,
    Events,
    Shown,
    StartLink,
    TlsServer,
    make_certificate,
)
from tests.client.world import MemoryRelay, Person

Meet = Callable[[str], Person]


@pytest.fixture
def relay(tmp_path: Path, unsynced: None) -> MemoryRelay:
    return MemoryRelay(tmp_path, Settings(registrations_per_minute_and_address=1000))


@pytest.fixture
def meet(relay: MemoryRelay, tmp_path: Path) -> Meet:
    """Somebody who has registered and is online."""

    def register(name: str) -> Person:
        return Person(relay, tmp_path / name, name).online()

    return register


@pytest.fixture
def alice(meet: Meet) -> Person:
    return meet("alice")


@pytest.fixture
def bob(meet: Meet) -> Person:
    return meet("bob")


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that need not hold against power loss, which no test in memory brings about."""
    connect = database._connect

    def connect_quickly(path: Path, key: bytes, flags: int, vfs: str | None) -> apsw.Connection:
        connection = connect(path, key, flags, vfs)
        connection.pragma("synchronous", "off")
        return connection

    def prepare_quickly(self: SqliteStore, connection: apsw.Connection, relay_id: bytes) -> None:
        prepare(self, connection, relay_id)
        connection.pragma("synchronous", "off")

    prepare = SqliteStore._prepare
    monkeypatch.setattr(database, "_connect", connect_quickly)
    monkeypatch.setattr(SqliteStore, "_prepare", prepare_quickly)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, unsynced: None) -> None:
    """Fewer prekeys, and the disk as above: nothing else changes."""
    monkeypatch.setattr(limits, "ONE_TIME_PREKEYS", 6)
    monkeypatch.setattr(limits, "ONE_TIME_PREKEYS_REFILL_BELOW", 2)
    monkeypatch.setattr(limits, "ONE_TIME_KEM_PREKEYS", 4)
    monkeypatch.setattr(limits, "ONE_TIME_KEM_PREKEYS_REFILL_BELOW", 2)


# --- the link alone ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="session")
def authority(certificates: Path) -> Shown:
    return make_certificate(certificates, "authority", host="authority.example")


@pytest.fixture(scope="session")
def shown(certificates: Path, authority: Shown) -> Shown:
    return make_certificate(certificates, "relay", signed_by=authority)


@pytest.fixture
def server(shown: Shown) -> Iterator[TlsServer]:
    with TlsServer(shown) as running:
        yield running


@pytest.fixture
def start_link() -> Iterator[StartLink]:
    """Links that stop with the test."""
    links: list[Link] = []

    def start(target: Target) -> tuple[Link, Events]:
        events = Events()
        link = Link(target, events, first_retry_s=QUICK_S)
        links.append(link)
        link.start()
        return link, events

    yield start
    for link in links:
        link.stop()
