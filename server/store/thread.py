"""The storage thread: whatever arrived during one commit goes into the next."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from saltline.server.store.interface import Operation, Outcome, Store, StoreError
from saltline.server.store.operations import StoreEnvelope, StoreTexts

OnDone = Callable[[Sequence[tuple[int, Outcome | StoreError]]], None]

# A group this large costs one fsync for each of its members next to nothing; a larger one only
# makes those wait who came first.
GROUP_MAX_OPERATIONS: Final = 1024
# So many are not worth waiting for more.
GATHERED_OPERATIONS: Final = 64
GROUP_MAX_ENVELOPE_BYTES: Final = 8 * 1024 * 1024
# The token of a failure that no operation asked for. Tokens of operations count from 1.
MAINTENANCE: Final = 0


class StorageThread:
    """Runs a store on a thread of its own, with group commit.

    `on_done` gets (token, outcome) pairs, in the order of `submit`, on the storage thread, after
    the commit that made them durable. Token 0 is the store itself, failing in its maintenance.
    `interval_s` is asked how many seconds after the last group the next one may begin; a long one
    does not wait.
    """

    def __init__(
        self, store: Store, on_done: OnDone, interval_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._store = store
        self._on_done = on_done
        self._interval_s = interval_s
        self._began_s = 0.0  # the last group
        self._stopping = threading.Event()
        # Appended to by many threads, emptied by one: a deque needs no lock for that.
        self._queue: deque[tuple[int, Operation]] = deque()
        self._wake = threading.Event()
        self._is_asleep = False
        self._thread = threading.Thread(target=self._work, name="saltline-storage")

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, operation: Operation, token: int) -> None:
        """Queue an operation; from any thread, in the order in which the core asked for it."""
        self._queue.append((token, operation))
        # The storage thread looks at the queue once more after it says that it sleeps.
        if self._is_asleep:
            self._is_asleep = False  # once is enough, however many operations follow
            self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Do what is queued, close the store, end the thread; False if it took too long."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while group := self._next_group():
                outcomes = self._store.run([operation for _, operation in group])
                self._on_done(
                    [(token, done) for (token, _), done in zip(group, outcomes, strict=True)]
                )
                failure = self._store.maintain()
                if failure is not None:
                    self._on_done([(MAINTENANCE, failure)])
        finally:
            self._store.close()

    def _gather(self) -> None:
        """In a busy relay, let more come before the next commit: it costs the same for all."""
        interval_s = self._interval_s()
        if interval_s and len(self._queue) < GATHERED_OPERATIONS:
            wait_s = self._began_s + interval_s - monotonic()
            if wait_s > 0:
                self._stopping.wait(wait_s)
        self._began_s = monotonic()

    def _next_group(self) -> list[tuple[int, Operation]]:
        """Wait for work. Empty once everything is done after `stop`."""
        while not self._queue:
            if self._stopping.is_set():
                return []
            self._is_asleep = True
            if not self._queue and not self._stopping.is_set():
                self._wake.wait()
            self._is_asleep = False
            self._wake.clear()
        self._gather()
        group: list[tuple[int, Operation]] = []
        more = GROUP_MAX_OPERATIONS
        envelope_bytes = 0
        while self._queue and more > 0:
            token, operation = self._queue.popleft()
            group.append((token, operation))
            more -= len(operation.entries) if type(operation) is StoreTexts else 1
            if type(operation) is StoreEnvelope:
                envelope_bytes += len(operation.envelope)
                if envelope_bytes >= GROUP_MAX_ENVELOPE_BYTES:
                    break
        return group
