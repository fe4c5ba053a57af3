"""The least that a relay in Python can do: a line comes, one commit keeps it, and lines leave.

python bare_loop.py PORT CERTIFICATE KEY DATABASE

One thread, no names, limits, frames or signatures. An acknowledgement goes to the author alone if
nobody else is there, else the line goes to all others: what it takes beside one commit of the same
row is what a calm relay in this language cannot do without. Where much comes, it looks at
intervals, as the relay does: what came meanwhile shares a commit, and a write to each reader.
"""

import select
import socket
import ssl
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import apsw

_PRAGMAS = (
    "page_size = 8192",
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 0",
    "secure_delete = ON",
)
_CHECKPOINT_COMMITS = 4_000
_TABLE = """CREATE TABLE entry (slot INTEGER PRIMARY KEY, received_ms INTEGER NOT NULL,
account INTEGER NOT NULL, device INTEGER NOT NULL, statement BLOB NOT NULL, signature BLOB NOT NULL,
history_hash BLOB NOT NULL) STRICT"""
_INSERT = "INSERT INTO entry VALUES (?, 1, 1, 1, ?, ?, ?)"
_SIGNATURE, _HASH, _HEAD = bytes(64), bytes(32), bytes(65)
_READ_BYTES = 16 * 1024
# As `server/pace.py`: so long from one look to the next, from so many writes a second on.
_INTERVAL_S = 0.0029
_BUSY_WRITES_PER_S = 20_000
_COUNT_EVERY_S = 0.25
_LINES_WHEN_BUSY = 64


def _database(path: str) -> apsw.Cursor:
    cursor = apsw.Connection(path).cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute(_TABLE)
    return cursor


class Everybody:
    """Who is there, and what has come and was not yet said to all."""

    def __init__(self, cursor: apsw.Cursor) -> None:
        self.links: dict[int, ssl.SSLSocket] = {}
        self.strangers: set[int] = set()
        self._cursor = cursor
        self._commits = 0
        self.writes = 0
        self._came: list[tuple[ssl.SSLSocket, bytes]] = []

    def hear(self, fd: int, lines: int) -> bool:
        """Read so many lines at most; False if that was the end of the connection."""
        author = self.links[fd]
        for _ in range(lines):
            try:
                line = author.recv(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except OSError:
                line = b""
            if not line:
                self.links.pop(fd).close()
                return False
            if fd in self.strangers:
                self.strangers.discard(fd)
                author.send(b"welcome\n")
            else:
                self._came.append((author, line))
        return True

    def tell(self) -> None:
        """Keep what came, and say it."""
        came, self._came = self._came, []
        if not came:
            return
        self._keep(line for _, line in came)
        if len(self.links) == 1:
            came[0][0].send(b"+\n" * len(came))
            return
        lines = b"".join([line for _, line in came])
        authors = {author for author, _ in came}
        for reader in self.links.values():
            if reader in authors:
                of_others = b"".join([line for author, line in came if author is not reader])
                if not of_others:
                    continue
            with suppress(OSError):  # full, or gone: it is no messenger
                reader.send(of_others if reader in authors else lines)
        self.writes += len(self.links)

    def _keep(self, lines: Iterable[bytes]) -> None:
        before = self._commits
        rows = [
            (number, _HEAD + line, _SIGNATURE, _HASH)
            for number, line in enumerate(lines, before + 1)
        ]
        self._commits += len(rows)
        if len(rows) == 1:
            self._cursor.execute(_INSERT, rows[0])
        else:
            with self._cursor.connection:
                self._cursor.executemany(_INSERT, rows)
        if before // _CHECKPOINT_COMMITS != self._commits // _CHECKPOINT_COMMITS:
            self._cursor.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def serve(listening: socket.socket, context: ssl.SSLContext, cursor: apsw.Cursor) -> None:
    """Until killed."""
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    everybody = Everybody(cursor)
    counted, since_s, is_busy, looked_s = 0, 0.0, False, 0.0
    while True:
        if is_busy:
            time.sleep(max(0.0, looked_s + _INTERVAL_S - time.monotonic()))
        ready = poll.poll()
        looked_s = time.monotonic()
        for fd, _ in ready:
            if fd != listening.fileno():
                if not everybody.hear(fd, _LINES_WHEN_BUSY if is_busy else 1):
                    with suppress(OSError):  # closed, and so forgotten
                        poll.unregister(fd)
                continue
            plain, _ = listening.accept()
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                link = context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                continue
            link.setblocking(False)
            everybody.links[link.fileno()] = link
            everybody.strangers.add(link.fileno())
            poll.register(link.fileno(), select.EPOLLIN)
        everybody.tell()
        if looked_s - since_s >= _COUNT_EVERY_S:
            is_busy = everybody.writes - counted >= _BUSY_WRITES_PER_S * _COUNT_EVERY_S
            counted, since_s = everybody.writes, looked_s


def main(port: int, certificate: str, key: str, database: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listening:
        serve(listening, context, _database(database))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:5])
