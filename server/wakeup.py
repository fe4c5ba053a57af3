"""How one thread hands work to another that sleeps in a selector."""

import os
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

_ONE: Final = (1).to_bytes(8, "little")
_READ_BYTES: Final = 4096
_HAS_EVENTFD: Final = hasattr(os, "eventfd")

Item = TypeVar("Item")


class Wakeup:
    """A descriptor that becomes readable when somebody calls `wake`: eventfd, or else a pipe.

    Any thread may call `wake`; only the owner calls `clear` and `close`, the latter when nobody
    else will call `wake` any more.
    """

    __slots__ = ("_reader", "_writer")

    def __init__(self, *, with_eventfd: bool = _HAS_EVENTFD) -> None:
        if with_eventfd:
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """What a selector watches for reading."""
        return self._reader

    def wake(self) -> None:
        """Make the descriptor readable. Never blocks."""
        try:
            os.write(self._writer, _ONE)
        except BlockingIOError:
            pass  # full of wake-ups that nobody has read yet: one more says nothing new

    def clear(self) -> None:
        """Make it unreadable again. Look for work only after this, never before."""
        try:
            os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)


class Inbox(Generic[Item]):
    """Work for one thread, in the order posted; the sleeper is woken, the busy one is not.

    The owner announces its sleep (`about_to_sleep`), looks whether something came, and only then
    sleeps; a poster appends, and only then looks whether the owner sleeps. One of the two always
    sees the other.
    """

    __slots__ = ("_items", "_sleeping", "put", "wakeup")

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self._items: deque[Item] = deque()
        # Append without waking; `wake` must follow. For a poster that holds a lock.
        self.put: Callable[[Item], None] = self._items.append
        self._sleeping = False

    def __len__(self) -> int:
        return len(self._items)

    def wake(self) -> None:
        """Wake the owner if it sleeps."""
        if self._sleeping:
            self._sleeping = False
            self.wakeup.wake()

    def post(self, item: Item) -> None:
        """Append and wake."""
        self._items.append(item)
        self.wake()

    def about_to_sleep(self) -> bool:
        """Announce the sleep; True if nothing waits, so that sleeping is right."""
        self._sleeping = True
        return not self._items

    def awake(self) -> None:
        """The owner runs again and will look into the inbox before it sleeps."""
        self._sleeping = False

    def take(self) -> list[Item]:
        """Everything posted so far, oldest first. What is posted meanwhile waits."""
        items = self._items
        return [items.popleft() for _ in range(len(items))]
