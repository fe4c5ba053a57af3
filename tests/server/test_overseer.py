"""One connection keeps no worker reading, and innocent ones are left alone."""

import gc
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from saltline.server.buffers import STRANGERS_BYTES
from saltline.server.overseer import (
    READ_MAX_S,
    STRANGERS_READ_MAX_S,
    Overseer,
    ReadWatch,
    Suspicion,
)
from tests.server.edge import TIMEOUT_S, ScriptedRelay, config_in
from tests.server.key_updates import Updater
from tests.waiting import wait_until


class Read:
    """A connection that a worker reads."""

    def __init__(self, sock: socket.socket | None = None, *, is_stranger: bool = False) -> None:
        self.sock: Any = sock
        self.address = "192.0.2.1"
        self.suspicion: Suspicion | None = None
        self._is_stranger = is_stranger

    @property
    def is_stranger(self) -> bool:
        return self._is_stranger


class Clocks:
    """In the place of the clock, and of the processor's time that the worker has used."""

    def __init__(self) -> None:
        self.now_s = self.spent_s = 100.0

    def share(
        self, watch: ReadWatch, reader: Read, wall_s: float, spent_s: float, size: int
    ) -> bool:
        """A share of a turn that takes so long; whether the connection is to go."""
        watch.begin_read(reader)
        self.now_s += wall_s
        self.spent_s += spent_s
        return watch.end_read(reader, size)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("saltline.server.overseer.monotonic", lambda: clocks.now_s)
    monkeypatch.setattr("saltline.server.overseer.thread_time", lambda: clocks.spent_s)
    monkeypatch.setattr(ReadWatch, "spent_s", lambda _watch: clocks.spent_s)
    return clocks


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that is read, and its peer's end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


def updater(relay: ScriptedRelay) -> Updater:
    return Updater(socket.create_connection(("127.0.0.1", relay.address.port), TIMEOUT_S))


def was_cut(theirs: socket.socket) -> bool:
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return False


# --- reads that do not end -----------------------------------------------------------------------


