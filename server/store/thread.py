"""The storage thread: whatever arrived during one commit goes into the next."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from saltline.server.store.interface import Operation, Outcome, Store, StoreError
from saltline.server.store.operations import ReadMailbox, StoreEnvelope, StoreTexts

OnDone = Callable[[Sequence[tuple[int, Outcome | StoreError]]], None]

# A group this large costs one fsync for each of its members next to nothing; a larger one only
# makes those wait who came first.
GROUP_MAX_OPERATIONS: Final = 1024
# So many are not worth waiting for more.
GATHERED_OPERATIONS: Final = 64
GROUP_MAX_ENVELOPE_BYTES: Final = 8 * 1024 * 1024
# A mailbox's window has up to 1 MiB: a crowd that logs in is read in several groups.
_WEIGHT_OF_A_MAILBOX: Final = 64
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
        self._began_s = -inf  # the last group
        # A queue in C: in a calm relay every operation wakes this thread, and conditions and events
        # of `threading` do that in Python. None is for `stop`, to wake whoever waits.
        self._queue: SimpleQueue[Sequence[tuple[int, Operation]] | None] = SimpleQueue()
        self._waiting: deque[tuple[int, Operation]] = deque()  # taken from the queue
        self._stops: SimpleQueue[None] = SimpleQueue()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="saltline-storage")

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, operations: Sequence[tuple[int, Operation]]) -> None:
        """Queue operations with their tokens; from any thread, in the core's order."""
        self._queue.put(operations)

    def stop(self, timeout_s: float) -> bool:
        """Do what is queued, close the store, end the thread; False if it took too long."""
        self._is_stopping = True
        self._stops.put(None)
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        store = self._store
        try:
            while self._take():
                tokens, operations = self._next_group()
                outcomes = store.run(operations)
                self._on_done(list(zip(tokens, outcomes, strict=True)))
                del tokens, operations, outcomes  # while they are warm, not in the next round
                nobody_waits = not self._waiting and self._queue.empty()
                failure = store.maintain(nobody_waits=nobody_waits)
                if failure is not None:
                    self._on_done([(MAINTENANCE, failure)])
        finally:
            store.close()

    def _take(self) -> bool:
        """Wait for work, and take all that is there; False once everything is done after `stop`."""
        queue, waiting = self._queue, self._waiting
        while not waiting:
            if self._is_stopping and queue.empty():
                return False
            waiting.extend(queue.get() or ())
        self._drain()
        self._gather()
        self._drain()
        return True

    def _drain(self) -> None:
        while not self._queue.empty():  # nobody else takes from it
            self._waiting.extend(self._queue.get() or ())

    def _gather(self) -> None:
        """In a busy relay, let more come before the next commit: it costs the same for all."""
        interval_s = self._interval_s()
        if interval_s and len(self._waiting) < GATHERED_OPERATIONS:
            wait_s = self._began_s + interval_s - monotonic()
            if wait_s > 0:
                with suppress(Empty):
                    self._stops.get(timeout=wait_s)
                    self._stops.put(None)  # from now on nothing is waited for
        self._began_s = monotonic()

    def _next_group(self) -> tuple[list[int], list[Operation]]:
        """The oldest of what waits, up to the size of a group."""
        waiting = self._waiting
        tokens: list[int] = []
        operations: list[Operation] = []
        more = GROUP_MAX_OPERATIONS
        envelope_bytes = 0
        while waiting and more > 0 and envelope_bytes < GROUP_MAX_ENVELOPE_BYTES:
            token, operation = waiting.popleft()
            tokens.append(token)
            operations.append(operation)
            more -= _weight(operation)
            if type(operation) is StoreEnvelope:
                envelope_bytes += len(operation.envelope)
        return tokens, operations


def _weight(operation: Operation) -> int:
    if type(operation) is StoreTexts:
        return len(operation.entries)
    return _WEIGHT_OF_A_MAILBOX if type(operation) is ReadMailbox else 1
