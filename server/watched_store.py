"""The store, watched: a fault of ours stops the relay instead of ending a thread in silence."""

from collections.abc import Callable, Sequence

from saltline.protocol.errors import ErrorCode
from saltline.server.store.interface import Operation, Outcome, Store, StoreError


class WatchedStore:
    """A `Store` that raises nothing: `on_failure` hears of it, and the operations fail."""

    def __init__(self, store: Store, on_failure: Callable[[str, BaseException], None]) -> None:
        self._store = store
        self._on_failure = on_failure

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        """See `Store.run`."""
        try:
            return self._store.run(operations)
        except BaseException as error:
            return [self._fault(error)] * len(operations)

    def maintain(self, *, nobody_waits: bool = False) -> StoreError | None:
        """See `Store.maintain`."""
        try:
            return self._store.maintain(nobody_waits=nobody_waits)
        except BaseException as error:
            return self._fault(error)

    def close(self) -> None:
        """See `Store.close`."""
        try:
            self._store.close()
        except BaseException as error:
            self._fault(error)

    def _fault(self, error: BaseException) -> StoreError:
        self._on_failure("storage", error)
        return StoreError(ErrorCode.INTERNAL, "The relay has a fault and stops.", fatal=True)
