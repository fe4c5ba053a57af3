"""Rooms, their members, and their entries: numbered without a gap, chained by hash.

The tail of a room (last number and hash, members) is kept in memory and written once a group, with
all new entries. Whoever reads the tables flushes first.
"""

import apsw

from saltline.crypto.signatures import EMPTY_HISTORY, next_history_hash
from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    EntryStored,
    HistoryRead,
    MemberFound,
    MembersRead,
    RoomJoined,
    RoomsRead,
    RoomState,
    StoredEntry,
)
from saltline.server.store.refusal import Refusal
from saltline.server.store.schema import NUMBER_BITS, NUMBER_MASK

# Rooms and members together that are kept in memory: some 100 bytes each.
_CACHED_MAX = 1_000_000
# What the fields around an entry's signed bytes take on the wire, with slack.
_ENTRY_OVERHEAD_BYTES = 200


class _Room:
    """A room's tail and its members' account numbers."""

    __slots__ = ("id", "last_hash", "last_number", "members")

    def __init__(self, id: int, last_number: int, last_hash: bytes, members: set[int]) -> None:
        self.id = id
        self.last_number = last_number
        self.last_hash = last_hash
        self.members = members


class Rooms:
    """The part of the store that holds public rooms."""

    def __init__(self, database: apsw.Connection) -> None:
        self._execute = database.execute
        self._executemany = database.executemany
        self._by_name: dict[str, _Room] = {}
        self._cached = 0
        self._changed: dict[int, _Room] = {}
        self._added: list[tuple[int, int, int, int, bytes, bytes, bytes, bytes]] = []
        self._added_ids: dict[tuple[int, int, bytes], int] = {}

    # --- entries -------------------------------------------------------------------------------

    def store_entry(self, work: ask.StoreEntry) -> EntryStored:
        """Number and chain a member's entry, unless it is here already."""
        entry = work.entry
        self._check_live(entry.mailbox)
        room = self._by_name.get(entry.room) or self._load(entry.room)
        number = self._number_of(room, entry)
        if number is not None:
            return EntryStored(number, False, len(room.members))
        if entry.account not in room.members:
            raise _not_a_member()
        self._check_seen(room, entry)
        number = self._append(room, entry)
        if work.leaves:
            room.members.discard(entry.account)
            self._execute(
                "DELETE FROM member WHERE room = ? AND account = ?", (room.id, entry.account)
            )
        return EntryStored(number, True, len(room.members))

    def join(self, work: ask.JoinRoom) -> RoomJoined:
        """Add a member with its join entry; who is one already gets the number it has."""
        entry = work.entry
        self._check_live(entry.mailbox)
        room = self._find(entry.room)
        if room is not None:
            membership = self._membership(room, entry.account)
            if membership is not None:
                number, after = membership
                return RoomJoined(
                    number, False, len(room.members), after, self._hash_at(room, after)
                )
            if self._number_of(room, entry) is not None:
                raise Refusal(ErrorCode.BAD_STATEMENT, "This message id was used before.")
            self._check_seen(room, entry)
        elif entry.seen:
            raise _seen_too_much()
        self._check_rooms_of(entry.account, work.rooms_per_user)
        if room is None:
            room = self._create(entry.room, work.rooms_max)
        number = self._append(room, entry)
        after = max(0, number - 1 - work.recent)
        room.members.add(entry.account)
        self._execute(
            "INSERT INTO member (room, account, joined, after) VALUES (?, ?, ?, ?)",
            (room.id, entry.account, number, after),
        )
        return RoomJoined(number, True, len(room.members), after, self._hash_at(room, after))

    def read_history(self, work: ask.ReadHistory) -> HistoryRead:
        """A page, from where the member may see it."""
        room = self._load(work.room)
        membership = self._membership(room, work.account)
        if membership is None:
            raise _not_a_member()
        after = min(max(work.after, membership[1]), room.last_number)
        after_hash = self._hash_at(room, after)
        entries: list[StoredEntry] = []
        bytes_left = work.max_bytes
        first_slot = room.id << NUMBER_BITS
        for slot, received_ms, username, device, signed, signature in self._execute(
            "SELECT slot, received_ms, username, device, signed, signature FROM entry"
            " JOIN account ON account.id = entry.account"
            " WHERE slot > ? AND slot <= ? ORDER BY slot LIMIT ?",
            (first_slot | after, first_slot | NUMBER_MASK, work.limit),
        ):
            bytes_left -= len(signed) + _ENTRY_OVERHEAD_BYTES
            if entries and bytes_left < 0:
                break
            number = slot & NUMBER_MASK
            entries.append(StoredEntry(number, received_ms, username, device, signed, signature))
        return HistoryRead(after, after_hash, room.last_number, tuple(entries))

    # --- members -------------------------------------------------------------------------------

    def read_members(self, work: ask.ReadMembers) -> MembersRead:
        """Only for members."""
        room = self._load(work.room)
        if work.account not in room.members:
            raise _not_a_member()
        rows = self._execute(
            "SELECT account.id, username FROM member JOIN account ON account.id = member.account"
            " WHERE room = ? ORDER BY username LIMIT ?",
            (room.id, work.limit),
        )
        members = tuple(MemberFound(account, username) for account, username in rows)
        return MembersRead(len(room.members), members)

    def read_rooms(self, work: ask.ReadRooms) -> RoomsRead:
        """Largest first, then by name."""
        self.flush()
        rows = self._execute(
            "SELECT name, last_number, members FROM room ORDER BY members DESC, name LIMIT ?",
            (work.limit,),
        )
        return RoomsRead(tuple(RoomState(*row) for row in rows))

    def of_account(self, account: int) -> tuple[RoomState, ...]:
        """The rooms that an account is a member of, by name."""
        self.flush()
        rows = self._execute(
            "SELECT name, last_number, members FROM member JOIN room ON room.id = member.room"
            " WHERE account = ? ORDER BY name",
            (account,),
        )
        return tuple(RoomState(*row) for row in rows)

    def drop_account(self, account: int) -> tuple[str, ...]:
        """End all memberships without an entry: nobody is left to sign one."""
        rooms = self.of_account(account)
        self._execute(
            "UPDATE room SET members = members - 1"
            " WHERE id IN (SELECT room FROM member WHERE account = ?)",
            (account,),
        )
        self._execute("DELETE FROM member WHERE account = ?", (account,))
        self.forget()
        return tuple(state.room for state in rooms)

    # --- the group -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was only noted."""
        if self._added:
            self._executemany(
                "INSERT INTO entry (slot, received_ms, account, device, message_id, signed,"
                " signature, history_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                self._added,
            )
            self._added = []
            self._added_ids = {}
        if self._changed:
            self._executemany(
                "UPDATE room SET last_number = ?, last_hash = ?, members = ? WHERE id = ?",
                [
                    (room.last_number, room.last_hash, len(room.members), room.id)
                    for room in self._changed.values()
                ],
            )
            self._changed = {}

    def forget(self) -> None:
        """The transaction was rolled back: only the disk knows."""
        self._by_name = {}
        self._cached = 0
        self._changed = {}
        self._added = []
        self._added_ids = {}

    # --- parts ---------------------------------------------------------------------------------

    def _find(self, name: str) -> _Room | None:
        room = self._by_name.get(name)
        if room is not None:
            return room
        if self._cached >= _CACHED_MAX:
            self.flush()
            self.forget()
        row = self._execute(
            "SELECT id, last_number, last_hash FROM room WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        rows = self._execute("SELECT account FROM member WHERE room = ?", (row[0],))
        room = self._by_name[name] = _Room(row[0], row[1], row[2], {account for (account,) in rows})
        self._cached += 1 + len(room.members)
        return room

    def _load(self, name: str) -> _Room:
        room = self._find(name)
        if room is None:
            raise Refusal(ErrorCode.UNKNOWN_ROOM, "No room has this name. Join it to open it.")
        return room

    def _create(self, name: str, rooms_max: int) -> _Room:
        count: int = self._execute("SELECT count(*) FROM room").get
        if count >= rooms_max:
            raise Refusal(ErrorCode.TOO_MANY_ROOMS, "This relay takes no further rooms.")
        self._execute("INSERT INTO room (name) VALUES (?)", (name,))
        return self._load(name)

    def _append(self, room: _Room, entry: ask.NewEntry) -> int:
        number = room.last_number + 1
        room.last_hash = next_history_hash(room.last_hash, entry.signed)
        room.last_number = number
        self._changed[room.id] = room
        self._added.append(
            (
                room.id << NUMBER_BITS | number,
                entry.now_ms,
                entry.account,
                entry.device,
                entry.message_id,
                entry.signed,
                entry.signature,
                room.last_hash,
            )
        )
        self._added_ids[(room.id, entry.account, entry.message_id)] = number
        return number

    def _number_of(self, room: _Room, entry: ask.NewEntry) -> int | None:
        """The number that this account's message id has in this room."""
        number = self._added_ids.get((room.id, entry.account, entry.message_id))
        if number is not None:
            return number
        first_slot = room.id << NUMBER_BITS
        slot: int | None = self._execute(
            "SELECT slot FROM entry WHERE account = ? AND message_id = ? AND slot BETWEEN ? AND ?",
            (entry.account, entry.message_id, first_slot, first_slot | NUMBER_MASK),
        ).get
        return None if slot is None else slot & NUMBER_MASK

    def _check_live(self, mailbox: int) -> None:
        """A device that was ended while its request waited signs nothing for its account."""
        if self._execute("SELECT 1 FROM mailbox WHERE id = ? AND live", (mailbox,)).get is None:
            raise Refusal(ErrorCode.UNKNOWN_DEVICE, "This device was ended.")

    def _check_seen(self, room: _Room, entry: ask.NewEntry) -> None:
        if entry.seen > room.last_number:
            raise _seen_too_much()

    def _check_rooms_of(self, account: int, rooms_per_user: int) -> None:
        count: int = self._execute("SELECT count(*) FROM member WHERE account = ?", (account,)).get
        if count >= rooms_per_user:
            raise Refusal(
                ErrorCode.TOO_MANY_ROOMS,
                f"You are in {count} rooms, the most that this relay allows. Leave one first.",
            )

    def _membership(self, room: _Room, account: int) -> tuple[int, int] | None:
        """(number of the join entry, what comes after is visible), or None."""
        if account not in room.members:
            return None
        row: tuple[int, int] = self._execute(
            "SELECT joined, after FROM member WHERE room = ? AND account = ?", (room.id, account)
        ).get
        return row

    def _hash_at(self, room: _Room, number: int) -> bytes:
        """c_number, of a number up to the last."""
        if number == 0:
            return EMPTY_HISTORY
        if number == room.last_number:
            return room.last_hash
        self.flush()
        slot = room.id << NUMBER_BITS | number
        return bytes(self._execute("SELECT history_hash FROM entry WHERE slot = ?", (slot,)).get)


def _not_a_member() -> Refusal:
    return Refusal(ErrorCode.NOT_A_MEMBER, "You are not a member of this room. Join it first.")


def _seen_too_much() -> Refusal:
    return Refusal(
        ErrorCode.BAD_STATEMENT, "The statement says that more was seen than the room holds."
    )
