"""The client as a library, on a real relay."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saltline.client import Client
from saltline.client.model import (
    ConnectionChanged,
    ConnectionState,
    ConversationChanged,
    Delivery,
    Event,
    LineAdded,
    Refused,
    Trust,
)
from saltline.client.profile import Busy, Profile
from tests.client.programs import House
from tests.waiting import wait_until

TIMEOUT_S = 20.0


# --- the client on a real relay --------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def open_client(house: House) -> Iterator[Callable[[Path], Client]]:
    clients: list[Client] = []

    def open_one(folder: Path) -> Client:
        profile = Profile(folder)
        client = Client.open(profile, profile.unlock(None))
        clients.append(client)
        return client

    yield open_one
    for client in clients:
        client.close()


def online(client: Client) -> bool:
    return client.status().connection is ConnectionState.ONLINE


def test_two_clients_talk_and_every_event_is_told(
    house: House, open_client: Callable[[Path], Client]
) -> None:
    ann, ben = open_client(house.user("ann1")), open_client(house.user("ben1"))
    heard: list[Event] = []
    stop = ben.subscribe(heard.append)
    ann.start()
    ben.start()
    line = ann.send("ben1", "hello")
    wait_until(lambda: ben.count("@ann1"), "the message arrived")
    ben.accept("ann1")
    wait_until(lambda: arrived(ann, line.row), "its receipt came back")

    (theirs,) = [each for each in ben.page("@ann1", limit=10) if not each.mine]
    assert theirs.body == "hello"
    assert LineAdded("@ann1", theirs.row) in heard
    assert any(isinstance(event, ConnectionChanged) for event in heard)
    assert [each.name for each in ben.conversations()] == ["@ann1", "#lobby"]
    assert ann.fetch_contact("ben1").result(TIMEOUT_S).trust is Trust.FIRST_SEEN
    assert {each.room for each in ann.rooms().result(TIMEOUT_S)} >= {"#lobby"}
    members = {each.username for each in ann.who("#lobby").result(TIMEOUT_S)}
    assert members >= {"ann1", "ben1"}
    ann.join("#dev").result(TIMEOUT_S)
    ann.leave("#dev").result(TIMEOUT_S)
    ben.mark_read("@ann1", theirs.row)
    wait_until(lambda: status_of(ann, line.row) is Delivery.READ, "it is known to be read")
    assert ben.status().unread == 0
    assert any(isinstance(event, ConversationChanged) for event in heard)
    stop()


def arrived(client: Client, row: int) -> bool:
    return status_of(client, row) >= Delivery.DELIVERED


def status_of(client: Client, row: int) -> Delivery:
    line = client.line(row)
    assert line is not None
    return line.delivery


def test_a_profile_has_one_client_at_a_time(
    house: House, open_client: Callable[[Path], Client]
) -> None:
    folder = house.user("ann2")
    first = open_client(folder)
    with pytest.raises(Busy):
        open_client(folder)
    first.close()
    first.close()

    open_client(folder)
    with pytest.raises(Refused, match="closed"):
        first.status()


def test_closing_leaves_no_thread_and_an_empty_log(
    house: House, open_client: Callable[[Path], Client]
) -> None:
    before = set(threading.enumerate())
    folder = house.user("ann3")
    client = open_client(folder)
    client.start()
    wait_until(lambda: online(client), "online")
    client.close()

    ours = {each.name for each in set(threading.enumerate()) - before}
    assert not {name for name in ours if name.startswith("saltline-")} - relay_threads(ours)
    wal = folder / "vault.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0


def relay_threads(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith(("saltline-link", "saltline-engine"))}


def test_what_was_sent_offline_leaves_when_the_relay_is_back(
    house: House, open_client: Callable[[Path], Client]
) -> None:
    ann = open_client(house.user("ann4"))
    house.user("ben4")
    with house.closed():
        ann.start()
        row = ann.send("ben4", "later").row
        wait_until(
            lambda: ann.status().connection is ConnectionState.OFFLINE, "the relay is found away"
        )
        assert ann.status().queued == 1
    ann.reconnect()
    wait_until(lambda: status_of(ann, row) is Delivery.RELAYED, "it left by itself")
    assert ann.status().queued == 0


def test_reading_does_not_wait_for_the_engine(
    house: House, open_client: Callable[[Path], Client]
) -> None:
    ann = open_client(house.user("ann5"))
    entered, go_on = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        entered.set()
        go_on.wait(TIMEOUT_S)

    ann.subscribe(hold)
    ann.start()
    try:
        assert entered.wait(TIMEOUT_S)
        assert ann.conversations()
        assert ann.status().username == "ann5"
    finally:
        go_on.set()
