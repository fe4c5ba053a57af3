"""Strangers who mean harm, in a process of their own, at the lowest priority.

python -m tests.torture.attackers PORT SECONDS ADDRESSES RATE KIND...

Of each kind, RATE connections a second come from ADDRESSES loopback addresses in turn (0: as many
as it can) for SECONDS. At the end it prints how many it made.
"""

import os
import socket
import ssl
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Final

from saltline.protocol.frames import encode_frame
from tests.server.edge import CONTEXT, reset
from tests.server.wire_client import HELLO

# Linux: choose the port when connecting, so that many connections of one address stay cheap.
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_HELD_MAX: Final = 3000
_TLS_PATIENCE_S: Final = 2.0

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
    "finish TLS and stop": _in_tls(b""),
    "half a frame": _in_tls(encode_frame(HELLO)[:-3]),
    "a frame of nothing": _in_tls(bytes(4)),
    "a frame without end": _in_tls(b"\xff\xff\xff\xff" + bytes(1000)),
    "hello and stop": _in_tls(encode_frame(HELLO)),
    "hello a hundred times": _in_tls(encode_frame(HELLO) * 100),
}


def attack(kind: str, port: int, seconds: float, addresses: int, rate: float) -> int:
    """Go on for so long; how many connections were made."""
    perform = ATTACKS[kind]
    held: deque[socket.socket] = deque()
    began_s = monotonic()
    made = 0
    while (now_s := monotonic()) < began_s + seconds:
        if rate and made > (now_s - began_s) * rate:
            sleep(0.002)
            continue
        made += 1
        sock = socket.socket()
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            place = made % addresses
            sock.bind((f"127.66.{place // 250 + 1}.{place % 250 + 1}", 0))
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.connect(("127.0.0.1", port))
            stays = perform(sock)
        except (OSError, ValueError):  # the relay had enough of it; or no port is left
            sock.close()
            continue
        if stays is not None:
            held.append(stays)
            if len(held) > _HELD_MAX:
                held.popleft().close()
    for sock in held:
        sock.close()
    return made


@contextmanager
def under_attack(
    port: int, kinds: Sequence[str], *, seconds: float, addresses: int, rate: float
) -> "Iterator[subprocess.Popen[str]]":
    """While it lasts, one kind after the other; the process prints how many connections it made."""
    arguments = [str(port), str(seconds), str(addresses), str(rate), *kinds]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.attackers", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def main(port: str, seconds: str, addresses: str, rate: str, *kinds: str) -> int:
    """How many connections were made in all."""
    os.nice(19)
    return sum(
        attack(kind, int(port), float(seconds), int(addresses), float(rate)) for kind in kinds
    )


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
