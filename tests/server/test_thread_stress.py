"""Threads: the order in which locks are taken, and that every thread ends, whatever failed.

The stress itself, short here and long in `make torture`, is tests/torture/thread_stress.py.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from saltline.server import relay as relay_module
from saltline.server.core import RelayCore
from saltline.server.effects import Effect
from saltline.server.listener import Acceptor
from saltline.server.relay import Relay
from saltline.server.store.operations import ExpireEnvelopes
from saltline.server.store.sqlite import SqliteStore
from saltline.server.switchboard import ignore
from tests.server.edge import TIMEOUT_S, MemoryStore, config_in, open_descriptors
from tests.server.lock_tiers import Watch, documented, watched, written
from tests.server.wire_client import WireClient
from tests.torture import thread_stress
from tests.torture.restless import restless
from tests.waiting import wait_until


def test_every_lock_has_its_tier_in_the_documentation() -> None:
    assert set(documented()) == written()


def test_locks_are_only_taken_upwards(tmp_path: Path) -> None:
    with watched() as watch, restless():
        thread_stress.everything_at_once(tmp_path / "crowd", 8)
        thread_stress.stop_in_the_middle(tmp_path / "stops", 1, seed=2)
        thread_stress.clients_start_and_stop(tmp_path / "clients", 3)
    assert watch.wrong == []
    # The watch saw what it should: the core's lock and the client's.
    assert {"CoreDriver._lock", "Engine._lock", "Link._lock"} <= watch.taken


def test_the_watch_sees_a_lock_that_is_taken_downwards() -> None:
    watch = Watch({"A.low": 1, "B.high": 2})

    def upwards() -> None:
        watch.note("A.low")
        watch.note("B.high")

    other = threading.Thread(target=upwards)
    other.start()
    other.join()
    assert watch.wrong == [], "what another thread holds does not count"
    watch.note("B.high")
    watch.note("A.low")
    assert watch.wrong == ["A.low was taken under B.high"]


# --- the storage thread, which is no daemon -------------------------------------------------------


class CannotStop(RelayCore):
    """A core with a mistake in its last step."""

    def stop(self, now_ms: int) -> list[Effect]:
        raise LookupError("a mistake")


def test_a_mistake_while_stopping_leaves_no_thread(tmp_path: Path) -> None:
    """A storage thread that nobody ends would keep the process for ever."""
    threads, descriptors = threading.active_count(), open_descriptors()
    relay = Relay(config_in(tmp_path), make_core=CannotStop)
    relay.start()
    with WireClient(relay.address.port, "ada") as ada:
        ada.register()
        relay.stop()
    assert "LookupError" in relay.failure and "a mistake" not in relay.failure
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors


def test_a_start_that_fails_with_the_storage_running_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, descriptors = threading.active_count(), open_descriptors()

    def no_more_threads(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Acceptor, "start", no_more_threads)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Relay(config_in(tmp_path)).start()
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors


def test_a_storage_thread_that_dies_does_not_keep_the_relay(tmp_path: Path) -> None:
    """Its store is closed, and a stop still ends everything else."""
    died: list[Any] = []
    before, threading.excepthook = threading.excepthook, died.append
    threads = threading.active_count()
    try:
        relay = Relay(config_in(tmp_path))
        relay.start()
        relay._storage._on_done = lambda results: 1 / 0  # type: ignore[assignment]
        with WireClient(relay.address.port, "ada") as ada:
            ada.ask_to_register()
            wait_until(lambda: died, "the storage thread died")
            relay.fault("storage", died[0].exc_value)  # as the process does
            relay.stop()
    finally:
        threading.excepthook = before
    assert threading.active_count() == threads
    SqliteStore(tmp_path / "data" / "relay.db", relay._log_key.relay_id).close()


def test_a_disk_that_hangs_does_not_hang_the_stop_and_is_waited_for_at_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay says so and returns; the process stays until the write under way has ended."""
    monkeypatch.setattr(relay_module, "_THREAD_END_S", 0.05)
    quick = config_in(tmp_path).deadlines.__class__(close_s=0.05, stop_s=0.05, check_every_s=0.02)
    store = MemoryStore()
    relay = Relay(config_in(tmp_path, deadlines=quick), open_store=lambda *_: store)
    relay.start()
    store.may_run.clear()
    relay._driver.drive([_write_something])
    relay.stop()
    assert "did not end in time" in relay.failure and relay.failure in caplog.text
    storage = relay._storage._thread
    assert storage.is_alive() and not storage.daemon and not store.is_closed
    store.may_run.set()
    storage.join(TIMEOUT_S)
    assert store.is_closed


def _write_something(core: RelayCore, now_ms: int) -> Iterable[Effect]:
    core._desk.begin(now_ms)
    core._desk.persist(ExpireEnvelopes(0, 1, 1), ignore, None, None)
    return core._desk.finish()
