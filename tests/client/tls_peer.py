"""A TLS server of a few lines, certificates to show, and a collector of the link's events."""

import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from saltline.client.link import Link
from saltline.client.link_events import LinkEvent, Target
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.names import RelayAddress

TIMEOUT_S = 20.0

Event = TypeVar("Event")


@dataclass(frozen=True)
class Shown:
    """A certificate and key in PEM files, and the key's hash."""

    chain: Path
    key: Path
    spki_hash: bytes


def make_certificate(
    folder: Path, name: str, *, host: str = "127.0.0.1", signed_by: Shown | None = None
) -> Shown:
    """A certificate for `host`; by itself, or by an authority that was made the same way."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = subject, key
    if signed_by is not None:
        issuer = x509.load_pem_x509_certificate(signed_by.chain.read_bytes()).subject
        loaded = _load_key(signed_by.key)
        signer = loaded
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    chain, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Shown(chain, key_file, hashlib.sha256(info).digest())


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


class Peer:
    """One accepted connection, seen from the relay's side. Blocking, with time-outs."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.received = b""
        self._decoder = FrameDecoder()
        self._bodies: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def next_body(self) -> bytes:
        while not self._bodies:
            data = self.sock.recv(65536)
            assert data, "the client hung up"
            self.received += data
            self._bodies += self._decoder.feed(data)
        return self._bodies.pop(0)

    def until_closed(self) -> bytes:
        """Everything that still comes."""
        with suppress(OSError):
            while data := self.sock.recv(65536):
                self.received += data
        return self.received

    def close(self) -> None:
        self.sock.close()


class TlsServer:
    """Listens on 127.0.0.1; each connection that finishes TLS is handed out by `accept`."""

    def __init__(
        self, shown: Shown, *, newest: ssl.TLSVersion | None = None, port: int = 0
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(shown.chain, shown.key)
        if newest is not None:
            self._context.maximum_version = newest
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(TIMEOUT_S)
        self.address = RelayAddress("127.0.0.1", self._listener.getsockname()[1])
        self.failures = 0
        self.handshakes = 0
        self._peers: list[Peer] = []
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> "TlsServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.address.port)).close()
        self._thread.join()
        self._listener.close()
        for peer in self._peers:
            peer.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:
                return
            plain.settimeout(TIMEOUT_S)
            try:
                secure = self._context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                self.failures += 1
                continue
            with self._news:
                self.handshakes += 1
                self._peers.append(Peer(secure))
                self._news.notify_all()

    def accept(self, number: int = 0) -> Peer:
        """The connection with this number, from 0."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._peers) > number, TIMEOUT_S)
            return self._peers[number]


class Events:
    """What the link delivered, in order."""

    def __init__(self) -> None:
        self.all: list[LinkEvent] = []
        self._news = threading.Condition()

    def __call__(self, event: LinkEvent) -> None:
        with self._news:
            self.all.append(event)
            self._news.notify_all()

    def of(self, kind: type[Event]) -> list[Event]:
        with self._news:
            return [event for event in self.all if isinstance(event, kind)]

    def wait_for(self, kind: type[Event], number: int = 0) -> Event:
        """The event of this kind with this number, from 0."""
        with self._news:
            found = self._news.wait_for(lambda: len(self._of(kind)) > number, TIMEOUT_S)
            assert found, f"no {kind.__name__} {number} in {self.all}"
            return self._of(kind)[number]

    def _of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.all if isinstance(event, kind)]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


# How long a link of a test waits before it tries again, in seconds.
QUICK_S = 0.01
StartLink = Callable[[Target], tuple[Link, Events]]
