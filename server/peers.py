"""Who is connected, as the core knows them."""

from enum import IntFlag
from typing import Final, NamedTuple, Self

from saltline.crypto.signatures import Identity
from saltline.server.settings import CertificateStatement

# An ID ends with the two keys of a device, of 32 bytes each (docs/protocol.md §2).
_SIGNING_KEY: Final = slice(-64, -32)


class Account:
    """Someone of whom at least one device is connected."""

    __slots__ = ("connections", "id", "rooms", "username")

    def __init__(self, id: int, username: str) -> None:
        self.id = id
        self.username = username
        self.connections: list[Connection] = []
        self.rooms: set[str] = set()


class Newcomer(NamedTuple):
    """Whose session a connection is about to be. `encoded` is the device's public ID."""

    username: str
    device: int
    encoded: bytes

    @classmethod
    def of(cls, identity: Identity) -> Self:
        """From an ID that was just read."""
        return cls(identity.username, identity.device, identity.encode())

    @property
    def signing_key(self) -> bytes:
        """32 bytes. The rest was checked before it was stored, and is not read again."""
        return self.encoded[_SIGNING_KEY]


class Device:
    """A device that has logged in on a connection."""

    __slots__ = ("_identity", "account", "generation", "mailbox", "number")

    def __init__(
        self, account: Account, mailbox: int, newcomer: Newcomer, generation: bytes
    ) -> None:
        self.account = account
        self.mailbox = mailbox
        self.number = newcomer.device
        self.generation = generation
        self._identity = newcomer.encoded  # a third of the memory, and seldom asked for

    @property
    def identity(self) -> Identity:
        """Its public ID."""
        return Identity.decode(self._identity)


class Pausing(IntFlag):
    """Why nothing more is read from a connection for now."""

    WORK = 1  # too much of its work waits for the disk
    RATE = 2  # it goes on asking after it was told to wait
    TURN = 4  # it has asked for a long answer, and others come first


class Connection:
    """A TLS link: a stranger's until `device` is set."""

    __slots__ = (
        "address",
        "certificate",
        "challenge",
        "device",
        "heard_ms",
        "hello",
        "is_congested",
        "is_logging_in",
        "is_open",
        "missed_after",
        "number",
        "opened_ms",
        "pauses",
        "waiting_bytes",
    )

    def __init__(
        self, number: int, address: str, certificate: CertificateStatement, now_ms: int
    ) -> None:
        self.number = number
        self.address = address
        self.certificate = certificate
        self.opened_ms = now_ms
        self.heard_ms = now_ms
        self.hello = b""  # bodies as sent, which a login signs
        self.challenge = b""
        self.device: Device | None = None
        self.is_open = True
        self.is_logging_in = False
        self.is_congested = False
        self.missed_after: dict[str, int] = {}  # room -> last number, when it fell behind
        self.pauses = Pausing(0)
        self.waiting_bytes = 0

    @property
    def known(self) -> Device:
        """The device; only for a connection that has logged in."""
        if self.device is None:
            raise LookupError("a stranger has no device")
        return self.device


class Strangers:
    """Connections that have not logged in, the oldest first."""

    def __init__(self) -> None:
        self._all: dict[int, Connection] = {}
        self._served: set[int] = set()
        self._by_address: dict[str, dict[int, Connection]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def oldest(self) -> Connection | None:
        """Who came first of all that are here."""
        return next(iter(self._all.values()), None)

    @property
    def served(self) -> int:
        """How many wait for the relay now, and not the relay for them."""
        return len(self._served)

    def serve(self, connection: Connection, is_served: bool) -> None:
        """A stranger's request is being worked on, or is no more."""
        connection.is_logging_in = is_served
        if is_served:
            self._served.add(connection.number)
        else:
            self._served.discard(connection.number)

    def in_the_way(self, newcomer: Connection, per_address: int, in_all: int) -> Connection | None:
        """Who has to go before one more can come: who came first and makes us wait.

        Never one whose login is being worked on: in a crowd that all come back at once nobody
        would get to its end. The newcomer itself, if there is nobody else.
        """
        neighbours = self._by_address.get(newcomer.address, {})
        if len(neighbours) >= per_address:
            return _oldest_idle(neighbours) or newcomer
        if len(self._all) >= in_all:
            return _oldest_idle(self._all) or newcomer
        return None

    def add(self, connection: Connection) -> None:
        """The newest."""
        self._all[connection.number] = connection
        self._by_address.setdefault(connection.address, {})[connection.number] = connection

    def discard(self, connection: Connection) -> None:
        """It is gone, or no stranger any more."""
        self._served.discard(connection.number)
        if self._all.pop(connection.number, None) is not None:
            neighbours = self._by_address[connection.address]
            del neighbours[connection.number]
            if not neighbours:
                del self._by_address[connection.address]


def _oldest_idle(connections: dict[int, Connection]) -> Connection | None:
    return next((each for each in connections.values() if not each.is_logging_in), None)
