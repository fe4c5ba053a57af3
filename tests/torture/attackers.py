"""Strangers who mean harm, in a process of their own, with as much right to a core as anyone.

python -m tests.torture.attackers PORT SECONDS ADDRESSES RATE KIND...

Of each kind, RATE connections a second come from ADDRESSES loopback addresses in turn (0: as many
as it can) for SECONDS, and until twenty did what they came for; they stay for as long as the relay
bears them. At the end of each kind it prints how many were connected, how many of them did what
they came for, and how long the relay bore one at most, in seconds. It fails if nearly none did.
"""

import resource
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final

from saltline.protocol.frames import encode_frame
from saltline.protocol.messages import encode_message
from saltline.protocol.to_relay import CheckInvite
from tests.server.edge import CONTEXT, reset
from tests.server.key_updates import Updater
from tests.server.wire_client import HELLO

# Linux: choose the port when connecting, so that many connections of one address stay cheap.
_IP_BIND_ADDRESS_NO_PORT: Final = 24
# As many as it may have open, less what it needs itself.
_HELD_MAX: Final = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
_TLS_PATIENCE_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.25
_DRIP_EVERY_S: Final = 1.0
_FEWEST: Final = 20
_FEWEST_WITHIN_S: Final = 10.0

Attack = Callable[[socket.socket], socket.socket | None]
"""What is done with a fresh connection; who is to be held open."""


def client_hello() -> bytes:
    """A true beginning of TLS 1.3, which the relay has to answer with real work."""
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        CONTEXT.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def long_client_hello() -> bytes:
    """Most of a beginning of 128 KiB, the longest that OpenSSL takes, which it has to keep."""
    record = b"\x16\x03\x01\x40\x00"
    first = record + b"\x01\x02\x00\x00" + bytes(0x4000 - 4)
    return first + 7 * (record + bytes(0x4000))


_CLIENT_HELLO: Final = client_hello()


def _saying(data: bytes) -> Attack:
    def attack(sock: socket.socket) -> socket.socket:
        sock.send(data)
        return sock

    return attack


def _close(sock: socket.socket) -> None:
    sock.close()


def _in_tls(data: bytes) -> Attack:
    """Finish TLS as anybody would, say this, and stay."""

    def attack(sock: socket.socket) -> socket.socket:
        sock.settimeout(_TLS_PATIENCE_S)
        tls = CONTEXT.wrap_socket(sock)
        tls.sendall(data)
        tls.settimeout(0.0)
        return tls

    return attack


def _updating_keys(count: int) -> Attack:
    """Finish TLS, and say so often that the keys change: records that OpenSSL reads on and on."""

    def attack(sock: socket.socket) -> socket.socket:
        sock.settimeout(_TLS_PATIENCE_S)
        updater = Updater(sock)
        sock.sendall(updater.records(count))
        sock.settimeout(0.0)
        return sock

    return attack


_QUESTION: Final = encode_frame(encode_message(CheckInvite(1, "no")))

