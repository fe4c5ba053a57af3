"""Public rooms: signed statements in, numbered entries out (docs/protocol.md §6, Rooms).

The relay checks who, where and when; the signature is for the members, who do not trust the relay.
"""

from typing import Final

from saltline.crypto.signatures import Malformed, read_head
from saltline.protocol import to_client, to_relay
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import (
    DATED_AHEAD_MAX_S,
    MEMBER_LIST_MAX,
    PAGE_MAX_BYTES,
    ROOM_LIST_MAX,
    TEXT_MAX_BYTES,
)
from saltline.protocol.messages import encode_framed
from saltline.protocol.names import LOBBY, BadName, check_room
from saltline.server.limits import DailyQuota
from saltline.server.peers import Connection, Device
from saltline.server.presence import LiveRoom, Presence
from saltline.server.pushes import Pushes
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.store.interface import StoreError
from saltline.server.switchboard import Switchboard

# Texts so long in all are enough for one operation: it is done, and told, as a whole.
_TOGETHER_BYTES: Final = 64 * 1024
_TEXT: Final = int(RoomKind.TEXT)

# Kind, message id, time in Unix ms, what was seen, and the history hash there.
Head = tuple[int, bytes, int, int, bytes]


class Rooms:
    """The part of the core that keeps rooms going."""

    def __init__(self, desk: Switchboard, presence: Presence) -> None:
        self._desk = desk
        self._presence = presence
        self._pushes = Pushes(desk)
        self.opened: DailyQuota[int] = DailyQuota(1)  # by account
        # Texts of one connection in one room, in order: one operation for all of them.
        self._author: Connection | None = None
        self._texts: list[tuple[to_relay.Post, ask.NewEntry]] = []
        self._texts_bytes = 0

    @property
    def pushed(self) -> int:
        """Entries times connections."""
        return self._pushes.pushed

    # --- entries -------------------------------------------------------------------------------

    def join(self, connection: Connection, request: to_relay.Join) -> None:
        """Become a member, in a room that is opened if need be."""
        head = self._checked(request.statement)
        if head[0] != RoomKind.JOIN:
            raise _bad_statement("A join is a statement of its own kind.")
        try:
            check_room(request.room)
        except BadName as error:
            raise ProtocolError(ErrorCode.BAD_NAME, str(error)) from None
        settings = self._desk.settings
        may_open = self.opened.take(connection.known.account.id, self._desk.date_ms)
        work = ask.JoinRoom(
            self._new_entry(connection.known, request, head),
            settings.room_recent_entries,
            settings.rooms_per_user,
            settings.rooms_max,
            settings.room_max_bytes,
            may_open,
        )
        self._desk.persist(work, self._joined, connection, request, self._not_joined)

    def _joined(
        self,
        connection: Connection,
        request: to_relay.Join,
        work: ask.JoinRoom,
        joined: told.RoomJoined,
    ) -> None:
        entry = work.entry
        if not joined.is_new or joined.number > 1 or entry.room == LOBBY:
            self._opened_none(work)
        answer = to_client.Joined(
            request.id, entry.room, joined.number, joined.after, joined.after_hash
        )
        self._desk.send(connection, answer)
        if joined.is_new:
            self._pushes.leave()
            account = self._desk.accounts.get(entry.account)
            if account is not None:
                self._presence.enter(account, entry.room, joined.number, joined.members)
                self._presence.greet(connection)
            self._push(entry, joined.number, joined.members)
            self._pushes.leave()

    def _not_joined(
        self,
        _connection: Connection,
        _request: to_relay.Join,
        work: ask.JoinRoom,
        error: StoreError,
    ) -> None:
        self._opened_none(work)
        raise ProtocolError(error.code, error.detail)

    def _opened_none(self, work: ask.JoinRoom) -> None:
        if work.may_open:
            self.opened.give_back(work.entry.account)

    def post(self, connection: Connection, request: to_relay.Post) -> None:
        """A member's text, or its leaving."""
        device = connection.known
        head = self._checked(request.statement)
        if head[0] == _TEXT:
            if self._texts and (
                self._texts[0][0].room != request.room or self._texts_bytes >= _TOGETHER_BYTES
            ):
                self.keep_texts()
            self._author = connection
            self._texts_bytes += len(request.statement)
            self._texts.append((request, self._new_entry(device, request, head)))
            return
        if head[0] != RoomKind.LEAVE:
            raise _bad_statement("Members post texts, or that they leave.")
        self.keep_texts()
        work = ask.LeaveRoom(self._new_entry(device, request, head))
        self._desk.persist(work, self._left, connection, request)

    def keep_texts(self) -> None:
        """Hand the gathered texts to the store, before anything else of their author."""
        connection, texts = self._author, self._texts
        if connection is None:
            return
        size_bytes = self._texts_bytes
        self._author, self._texts, self._texts_bytes = None, [], 0
        work = ask.StoreTexts(
            tuple([entry for _, entry in texts]), self._desk.settings.room_max_bytes
        )
        requests = [request for request, _ in texts]
        self._desk.persist_many(work, self._posted, connection, requests, size_bytes)

    def _posted(
        self,
        connection: Connection,
        requests: list[to_relay.Post],
        work: ask.StoreTexts,
        stored: told.TextsStored,
    ) -> None:
        name = work.entries[0].room
        room = self._presence.rooms.get(name)
        answers: list[bytes] = []
        for request, entry, outcome in zip(requests, work.entries, stored.outcomes, strict=True):
            if isinstance(outcome, StoreError):
                error = ProtocolError(outcome.code, outcome.detail)
                self._desk.failed(connection, request, error)
                continue
            answers.append(encode_framed(to_client.Posted(request.id, name, outcome.number)))
            if outcome.is_new and room is not None:
                room.members = outcome.members
                self._pushes.add(room, entry, outcome.number)
        if answers:
            self._desk.send_frame(connection, b"".join(answers))

    def _left(
        self,
        connection: Connection,
        request: to_relay.Post,
        work: ask.LeaveRoom,
        stored: told.EntryStored,
    ) -> None:
        entry = work.entry
        self._pushes.leave()  # what came before is for the leaver, too, who takes no more after it
        self._desk.send(connection, to_client.Posted(request.id, entry.room, stored.number))
        if stored.is_new:
            self._push(entry, stored.number, stored.members)
            self._pushes.leave()
            account = self._desk.accounts.get(entry.account)
            if account is not None:
                self._presence.leave(account, entry.room)

    def _push(self, entry: ask.NewEntry, number: int, members: int) -> None:
        room = self._presence.rooms.get(entry.room)
        if room is not None:
            room.members = members
            self._pushes.add(room, entry, number)

    def push(self) -> None:
        """What the store has done in this turn is told: members get what it added to rooms."""
        self._pushes.leave()

    def _checked(self, statement: bytes) -> Head:
        """What the relay can check without the room and without the signature."""
        try:
            head = read_head(statement, TEXT_MAX_BYTES)
        except Malformed:
            raise _bad_statement("The statement does not follow its layout.") from None
        if head[2] > self._desk.date_ms + DATED_AHEAD_MAX_S * 1000:
            raise _bad_statement("The statement's time is more than a day ahead. Check the clock.")
        return head

    def _new_entry(
        self, device: Device, request: to_relay.Join | to_relay.Post, head: Head
    ) -> ask.NewEntry:
        account = device.account
        _, message_id, time_ms, seen, seen_hash = head
        return ask.NewEntry(
            request.room,
            account.id,
            device.mailbox,
            account.username,
            device.number,
            message_id,
            time_ms,
            seen,
            seen_hash,
            request.statement,
            request.signature,
            self._desk.date_ms,
        )

    # --- reading -------------------------------------------------------------------------------

    def history(self, connection: Connection, request: to_relay.History) -> None:
        """A page of a member's room."""
        account = connection.known.account.id
        work = ask.ReadHistory(request.room, account, request.after, request.limit, PAGE_MAX_BYTES)
        self._desk.read_long(work, self._history_read, connection, request)

    def _history_read(
        self,
        connection: Connection,
        request: to_relay.History,
        _work: ask.ReadHistory,
        read: told.HistoryRead,
    ) -> None:
        room = request.room
        entries = tuple(
            to_client.RoomEntry(
                room,
                entry.number,
                entry.username,
                entry.device,
                entry.statement,
                entry.signature,
            )
            for entry in read.entries
        )
        page = to_client.HistoryPage(
            request.id, room, read.after, read.after_hash, read.last, entries
        )
        self._desk.send(connection, page)

    def who(self, connection: Connection, request: to_relay.Who) -> None:
        """Members, and who of them is connected."""
        work = ask.ReadMembers(request.room, connection.known.account.id, MEMBER_LIST_MAX)
        self._desk.read_long(work, self._members_read, connection, request)

    def _members_read(
        self,
        connection: Connection,
        request: to_relay.Who,
        _work: ask.ReadMembers,
        read: told.MembersRead,
    ) -> None:
        online = self._desk.accounts
        members = tuple(
            to_client.Member(member.username, member.account in online) for member in read.members
        )
        answer = to_client.Members(request.id, request.room, read.total, members)
        self._desk.send(connection, answer)

    def list_rooms(self, connection: Connection, request: to_relay.ListRooms) -> None:
        """All rooms, largest first."""
        work = ask.ReadRooms(ROOM_LIST_MAX)
        self._desk.read_long(work, self._rooms_read, connection, request)

    def _rooms_read(
        self,
        connection: Connection,
        request: to_relay.ListRooms,
        _work: ask.ReadRooms,
        read: told.RoomsRead,
    ) -> None:
        rooms = tuple(
            to_client.RoomInfo(room.room, room.members, self.online(room.room), room.last)
            for room in read.rooms
        )
        self._desk.send(connection, to_client.RoomList(request.id, rooms))

    def members(self, name: str) -> int:
        """How many are in a room, connected or not; 0 if none of them is connected."""
        room = self._presence.rooms.get(name)
        return room.members if room else 0

    def online(self, name: str) -> int:
        """How many of a room's members are connected."""
        room: LiveRoom | None = self._presence.rooms.get(name)
        return len(room.accounts) if room else 0

    # --- coming and going ----------------------------------------------------------------------

    def arrived(self, connection: Connection, rooms: tuple[told.RoomState, ...]) -> None:
        """A device has logged in."""
        self._pushes.leave()
        account = connection.known.account
        self._presence.greet(connection)
        if len(account.connections) > 1:
            self._presence.connections_changed(account)
            return
        for room in rooms:
            self._presence.enter(account, room.room, room.last, room.members)
        self._presence.came(account)

    def departed(self, connection: Connection) -> None:
        """A connection is gone."""
        account = connection.known.account
        if account.connections:
            self._presence.connections_changed(account)
            return
        self._presence.went(account)
        for name in tuple(account.rooms):
            self._presence.leave(account, name)

    def account_closed(self, names: tuple[str, ...]) -> None:
        """A removed account is a member of nothing; its connections are gone already."""
        for name in names:
            room = self._presence.rooms.get(name)
            if room is not None:
                room.members -= 1


def _bad_statement(detail: str) -> ProtocolError:
    return ProtocolError(ErrorCode.BAD_STATEMENT, detail)
