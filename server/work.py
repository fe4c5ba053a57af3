"""What other threads hand to a worker."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from saltline.server.effects import Effect
from saltline.server.settings import CertificateStatement
from saltline.server.store.interface import Outcome, StoreError


@dataclass(frozen=True, slots=True)
class Adopt:
    """A connection whose TLS handshake is done, and under which certificate it began.

    `address` is what counts as one peer: an IPv4 address, or an IPv6 network.
    """

    sock: ssl.SSLSocket
    address: str
    statement: CertificateStatement


@dataclass(frozen=True, slots=True)
class Stored:
    """What the storage thread finished, for the core."""

    results: Sequence[tuple[int, Outcome | StoreError]]


@dataclass(frozen=True, slots=True)
class Finish:
    """Close what is open, within the time that closing connections have, and end the thread."""


Work = Effect | Adopt | Stored | Finish
