"""What the link is told and what it tells the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from saltline.protocol.names import RelayAddress


@dataclass(frozen=True, slots=True)
class Target:
    """Where the relay is and what proves that it is the one."""

    address: RelayAddress
    pin: bytes = b""  # 32 bytes; empty: a certificate authority and the host name decide
    ca_file: str = ""  # empty: the system's authorities


@dataclass(frozen=True, slots=True)
class LinkTrying:
    """A connection is being made."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Connected, and the certificate was accepted. Each connection has its own number."""

    connection: int
    spki_hash: bytes


@dataclass(frozen=True, slots=True)
class LinkReceived:
    """Whole frames' bodies, in order; none if only a part of one has come.

    `size_bytes` goes back through `Link.consumed`.
    """

    connection: int
    bodies: Sequence[bytes]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """Not connected; `connection` is 0 if it never was. `retry_in_s` is None if nobody retries."""

    connection: int
    detail: str
    retry_in_s: float | None


@dataclass(frozen=True, slots=True)
class LinkRefused:
    """The relay's certificate was not accepted. The link waits for `reconnect` or `retarget`."""

    sentence: str


LinkEvent = LinkTrying | LinkUp | LinkReceived | LinkDown | LinkRefused
