"""Connections that a peer resets in the middle of something, and the relay that stays."""

import socket
import ssl
import struct
from pathlib import Path
from typing import cast

from saltline.protocol.frames import encode_frame
from saltline.server.connection import Connection
from saltline.server.connection_table import ConnectionTable
from tests.server.edge import CONTEXT, TIMEOUT_S, ScriptedRelay, config_in
from tests.waiting import wait_until

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what close() does to what was not read
_MANY_RECORDS = 300  # more than a worker reads of one connection in a turn


class Peer:
    """A client whose TLS records leave when it says so: many in one write."""

    def __init__(self, port: int) -> None:
        self._sock = socket.socket()
        self._sock.settimeout(TIMEOUT_S)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # it will not read
        self._sock.connect(("127.0.0.1", port))
        came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = CONTEXT.wrap_bio(came, self._leaves)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                came.write(self._sock.recv(65536))
        self.flush()

    def write(self, *records: bytes) -> None:
        for record in records:
            self._tls.write(record)

    def flush(self) -> None:
        self._sock.sendall(self._leaves.read())

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.flush()
        self._sock.close()


def flood(relay: ScriptedRelay, peer: Peer) -> None:
    """One request with a long answer, which the core has got."""

    def asked() -> int:
        return sum(event[0] == "received" for event in list(relay.core.happened))

    before = asked()
    peer.write(encode_frame(b"flood 1 30000"))
    peer.flush()
    wait_until(lambda: asked() > before)


def test_one_that_resets_while_it_is_read_and_written_ends_alone(tmp_path: Path) -> None:
    """Its worker had it down to be read on in the next turn, and dropped it when writing failed."""
    with ScriptedRelay(config_in(tmp_path)) as relay:
        table = relay._workers[0]._table
        for _ in range(5):
            peer = Peer(relay.address.port)
            wait_until(lambda: table.live)
            while not any(connection.is_blocked for connection in list(table.live.values())):
                flood(relay, peer)
            peer.write(b"\0\0\4\0", *[b"x"] * _MANY_RECORDS)
            peer.reset()
            wait_until(lambda: relay.failure or not table.live)
            assert not relay.failure
        with relay.connect() as ada:
            assert ada.ask(b"echo still here") == b"still here"


def test_nothing_is_watched_that_was_dropped() -> None:
    here, there = socket.socketpair()
    closed: list[int] = []
    table = ConnectionTable(closed.append, 1.0)
    connection = Connection(7, cast(ssl.SSLSocket, here))
    table.add(connection)
    table.drop(connection)
    table.watch(connection)
    table.drop(connection)
    assert closed == [7] and table.ready(0) == [] and here.fileno() == -1
    table.close()
    there.close()
