"""The storage thread: everything once, in order, grouped; and an end."""

import threading
from collections.abc import Sequence
from typing import Self

import pytest

from saltline.protocol.errors import ErrorCode
from saltline.server.store.interface import Done, Operation, Outcome, StoreError
from saltline.server.store.operations import DeleteEnvelopes, ReadMailbox
from saltline.server.store.thread import (
    GATHERED_OPERATIONS,
    GROUP_MAX_ENVELOPE_BYTES,
    GROUP_MAX_OPERATIONS,
    MAINTENANCE,
    StorageThread,
)
from tests.server.store_harness import entry, envelope, texts
from tests.waiting import wait_until

TIMEOUT_S = 10.0


class GatedStore:
    """A store whose commits wait until they are let through."""

    def __init__(self) -> None:
        self.groups: list[list[Operation]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.is_closed = False
        self.failure: StoreError | None = None
        self.threads: set[str] = set()
        self.waits: list[bool] = []  # whether somebody did, after each group

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        self.groups.append(list(operations))
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        assert self.gate.acquire(timeout=TIMEOUT_S)
        return [Done()] * len(operations)

    def maintain(self, *, nobody_waits: bool = False) -> StoreError | None:
        self.waits.append(not nobody_waits)
        failure, self.failure = self.failure, None
        return failure

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.is_closed = True


class Collected:
    """What the storage thread told, and a way to wait for it."""

    def __init__(self) -> None:
        self.results: list[tuple[int, Outcome | StoreError]] = []
        self._changed = threading.Condition()

    def add(self, results: Sequence[tuple[int, Outcome | StoreError]]) -> None:
        with self._changed:
            self.results += results
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.results) >= count, TIMEOUT_S)

    @property
    def tokens(self) -> list[int]:
        return [token for token, _ in self.results]


class Workshop:
    """A storage thread over a gated store, which ends with the test whatever fails."""

    def __init__(self) -> None:
        self.store = GatedStore()
        self.collected = Collected()
        self.thread = StorageThread(self.store, self.collected.add)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.gate.release(100_000)
        if self.thread._thread.ident is not None:
            assert self.thread.stop(TIMEOUT_S)


def work(number: int) -> DeleteEnvelopes:
    return DeleteEnvelopes(1, (number,))


def test_what_comes_during_a_commit_goes_into_the_next() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        thread.start()
        thread.submit([(1, work(1))])
        assert store.entered.acquire(timeout=TIMEOUT_S)
        for token in range(2, 7):
            thread.submit([(token, work(token))])
        assert collected.results == [], "nothing is told before its commit"
        store.gate.release(2)
        collected.wait_for(6)
        assert store.groups == [[work(1)], [work(number) for number in range(2, 7)]]
        assert collected.tokens == [1, 2, 3, 4, 5, 6]
        assert thread.stop(TIMEOUT_S)


def test_a_group_is_bounded() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        for token in range(1, GROUP_MAX_OPERATIONS + 3):
            thread.submit([(token, work(token))])
        store.gate.release(10)
        thread.start()
        collected.wait_for(GROUP_MAX_OPERATIONS + 2)
        assert [len(group) for group in store.groups] == [GROUP_MAX_OPERATIONS, 2]
        assert thread.stop(TIMEOUT_S)


