"""The least that a relay in Python can do: a line comes, one commit keeps it, and lines leave.

python bare_loop.py PORT CERTIFICATE KEY DATABASE

One thread, no names, limits, frames or signatures. An acknowledgement goes to the author alone if
nobody else is there, else the line goes to all others: what it takes beside one commit of the same
row is what a calm relay in this language cannot do without.
"""

import select
import socket
import ssl
import sys
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


def _database(path: str) -> apsw.Cursor:
    cursor = apsw.Connection(path).cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute(_TABLE)
    return cursor


def serve(listening: socket.socket, context: ssl.SSLContext, cursor: apsw.Cursor) -> None:
    """Until killed."""
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    everybody: dict[int, ssl.SSLSocket] = {}
    strangers: set[int] = set()
    commits = 0
    while True:
        for fd, _ in poll.poll():
            if fd == listening.fileno():
                plain, _ = listening.accept()
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    link = context.wrap_socket(plain, server_side=True)
                except OSError:
                    plain.close()
                    continue
                link.setblocking(False)
                everybody[link.fileno()] = link
                strangers.add(link.fileno())
                poll.register(link.fileno(), select.EPOLLIN)
                continue
            author = everybody[fd]
            try:
                line = author.recv(_READ_BYTES)
            except ssl.SSLWantReadError:
                continue
            except OSError:
                line = b""
            if not line:
                poll.unregister(fd)
                everybody.pop(fd).close()
            elif fd in strangers:
                strangers.discard(fd)
                author.send(b"welcome\n")
            else:
                commits += 1
                cursor.execute(_INSERT, (commits, _HEAD + line, _SIGNATURE, _HASH))
                if len(everybody) == 1:
                    author.send(b"+\n")
                else:
                    for reader in everybody.values():
                        if reader is not author:
                            with suppress(OSError):  # full, or gone: it is no messenger
                                reader.send(line)
                if commits % _CHECKPOINT_COMMITS == 0:
                    cursor.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


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
