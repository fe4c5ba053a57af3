"""What the relay's core asks of its store. Each operation is done as a whole or not at all.

Numbers that the store hands out: `account` and `mailbox` (one for each device, live or not) are
row numbers that never leave the relay. Times are Unix ms, sizes bytes.
"""

from msgspec import Struct

from saltline.crypto.bundles import PrekeyKind
from saltline.protocol.limits import ROOM_MAX_BYTES


class Work(Struct, frozen=True, gc=False):
    """Base of all operations."""


# --- accounts ------------------------------------------------------------------------------------


class FindDevice(Work, frozen=True, gc=False):
    """Which device is this? -> DeviceFound, or UNKNOWN_USER, UNKNOWN_DEVICE."""

    username: str
    device: int


class FindAccount(Work, frozen=True, gc=False):
    """All log entries of an account -> AccountFound, or UNKNOWN_USER (also if it is closed)."""

    username: str


class FindCode(Work, frozen=True, gc=False):
    """What is this code for? -> CodeFound, or BAD_INVITE if unknown, used up or expired."""

    code_hash: bytes
    now_ms: int


class AddCode(Work, frozen=True, gc=False):
    """Remember an invite (username "") or reset code -> Done, or UNKNOWN_USER."""

    code_hash: bytes
    username: str
    uses: int
    expires_ms: int


class LogEntry(Struct, frozen=True, gc=False):
    """A key log entry with what the log keeps of it: its bytes and its leaf (64 bytes)."""

    username: str
    number: int
    encoded: bytes
    leaf: bytes


class NewDevice(Struct, frozen=True, gc=False):
    """The device that an entry adds: its ID, signature (64 bytes) and keys (32 each)."""

    device: int
    identity: bytes
    identity_signature: bytes
    signing_key: bytes
    agreement_key: bytes


class CreateAccount(Work, frozen=True, gc=False):
    """A new name with its first device -> AccountCreated.

    NAME_TAKEN for the name or its skeleton, BAD_ENTRY for a key that is in the log already,
    BAD_INVITE; `code_hash` is b"" where no invite is asked.
    """

    skeleton: str
    entry: LogEntry
    device: NewDevice
    code_hash: bytes
    now_ms: int


class ResetAccount(Work, frozen=True, gc=False):
    """A reset entry: the new device ends all others, with what waits for them -> AccountReset.

    BAD_INVITE, BAD_ENTRY for a known key or an entry that no longer follows the account's last.
    """

    entry: LogEntry
    device: NewDevice
    code_hash: bytes
    now_ms: int


class CloseAccount(Work, frozen=True, gc=False):
    """Revoke entries for all live devices, which close the name -> AccountClosed.

    BAD_ENTRY if they no longer follow the account's last.
    """

    username: str
    entries: tuple[LogEntry, ...]


class ReadEntries(Work, frozen=True, gc=False):
    """Pages of entries for (username, how many are held) each -> EntriesRead; ends early."""

    names: tuple[tuple[str, int], ...]
    max_entries: int
    max_bytes: int


class BeginSession(Work, frozen=True, gc=False):
    """A device has logged in and holds these one-time prekeys: forget others -> SessionBegun.

    UNKNOWN_DEVICE if it was ended since.
    """

    account: int
    mailbox: int
    one_time_ids: tuple[int, ...]
    one_time_kem_ids: tuple[int, ...]


class KeepGenerations(Work, frozen=True, gc=False):
    """The greatest generation that each mailbox's device has shown -> Done."""

    generations: tuple[tuple[int, bytes], ...]


# --- prekeys -------------------------------------------------------------------------------------


class PublicPrekey(Struct, frozen=True, gc=False):
    """A checked prekey."""

    kind: PrekeyKind
    id: int
    not_after_ms: int
    encoded: bytes


class StorePrekeys(Work, frozen=True, gc=False):
    """-> PrekeysStored, or BAD_PREKEY: an id again with another key, or more than a device may."""

    mailbox: int
    prekeys: tuple[PublicPrekey, ...]


class ClaimBundle(Work, frozen=True, gc=False):
    """Hand out a bundle, once each one-time key -> BundleClaimed.

    UNKNOWN_USER, UNKNOWN_DEVICE, NO_PREKEYS. Without `one_time`: the last resort only.
    """

    username: str
    device: int
    one_time: bool
    now_ms: int


