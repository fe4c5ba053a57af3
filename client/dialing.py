"""From an address to a TLS 1.3 connection, step by step, so that every wait can be ended."""

import errno
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from saltline.protocol.names import RelayAddress

DIAL_DEADLINE_S: Final = 20.0  # in all: every address and the TLS handshake
_PER_ADDRESS_S: Final = 6.0  # where another address can still be tried

SocketAddress = tuple[int, Any]  # family, what connect() takes


class DialFailed(Exception):
    """No connection came about; the text is a part of a sentence. Trying again may help."""


class NotVouched(Exception):
    """No certificate authority vouches for the relay; the text is a part of a sentence.

    `wrong_name`: one does, but for another name than the one that was dialled.
    """

    def __init__(self, reason: str, *, wrong_name: bool = False) -> None:
        super().__init__(reason)
        self.wrong_name = wrong_name


class Waiter(Protocol):
    """Waits until a socket can be read or written."""

    def __call__(self, sock: socket.socket, events: int, deadline: float) -> None:
        """Raises TimeoutError after `deadline` (time.monotonic)."""


def wait_plainly(sock: socket.socket, events: int, deadline: float) -> None:
    """The Waiter for a thread that has nothing else to do."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, events)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError


def trusting_context(*, pinned: bool, ca_file: str) -> ssl.SSLContext:
    """TLS 1.3 only. `pinned`: the caller compares the key; else a CA and the host name decide.

    Raises NotVouched when `ca_file` cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False  # RFC 9525: names stand in the SAN alone
    if pinned:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise NotVouched(f"the file of CA certificates {ca_file} cannot be read") from None
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def resolve(address: RelayAddress) -> list[SocketAddress]:
    """The socket addresses of a host; blocks as long as the system's resolver does.

    Raises DialFailed.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DialFailed(f"the name {address.host} is not known") from None
    return [(family, where) for family, _, _, _, where in found]


def dial(
    address: RelayAddress,
    found: Sequence[SocketAddress],
    make_context: Callable[[], ssl.SSLContext],
    wait: Waiter,
) -> ssl.SSLSocket:
    """A non-blocking socket after its TLS handshake. Raises DialFailed, NotVouched."""
    deadline = time.monotonic() + DIAL_DEADLINE_S
    failure = DialFailed("it has no address")
    for left, place in zip(range(len(found) - 1, -1, -1), found, strict=True):
        mine = min(deadline, time.monotonic() + _PER_ADDRESS_S) if left else deadline
        try:
            return _dial_one(address.host, place, make_context(), wait, mine)
        except DialFailed as error:
            failure = error
    raise failure


def _dial_one(
    host: str, place: SocketAddress, context: ssl.SSLContext, wait: Waiter, deadline: float
) -> ssl.SSLSocket:
    family, where = place
    try:
        plain = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise DialFailed(_reason(error)) from None
    with _ClosedOnFailure(plain) as guard:
        plain.setblocking(False)
        _connect(plain, where, wait, deadline)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # An IPv6 zone is a matter of this computer, not part of the name in a certificate.
        name = host.partition("%")[0]
        try:
            secure = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        except ValueError:  # also what IDNA refuses
            raise DialFailed(f"{host} is not a host's name") from None
        guard.sock = secure
        _shake_hands(secure, wait, deadline)
        return secure


class _ClosedOnFailure:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def __enter__(self) -> "_ClosedOnFailure":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.sock.close()


def _connect(plain: socket.socket, where: Any, wait: Waiter, deadline: float) -> None:
    try:
        result = plain.connect_ex(where)
        if result == errno.EINPROGRESS:
            wait(plain, selectors.EVENT_WRITE, deadline)
            result = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, os.strerror(result))
    except TimeoutError:
        raise DialFailed("it does not answer") from None
    except OSError as error:
        raise DialFailed(_reason(error)) from None


def _shake_hands(secure: ssl.SSLSocket, wait: Waiter, deadline: float) -> None:
    while True:
        try:
            secure.do_handshake()
            return
        except ssl.SSLWantReadError:
            events = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            events = selectors.EVENT_WRITE
        except ssl.SSLCertVerificationError as error:
            raise _not_vouched(error) from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise DialFailed("it hung up") from None
        except ssl.SSLError:
            raise DialFailed("it does not speak TLS 1.3") from None
        except OSError as error:
            raise DialFailed(_reason(error)) from None
        try:
            wait(secure, events, deadline)
        except TimeoutError:
            raise DialFailed("it does not finish the TLS handshake") from None


# OpenSSL's numbers (X509_V_ERR_…), in words of ours; what is missing here it says itself.
_VERIFY_REASONS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it vouches for itself",
    19: "its chain ends with an authority that is not trusted here",
    20: "its issuer is not known",
    21: "its issuer is not known",
}
_VERIFY_WRONG_NAMES: Final = (62, 64)  # of a host, of an IP address


def _not_vouched(error: ssl.SSLCertVerificationError) -> NotVouched:
    if error.verify_code in _VERIFY_WRONG_NAMES:
        return NotVouched("it is for another name", wrong_name=True)
    known = _VERIFY_REASONS.get(error.verify_code)
    return NotVouched(known or error.verify_message.rstrip("."))


def _reason(error: OSError) -> str:
    known = {
        errno.ECONNREFUSED: "nobody listens there",
        errno.ECONNRESET: "it hung up",
        errno.EPIPE: "it hung up",
        errno.ENETUNREACH: "there is no network to it",
        errno.EHOSTUNREACH: "there is no way to it",
        errno.ETIMEDOUT: "it does not answer",
    }
    return known.get(error.errno or 0) or error.strerror or "the connection failed"
