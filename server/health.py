"""`saltline-server health`: what anybody may ask a relay from outside, and what it answers.

TLS, hello, challenge: nothing of that needs an account. The log key's word for the certificate is
checked (docs/protocol.md §6); the certificate itself only against a pin, where one is given.
"""

import hmac
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from saltline.crypto.signatures import BadSignature, certificate_payload, verify
from saltline.protocol.errors import ProtocolError
from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.protocol.limits import FRAME_MAX_BEFORE_LOGIN_BYTES
from saltline.protocol.messages import PROTOCOL_VERSION, decode_relay_message, encode_message
from saltline.protocol.names import RelayAddress
from saltline.protocol.text import sanitise
from saltline.protocol.to_client import Challenge, Error
from saltline.protocol.to_relay import Hello
from saltline.server.certificates import spki_hash
from saltline.server.errors import UsageError, why

HEALTH_TIMEOUT_S: Final = 10.0
_HELLO: Final = Hello(versions=(PROTOCOL_VERSION,), features=(), agent="saltline-server health")
_READ_BYTES: Final = 4096


def ask_health(address: RelayAddress, pin: str = "", timeout_s: float = HEALTH_TIMEOUT_S) -> str:
    """One sentence with the relay's version, pin and certificate's end.

    After `timeout_s` at most, and what the system takes to find its addresses.
    Raises UsageError with the reason if it does not serve, or serves under another key than `pin`.
    """
    with _reasons(address, timeout_s):
        began_s = monotonic()
        with _connect(address, began_s + timeout_s) as plain:
            with _context().wrap_socket(plain, do_handshake_on_connect=False) as tls:
                _allow(tls, began_s + timeout_s)
                tls.do_handshake()
                certificate = tls.getpeercert(binary_form=True)
                assert certificate is not None
                found = spki_hash(certificate)
                shown = f"sha256:{found.hex()}"
                if pin and not hmac.compare_digest(pin, shown):
                    raise UsageError(f"{address} serves under another key: its pin is {shown}.")
                challenge = _greet(tls, began_s + timeout_s)
        ends = _check(challenge, found)
        took_ms = (monotonic() - began_s) * 1000
    return (
        f"{address} serves: version {challenge.version}, pin {shown}, certificate until"
        f" {ends:%Y-%m-%d}, answered in {took_ms:.0f} ms."
    )


class _NotARelay(Exception):
    """What it says is not what a relay says; the text is the reason."""


@contextmanager
def _reasons(address: RelayAddress, timeout_s: float) -> Iterator[None]:
    """Why it does not serve, as a sentence."""
    try:
        yield
        return
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} seconds"
    except ssl.SSLError:
        reason = "it does not speak TLS 1.3 as a relay does"
    except OSError as error:
        reason = sanitise(why(error), newlines=False)
    except (ValueError, ProtocolError):
        reason = "its answer is not a relay's"
    except _NotARelay as error:
        reason = str(error)
    raise UsageError(f"{address} does not serve: {reason}.") from None


def _connect(address: RelayAddress, deadline_s: float) -> socket.socket:
    """To the first of its addresses that answers; they share the time. Raises OSError."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for left in range(len(found), 0, -1):
        now_s = monotonic()
        family, kind, protocol, _, where = found[-left]
        try:
            plain = socket.socket(family, kind, protocol)
            try:
                _allow(plain, now_s + (deadline_s - now_s) / left)
                plain.connect(where)
            except BaseException:
                plain.close()
                raise
        except OSError:
            if left == 1:
                raise
        else:
            return plain
    raise OSError("it has no address")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _allow(sock: socket.socket, deadline_s: float) -> None:
    """What is left of the time. Raises TimeoutError if nothing is."""
    left_s = deadline_s - monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)


def _greet(tls: ssl.SSLSocket, deadline_s: float) -> Challenge:
    tls.sendall(encode_frame(encode_message(_HELLO)))
    decoder = FrameDecoder(FRAME_MAX_BEFORE_LOGIN_BYTES)
    bodies: list[bytes] = []
    while not bodies:
        _allow(tls, deadline_s)
        data = tls.recv(_READ_BYTES)
        if not data:
            raise _NotARelay("it hung up")
        bodies = decoder.feed(data)
    answer = decode_relay_message(bodies[0])
    if isinstance(answer, Error):
        raise _NotARelay(f"it refuses with {sanitise(answer.code, newlines=False)}")
    if not isinstance(answer, Challenge) or answer.version != PROTOCOL_VERSION:
        raise _NotARelay("its answer is not a relay's")
    return answer


def _check(challenge: Challenge, spki: bytes) -> datetime:
    """When the certificate ends, by the log key's word."""
    not_after_ms = challenge.certificate_not_after_ms
    try:
        payload = certificate_payload(spki, not_after_ms)
        verify(challenge.log_key, payload, challenge.certificate_signature)
    except BadSignature:
        raise _NotARelay("its log key did not sign its certificate") from None
    ends = datetime.fromtimestamp(min(not_after_ms // 1000, 253_402_300_799), UTC)
    if ends <= datetime.now(UTC):
        raise _NotARelay(f"its certificate ended on {ends:%Y-%m-%d}")
    return ends
