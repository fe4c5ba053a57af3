"""One struct per wire message (docs/protocol.md §6). A frame's body is one of these in msgpack.

Every struct is an array whose first element is its tag. Unknown tags, missing or further fields,
wrong types and sizes are refused. Requests carry an `id`, greater than 0, that the answer repeats.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from saltline.protocol import limits
from saltline.protocol.errors import ErrorCode, ProtocolError

PROTOCOL_VERSION: Final = 1
# Kept for the followed key log: refused with UNSUPPORTED_VERSION until both sides know them.
RESERVED_TAGS: Final = frozenset({"head", "leaves", "leaf_page", "revoke", "add_device"})

RequestId = Annotated[int, Meta(gt=0, lt=2**32)]
Count = Annotated[int, Meta(ge=0, lt=2**63)]
TimeMs = Annotated[int, Meta(ge=0, lt=2**63)]
Device = Annotated[int, Meta(gt=0, lt=2**32)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
UserName = Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS)]
RoomName = Annotated[str, Meta(max_length=limits.ROOM_MAX_CHARS)]
InviteCode = Annotated[str, Meta(max_length=64)]
ShortText = Annotated[str, Meta(max_length=400)]
PrekeyId = Annotated[int, Meta(ge=0, lt=2**32)]
PrekeyIds = Annotated[tuple[PrekeyId, ...], Meta(max_length=limits.ONE_TIME_IDS_MAX)]
PrekeyBytes = Annotated[bytes, Meta(max_length=limits.PREKEY_MAX_BYTES)]
EntryBytes = Annotated[bytes, Meta(max_length=limits.KEYLOG_ENTRY_MAX_BYTES)]
IdentityBytes = Annotated[bytes, Meta(max_length=256)]
Envelope = Annotated[bytes, Meta(min_length=1, max_length=limits.ENVELOPE_MAX_BYTES)]
Statement = Annotated[bytes, Meta(max_length=limits.ROOM_STATEMENT_MAX_BYTES)]
Generation = Annotated[bytes, Meta(max_length=limits.GENERATION_BYTES)]
TreeHead = Annotated[bytes, Meta(max_length=limits.TREE_HEAD_MAX_BYTES)]
Features = Annotated[
    tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=limits.FEATURES_MAX)
]


class _Wire(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all wire structs: an exact msgpack array."""


# --- From client to relay ----------------------------------------------------------------------


class Hello(_Wire, tag="hello"):
    """First on every connection, and answered before login (also for health checks)."""

    versions: Annotated[tuple[int, ...], Meta(min_length=1, max_length=limits.VERSIONS_MAX)]
    features: Features
    agent: Annotated[str, Meta(max_length=64)]


class CheckInvite(_Wire, tag="check_invite"):
    """What is this code for? Before login; answered by `Invited`."""

    id: RequestId
    code: InviteCode


class Register(_Wire, tag="register"):
    """A new account with its create entry, or the reset entry (unsigned by us) of an old one."""

    username: UserName
    entry: EntryBytes
    signature: Signature
    invite: InviteCode  # "" for none


class Login(_Wire, tag="login"):
    """A known device, and the one-time prekeys whose private halves it still holds."""

    username: UserName
    device: Device
    signature: Signature
    one_time_ids: PrekeyIds
    one_time_kem_ids: PrekeyIds


class Publish(_Wire, tag="publish"):
    """Prekeys for the directory, each as `Prekey.encode()`. Idempotent."""

    id: RequestId
    prekeys: Annotated[tuple[PrekeyBytes, ...], Meta(max_length=limits.PREKEYS_PER_PUBLISH_MAX)]


