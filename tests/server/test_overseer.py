"""One connection keeps no worker reading, and innocent ones are left alone."""

import gc
import socket
from pathlib import Path
from typing import Any

import pytest

from saltline.server.overseer import READ_MAX_S, STRANGERS_READ_MAX_S, Overseer, ReadWatch
from tests.server.edge import TIMEOUT_S, ScriptedRelay, config_in
from tests.server.key_updates import Updater
from tests.waiting import wait_until


class Read:
    """A connection that a worker reads."""

    def __init__(self, sock: socket.socket, *, is_stranger: bool = False) -> None:
        self.sock: Any = sock
        self.address = "192.0.2.1"
        self.is_stranger = is_stranger


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the worker's clock shows."""
    clock = [100.0]
    monkeypatch.setattr(ReadWatch, "spent_s", lambda _watch: clock[0])
    return clock


def test_only_one_long_read_is_cut(spent: list[float]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = ReadWatch()
        overseer = Overseer([watch], lambda *_: None)
        for _ in range(5):  # many reads, each short
            spent[0] += READ_MAX_S
            watch.reads, watch.reading = watch.reads + 1, Read(ours)
            overseer.look()
        overseer.look()
        overseer.look()
        assert not watch.was_cut, "a worker that stands still spends nothing"
        watch.reading = None
        spent[0] += 10
        overseer.look()
        assert not watch.was_cut
        watch.reads, watch.reading = watch.reads + 1, Read(ours)
        overseer.look()
        spent[0] += READ_MAX_S
        overseer.look()
        assert watch.was_cut
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("is_stranger", [True, False])
def test_a_stranger_may_less(spent: list[float], is_stranger: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = ReadWatch()
        overseer = Overseer([watch], lambda *_: None)
        watch.reads, watch.reading = 1, Read(ours, is_stranger=is_stranger)
        overseer.look()
        spent[0] += 2 * STRANGERS_READ_MAX_S
        overseer.look()
        assert watch.was_cut is is_stranger


def test_a_garbage_collection_is_nobodys_fault(
    spent: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.overseer.LOOK_EVERY_S", 3600.0)  # only when we say so
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = ReadWatch()
        overseer = Overseer([watch], lambda *_: None)
        overseer.start()
        watch.reads, watch.reading = 1, Read(ours)
        overseer.look()
        spent[0] += READ_MAX_S
        gc.collect()
        overseer.look()
        assert not watch.was_cut
        assert overseer.stop(TIMEOUT_S)
        spent[0] += READ_MAX_S
        overseer.look()
        assert watch.was_cut
        assert overseer._after_collection not in gc.callbacks


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


def test_records_without_end_end_the_connection_and_hold_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay, relay.connect() as user:
        assert user.ask(b"promote") == b"promoted"
        stranger, flooder = relay.connect(), Updater(relay.address.port, tmp_path)
        flooder.sock.sendall(flooder.records(20_000))  # half a second of OpenSSL's time and more
        assert user.ask(b"echo still here") == b"still here"
        assert stranger.is_closed_by_relay(), "strangers of its address go with it"
        wait_until(lambda: "TLS records without end" in caplog.text)
        with relay.connect() as again:
            assert again.is_closed_by_relay(), "and comes too early"
        flooder.sock.close()
        stranger.sock.close()
