"""A TCP proxy on loopback between a client and its relay: it cuts, or it swallows everything."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Self

_READ_BYTES = 64 * 1024


class Way(Enum):
    """Which way bytes go."""

    TO_CLIENT = "to the client"
    TO_RELAY = "to the relay"


class Proxy:
    """Passes bytes on, both ways, for any number of connections. Any thread may ask.

    `connections` counts those that came through, `cuts` those that `cut_at_next` ended.
    """

    def __init__(self, relay_port: int) -> None:
        self._relay_port = relay_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[tuple[socket.socket, socket.socket]] = set()  # to a client, to the relay
        self._threads: list[threading.Thread] = []
        self._armed: Way | None = None
        self._is_closing = False
        self.connections = 0
        self._deaf = 0  # connections up to this one are swallowed
        self.cuts = 0
        self.is_refusing = False  # from now on whoever comes is sent away
        self._begin(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing = True
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def cut_at_next(self, way: Way) -> None:
        """The next bytes that come this way are not passed on: their connection ends instead."""
        with self._lock:
            self._armed = way

    def cut(self) -> int:
        """End every connection now; how many were open."""
        with self._lock:
            cut, self._open = self._open, set()
        for ends in cut:
            hang_up(ends)
        return len(cut)

    def swallow(self) -> None:
        """Connections of now stay open, and nothing comes through them any more."""
        self._deaf = self.connections

    def is_deaf(self, connection: int) -> bool:
        """Whether this connection is swallowed."""
        return connection <= self._deaf

    def _begin(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closing:
            client, _ = self._listener.accept()
            if self.is_refusing:
                client.close()
                continue
            try:
                relay = socket.create_connection(("127.0.0.1", self._relay_port))
            except OSError:
                client.close()
                continue
            for end in (client, relay):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add((client, relay))
                self._threads = [each for each in self._threads if each.is_alive()]
            self.connections += 1
            pair = _Pair(self, self.connections, client, relay)
            self._begin(pair.pump, client, relay, Way.TO_RELAY)
            self._begin(pair.pump, relay, client, Way.TO_CLIENT)

    def passes(self, way: Way) -> bool:
        """Whether bytes that have come this way go on; if not, their connection ends."""
        with self._lock:
            if self._armed is not way:
                return True
            self._armed = None
            self.cuts += 1
            return False

    def is_over(self, ends: tuple[socket.socket, socket.socket]) -> None:
        """A connection has ended by itself: nobody can cut it any more."""
        with self._lock:
            self._open.discard(ends)


def hang_up(ends: tuple[socket.socket, socket.socket]) -> None:
    """Both ends hear of it; whoever reads there leaves."""
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class _Pair:
    """The two ends of one connection; whoever is the last to leave closes them."""

    def __init__(
        self, proxy: Proxy, number: int, client: socket.socket, relay: socket.socket
    ) -> None:
        self._proxy = proxy
        self._number = number
        self._ends = (client, relay)
        self._lock = threading.Lock()
        self._left = 2

    def pump(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        with suppress(OSError):
            while (data := source.recv(_READ_BYTES)) and self._proxy.passes(way):
                if not self._proxy.is_deaf(self._number):
                    sink.sendall(data)
        if not self._proxy.is_deaf(self._number):  # there, not even the end is heard of
            self._proxy.is_over(self._ends)
            hang_up(self._ends)
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._proxy.is_over(self._ends)
            for end in self._ends:
                end.close()
