"""How much of what a peer sends the kernel holds before the relay has read it.

What it holds OpenSSL reads to the end, whatever it is: also after the connection was cut off.
"""

import socket
from contextlib import suppress
from typing import Final

# A ClientHello, or a login with its prekeys' ids, in one go or two.
STRANGERS_BYTES: Final = 8 * 1024
# On a line with a delay of 100 ms, 2 MB a second where the system allows its usual 208 KiB.
USERS_BYTES: Final = 1024 * 1024
_WINDOW_CLAMP: Final[int | None] = getattr(socket, "TCP_WINDOW_CLAMP", None)  # Linux


def narrow(sock: socket.socket) -> None:
    """Of a stranger. Does nothing if the connection has just ended."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STRANGERS_BYTES)


def widen(sock: socket.socket) -> None:
    """Of who has logged in. The kernel's own fitting is off once a size was set (tcp(7))."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, USERS_BYTES)
        if _WINDOW_CLAMP is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _WINDOW_CLAMP, USERS_BYTES)
