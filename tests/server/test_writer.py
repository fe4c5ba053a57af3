"""What many get at once: past empty queues, behind full ones, and never out of order."""

import socket
import ssl

import pytest

from saltline.server.connection import READ, RECORD_BYTES, WRITE_BYTES, Connection
from saltline.server.connection_table import ConnectionTable
from saltline.server.events import Event
from saltline.server.fanout import GATHERED_MIN_READERS
from saltline.server.pace import Pace
from saltline.server.writer import Writer
from tests.server.scripted_tls import Tls, connection_on

INTERVAL_S = 0.003


class Desk:
    """A writer, and readers on sockets that answer as they are told."""

    def __init__(self, *tls: Tls) -> None:
        self.told: list[Event] = []
        self.closed: list[int] = []
        self.table = ConnectionTable(self.closed.append, 1.0)
        self.pace = Pace(INTERVAL_S)
        self.writer = Writer(
            self.table,
            self.pace,
            1_000_000,
            self.told.append,
            self._read_on,
            self.table.say_goodbye,
        )
        self.tls = [*tls, *(Tls() for _ in range(GATHERED_MIN_READERS - len(tls)))]
        self.readers = [connection_on(each, number=n) for n, each in enumerate(self.tls)]
        for reader in self.readers:
            reader.mask = READ
            self.table.live[reader.number] = reader
        self.audience = [reader.number for reader in self.readers]

    def _read_on(self, connection: Connection) -> None:
        raise AssertionError("nobody was held up")

    def say(self, *frames: bytes) -> None:
        """To everybody, in one turn."""
        for frame in frames:
            self.writer.fanout.broadcast(self.audience, frame)
        self.writer.fanout.end()

    def sent(self, number: int) -> bytes:
        return self.tls[number].sent


@pytest.fixture(autouse=True)
def _no_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tls, "close", lambda _: None, raising=False)
    monkeypatch.setattr(Tls, "fileno", lambda _: -1, raising=False)
    monkeypatch.setattr(ConnectionTable, "drop", _drop)


def _drop(table: ConnectionTable, connection: Connection) -> None:
    """As it is, but for the selector, which knows none of these sockets."""
    del table.live[connection.number]
    table._on_closed(connection.number)


def test_one_buffer_goes_to_everybody_past_the_queues() -> None:
    desk = Desk()
    desk.say(b"one ", b"two")
    assert [tls.offered for tls in desk.tls] == [[b"one two"]] * GATHERED_MIN_READERS
    assert not desk.writer.has_work
    assert all(reader.queued_bytes == 0 for reader in desk.readers)


def test_nothing_passes_what_is_in_a_queue() -> None:
    desk = Desk()
    waits, unwatched = desk.readers[3], desk.readers[5]
    waits.output.append(b"before ")
    waits.queued_bytes = 7
    unwatched.mask = 0
    desk.say(b"news")
    assert desk.sent(3) == desk.sent(5) == b""
    assert desk.sent(4) == b"news"
    unwatched.mask = READ
    desk.writer.write_all(0.0)
    assert (desk.sent(3), desk.sent(5)) == (b"before news", b"news")


def test_who_is_gone_costs_nobody_else() -> None:
    desk = Desk(Tls(), Tls(BrokenPipeError()), Tls(ssl.SSLEOFError()))
    desk.say(b"news")
    assert desk.closed == [1, 2]
    assert [desk.sent(number) for number in (0, 3, 4)] == [b"news"] * 3
    desk.say(b"more")
    assert desk.closed == [1, 2]
    assert desk.sent(0) == b"newsmore"


@pytest.mark.parametrize("answer", [ssl.SSLWantWriteError(), ssl.SSLWantReadError(), 2])
@pytest.mark.parametrize("size", [6, RECORD_BYTES + 1])
def test_what_did_not_leave_at_once_leaves_before_anything_else(
    answer: int | Exception, size: int
) -> None:
    desk = Desk(Tls(answer))
    news = bytes(number % 251 for number in range(size))
    desk.say(news)
    assert desk.readers[0].queued_bytes == size - len(desk.sent(0))
    desk.say(b"later")
    desk.writer.write_all(0.0)
    assert desk.sent(0) == desk.sent(1) == news + b"later"
    assert desk.tls[0].offered[1] == (news if isinstance(answer, Exception) else news[answer:])
    assert desk.readers[0].queued_bytes == 0
    assert not desk.writer.has_work


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux corks sockets")
@pytest.mark.parametrize("answer", [RECORD_BYTES + 1, ssl.SSLWantWriteError(), OSError()])
def test_more_than_a_record_is_corked_and_uncorked_whatever_happens(
    answer: int | Exception,
) -> None:
    desk = Desk(Tls(answer))
    desk.say(bytes(RECORD_BYTES + 1))
    assert desk.tls[0].corks == [1, 0]
    desk.say(b"short")
    assert desk.tls[1].corks == [1, 0]


def test_a_busy_worker_queues_what_has_company_coming() -> None:
    desk = Desk()
    for turn in range(20):
        desk.pace.wrote(100, turn * 0.001)
    assert desk.pace.is_busy
    half = bytes(WRITE_BYTES // 2)
    desk.say(half, half, b"end")  # a write's worth does not wait for the end of the turn
    assert desk.sent(0) == b""
    desk.writer.write_all(0.0)
    assert desk.sent(0) == desk.sent(7) == 2 * half + b"end"
