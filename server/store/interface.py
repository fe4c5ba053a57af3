"""What a store answers, and what it promises (docs/protocol.md §6, "Delivery" and "Rooms")."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from saltline.protocol.errors import ErrorCode
from saltline.server.store.operations import Operation as Operation


class Result(Struct, frozen=True, gc=False):
    """Base of all outcomes."""


class StoreError(Result, frozen=True, gc=False):
    """An operation was not done, and has left no trace.

    `detail` is a sentence for the person who asked. `fatal`: the disk failed, so that what is on it
    is unknown; the store takes no further operation.
    """

    code: ErrorCode
    detail: str
    fatal: bool = False


class Done(Result, frozen=True, gc=False):
    """The operation is done; there is nothing to tell."""


class DeviceFound(Result, frozen=True, gc=False):
    """`identity` is ID as it stands in the log, of a device that may have been ended since."""

    account: int
    mailbox: int
    identity: bytes


class AccountFound(Result, frozen=True, gc=False):
    """All encoded entries of an account, in order."""

    entries: tuple[bytes, ...]


class CodeFound(Result, frozen=True, gc=False):
    """A code for a new account (username "") or for a reset, then with the account's entries."""

    username: str
    entries: tuple[bytes, ...]


class AccountCreated(Result, frozen=True, gc=False):
    """The name is on the disk, and never given again."""

    account: int
    mailbox: int


class AccountReset(Result, frozen=True, gc=False):
    """The new device's mailbox, and the mailboxes of the devices that it ended."""

    account: int
    mailbox: int
    ended: tuple[int, ...]


class AccountClosed(Result, frozen=True, gc=False):
    """The name is closed; the account is in no room any more."""

    account: int
    ended: tuple[int, ...]
    rooms: tuple[str, ...]


class EntriesPage(Struct, frozen=True, gc=False):
    """A run of one name's entries; `total` is 0 for a name that was never registered."""

    username: str
    total: int
    entries: tuple[bytes, ...]


class EntriesRead(Result, frozen=True, gc=False):
    """In the order asked; the last page may be short, and names after it are left out."""

    pages: tuple[EntriesPage, ...]


class RoomState(Struct, frozen=True, gc=False):
    """A room of an account."""

    room: str
    last: int
    members: int


class SessionBegun(Result, frozen=True, gc=False):
    """What a device is told at login. Prekey ids are 0 for none; `generation` b"" for none."""

    rooms: tuple[RoomState, ...]
    signed_prekey_id: int
    kem_prekey_id: int
    one_time_left: int
    one_time_kem_left: int
    generation: bytes
    has_mail: bool  # envelopes wait


class PrekeysStored(Result, frozen=True, gc=False):
    """How many one-time prekeys the device has now."""

    one_time_left: int
    one_time_kem_left: int


class BundleClaimed(Result, frozen=True, gc=False):
    """A bundle in its parts, as encoded by their owner; `one_time_prekey` b"" for none."""

    identity: bytes
    identity_signature: bytes
    signed_prekey: bytes
    kem_prekey: bytes
    one_time_prekey: bytes


class EnvelopeStored(Result, frozen=True, gc=False):
    """Numbers grow by one in each mailbox, from 1, and are never used again."""

    mailbox: int
    number: int


class StoredEnvelope(Struct, frozen=True, gc=False):
    """An envelope that waits."""

    number: int
    received_ms: int
    envelope: bytes


class MailboxRead(Result, frozen=True, gc=False):
    """In order; `more` waits above the last of them."""

    envelopes: tuple[StoredEnvelope, ...]
    more: bool


class Expired(Result, frozen=True, gc=False):
    """How many envelopes were too old."""

    count: int


class EntryStored(Result, frozen=True, gc=False):
    """The entry's number; not `is_new` for one that was stored before. `members` counts all."""

    number: int
    is_new: bool
    members: int


class TextsStored(Result, frozen=True, gc=False):
    """One outcome for each text. A refusal of one says nothing of the next.

    `size_bytes` is that of the new statements.
    """

    outcomes: tuple[EntryStored | StoreError, ...]
    size_bytes: int


class RoomJoined(Result, frozen=True, gc=False):
    """A member now, by entry `number`; what it may see begins after `after`."""

    number: int
    is_new: bool
    members: int
    after: int
    after_hash: bytes


class StoredEntry(Struct, frozen=True, gc=False):
    """A room's entry."""

    number: int
    username: str
    device: int
    statement: bytes
    signature: bytes


class HistoryRead(Result, frozen=True, gc=False):
    """`after` may be above what was asked, for a newcomer; `after_hash` is c_after."""

    after: int
    after_hash: bytes
    last: int
    entries: tuple[StoredEntry, ...]


class MemberFound(Struct, frozen=True, gc=False):
    """A member of a room."""

    account: int
    username: str


class MembersRead(Result, frozen=True, gc=False):
    """By name; `total` may exceed what is listed."""

    total: int
    members: tuple[MemberFound, ...]


class RoomsRead(Result, frozen=True, gc=False):
    """Largest first."""

    rooms: tuple[RoomState, ...]


class UserFound(Struct, frozen=True, gc=False):
    """An account for the admin's list."""

    account: int
    username: str
    created_ms: int
    closed: bool
    devices: int
    rooms: int
    waiting: int
    waiting_bytes: int


class UsersRead(Result, frozen=True, gc=False):
    """By name."""

    users: tuple[UserFound, ...]


class TotalsRead(Result, frozen=True, gc=False):
    """Counts over the whole store."""

    accounts: int
    closed_accounts: int
    log_entries: int
    rooms: int
    room_entries: int
    waiting: int
    waiting_bytes: int
    database_bytes: int


Outcome = (
    Done
    | DeviceFound
    | AccountFound
    | CodeFound
    | AccountCreated
    | AccountReset
    | AccountClosed
    | EntriesRead
    | SessionBegun
    | PrekeysStored
    | BundleClaimed
    | EnvelopeStored
    | MailboxRead
    | Expired
    | EntryStored
    | TextsStored
    | RoomJoined
    | HistoryRead
    | MembersRead
    | RoomsRead
    | UsersRead
    | TotalsRead
)


class StoreUnusable(Exception):
    """The relay's database cannot be used; the text says why, and what to do."""


class Store(Protocol):
    """Where the relay keeps what it acknowledges. Used by one thread."""

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        """Do the operations in order, with one commit, and wait until the disk has them.

        One outcome for each. An operation that is refused or fails leaves no trace and harms no
        other. Raises nothing for a failing disk: StoreError with `fatal`, then and ever after.
        """

    def maintain(self, *, nobody_waits: bool = False) -> StoreError | None:
        """What may be done after the outcomes were released, such as a checkpoint.

        With `nobody_waits` also what could wait, so that it is short, and not long when somebody
        does.
        """

    def close(self) -> None:
        """Leave nothing behind that the next start has to repair."""