def test_only_one_long_read_is_cut(
    clocks: Clocks, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    watch, reader = ReadWatch(), Read(ours)
    overseer = Overseer([watch], lambda *_: None)
    for _ in range(5):  # many reads, each short
        clocks.spent_s += READ_MAX_S
        watch.begin_read(reader)
        overseer.look()
    overseer.look()
    overseer.look()
    watch.end_read(reader, 0)
    clocks.spent_s += 10
    overseer.look()
    assert not was_cut(theirs), "a worker that stands still spends nothing"
    watch.begin_read(reader)
    overseer.look()
    clocks.spent_s += 2 * READ_MAX_S
    overseer.look()
    assert was_cut(theirs)
    clocks.now_s += 2 * READ_MAX_S
    assert watch.end_read(reader, 0)


def test_who_is_read_after_a_cut_is_not_taken_for_the_culprit(
    clocks: Clocks, ends: tuple[socket.socket, socket.socket]
) -> None:
    watch, culprit, innocent = ReadWatch(), Read(ends[0]), Read()
    watch.begin_read(culprit)
    watch.end_read(culprit, 0)
    watch.cut(culprit)  # the overseer, a moment too late
    assert not clocks.share(watch, innocent, 0.005, 0.005, 100)


@pytest.mark.parametrize("is_stranger", [True, False])
def test_a_stranger_may_less(
    clocks: Clocks, ends: tuple[socket.socket, socket.socket], is_stranger: bool
) -> None:
    ours, theirs = ends
    watch = ReadWatch()
    overseer = Overseer([watch], lambda *_: None)
    watch.begin_read(Read(ours, is_stranger=is_stranger))
    overseer.look()
    clocks.spent_s += 2 * STRANGERS_READ_MAX_S
    overseer.look()
    assert was_cut(theirs) is is_stranger


def test_a_garbage_collection_is_nobodys_fault(
    clocks: Clocks, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.overseer.LOOK_EVERY_S", 3600.0)  # only when we say so
    ours, theirs = ends
    watch = ReadWatch()
    overseer = Overseer([watch], lambda *_: None)
    overseer.start()
    watch.begin_read(Read(ours))
    overseer.look()
    clocks.spent_s += 2 * READ_MAX_S
    gc.collect()
    overseer.look()
    assert not was_cut(theirs)
    assert overseer.stop(TIMEOUT_S)
    assert overseer._after_collection not in gc.callbacks
    clocks.spent_s += 2 * READ_MAX_S
    overseer.look()
    assert was_cut(theirs)


# --- those that come by handfuls -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_stranger", "size", "most"),
    [(True, 0, 15), (True, 16_000, 15), (False, 0, 60), (False, 4_000, None)],
    ids=["a stranger", "a stranger who says much", "a user", "a user who says much"],
)
def test_who_wastes_time_in_all_has_to_go(
    clocks: Clocks, is_stranger: bool, size: int, most: int | None
) -> None:
    watch, reader = ReadWatch(), Read(is_stranger=is_stranger)
    shares = 0
    while shares < 1_000 and not clocks.share(watch, reader, 0.005, 0.005, size):
        shares += 1
    assert shares == 1_000 if most is None else 5 <= shares <= most


@pytest.mark.parametrize("is_stranger", [True, False])
def test_a_busy_computer_is_nobodys_fault(clocks: Clocks, is_stranger: bool) -> None:
    watch, reader = ReadWatch(), Read(is_stranger=is_stranger)
    for _ in range(200):
        assert not clocks.share(watch, reader, 0.1, 0.0001, 0)


def test_a_user_whose_reads_are_quick_again_is_no_longer_measured(clocks: Clocks) -> None:
    watch, reader = ReadWatch(), Read()
    assert not clocks.share(watch, reader, 0.2, 0.0, 0)
    assert reader.suspicion is not None
    for _ in range(100):
        assert not clocks.share(watch, reader, 0.0001, 0.0001, 100)
    assert reader.suspicion is None


def test_handfuls_of_records_end_the_connection_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        flooder = updater(relay)
        handfuls = [flooder.records(100) for _ in range(100)]  # each 2 ms of OpenSSL's time, or 3
        with flooder.sock, suppress(OSError):
            for handful in handfuls:
                flooder.sock.sendall(handful)
                sleep(0.01)
        wait_until(lambda: "TLS records without end" in caplog.text)


# --- and the addresses of both -------------------------------------------------------------------


def test_an_address_stays_out_for_a_minute_and_few_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saltline.server.overseer._BARRED_MAX", 2)
    watch = ReadWatch()
    for address in ("a", "b", "c"):
        watch.bar(address, 1.0)
    assert [watch.bars(each, 60.9) for each in "abc"] == [True, True, False]
    assert not watch.bars("a", 61.0)
    watch.bar("c", 61.0)
    assert watch.bars("c", 61.0) and not watch.bars("b", 61.0)


@pytest.mark.parametrize("says", [b"", b"\0\0\0\0"], ids=["read", "goodbye"])
def test_records_without_end_end_the_connection_and_hold_nobody_up(
    says: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With a small buffer it is over too soon for the overseer, unless they come as fast as read.
    monkeypatch.setattr("saltline.server.listener.narrow", lambda _sock: None)
    with ScriptedRelay(config_in(tmp_path)) as relay, relay.connect() as user:
        assert user.ask(b"promote") == b"promoted"
        stranger, flooder = (
            relay.connect(),
            updater(relay),
        )
        records = flooder.records(20_000, says)  # half a second of OpenSSL's time and more
        with suppress(OSError):
            flooder.sock.sendall(records)
        assert user.ask(b"echo still here") == b"still here"
        assert stranger.is_closed_by_relay(), "strangers of its address go with it"
        wait_until(lambda: "TLS records without end" in caplog.text)
        with relay.connect() as again:
            assert again.is_closed_by_relay(), "and comes too early"
        flooder.sock.close()
        stranger.sock.close()


def test_a_stranger_has_a_small_buffer_until_the_login(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay, relay.connect() as user:
        user.ask(b"echo hello")
        (connection,) = relay._workers[0]._table.live.values()

        def buffer_bytes() -> int:
            return connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

        assert buffer_bytes() <= 2 * STRANGERS_BYTES  # Linux counts its own bookkeeping, too
        assert user.ask(b"promote") == b"promoted"
        wait_until(lambda: buffer_bytes() > 10 * STRANGERS_BYTES)
