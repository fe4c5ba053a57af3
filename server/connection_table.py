"""The connections of one worker: those that the core knows, and those about to leave."""

import selectors
from collections.abc import Callable
from typing import Final

from saltline.server.connection import READ, Connection, PeerGone
from saltline.server.wakeup import Wakeup

# Connections that the core has let go, and whose output or peer is slow to leave.
LEAVING_MAX: Final = 256
# All of them together hold so much, here and in the kernel: an account may log in a hundred times a
# second, get a window of its mailbox each time, and read nothing.
LEAVING_MAX_BYTES: Final = 32 * 1024 * 1024
LINGER_MAX_S: Final = 1.0
# select() knows descriptors below this.
_FD_SETSIZE: Final = 1024


class ConnectionTable:
    """Used by its worker's thread alone; `on_closed` hears each live connection's number once."""

    def __init__(self, on_closed: Callable[[int], None], close_s: float) -> None:
        self.live: dict[int, Connection] = {}
        self._leaving: dict[int, Connection] = {}  # oldest first
        self._left_bytes: dict[int, int] = {}  # what each of them had not taken, when last seen
        self._left_bytes_in_all = 0
        self._on_closed = on_closed
        self._close_s = close_s
        self._selector = selectors.DefaultSelector()
        self._dozing: selectors.BaseSelector | None = None  # for the wake-up alone

    def __len__(self) -> int:
        """How many descriptors its connections hold."""
        return len(self.live) + len(self._leaving)

    def has_room_to_leave(self, connection: Connection) -> bool:
        """Else letting go of it costs another one that leaves what it has not sent yet."""
        return len(self._leaving) < LEAVING_MAX and not self._would_hold_too_much(connection)

    def watch_wakeup(self, wakeup: Wakeup) -> None:
        """`ready` ends early when somebody wakes."""
        self._selector.register(wakeup, READ, None)
        # select() waits to the microsecond, epoll to the millisecond.
        is_low = wakeup.fileno() < _FD_SETSIZE
        dozing = selectors.SelectSelector() if is_low else selectors.DefaultSelector()
        dozing.register(wakeup, READ, None)
        self._dozing = dozing

    def ready(self, timeout_s: float) -> list[tuple[Connection | None, int]]:
        """Wait: which connections are ready, for what; None for the wake-up."""
        return [(key.data, mask) for key, mask in self._selector.select(timeout_s)]

    def woken(self, timeout_s: float) -> list[tuple[Connection | None, int]]:
        """Wait for the wake-up alone; as `ready`. After `watch_wakeup`."""
        assert self._dozing is not None
        return [(None, mask) for _, mask in self._dozing.select(timeout_s)]

    def add(self, connection: Connection) -> None:
        """A connection that the core is about to hear of."""
        self.live[connection.number] = connection
        self.watch(connection)

    def watch(self, connection: Connection) -> None:
        """Let the selector watch for what the connection waits for, if that has changed."""
        mask = connection.wanted_mask
        if mask == connection.mask:
            return
        if not mask:
            self._selector.unregister(connection.sock)
        elif not connection.mask:
            self._selector.register(connection.sock, mask, connection)
        else:
            self._selector.modify(connection.sock, mask, connection)
        connection.mask = mask

    def let_go(self, connection: Connection, now_s: float) -> None:
        """The core has nothing more to do with it; what is queued may still leave."""
        if self.live.pop(connection.number, None) is None:
            return
        self._on_closed(connection.number)
        self._make_room(connection)
        self._leaving[connection.number] = connection
        self._note_left_bytes(connection)
        connection.is_leaving = True
        connection.waiting.clear()
        connection.close_by_s = now_s + self._close_s
        self.watch(connection)

    def _would_hold_too_much(self, connection: Connection) -> bool:
        return self._left_bytes_in_all + connection.left_bytes > LEAVING_MAX_BYTES

    def _note_left_bytes(self, connection: Connection) -> None:
        before, now = self._left_bytes.get(connection.number, 0), connection.left_bytes
        self._left_bytes[connection.number] = now
        self._left_bytes_in_all += now - before

    def _make_room(self, connection: Connection) -> None:
        """Drop the oldest of those that leave; for bytes, of those that still hold some."""
        if len(self._leaving) >= LEAVING_MAX:
            self.drop(next(iter(self._leaving.values())))
        if self._would_hold_too_much(connection):
            for each in list(self._leaving.values()):
                self._note_left_bytes(each)  # what they have taken meanwhile is none of it
            for each in list(self._leaving.values()):
                if not self._would_hold_too_much(connection):
                    break
                if self._left_bytes[each.number]:
                    self.drop(each)

    def say_goodbye(self, connection: Connection, now_s: float) -> None:
        """Its output has left: end our direction, and give the peer a moment to end its own."""
        connection.say_goodbye()
        if not connection.is_awaited:
            connection.close_by_s = min(connection.close_by_s, now_s + LINGER_MAX_S)
        self.watch(connection)

    def hear_out(self, connection: Connection) -> None:
        """One that lingers has said something, or has ended its direction."""
        try:
            if connection.discard_input():
                return
        except PeerGone:
            self.drop(connection)
            return
        if connection.is_awaited:  # it may still be reading
            connection.has_closed = True
            self.watch(connection)
        else:
            self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Close at once."""
        if self.live.pop(connection.number, None) is not None:
            self._on_closed(connection.number)
        self._leaving.pop(connection.number, None)
        self._left_bytes_in_all -= self._left_bytes.pop(connection.number, 0)
        if connection.mask:
            self._selector.unregister(connection.sock)
            connection.mask = 0
        connection.is_leaving = connection.is_lingering = True
        connection.abandon()

    def drop_late(self, now_s: float) -> None:
        """Close those that had their time to leave."""
        for connection in list(self._leaving.values()):
            if connection.close_by_s <= now_s:
                self.drop(connection)

    def close_all(self) -> None:
        """Close whatever is left, without a word to anybody."""
        for connection in (*self.live.values(), *self._leaving.values()):
            connection.close()
        self.live.clear()
        self._leaving.clear()

    def close(self) -> None:
        """Give the selector back."""
        self._selector.close()
        if self._dozing is not None:
            self._dozing.close()
