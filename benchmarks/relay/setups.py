"""Who is connected, and who writes to whom: what every peer is asked to serve alike."""

from dataclasses import dataclass
from typing import Final

SHORT_BYTES: Final = 200  # a chat line
ENVELOPE_BYTES: Final = 3_600  # what the shortest text becomes: padded, sealed, with ML-KEM keys


@dataclass(frozen=True, slots=True)
class Room:
    """Rooms, each with members that read and others that write."""

    members: int = 100
    senders: int = 4
    rooms: int = 1
    body_bytes: int = SHORT_BYTES


@dataclass(frozen=True, slots=True)
class Pairs:
    """Everybody writes to one person, who is online and acknowledges."""

    pairs: int = 50
    body_bytes: int = SHORT_BYTES


@dataclass(frozen=True, slots=True)
class Offline:
    """Everybody writes to one person, who is away."""

    senders: int = 50
    body_bytes: int = SHORT_BYTES


@dataclass(frozen=True, slots=True)
class Idle:
    """Logged in, and silent."""

    clients: int = 5_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """One person comes back to a full mailbox."""

    waiting: int
    body_bytes: int = SHORT_BYTES


Setup = Room | Pairs | Offline | Idle | Waiting


@dataclass(frozen=True, slots=True)
class Stored:
    """What the relay's disk holds besides: other accounts, and envelopes in one mailbox."""

    accounts: int = 0
    waiting: int = 0
