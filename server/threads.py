"""A thread of the relay whose failure somebody hears of."""

import threading
from collections.abc import Callable

OnFailure = Callable[[str, BaseException], None]  # the thread's name, and what ended it


class RelayThread(threading.Thread):
    """Does `work` once. What it raises goes to `on_failure`. A daemon: it holds up no exit."""

    def __init__(self, name: str, work: Callable[[], None], on_failure: OnFailure) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._on_failure = on_failure

    def run(self) -> None:
        """See threading.Thread."""
        try:
            self._work()
        except BaseException as error:
            self._on_failure(self.name, error)

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for its end, if it was started; False if it took longer."""
        if self.ident is not None:
            self.join(timeout_s)
        return not self.is_alive()
