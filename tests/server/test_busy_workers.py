"""A worker with a lot to do: it reads at intervals, all that came, and what is done never waits."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from saltline.protocol.frames import encode_frame
from saltline.server.config import Deadlines
from saltline.server.connection import READS_PER_TURN, Connection
from saltline.server.events import Event
from saltline.server.pace import Pace
from saltline.server.workers import Worker
from tests.server.edge import TIMEOUT_S, ScriptedRelay, config_in
from tests.server.scripted_tls import Tls, connection_on
from tests.waiting import wait_until


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedRelay]:
    """A relay whose only worker stays busy, and reads when `next_read` says."""
    monkeypatch.setattr(Pace, "wrote", lambda *_: None)
    deadlines = Deadlines(check_every_s=1000)  # nothing else wakes it
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay:
        relay._workers[0].pace.is_busy = True
        yield relay
        relay._workers[0].pace.is_busy = False


def next_read(relay: ScriptedRelay, wait_s: float) -> None:
    pace = relay._workers[0].pace
    pace._interval_s, pace._next_read_s = wait_s, time.monotonic() + wait_s


def test_a_busy_worker_reads_together_what_came_apart(busy: ScriptedRelay) -> None:
    drives: list[int] = []
    drive = busy._driver.drive

    def counted(events: Sequence[Event]) -> None:
        drives.append(len(events))
        drive(events)

    busy._driver.drive = counted  # type: ignore[method-assign, assignment]
    clients = [busy.connect() for _ in range(5)]
    for client in clients:
        assert client.ask(b"echo here") == b"here"
    drives.clear()
    for _ in range(20):  # unless this machine stops for longer than a worker waits
        next_read(busy, 0.3)
        for client in clients:
            client.send(b"echo hello")
            time.sleep(0.005)
        assert [client.receive() for client in clients] == [b"hello"] * 5
        next_read(busy, 0.0)
        if max(drives) >= 5:
            break
    assert max(drives) >= 5
    for client in clients:
        client.sock.close()


def test_a_busy_worker_reads_all_that_is_there(busy: ScriptedRelay) -> None:
    with busy.connect() as ada:
        assert ada.ask(b"promote") == b"promoted"
        next_read(busy, 0.2)
        assert ada.ask(b"echo here") == b"here"
        count = 3 * READS_PER_TURN
        ada.sock.settimeout(TIMEOUT_S)
        for number in range(count):  # a record each: one at each reading would take 40 seconds
            ada.send(b"echo %d" % number)
        seen = len(busy.core.happened)
        assert [ada.receive() for _ in range(count)] == [b"%d" % n for n in range(count)]
        assert len(busy.core.happened) - seen < count // 4


def test_of_a_stranger_one_record_is_read_in_a_turn(
    busy: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = busy._workers
    turns: list[int] = []
    read = Connection.read

    def read_and_tell(connection: Connection) -> bytes | None:
        turns.append(worker.reader._turns)
        return read(connection)

    monkeypatch.setattr(Connection, "read", read_and_tell)
    with busy.connect() as stranger:
        half = encode_frame(b"echo " + b"x" * 16_000)
        stranger.send_raw(half[:9_000])
        stranger.send_raw(half[9_000:] + encode_frame(b"echo y") * 10_000)  # some seven records
        assert len(stranger.receive()) == 16_000
        assert [stranger.receive() for _ in range(10_000)] == [b"y"] * 10_000
    # Two in the turn after its arrival, of which the selector hears as well.
    assert max(Counter(turns).values()) <= 2 and len(turns) > 7


def test_where_there_is_more_to_read_a_busy_worker_does_not_wait(
    busy: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(
        0, 1, busy._driver, lambda *_: None, deadlines=Deadlines(), flush_interval_s=3600.0
    )
    worker._table.watch_wakeup(worker.inbox.wakeup)
    worker.pace.is_busy = True
    looked: list[float] = []

    def ready(wait_s: float) -> list[tuple[Connection | None, int]]:
        looked.append(wait_s)
        return []

    monkeypatch.setattr(worker._table, "ready", ready)
    worker._wait(may_sleep=False)
    assert looked == [0.0]
    worker._wait(may_sleep=False)
    assert looked == [0.0], "an hour has not passed"
    worker.reader.read_soon(connection_on(Tls()))
    worker._wait(may_sleep=False)
    assert looked == [0.0, 0.0]
    worker.close()


def test_what_was_stored_does_not_wait_until_a_busy_worker_reads(busy: ScriptedRelay) -> None:
    with busy.connect() as ada:
        next_read(busy, 0.0)
        busy.store.may_run.clear()
        ada.send(b"store")
        wait_until(lambda: len(busy.core.tokens) == 1)
        next_read(busy, 3600.0)
        busy._workers[0].inbox.wakeup.wake()
        time.sleep(0.05)  # it sleeps again, and hears its inbox alone
        busy.store.may_run.set()
        assert ada.receive() == b"stored 1"
        next_read(busy, 0.0)
        busy._workers[0].inbox.wakeup.wake()
