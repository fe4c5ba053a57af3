"""What the relay's admin may ask for while it runs, and the answers."""

from msgspec import Struct


class ListUsers(Struct, frozen=True, tag="users"):
    """All accounts, by name."""


class ListRooms(Struct, frozen=True, tag="rooms"):
    """All rooms, largest first."""


class ReadStats(Struct, frozen=True, tag="stats"):
    """Counts of what is stored and of who is connected."""


class CreateInvite(Struct, frozen=True, tag="invite"):
    """A new invite code for `uses` accounts, good until `expires_ms` (Unix ms)."""

    uses: int
    expires_ms: int


class ResetUser(Struct, frozen=True, tag="reset"):
    """A code with which `username` may register a new device that ends all the old ones.

    Good for one use, until `expires_ms` (Unix ms).
    """

    username: str
    expires_ms: int


class RemoveUser(Struct, frozen=True, tag="remove"):
    """Revoke every device of `username`, which closes the name for good."""

    username: str


AdminRequest = ListUsers | ListRooms | ReadStats | CreateInvite | ResetUser | RemoveUser


class UserRow(Struct, frozen=True):
    """One account: live devices, rooms, and the envelopes that wait in its mailboxes."""

    username: str
    created_ms: int
    closed: bool
    online: bool
    devices: int
    rooms: int
    waiting: int
    waiting_bytes: int


class RoomRow(Struct, frozen=True):
    """One room: members, how many of them are connected, and its last number."""

    room: str
    members: int
    online: int
    last: int


class Users(Struct, frozen=True, tag="users"):
    """The answer to `ListUsers`."""

    users: tuple[UserRow, ...]


class Rooms(Struct, frozen=True, tag="rooms"):
    """The answer to `ListRooms`."""

    rooms: tuple[RoomRow, ...]


class Stats(Struct, frozen=True, tag="stats"):
    """The answer to `ReadStats`. `accounts` are those not closed; `database_bytes` is on disk."""

    accounts: int
    closed_accounts: int
    log_entries: int
    rooms: int
    room_entries: int
    waiting: int
    waiting_bytes: int
    database_bytes: int
    connections: int
    strangers: int
    accounts_online: int
    requests: int  # since this relay started
    delivered: int  # envelopes pushed, likewise
    broadcast: int  # room entries times connections, likewise


class Code(Struct, frozen=True, tag="code"):
    """The answer to `CreateInvite` and `ResetUser`; shown once, the relay keeps only its hash."""

    code: str

    def __repr__(self) -> str:
        return "Code(…)"


class Removed(Struct, frozen=True, tag="removed"):
    """The answer to `RemoveUser`."""

    username: str
    devices: int


class Refused(Struct, frozen=True, tag="refused"):
    """The request was not done; `detail` is a sentence for the admin, `code` an ErrorCode."""

    code: str
    detail: str


AdminResult = Users | Rooms | Stats | Code | Removed | Refused
