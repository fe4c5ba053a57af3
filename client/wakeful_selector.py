"""Waiting for sockets, by one thread, which others can wake."""

import os
import selectors
import socket
from contextlib import suppress
from typing import Final

_READ_BYTES: Final = 4096


class WakefulSelector:
    """A selector with a pipe of its own. Only `wake` is for other threads, and not with `close`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)

    def wake(self) -> None:
        """Let `select` return; nothing once it is closed."""
        if self._writer >= 0:
            with suppress(BlockingIOError):  # full of wake-ups already
                os.write(self._writer, b"\0")

    def select(self, timeout_s: float | None) -> bool:
        """Wait; whether anything but a wake-up came."""
        is_ready = False
        for key, _ in self._selector.select(timeout_s):
            if key.fd != self._reader:
                is_ready = True
                continue
            with suppress(BlockingIOError):
                while os.read(self._reader, _READ_BYTES):
                    pass
        return is_ready

    def register(self, sock: socket.socket, events: int) -> None:
        """As `selectors` has it."""
        self._selector.register(sock, events)

    def modify(self, sock: socket.socket, events: int) -> None:
        """As `selectors` has it."""
        self._selector.modify(sock, events)

    def unregister(self, sock: socket.socket) -> None:
        """As `selectors` has it."""
        self._selector.unregister(sock)

    def close(self) -> None:
        """Give the descriptors back."""
        if self._writer >= 0:
            self._selector.close()
            os.close(self._reader)
            os.close(self._writer)
            self._reader = self._writer = -1
