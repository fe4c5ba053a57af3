"""A thread of handshakes whose turns a test takes one by one, and those who connect to it."""

import socket
from pathlib import Path

import pytest

from saltline.server import waiting_room
from saltline.server.certificates import load_or_make
from saltline.server.handshakes import HandshakeThread
from saltline.server.settings import CertificateStatement
from saltline.server.work import Adopt
from tests.server.test_certificates import NOW

FIRST_BYTE = b"\x16"


class Clock:
    """Stands still unless it is set; each look takes `look_s`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.look_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.look_s
        return self.now_s


class Scene:
    """A handshake thread that does not run by itself, and those who connect to it."""

    def __init__(self, folder: Path) -> None:
        certificate = load_or_make(folder, ("localhost",), NOW)
        statement = CertificateStatement(bytes(32), 0, bytes(64))
        self.handed_over: list[Adopt] = []
        self.begun: list[str] = []  # address groups, in the order of their beginnings
        self.peers: list[socket.socket] = []
        self.is_swamped = False
        self.thread = HandshakeThread(
            0,
            lambda: (certificate.context, statement),
            self.handed_over.append,
            lambda name, error: pytest.fail(f"{name}: {error!r}"),
            deadline_s=3600.0,
            per_address_max=lambda: 1_000_000,
            is_swamped=lambda: self.is_swamped,
        )
        self.thread._sleep_s = lambda: 0.0  # type: ignore[method-assign]
        begin = self.thread._begin

        def begin_and_tell(handshake: waiting_room.Handshake) -> None:
            self.begun.append(handshake.group)
            begin(handshake)

        self.thread._begin = begin_and_tell  # type: ignore[method-assign]

    def arrive(self, group: str, says: bytes = FIRST_BYTE) -> socket.socket:
        """Somebody of an address who has connected, and perhaps said something."""
        peer, ours = socket.socketpair()
        ours.setblocking(False)
        self.peers.append(peer)
        if says:
            peer.sendall(says)
        self.thread.inbox.post((ours, group))
        return peer

    def turn(self) -> None:
        self.thread._turn()

    def close(self) -> None:
        for handshake in self.thread._all():
            self.thread._give_up(handshake)
        for adopted in self.handed_over:
            adopted.sock.close()
        for peer in self.peers:
            peer.close()
        self.thread._selector.close()
        self.thread.close()
