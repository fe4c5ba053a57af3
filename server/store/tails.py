"""The ends of rooms: new entries on their way to the disk, and what is known of rooms in memory.

An entry is on the disk with its commit. What only follows from entries may be older there: a room's
row (last number, last hash, bytes) and its members' newest entries say how the room was at some
number, and everything above it is read when the room is loaded. So:

- An entry by which somebody joins or leaves brings the rows up to date in its own transaction:
  above a row's number there are only texts of members.
- The rows of a room, its own and its members', are written together.
- In every transaction in which a room has LAG_MAX entries more than its row says, they are written.

Whoever reads the tables flushes first, and asks for LAST_NUMBER instead of last_number.
"""

from typing import Final

from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, next_history_hash
from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.queries import Queries
from saltline.server.store.refusal import Refusal
from saltline.server.store.room import RECENT, Author, Room
from saltline.server.store.schema import NUMBER_BITS, NUMBER_MASK

# So many entries a room may have above its row: each costs a load of it some 3 us.
LAG_MAX: Final = 128
# What the fields around an entry's statement take on the wire, with slack.
ENTRY_OVERHEAD_BYTES: Final = 200
# Rooms, members and recent entries together that are kept in memory: some 100 bytes each.
_CACHED_MAX = 1_000_000

# A room that was not loaded: its id, the last number of its row, and how many are in it.
Strange = tuple[int, int, int]