@pytest.mark.parametrize(
    "quarter",
    [
        pytest.param(envelope("ada", bytes(GROUP_MAX_ENVELOPE_BYTES // 4)), id="in bytes"),
        pytest.param(texts(*[entry(1)] * (GROUP_MAX_OPERATIONS // 4)), id="in texts"),
    ],
)
def test_a_group_is_bounded_in_weight(quarter: Operation) -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        for token in range(1, 7):
            thread.submit([(token, quarter)])
        store.gate.release(10)
        thread.start()
        collected.wait_for(6)
        assert [len(group) for group in store.groups] == [4, 2]
        assert thread.stop(TIMEOUT_S)


def test_a_crowd_that_logs_in_is_not_read_all_at_once() -> None:
    window = ReadMailbox(1, 0, 64, 1_000_000)
    with Workshop() as shop:
        for token in range(1, 25):
            shop.thread.submit([(token, window)])
        shop.store.gate.release(10)
        shop.thread.start()
        shop.collected.wait_for(24)
        assert [len(group) for group in shop.store.groups] == [16, 8]
        assert shop.thread.stop(TIMEOUT_S)


def test_many_threads_submit_and_each_keeps_its_order() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        store.gate.release(100_000)
        thread.start()

        def submit(first: int) -> None:
            for token in range(first, first + 500):
                thread.submit([(token, work(token))])

        submitters = [threading.Thread(target=submit, args=(first,)) for first in (1, 1001, 2001)]
        for each in submitters:
            each.start()
        for each in submitters:
            each.join()
        collected.wait_for(1_500)
        for first in (1, 1001, 2001):
            own = [token for token in collected.tokens if first <= token < first + 1000]
            assert own == list(range(first, first + 500))
        assert thread.stop(TIMEOUT_S)


def test_stopping_does_what_is_queued_and_closes_the_store_on_its_thread() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        store.gate.release(100)
        for token in range(1, 11):
            thread.submit([(token, work(token))])
        thread.start()
        assert thread.stop(TIMEOUT_S)
        assert collected.tokens == list(range(1, 11))
        assert store.is_closed
        assert store.threads == {"saltline-storage"}


def test_an_idle_thread_stops() -> None:
    with Workshop() as shop:
        store, thread = shop.store, shop.thread
        thread.start()
        assert thread.stop(TIMEOUT_S)
        assert store.groups == []
        assert store.is_closed


def test_what_comes_after_the_stop_but_before_the_end_is_done_too() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        thread.start()
        thread.submit([(1, work(1))])
        assert store.entered.acquire(timeout=TIMEOUT_S)
        assert not thread.stop(0)
        thread.submit([(2, work(2))])
        store.gate.release(2)
        assert thread.stop(TIMEOUT_S)
        assert collected.tokens == [1, 2]


def test_a_thread_that_takes_too_long_says_so() -> None:
    with Workshop() as shop:
        store, thread = shop.store, shop.thread
        thread.start()
        thread.submit([(1, work(1))])
        assert store.entered.acquire(timeout=TIMEOUT_S)
        assert not thread.stop(0)
        store.gate.release()
        assert thread.stop(TIMEOUT_S)


def test_a_failure_in_the_maintenance_is_told_at_once() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        store.gate.release(10)
        store.failure = StoreError(ErrorCode.STORAGE_FAILED, "The relay's disk failed.", fatal=True)
        failure = store.failure
        thread.start()
        thread.submit([(1, work(1))])
        collected.wait_for(2)
        assert collected.results == [(1, Done()), (MAINTENANCE, failure)]
        assert thread.stop(TIMEOUT_S)


@pytest.mark.parametrize("round_", range(20))
def test_no_wake_up_is_lost(round_: int) -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        # One operation at a time, each submitted as soon as the one before is told: the thread is
        # about to fall asleep every time.
        store.gate.release(1_000)
        thread.start()
        for token in range(1, 101):
            thread.submit([(token, work(token))])
            collected.wait_for(token)
        assert collected.tokens == list(range(1, 101))
        assert thread.stop(TIMEOUT_S)


def test_a_busy_relay_gathers_and_a_stop_ends_the_wait() -> None:
    store, collected = GatedStore(), Collected()
    for _ in range(2):
        store.gate.release()
    thread = StorageThread(store, collected.add, lambda: 3600.0)
    thread.start()
    thread.submit([(1, DeleteEnvelopes(1, (1,)))])
    collected.wait_for(1)
    for token in range(2, 10):
        thread.submit([(token, DeleteEnvelopes(1, (token,)))])  # an hour, if need be
        if token == 2:
            wait_until(thread._queue.empty)  # it has it, and waits for more
    assert thread.stop(TIMEOUT_S)
    assert collected.tokens == list(range(1, 10))
    assert [len(group) for group in store.groups] == [1, 8]


def test_the_first_does_not_wait_on_a_computer_that_has_just_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saltline.server.store.thread.monotonic", lambda: 1.0)
    store, collected = GatedStore(), Collected()
    store.gate.release()
    thread = StorageThread(store, collected.add, lambda: 3600.0)
    thread.start()
    thread.submit([(1, work(1))])
    collected.wait_for(1)
    assert thread.stop(TIMEOUT_S)


def test_a_long_group_does_not_wait_whatever_brought_it() -> None:
    store, collected = GatedStore(), Collected()
    thread = StorageThread(store, collected.add, lambda: 3600.0)
    thread.start()
    thread.submit([(1, work(1))])
    assert store.entered.acquire(timeout=TIMEOUT_S)
    batches = [range(at, at + 16) for at in range(2, 2 + GATHERED_OPERATIONS, 16)]
    for batch in batches:  # during the first commit
        thread.submit([(token, work(token)) for token in batch])
    store.gate.release(2)
    collected.wait_for(1 + GATHERED_OPERATIONS)
    assert [len(group) for group in store.groups] == [1, GATHERED_OPERATIONS]
    assert collected.tokens == list(range(1, 2 + GATHERED_OPERATIONS))
    assert thread.stop(TIMEOUT_S)


def test_the_store_hears_whether_somebody_waits() -> None:
    with Workshop() as shop:
        store, collected, thread = shop.store, shop.collected, shop.thread
        thread.start()
        thread.submit([(1, work(1))])
        assert store.entered.acquire(timeout=TIMEOUT_S)
        thread.submit([(token, work(token)) for token in range(2, GROUP_MAX_OPERATIONS + 3)])
        store.gate.release(3)
        collected.wait_for(GROUP_MAX_OPERATIONS + 2)
        assert thread.stop(TIMEOUT_S)
        assert store.waits == [True, True, False]
