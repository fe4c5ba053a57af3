"""Rooms, their members, and their entries: numbered without a gap, chained by hash."""

from collections.abc import Callable

from saltline.crypto.signatures import EMPTY_HISTORY, chain_author, chain_entry
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
    StoreError,
    TextsStored,
)
from saltline.server.store.queries import Queries
from saltline.server.store.refusal import Refusal
from saltline.server.store.room import RECENT, Author, Room
from saltline.server.store.schema import LAST_NUMBER, NUMBER_BITS, NUMBER_MASK
from saltline.server.store.tails import ENTRY_OVERHEAD_BYTES, Strange, Tails, size_of


class Rooms:
    """The part of the store that holds public rooms."""

    def __init__(self, queries: Queries, check_live: Callable[[int], None]) -> None:
        self._execute = queries.execute
        self._stream = queries.stream
        self._check_live = check_live
        self._tails = Tails(queries)
        self.flush = self._tails.flush
        self.forget = self._tails.forget

    # --- entries -------------------------------------------------------------------------------

    def store_texts(self, work: ask.StoreTexts) -> TextsStored:
        """Number and chain them, except those that are here already."""
        entries = work.entries
        first = entries[0]
        account, mailbox, device = first.account, first.mailbox, first.device
        self._check_live(mailbox)
        tails = self._tails
        strange = tails.strange(first.room, account)
        if strange is not None:
            return TextsStored(tuple([self._stored_before(strange, each) for each in entries]), 0)
        room = tails.load(first.room)
        if len(room.recent) >= 2 * RECENT:
            room.forget_old()
        recent, hashes, count = room.recent, room.hashes, len(room.members)
        author = room.authors.get(account)
        if author is None and account in room.members:
            author = tails.author(room, account)
        in_chain = chain_author(first.username, device)
        first_slot = room.id << NUMBER_BITS
        room_left = work.room_max_bytes - ENTRY_OVERHEAD_BYTES
        outcomes: list[EntryStored | StoreError] = []
        size_bytes = 0
        for entry in entries:
            statement, time_ms, key = entry.statement, entry.time_ms, (account, entry.message_id)
            if key in recent:
                outcomes.append(EntryStored(recent[key], False, count))
                continue
            try:
                if author is None:
                    raise _not_a_member()
                if time_ms <= author.time_ms and author.mailbox == mailbox:
                    outcomes.append(self._repeated(room, author, entry))
                    continue
                if hashes.get(entry.seen) != entry.seen_hash:
                    self._check_seen(room, entry)
                size = room.size_bytes + len(statement)
                if size > room_left:
                    raise _room_full()
            except Refusal as refusal:
                outcomes.append(StoreError(refusal.code, refusal.detail))
                continue
            signature = entry.signature
            number = room.last_number + 1
            history_hash = chain_entry(room.last_hash, signature, in_chain, statement)
            room.last_number = author.number = recent[key] = number
            room.last_hash = hashes[number] = history_hash
            room.size_bytes = size + ENTRY_OVERHEAD_BYTES
            size_bytes += len(statement)
            author.time_ms, author.mailbox = time_ms, mailbox
            # The list is another one after a flush, of which there may be one in this loop.
            tails.added.append(
                (
                    first_slot | number,
                    entry.now_ms,
                    account,
                    device,
                    statement,
                    signature,
                    history_hash,
                )
            )
            room.unwritten[account] = author
            outcomes.append(EntryStored(number, True, count))
        tails.note_texts(room)
        return TextsStored(tuple(outcomes), size_bytes)

    def _repeated(self, room: Room, author: Author, entry: ask.NewEntry) -> EntryStored:
        """An author's times grow: this is its newest entry, sent again, or was overtaken by it."""
        if entry.time_ms == author.time_ms:
            self.flush()
            slot = room.id << NUMBER_BITS | author.number
            stored = self._execute("SELECT statement FROM entry WHERE slot = ?", (slot,)).get
            if stored == entry.statement:
                return EntryStored(author.number, False, len(room.members))
        raise Refusal(
            ErrorCode.BAD_STATEMENT,
            "The statement is not later than the last one of this device in this room.",
        )

    def join(self, work: ask.JoinRoom) -> RoomJoined:
        """Add a member with its join entry; who is one already gets the number it has."""
        entry = work.entry
        self._check_live(entry.mailbox)
        if self._tails.strange(entry.room, entry.account) is not None:
            self._check_rooms_of(entry.account, work.rooms_per_user)
        room = self._tails.find(entry.room)
        if room is not None:
            membership = self._membership(room, entry.account)
            if membership is not None:
                number, after = membership
                return RoomJoined(
                    number, False, len(room.members), after, self._tails.hash_at(room, after)
                )
            if (entry.account, entry.message_id) in room.recent:
                raise Refusal(ErrorCode.BAD_STATEMENT, "This message id was used before.")
            self._check_seen(room, entry)
        elif entry.seen:
            raise _seen_too_much()
        elif entry.seen_hash != EMPTY_HISTORY:
            raise _other_history()
        self._check_rooms_of(entry.account, work.rooms_per_user)
        if room is None:
            if not work.may_open:
                raise Refusal(
                    ErrorCode.TOO_MANY_ROOMS,
                    "No such room is there, and you opened as many today as this relay allows."
                    " Nothing was done. Open it tomorrow.",
                )
            room = self._create(entry.room, work.rooms_max)
        else:
            _check_space(room, entry, work.room_max_bytes)
        number = self._tails.append(room, entry)
        after = max(0, number - 1 - work.recent)
        room.members.add(entry.account)
        self._execute(
            "INSERT INTO member"
            " (room, account, joined, after, newest, newest_ms, newest_mailbox)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (room.id, entry.account, number, after, number, entry.time_ms, entry.mailbox),
        )
        return RoomJoined(number, True, len(room.members), after, self._tails.hash_at(room, after))

    def leave(self, work: ask.LeaveRoom) -> EntryStored:
        """End a membership with an entry, unless that is here already."""
        entry = work.entry
        self._check_live(entry.mailbox)
        strange = self._tails.strange(entry.room, entry.account)
        if strange is not None:
            before = self._stored_before(strange, entry)
            if isinstance(before, StoreError):
                raise _not_a_member()
            return before
        room = self._tails.load(entry.room)
        number = room.recent.get((entry.account, entry.message_id))
        if number is not None:
            return EntryStored(number, False, len(room.members))
        if entry.account not in room.members:
            raise _not_a_member()
        author = room.authors.get(entry.account) or self._tails.author(room, entry.account)
        if author.mailbox == entry.mailbox and entry.time_ms <= author.time_ms:
            return self._repeated(room, author, entry)
        self._check_seen(room, entry)
        number = self._tails.append(room, entry)
        room.members.discard(entry.account)
        room.authors.pop(entry.account, None)
        room.unwritten.pop(entry.account, None)
        self._execute("DELETE FROM member WHERE room = ? AND account = ?", (room.id, entry.account))
        return EntryStored(number, True, len(room.members))

    def read_history(self, work: ask.ReadHistory) -> HistoryRead:
        """A page, from where the member may see it."""
        room = self._load_for(work.room, work.account)
        membership = self._membership(room, work.account)
        if membership is None:
            raise _not_a_member()
        after = min(max(work.after, membership[1]), room.last_number)
        after_hash = self._tails.hash_at(room, after)
        self.flush()
        entries: list[StoredEntry] = []
        bytes_left = work.max_bytes
        first_slot = room.id << NUMBER_BITS
        for slot, username, device, statement, signature in self._stream(
            "SELECT slot, username, device, statement, signature FROM entry"
            " JOIN account ON account.id = entry.account"
            " WHERE slot > ? AND slot <= ? ORDER BY slot LIMIT ?",
            (first_slot | after, first_slot | NUMBER_MASK, work.limit),
        ):
            bytes_left -= len(statement) + ENTRY_OVERHEAD_BYTES
            if entries and bytes_left < 0:
                break
            number = slot & NUMBER_MASK
            entries.append(StoredEntry(number, username, device, statement, signature))
        return HistoryRead(after, after_hash, room.last_number, tuple(entries))

    # --- members -------------------------------------------------------------------------------

    def read_members(self, work: ask.ReadMembers) -> MembersRead:
        """Only for members. Of a larger room, those whose accounts are the oldest."""
        room = self._load_for(work.room, work.account)
        if work.account not in room.members:
            raise _not_a_member()
        rows = self._execute(
            "SELECT account.id, username FROM"
            " (SELECT account AS one FROM member WHERE room = ? ORDER BY account LIMIT ?)"
            " JOIN account ON account.id = one ORDER BY username",
            (room.id, work.limit),
        )
        members = tuple(MemberFound(account, username) for account, username in rows)
        return MembersRead(len(room.members), members)

    def read_rooms(self, work: ask.ReadRooms) -> RoomsRead:
        """Largest first, then by name."""
        self.flush()
        rows = self._execute(
            f"SELECT name, {LAST_NUMBER}, members FROM room ORDER BY members DESC, name LIMIT ?",
            (work.limit,),
        )
        return RoomsRead(tuple(RoomState(*row) for row in rows))

    def of_account(self, account: int) -> tuple[RoomState, ...]:
        """The rooms that an account is a member of, by name."""
        self.flush()
        rows = self._execute(
            f"SELECT name, {LAST_NUMBER}, members FROM member JOIN room ON room.id = member.room"
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

    # --- parts ---------------------------------------------------------------------------------

    def _load_for(self, name: str, account: int) -> Room:
        """A room, for a member."""
        if self._tails.strange(name, account) is not None:
            raise _not_a_member()
        return self._tails.load(name)

    def _stored_before(self, strange: Strange, entry: ask.NewEntry) -> EntryStored | StoreError:
        """Who is no member says nothing new there, but may not have heard what is stored."""
        number = self._tails.said_there(strange, entry)
        if number is None:
            none = _not_a_member()
            return StoreError(none.code, none.detail)
        return EntryStored(number, False, strange[2])

    def _create(self, name: str, rooms_max: int) -> Room:
        count: int = self._execute("SELECT count(*) FROM room").get
        if count >= rooms_max:
            raise Refusal(ErrorCode.TOO_MANY_ROOMS, "This relay takes no further rooms.")
        self._execute("INSERT INTO room (name) VALUES (?)", (name,))
        return self._tails.load(name)

    def _check_seen(self, room: Room, entry: ask.NewEntry) -> None:
        """A member that claims another history would make the others distrust the relay."""
        if entry.seen > room.last_number:
            raise _seen_too_much()
        if entry.seen_hash != self._tails.hash_at(room, entry.seen):
            raise _other_history()

    def _check_rooms_of(self, account: int, rooms_per_user: int) -> None:
        count: int = self._execute("SELECT count(*) FROM member WHERE account = ?", (account,)).get
        if count >= rooms_per_user:
            raise Refusal(
                ErrorCode.TOO_MANY_ROOMS,
                f"You are in {count} rooms, the most that this relay allows. Leave one first.",
            )

    def _membership(self, room: Room, account: int) -> tuple[int, int] | None:
        """(number of the join entry, what comes after is visible), or None."""
        if account not in room.members:
            return None
        row: tuple[int, int] = self._execute(
            "SELECT joined, after FROM member WHERE room = ? AND account = ?", (room.id, account)
        ).get
        return row


def _check_space(room: Room, entry: ask.NewEntry, max_bytes: int) -> None:
    if room.size_bytes + size_of(entry) > max_bytes:
        raise _room_full()


def _room_full() -> Refusal:
    return Refusal(
        ErrorCode.ROOM_FULL,
        "This room holds as much as the relay keeps of one. Go on in another, or ask the"
        " relay's admin for more.",
    )


def _not_a_member() -> Refusal:
    return Refusal(ErrorCode.NOT_A_MEMBER, "You are not a member of this room. Join it first.")


def _other_history() -> Refusal:
    return Refusal(
        ErrorCode.BAD_STATEMENT, "The statement's history of this room is not the relay's."
    )


def _seen_too_much() -> Refusal:
    return Refusal(
        ErrorCode.BAD_STATEMENT, "The statement says that more was seen than the room holds."
    )
