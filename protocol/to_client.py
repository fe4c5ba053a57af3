"""What a relay sends to a client (docs/protocol.md §6)."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from saltline.protocol import limits
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.wire import (
    Count,
    Device,
    EntryBytes,
    Envelope,
    Features,
    Generation,
    Hash,
    IdentityBytes,
    PrekeyBytes,
    PrekeyId,
    RequestId,
    RoomName,
    ShortText,
    Signature,
    Statement,
    TimeMs,
    TreeHead,
    UserName,
    Wire,
)


class Challenge(Wire, frozen=True, tag="challenge"):
    """The answer to `Hello`: what a login signs, and the log key's word for the certificate."""

    version: int
    features: Features
    nonce: Hash
    log_key: Hash
    head: TreeHead
    certificate_not_after_ms: TimeMs
    certificate_signature: Signature


class Invited(Wire, frozen=True, tag="invited"):
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


class Welcome(Wire, frozen=True, tag="welcome"):
    """Logged in."""

    time_ms: TimeMs
    rooms: Annotated[tuple[RoomMark, ...], Meta(max_length=limits.ROOM_LIST_MAX)]
    signed_prekey_id: PrekeyId  # 0: none published
    kem_prekey_id: PrekeyId
    one_time_left: Count
    one_time_kem_left: Count
    generation: Generation


class Published(Wire, frozen=True, tag="published"):
    """The prekeys are on the relay's disk."""

    id: RequestId
    one_time_left: Count
    one_time_kem_left: Count


class AccountPage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A run of one account's entries; `total` is 0 for a name that was never registered."""

    username: UserName
    total: Count
    entries: Annotated[tuple[EntryBytes, ...], Meta(max_length=limits.PAGE_MAX_ENTRIES)]


class LookedUp(Wire, frozen=True, tag="looked_up"):
    """The answer to `Lookup`. A page may end early; the asker asks on."""

    id: RequestId
    accounts: Annotated[tuple[AccountPage, ...], Meta(max_length=limits.LOOKUP_MAX_NAMES)]


class Claimed(Wire, frozen=True, tag="claimed"):
    """A prekey bundle in its parts, as the owner's device encoded them."""

    id: RequestId
    identity: IdentityBytes
    identity_signature: Signature
    signed_prekey: PrekeyBytes
    kem_prekey: PrekeyBytes
    one_time_prekey: PrekeyBytes  # "" for none


class Submitted(Wire, frozen=True, tag="submitted"):
    """The envelope is on the relay's disk."""

    id: RequestId


class Deliver(Wire, frozen=True, tag="deliver"):
    """An envelope from the mailbox; numbers grow and are acknowledged."""

    number: Count
    received_ms: TimeMs
    envelope: Envelope


class CaughtUp(Wire, frozen=True, tag="caught_up"):
    """Everything that waited in the mailbox has been pushed on this connection."""

    number: Count


class RoomEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A room's entry: what a page of history holds."""

    room: RoomName
    number: Count
    username: UserName
    device: Device
    statement: Statement
    signature: Signature


class Author(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Who wrote entries of a push."""

    username: UserName
    device: Device


class Pushed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """An entry of a push; `author` counts from 0.

    The statement is shortened: members hold the hash that it leaves out.
    """

    author: Annotated[int, Meta(ge=0, lt=limits.PAGE_MAX_ENTRIES)]
    statement: Statement
    signature: Signature


class Entries(Wire, frozen=True, tag="entries"):
    """What one commit added to a room, for its members: entry `first` and those that follow."""

    room: RoomName
    first: Count
    authors: Annotated[tuple[Author, ...], Meta(max_length=limits.PAGE_MAX_ENTRIES)]
    entries: Annotated[tuple[Pushed, ...], Meta(min_length=1, max_length=limits.PAGE_MAX_ENTRIES)]

    def each(self) -> Iterator[RoomEntry]:
        """The entries with their numbers and names. Raises ProtocolError (BAD_MESSAGE)."""
        if self.first + len(self.entries) > 2**63:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, "Entries came with a number above all.")
        for number, pushed in enumerate(self.entries, self.first):
            if pushed.author >= len(self.authors):
                raise ProtocolError(
                    ErrorCode.BAD_MESSAGE, "Entries came of an author who was not named."
                )
            author = self.authors[pushed.author]
            yield RoomEntry(
                self.room,
                number,
                author.username,
                author.device,
                pushed.statement,
                pushed.signature,
            )


class Joined(Wire, frozen=True, tag="joined"):
    """A member now; history that a newcomer may see begins after `after`, whose hash is given."""

    id: RequestId
    room: RoomName
    number: Count
    after: Count
    after_hash: Hash


class Posted(Wire, frozen=True, tag="posted"):
    """The entry is on the relay's disk under this number."""

    id: RequestId
    room: RoomName
    number: Count


class HistoryPage(Wire, frozen=True, tag="history_page"):
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


class Members(Wire, frozen=True, tag="members"):
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


class RoomList(Wire, frozen=True, tag="room_list"):
    """The answer to `ListRooms`, largest first."""

    id: RequestId
    rooms: Annotated[tuple[RoomInfo, ...], Meta(max_length=limits.ROOM_LIST_MAX)]


class Presence(Wire, frozen=True, tag="presence"):
    """A member of one of your rooms came online or went offline."""

    username: UserName
    online: bool


class Pong(Wire, frozen=True, tag="pong"):
    """Yes."""

    id: RequestId


class Error(Wire, frozen=True, tag="error"):
    """A request (`id`), or the connection (0), was refused. `detail` is for a person."""

    id: Annotated[int, Meta(ge=0, lt=2**32)]
    code: Annotated[str, Meta(max_length=32)]
    detail: ShortText
    retry_after_ms: Count