class LookupName(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One name, and how many of its entries the asker holds already."""

    username: UserName
    after: Count


class Lookup(_Wire, tag="lookup"):
    """The key log entries of accounts."""

    id: RequestId
    names: Annotated[tuple[LookupName, ...], Meta(max_length=limits.LOOKUP_MAX_NAMES)]


class Claim(_Wire, tag="claim"):
    """A prekey bundle of one device; takes its one-time prekeys."""

    id: RequestId
    username: UserName
    device: Device


class Submit(_Wire, tag="submit"):
    """An envelope for a device's mailbox."""

    id: RequestId
    username: UserName
    device: Device
    envelope: Envelope
    generation: Generation


class Acknowledge(_Wire, tag="acknowledge"):
    """These deliveries are on this device's disk. Not answered."""

    numbers: Annotated[tuple[Count, ...], Meta(max_length=limits.ACKNOWLEDGE_MAX)]
    generation: Generation


class Join(_Wire, tag="join"):
    """A signed join entry; `signed` is `RoomStatement.encode()`."""

    id: RequestId
    signed: Statement
    signature: Signature


class Post(_Wire, tag="post"):
    """A signed entry of any other kind, from a member."""

    id: RequestId
    signed: Statement
    signature: Signature


class History(_Wire, tag="history"):
    """A room's entries with numbers above `after`, at most `limit`."""

    id: RequestId
    room: RoomName
    after: Count
    limit: Annotated[int, Meta(gt=0, le=limits.PAGE_MAX_ENTRIES)]


class Who(_Wire, tag="who"):
    """Who is a member of a room, and who of them is connected."""

    id: RequestId
    room: RoomName


class ListRooms(_Wire, tag="list_rooms"):
    """All public rooms."""

    id: RequestId


class Ping(_Wire, tag="ping"):
    """Are you there?"""

    id: RequestId


# --- From relay to client ----------------------------------------------------------------------


class Challenge(_Wire, tag="challenge"):
    """The answer to `Hello`: what a login signs, and the log key's word for the certificate."""

    version: int
    features: Features
    nonce: Hash
    log_key: Hash
    head: TreeHead
    certificate_not_after_ms: TimeMs
    certificate_signature: Signature


class Invited(_Wire, tag="invited"):
    """What a code is for: a new account (username "") or a reset of `username`."""

    id: RequestId
    username: UserName
    device: Device
    number: Count
    previous: Hash


class RoomMark(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A room of the account and its last number."""

    room: RoomName
    last: Count


class Welcome(_Wire, tag="welcome"):
    """Logged in."""

    time_ms: TimeMs
    rooms: Annotated[tuple[RoomMark, ...], Meta(max_length=limits.ROOM_LIST_MAX)]
    signed_prekey_id: PrekeyId  # 0: none published
    kem_prekey_id: PrekeyId
    one_time_left: Count
    one_time_kem_left: Count
    generation: Generation


class Published(_Wire, tag="published"):
    """The prekeys are on the relay's disk."""

    id: RequestId
    one_time_left: Count
    one_time_kem_left: Count


class AccountPage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A run of one account's entries; `total` is 0 for a name that was never registered."""

    username: UserName
    total: Count
    entries: Annotated[tuple[EntryBytes, ...], Meta(max_length=limits.PAGE_MAX_ENTRIES)]


class LookedUp(_Wire, tag="looked_up"):
    """The answer to `Lookup`. A page may end early; the asker asks on."""

    id: RequestId
    accounts: Annotated[tuple[AccountPage, ...], Meta(max_length=limits.LOOKUP_MAX_NAMES)]


class Claimed(_Wire, tag="claimed"):
    """A prekey bundle in its parts, as the owner's device encoded them."""

    id: RequestId
    identity: IdentityBytes
    identity_signature: Signature
    signed_prekey: PrekeyBytes
    kem_prekey: PrekeyBytes
    one_time_prekey: PrekeyBytes  # "" for none


class Submitted(_Wire, tag="submitted"):
    """The envelope is on the relay's disk."""

    id: RequestId


class Deliver(_Wire, tag="deliver"):
    """An envelope from the mailbox; numbers grow and are acknowledged."""

    number: Count
    received_ms: TimeMs
    envelope: Envelope


class CaughtUp(_Wire, tag="caught_up"):
    """Everything that waited in the mailbox has been pushed on this connection."""

    number: Count


class RoomEntry(_Wire, tag="entry"):
    """A room's entry: pushed to members, and what a page of history holds."""

    room: RoomName
    number: Count
    received_ms: TimeMs
    username: UserName
    device: Device
    signed: Statement
    signature: Signature


class Joined(_Wire, tag="joined"):
    """A member now; history that a newcomer may see begins after `after`, whose hash is given."""

    id: RequestId
    room: RoomName
    number: Count
    after: Count
    after_hash: Hash


class Posted(_Wire, tag="posted"):
    """The entry is on the relay's disk under this number."""

    id: RequestId
    room: RoomName
    number: Count


class HistoryPage(_Wire, tag="history_page"):
    """Entries in order; `after_hash` is the history hash before the first of them."""

    id: RequestId
    room: RoomName
    after: Count
    after_hash: Hash
    last: Count
    entries: Annotated[tuple[RoomEntry, ...], Meta(max_length=limits.PAGE_MAX_ENTRIES)]


class Member(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A member of a room."""

    username: UserName
    online: bool


class Members(_Wire, tag="members"):
    """The answer to `Who`; `total` may exceed what is listed."""

    id: RequestId
    room: RoomName
    total: Count
    members: Annotated[tuple[Member, ...], Meta(max_length=limits.MEMBER_LIST_MAX)]


class RoomInfo(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A public room."""

    room: RoomName
    members: Count
    online: Count
    last: Count


class RoomList(_Wire, tag="room_list"):
    """The answer to `ListRooms`, largest first."""

    id: RequestId
    rooms: Annotated[tuple[RoomInfo, ...], Meta(max_length=limits.ROOM_LIST_MAX)]


class Presence(_Wire, tag="presence"):
    """A member of one of your rooms came online or went offline."""

    username: UserName
    online: bool


class Pong(_Wire, tag="pong"):
    """Yes."""

    id: RequestId


class Error(_Wire, tag="error"):
    """A request (`id`), or the connection (0), was refused. `detail` is for a person."""

    id: Annotated[int, Meta(ge=0, lt=2**32)]
    code: Annotated[str, Meta(max_length=32)]
    detail: ShortText
    retry_after_ms: Count


ClientMessage = (
    Hello
    | CheckInvite
    | Register
    | Login
    | Publish
    | Lookup
    | Claim
    | Submit
    | Acknowledge
    | Join
    | Post
    | History
    | Who
    | ListRooms
    | Ping
)
RelayMessage = (
    Challenge
    | Invited
    | Welcome
    | Published
    | LookedUp
    | Claimed
    | Submitted
    | Deliver
    | CaughtUp
    | RoomEntry
    | Joined
    | Posted
    | HistoryPage
    | Members
    | RoomList
    | Presence
    | Pong
    | Error
)

_encoder = msgspec.msgpack.Encoder()
_client_decoder = msgspec.msgpack.Decoder(ClientMessage)
_relay_decoder = msgspec.msgpack.Decoder(RelayMessage)
# msgspec raises the last two besides its own.
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode_message(message: ClientMessage | RelayMessage) -> bytes:
    """The body of a frame."""
    return _encoder.encode(message)


def decode_client_message(body: bytes) -> ClientMessage:
    """Read what a client sent. Raises ProtocolError (BAD_MESSAGE, UNSUPPORTED_VERSION)."""
    try:
        return _client_decoder.decode(body)
    except _DECODE_ERRORS:
        raise _refusal(body) from None


def decode_relay_message(body: bytes) -> RelayMessage:
    """Read what a relay sent. Raises ProtocolError (BAD_MESSAGE, UNSUPPORTED_VERSION)."""
    try:
        return _relay_decoder.decode(body)
    except _DECODE_ERRORS:
        raise _refusal(body) from None


def _refusal(body: bytes) -> ProtocolError:
    """Say why, without repeating what was sent."""
    tag: object = None
    try:
        parts = msgspec.msgpack.decode(body, type=list[msgspec.Raw])
        tag = msgspec.msgpack.decode(parts[0], type=str) if parts else None
    except _DECODE_ERRORS:
        pass
    if isinstance(tag, str) and tag in RESERVED_TAGS:
        return ProtocolError(
            ErrorCode.UNSUPPORTED_VERSION,
            "That message belongs to a later version of the protocol.",
        )
    return ProtocolError(
        ErrorCode.BAD_MESSAGE, "A message came that is not of the protocol's form."
    )
