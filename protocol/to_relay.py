"""What a client sends to its relay (docs/protocol.md §6)."""

from typing import Annotated

from msgspec import Meta, Struct

from saltline.protocol import limits
from saltline.protocol.wire import (
    Count,
    Device,
    EntryBytes,
    Envelope,
    Features,
    Generation,
    InviteCode,
    PrekeyBytes,
    PrekeyIds,
    RequestId,
    RoomName,
    Signature,
    Statement,
    UserName,
    Wire,
)


class Hello(Wire, frozen=True, tag="hello"):
    """First on every connection, and answered before login (also for health checks)."""

    versions: Annotated[tuple[int, ...], Meta(min_length=1, max_length=limits.VERSIONS_MAX)]
    features: Features
    agent: Annotated[str, Meta(max_length=64)]


class CheckInvite(Wire, frozen=True, tag="check_invite"):
    """What is this code for? Before login; answered by `Invited`."""

    id: RequestId
    code: InviteCode


class Register(Wire, frozen=True, tag="register"):
    """A new account with its create entry, or the reset entry (unsigned by us) of an old one."""

    username: UserName
    entry: EntryBytes
    signature: Signature
    invite: InviteCode  # "" for none


class Login(Wire, frozen=True, tag="login"):
    """A known device, and the one-time prekeys whose private halves it still holds."""

    username: UserName
    device: Device
    signature: Signature
    one_time_ids: PrekeyIds
    one_time_kem_ids: PrekeyIds


class Publish(Wire, frozen=True, tag="publish"):
    """Prekeys for the directory, each as `Prekey.encode()`. Idempotent."""

    id: RequestId
    prekeys: Annotated[tuple[PrekeyBytes, ...], Meta(max_length=limits.PREKEYS_PER_PUBLISH_MAX)]


class LookupName(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One name, and how many of its entries the asker holds already."""

    username: UserName
    after: Count


class Lookup(Wire, frozen=True, tag="lookup"):
    """The key log entries of accounts."""

    id: RequestId
    names: Annotated[tuple[LookupName, ...], Meta(max_length=limits.LOOKUP_MAX_NAMES)]


class Claim(Wire, frozen=True, tag="claim"):
    """A prekey bundle of one device; takes its one-time prekeys."""

    id: RequestId
    username: UserName
    device: Device


class Submit(Wire, frozen=True, tag="submit"):
    """An envelope for a device's mailbox."""

    id: RequestId
    username: UserName
    device: Device
    envelope: Envelope
    generation: Generation


class Acknowledge(Wire, frozen=True, tag="acknowledge"):
    """These deliveries are on this device's disk. Not answered."""

    numbers: Annotated[tuple[Count, ...], Meta(max_length=limits.ACKNOWLEDGE_MAX)]
    generation: Generation


class Join(Wire, frozen=True, tag="join"):
    """A signed join entry; `statement` is `RoomStatement.encode()`."""

    id: RequestId
    room: RoomName
    statement: Statement
    signature: Signature


class Post(Wire, frozen=True, tag="post"):
    """A signed entry of any other kind, from a member."""

    id: RequestId
    room: RoomName
    statement: Statement
    signature: Signature


class History(Wire, frozen=True, tag="history"):
    """A room's entries with numbers above `after`, at most `limit`."""

    id: RequestId
    room: RoomName
    after: Count
    limit: Annotated[int, Meta(gt=0, le=limits.PAGE_MAX_ENTRIES)]


class Who(Wire, frozen=True, tag="who"):
    """Who is a member of a room, and who of them is connected."""

    id: RequestId
    room: RoomName


class ListRooms(Wire, frozen=True, tag="list_rooms"):
    """All public rooms."""

    id: RequestId


class Ping(Wire, frozen=True, tag="ping"):
    """Are you there?"""

    id: RequestId