# --- mailboxes -----------------------------------------------------------------------------------


class StoreEnvelope(Work, frozen=True, gc=False):
    """-> EnvelopeStored, or UNKNOWN_USER, UNKNOWN_DEVICE, MAILBOX_FULL."""

    username: str
    device: int
    envelope: bytes
    max_envelopes: int  # what the mailbox may hold, this one included
    max_bytes: int
    now_ms: int


class ReadMailbox(Work, frozen=True, gc=False):
    """What waits above `after`, in order, at least one if any -> MailboxRead."""

    mailbox: int
    after: int
    max_envelopes: int
    max_bytes: int


class DeleteEnvelopes(Work, frozen=True, gc=False):
    """They are on the device's disk; unknown numbers are ignored -> Done."""

    mailbox: int
    numbers: tuple[int, ...]


class ExpireEnvelopes(Work, frozen=True, gc=False):
    """Delete what arrived before, the oldest first, until either bound is reached -> Expired.

    If there is none, what waits for devices that were ended.
    """

    before_ms: int
    max_envelopes: int
    max_bytes: int


# --- rooms ---------------------------------------------------------------------------------------


class NewEntry(Struct, frozen=True, gc=False):
    """A checked statement: who made it, and the bytes that members verify."""

    room: str
    account: int
    mailbox: int  # of the device that made it
    username: str
    device: int
    message_id: bytes
    time_ms: int
    seen: int
    seen_hash: bytes
    statement: bytes
    signature: bytes
    now_ms: int


class StoreTexts(Work, frozen=True, gc=False):
    """Texts of one member, from one device and in one room, in order -> TextsStored.

    UNKNOWN_DEVICE if the device was ended since; UNKNOWN_ROOM. Each alone: NOT_A_MEMBER; ROOM_FULL;
    BAD_STATEMENT for a history that is not the relay's, or a time that is not later than that of
    the device's last. A message id that this account used in this room before: the number it has,
    and nothing new.
    """

    entries: tuple[NewEntry, ...]  # at least one; all of the same account, mailbox and room
    room_max_bytes: int = ROOM_MAX_BYTES


class LeaveRoom(Work, frozen=True, gc=False):
    """A member's last entry, which ends the membership -> EntryStored.

    Refused as a text is, but for ROOM_FULL.
    """

    entry: NewEntry


class JoinRoom(Work, frozen=True, gc=False):
    """A join entry, in a room that it may create -> RoomJoined.

    UNKNOWN_DEVICE if its device was ended since; BAD_STATEMENT, TOO_MANY_ROOMS, ROOM_FULL.
    """

    entry: NewEntry
    recent: int  # how many entries before its own a newcomer may see
    rooms_per_user: int
    rooms_max: int
    room_max_bytes: int = ROOM_MAX_BYTES
    may_open: bool = True


class ReadHistory(Work, frozen=True, gc=False):
    """A member's page above `after` -> HistoryRead, or UNKNOWN_ROOM, NOT_A_MEMBER."""

    room: str
    account: int
    after: int
    limit: int
    max_bytes: int


class ReadMembers(Work, frozen=True, gc=False):
    """-> MembersRead, or UNKNOWN_ROOM, NOT_A_MEMBER."""

    room: str
    account: int
    limit: int


class ReadRooms(Work, frozen=True, gc=False):
    """The largest rooms -> RoomsRead."""

    limit: int


# --- for the admin -------------------------------------------------------------------------------


class ReadUsers(Work, frozen=True, gc=False):
    """-> UsersRead."""


class ReadTotals(Work, frozen=True, gc=False):
    """-> TotalsRead."""


Operation = (
    FindDevice
    | FindAccount
    | FindCode
    | AddCode
    | CreateAccount
    | ResetAccount
    | CloseAccount
    | ReadEntries
    | BeginSession
    | KeepGenerations
    | StorePrekeys
    | ClaimBundle
    | StoreEnvelope
    | ReadMailbox
    | DeleteEnvelopes
    | ExpireEnvelopes
    | StoreTexts
    | LeaveRoom
    | JoinRoom
    | ReadHistory
    | ReadMembers
    | ReadRooms
    | ReadUsers
    | ReadTotals
)
