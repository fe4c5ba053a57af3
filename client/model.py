"""What the messenger shows and says: the types between the core and its three faces."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from saltline.protocol.to_client import Member, RoomInfo


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    USAGE = 1
    INTERNAL = 2
    UNREACHABLE = 3  # also: the relay's certificate does not match
    NOT_TRUSTED = 4
    LIMITED = 5
    UNKNOWN_NAME = 6
    TIMED_OUT = 7


class Refused(Exception):
    """Something was asked that is not done. The text is the sentence that a person reads.

    `relay_code` is the ErrorCode that the relay gave, or "".
    """

    def __init__(
        self, sentence: str, code: ExitCode = ExitCode.USAGE, relay_code: str = ""
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code
        self.relay_code = relay_code


class Trust(StrEnum):
    """What is known of a contact's key."""

    UNKNOWN = "unknown"  # no key seen yet
    FIRST_SEEN = "first seen"
    VERIFIED = "verified"
    CHANGED = "changed"  # sending is blocked until the person decides
    BLOCKED = "blocked"


class Delivery(IntEnum):
    """How far a message of ours has come; it only grows, but for FAILED."""

    NONE = 0  # not ours
    QUEUED = 1  # on this disk
    RELAYED = 2  # on the relay's disk
    DELIVERED = 3  # on the recipient's disk, by its encrypted receipt
    READ = 4
    FAILED = 5


class LineKind(IntEnum):
    """What a line of a timeline is."""

    TEXT = 1
    JOIN = 2
    LEAVE = 3
    NOTICE = 4  # something that this client noticed and says in its own words
    ALERT = 5  # the same, and it may mean an attack
    UNSUPPORTED = 6  # content that needs a newer version


class ConnectionState(StrEnum):
    """The link to the relay."""

    OFFLINE = "offline"
    CONNECTING = "connecting"
    ONLINE = "online"
    REFUSED = "refused"  # waiting does not help: certificate, replaced, removed


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a timeline. `row` orders lines by local arrival and never changes.

    `body` is what was sent, unaltered: every interface sanitises it before showing it.
    """

    row: int
    conversation: str  # "@user" or "#room"
    kind: LineKind
    author: str
    mine: bool
    body: str
    sent_ms: int  # the sender's clock
    received_ms: int  # ours
    id: bytes  # 16 bytes; b"" for notices
    delivery: Delivery = Delivery.NONE
    number: int = 0  # a room entry's number
    reason: str = ""  # why it failed, or a mark such as a clock that is off

    @property
    def short_id(self) -> str:
        """What a person types to name the message."""
        return self.id.hex()[:6]


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A row of the conversation list."""

    name: str  # "@user" or "#room"
    trust: Trust  # of the person; UNKNOWN for a room
    unread: int
    mentions: int
    last_row: int  # 0: empty
    request: bool  # a stranger's, not yet accepted
    joined: bool  # rooms: still a member
    read_row: int  # lines up to this one have been read


@dataclass(frozen=True, slots=True)
class ContactInfo:
    """A person as this profile knows them."""

    username: str
    trust: Trust
    fingerprint: str  # "" when no key is known
    safety_number: str  # 60 digits in twelve groups of five; "" when no key is known
    devices: int
    request: bool
    changed_fingerprint: str = ""  # the key that waits for a decision


@dataclass(frozen=True, slots=True)
class Status:
    """The profile and its link."""

    username: str
    relay: str  # HOST:PORT
    relay_id: str  # 64 hexadecimal digits
    pin: str  # "sha256:HEX", or "" when a certificate authority vouches
    fingerprint: str
    connection: ConnectionState
    detail: str
    round_trip_ms: int | None
    queued: int
    unread: int


# --- Events: from the core to whoever watches, after the vault has committed ----------------------


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The link's state; `retry_in_s` while a reconnect is waited for."""

    state: ConnectionState
    detail: str = ""
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class LineAdded:
    """A new line at the end of a conversation."""

    conversation: str
    row: int


@dataclass(frozen=True, slots=True)
class LineChanged:
    """A line's delivery or reason changed; `code` where it was refused or has to wait."""

    conversation: str
    row: int
    code: ExitCode | None = None


@dataclass(frozen=True, slots=True)
class ConversationChanged:
    """Unread count, trust, membership or existence of a conversation changed."""

    conversation: str


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A co-member came online or went offline."""

    username: str
    online: bool


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that waited on the relay when we connected is in the vault."""


Event = (
    ConnectionChanged | LineAdded | LineChanged | ConversationChanged | PresenceChanged | CaughtUp
)


class Messenger(Protocol):
    """What the interfaces drive. Every call may come from any thread and raises Refused.

    What changes the vault is on disk when the call returns. Calls that need the relay's answer give
    a Future, which fails with Refused.
    """

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event, from the client's thread; returns how to stop it."""

    def status(self) -> Status: ...
    def conversations(self) -> Sequence[ConversationSummary]: ...
    def contacts(self) -> Sequence[ContactInfo]: ...
    def contact(self, username: str) -> ContactInfo:
        """Asks no relay: what the vault knows (Trust.UNKNOWN for a stranger)."""

    def fetch_contact(self, username: str) -> "Future[ContactInfo]":
        """The same after looking the account up on the relay."""

    def own_identity(self) -> ContactInfo: ...
    def line(self, row: int) -> Line | None: ...
    def page(
        self, conversation: str, *, before: int | None = None, after: int | None = None, limit: int
    ) -> Sequence[Line]:
        """Lines in order: the last `limit` with row < before, or the first with row > after."""

    def count(self, conversation: str, *, after: int = 0) -> int:
        """How many lines have a row above `after`."""

    def search(self, query: str, conversation: str | None, limit: int) -> Sequence[Line]:
        """Newest first; every word of `query` must occur."""

    def send(self, username: str, text: str) -> Line:
        """Queue a private message; it is encrypted and leaves when it can."""

    def post(self, room: str, text: str) -> Line:
        """Queue a public message."""

    def retry(self, row: int) -> None:
        """Queue a failed message again."""

    def mark_read(self, conversation: str, row: int) -> None: ...
    def accept(self, username: str) -> None: ...
    def block(self, username: str) -> None: ...
    def unblock(self, username: str) -> None: ...
    def verify(self, username: str, number: str | None = None) -> ContactInfo:
        """Mark verified; with `number`, only if it is the safety number."""

    def trust(self, username: str, number: str) -> ContactInfo:
        """Accept a changed key as first seen; `number` is the new safety number."""

    def join(self, room: str) -> "Future[None]": ...
    def leave(self, room: str) -> "Future[None]": ...
    def who(self, room: str) -> "Future[Sequence[Member]]": ...
    def rooms(self) -> "Future[Sequence[RoomInfo]]": ...
    def reconnect(self) -> None:
        """Try now instead of when the waiting time is over."""

    def close(self) -> None: ...
