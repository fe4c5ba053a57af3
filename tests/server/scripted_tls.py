"""A TLS socket that gives the answers it is told to."""

import socket
import ssl
from typing import cast

from saltline.server.connection import Connection


class Tls:
    """Answers `send` and `recv` as it is told; remembers what was sent."""

    def __init__(self, *answers: int | bytes | Exception) -> None:
        self.answers = list(answers)
        self.offered: list[bytes] = []
        self.sent = b""
        self.corks: list[int] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert level == socket.IPPROTO_TCP
        self.corks.append(value)

    def send(self, data: bytes) -> int:
        self.offered.append(bytes(data))
        answer = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int)
        self.sent += bytes(data[:answer])
        return answer

    def recv(self, _size: int) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, bytes)
        return answer


def connection_on(tls: Tls, *frames: bytes, number: int = 1) -> Connection:
    """A connection that nobody watches yet, with these in its queue."""
    connection = Connection(number, cast(ssl.SSLSocket, tls))
    for frame in frames:
        connection.output.append(frame)
        connection.queued_bytes += len(frame)
    return connection
