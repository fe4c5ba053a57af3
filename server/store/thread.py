"""The storage thread: whatever arrived during one commit goes into the next."""

from collections.abc import Callable, Sequence

from saltline.server.store.interface import Operation, Outcome, Store, StoreError

OnDone = Callable[[Sequence[tuple[int, Outcome | StoreError]]], None]


class StorageThread:
    """Runs a store on a thread of its own, with group commit.

    `on_done` gets (token, outcome) pairs, in the order of `submit`, on the storage thread, after
    the commit that made them durable. Token 0 is the store itself, failing in its maintenance.
    """

    def __init__(self, store: Store, on_done: OnDone) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begin to work."""

    def submit(self, operation: Operation, token: int) -> None:
        """Queue an operation; from any thread, in the order in which the core asked for it."""

    def stop(self, timeout_s: float) -> bool:
        """Do what is queued, close the store, end the thread; False if it took too long."""
        raise NotImplementedError