_INSERT: Final = (
    "INSERT INTO entry (slot, received_ms, account, device, statement, signature, history_hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class Tails:
    """Rooms in memory, and what is to be written of them."""

    def __init__(self, queries: Queries) -> None:
        self._execute = queries.execute
        self._executemany = queries.executemany
        self.by_name: dict[str, Room] = {}
        # Rows of new entries, which are in their rooms already.
        self.added: list[tuple[int, int, int, int, bytes, bytes, bytes]] = []
        self._due: dict[int, Room] = {}  # rooms whose rows are to be written
        # (room, account) -> message id -> number, at the ends of rooms that are not in memory.
        self._said: dict[tuple[int, int], dict[bytes, int]] = {}
        self._cached = 0

    # --- looking up ----------------------------------------------------------------------------

    def load(self, name: str) -> Room:
        """A room. Refuses with UNKNOWN_ROOM."""
        room = self.find(name)
        if room is None:
            raise Refusal(ErrorCode.UNKNOWN_ROOM, "No room has this name. Join it to open it.")
        return room

    def find(self, name: str) -> Room | None:
        """A room, if there is one of this name."""
        room = self.by_name.get(name)
        if room is not None:
            return room
        self._forget_if_full()
        row = self._execute(
            "SELECT id, last_number, last_hash, bytes FROM room WHERE name = ?", (name,)
        ).get
        if row is None:
            return None
        id, last_number, last_hash, size_bytes = row
        rows = self._execute("SELECT account FROM member WHERE room = ?", (id,))
        members = {account for (account,) in rows}
        room = self.by_name[name] = Room(id, last_number, last_hash, size_bytes, members)
        self._read_end(room)
        self._cached += 1 + len(room.members) + 2 * RECENT
        return room

    def strange(self, name: str, account: int) -> Strange | None:
        """A room that is not in memory, if it is there and the account is not in it.

        To load a room takes half a millisecond and more, and one account asks 2,000 times a second:
        it loads the rooms that it is in, and no others.
        """
        if name in self.by_name:
            return None
        row: Strange | None = self._execute(
            "SELECT id, last_number, members FROM room WHERE name = ? AND NOT EXISTS"
            " (SELECT 1 FROM member WHERE member.room = room.id AND account = ?)",
            (name, account),
        ).get
        return row

    def said_there(self, strange: Strange, entry: ask.NewEntry) -> int | None:
        """The number of an entry at the end of such a room, whose author has left since."""
        id, written, _ = strange
        said = self._said.get((id, entry.account))
        if said is None:
            said = self._read_said(id, written, entry.account)
        return said.get(entry.message_id)

    def _read_said(self, room: int, written: int, account: int) -> dict[bytes, int]:
        """SQLite reads a statement whole for its first bytes: of long ones 16 MiB. Once will do,
        since nobody adds to a room that is not in memory."""
        self._forget_if_full()
        rows = self._execute(
            "SELECT substr(statement, 2, 16), slot FROM entry"
            " WHERE slot BETWEEN ? AND ? AND account = ? ORDER BY slot",
            (*_slots_of_the_end(room, written), account),
        )
        said = {message_id: slot & NUMBER_MASK for message_id, slot in rows}
        self._said[room, account] = said
        self._cached += 1 + len(said)
        return said

    def _forget_if_full(self) -> None:
        if self._cached >= _CACHED_MAX:
            self.flush()
            self.forget()

    def author(self, room: Room, account: int) -> Author:
        """A member of whom nothing was read or posted since the room was loaded."""
        row = self._execute(
            "SELECT newest, newest_ms, newest_mailbox FROM member WHERE room = ? AND account = ?",
            (room.id, account),
        ).get
        author = room.authors[account] = Author(*row)
        self._cached += 1
        return author

    def hash_at(self, room: Room, number: int) -> bytes:
        """c_number, of a number up to the last."""
        if number == 0:
            return EMPTY_HISTORY
        known = room.hashes.get(number)
        if known is not None:
            return known
        self.flush()
        slot = room.id << NUMBER_BITS | number
        return bytes(self._execute("SELECT history_hash FROM entry WHERE slot = ?", (slot,)).get)

    def _read_end(self, room: Room) -> None:
        """The newest entries up to the room's row, and all above it, which the row lacks."""
        written = room.written
        mailboxes: dict[tuple[int, int], int] = {}
        for slot, account, device, head, size, history_hash in self._execute(
            "SELECT slot, account, device, substr(statement, 1, 65), length(statement),"
            " history_hash FROM entry WHERE slot BETWEEN ? AND ? ORDER BY slot",
            _slots_of_the_end(room.id, written),
        ):
            number = slot & NUMBER_MASK
            said = RoomStatement.decode(head, 0)
            room.remember(number, account, said.message_id, history_hash)
            if number <= written:
                continue
            room.last_number, room.last_hash = number, history_hash
            room.size_bytes += size + ENTRY_OVERHEAD_BYTES
            if account not in room.members:  # a closed account, which signs nothing more
                continue
            mailbox = mailboxes.get((account, device))
            if mailbox is None:
                mailbox = mailboxes[account, device] = self._execute(
                    "SELECT id FROM mailbox WHERE account = ? AND device = ?", (account, device)
                ).get
            author = Author(number, said.time_ms, mailbox)
            room.authors[account] = room.unwritten[account] = author

    # --- adding --------------------------------------------------------------------------------

    def append(self, room: Room, entry: ask.NewEntry) -> int:
        """An entry by which somebody joins or leaves. Its number."""
        number = room.last_number + 1
        history_hash = next_history_hash(
            room.last_hash, entry.username, entry.device, entry.statement, entry.signature
        )
        room.last_number = number
        room.last_hash = history_hash
        room.size_bytes += size_of(entry)
        self.added.append(
            (
                room.id << NUMBER_BITS | number,
                entry.now_ms,
                entry.account,
                entry.device,
                entry.statement,
                entry.signature,
                history_hash,
            )
        )
        room.remember(number, entry.account, entry.message_id, history_hash)
        self._due[room.id] = room
        return number

    def note_texts(self, room: Room) -> None:
        """Texts were added."""
        if room.last_number - room.written >= LAG_MAX:
            self._due[room.id] = room

    # --- the group -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was only noted, but for rows that may lag."""
        if self.added:
            added, self.added = self.added, []
            if len(added) == 1:
                self._execute(_INSERT, added[0])
            else:
                self._executemany(_INSERT, added)
        if self._due:
            due, self._due = self._due, {}
            for room in due.values():
                self._write_rows(room)

    def forget(self) -> None:
        """The transaction was rolled back, or memory is full: only the disk knows."""
        self.by_name = {}
        self.added = []
        self._due = {}
        self._said = {}
        self._cached = 0

    def _write_rows(self, room: Room) -> None:
        if room.unwritten:
            self._executemany(
                "UPDATE member SET newest = ?, newest_ms = ?, newest_mailbox = ?"
                " WHERE room = ? AND account = ?",
                [
                    (author.number, author.time_ms, author.mailbox, room.id, account)
                    for account, author in room.unwritten.items()
                ],
            )
            room.unwritten = {}
        self._execute(
            "UPDATE room SET last_number = ?, last_hash = ?, members = ?, bytes = ? WHERE id = ?",
            (room.last_number, room.last_hash, len(room.members), room.size_bytes, room.id),
        )
        room.written = room.last_number


def size_of(entry: ask.NewEntry) -> int:
    """What an entry counts for in its room."""
    return len(entry.statement) + ENTRY_OVERHEAD_BYTES


def _slots_of_the_end(room: int, written: int) -> tuple[int, int]:
    """First and last, of what is read when a room is loaded."""
    first_slot = room << NUMBER_BITS
    return first_slot | max(0, written - RECENT + 1), first_slot | NUMBER_MASK