ATTACKS: Final[dict[str, Attack]] = {
    "connect and close": _close,
    "connect and reset": reset,
    "say nothing": lambda sock: sock,
    "speak no TLS": _saying(b"GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n"),
    "change the cipher": _saying(b"\x14\x03\x03\x00\x01\x01" * 10),
    "begin with an endless record": _saying(b"\x16\x03\x01\xff\xff" + bytes(2000)),
    "begin TLS and stop": _saying(_CLIENT_HELLO),
    "begin TLS at length": _saying(long_client_hello()),
    "begin TLS by halves": _saying(_CLIENT_HELLO[: len(_CLIENT_HELLO) // 2]),
    "drip TLS": _saying(_CLIENT_HELLO[:1]),
    "finish TLS and stop": _in_tls(b""),
    "change keys without end": _updating_keys(2_000),
    "change keys by handfuls": _updating_keys(200),
    "half a frame": _in_tls(encode_frame(HELLO)[:-3]),
    "drip a frame": _in_tls(encode_frame(HELLO + bytes(1000))[:1]),
    "a frame of nothing": _in_tls(bytes(4)),
    "a frame without end": _in_tls(b"\xff\xff\xff\xff" + bytes(1000)),
    "hello and stop": _in_tls(encode_frame(HELLO)),
    "hello and ask": _in_tls(encode_frame(HELLO)),
    "hello a hundred times": _in_tls(encode_frame(HELLO) * 100),
}
# Their addresses stay out for a minute: others come from elsewhere, or would be kept out as well.
UPDATES: Final = ("change keys without end", "change keys by handfuls")
# What some go on to say, one piece a second, as long as there is more. Who asks more often than
# every third second soon has to go: it counts as attempts to register.
DRIPS: Final[Mapping[str, Sequence[bytes]]] = {
    "drip TLS": [_CLIENT_HELLO[place : place + 1] for place in range(1, len(_CLIENT_HELLO))],
    "drip a frame": [bytes((byte,)) for byte in encode_frame(HELLO + bytes(1000))[1:]],
    "hello and ask": [b"", b"", b"", _QUESTION] * 1000,
}


@dataclass(slots=True)
class _Held:
    sock: socket.socket
    came_s: float
    dripped: int = 0


class Crowd:
    """Those of one kind who are there; whoever the relay ends has its age looked at."""

    def __init__(self, drip: Sequence[bytes]) -> None:
        self.oldest_s = 0.0
        self._drip = drip
        self._held: dict[int, _Held] = {}
        self._ends = select.epoll()
        self._drip_at_s = monotonic() + _DRIP_EVERY_S

    def take(self, sock: socket.socket, came_s: float) -> None:
        """One more that stays; of too many the oldest goes."""
        if len(self._held) >= _HELD_MAX:
            self._let_go(next(iter(self._held)))
        self._held[sock.fileno()] = _Held(sock, came_s)
        self._ends.register(sock, select.EPOLLRDHUP)

    def look(self, now_s: float) -> None:
        """Whom the relay has ended goes; the others may say their next word."""
        for descriptor, _ in self._ends.poll(0):
            age_s = now_s - self._held[descriptor].came_s
            self.oldest_s = max(self.oldest_s, age_s)
            self._let_go(descriptor)
        if self._drip and now_s >= self._drip_at_s:
            self._drip_at_s = now_s + _DRIP_EVERY_S
            for held in self._held.values():
                if piece := self._drip[held.dripped]:
                    with suppress(OSError):  # ended just now: seen at the next look
                        held.sock.send(piece)
                held.dripped += 1

    def leave(self) -> None:
        """All of them; who is still there was borne until now."""
        self.look(now_s := monotonic())
        for held in self._held.values():
            self.oldest_s = max(self.oldest_s, now_s - held.came_s)
            held.sock.close()
        self._ends.close()

    def _let_go(self, descriptor: int) -> None:
        self._ends.unregister(descriptor)
        self._held.pop(descriptor).sock.close()


@dataclass
class Came:
    """Of one kind: who was connected, who of them did what they came for, and for how long."""

    connected: int = 0
    acted: int = 0
    oldest_s: float = 0.0  # that one was borne


def attack(kind: str, port: int, seconds: float, addresses: int, rate: float) -> Came:
    """Go on for so long, and until a few came."""
    perform = ATTACKS[kind]
    network = 67 if kind in UPDATES else 66
    crowd = Crowd(DRIPS.get(kind, ()))
    came = Came()
    began_s = monotonic()
    look_at_s = began_s + _LOOK_EVERY_S
    tries = 0
    while (now_s := monotonic()) < began_s + seconds or (
        came.acted < _FEWEST and now_s < began_s + _FEWEST_WITHIN_S
    ):
        if now_s >= look_at_s:
            crowd.look(now_s)
            look_at_s = now_s + _LOOK_EVERY_S
        if rate and tries > (now_s - began_s) * rate:
            sleep(0.002)
            continue
        tries += 1
        place = tries % addresses
        source = f"127.{network}.{place // 250 + 1}.{place % 250 + 1}"
        stays = _connect(port, source, perform, came)
        if stays is not None:
            crowd.take(stays, now_s)
    crowd.leave()
    came.oldest_s = crowd.oldest_s
    return came


def _connect(port: int, source: str, perform: Attack, came: Came) -> socket.socket | None:
    """One connection, and what is done with it; None if nobody stays."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect(("127.0.0.1", port))
        sock.getpeername()  # on loopback, who is not connected by now found no room
        came.connected += 1
        stays = perform(sock)
        came.acted += 1
        return stays
    except (OSError, ValueError):  # the relay had enough of it; or no port is left
        sock.close()
        return None


class Attackers:
    """A process of them, one kind after the other."""

    def __init__(
        self, port: int, kinds: Iterable[str], *, seconds: float, addresses: int, rate: float
    ) -> None:
        self.kinds = tuple(kinds)
        arguments = [str(port), str(seconds), str(addresses), str(rate), *self.kinds]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.attackers", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def are_busy(self) -> bool:
        return self._process.poll() is None

    def told(self) -> dict[str, Came]:
        """At their end, of each kind: who came. Raises AssertionError if of one too few did."""
        lines = self._process.communicate()[0].splitlines()
        assert self._process.returncode == 0 and len(lines) == len(self.kinds), "see above"
        numbers = [line.split() for line in lines]
        return {
            kind: Came(int(connected), int(acted), float(oldest_s))
            for kind, (connected, acted, oldest_s) in zip(self.kinds, numbers, strict=True)
        }

    def close(self) -> None:
        with self._process:
            self._process.kill()


@contextmanager
def under_attack(*attackers: Attackers) -> Iterator[Sequence[Attackers]]:
    """While it lasts; then they are gone."""
    try:
        yield attackers
    finally:
        for each in attackers:
            each.close()


def main(port: str, seconds: str, addresses: str, rate: str, *kinds: str) -> None:
    """One kind after the other."""
    for kind in kinds:
        came = attack(kind, int(port), float(seconds), int(addresses), float(rate))
        assert came.acted >= _FEWEST, f"{kind}: in all {came}"
        print(came.connected, came.acted, f"{came.oldest_s:.2f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
