"""The core's part for the relay's admin: the same store, the same live connections."""

from typing import Any

from saltline.crypto.keylog import LOG_SIGNER, Entry, replay, revoke_entry
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import ROOM_LIST_MAX
from saltline.server import administration as wish
from saltline.server.codes import code_hash, new_code
from saltline.server.effects import INFO, Answer
from saltline.server.entrance import Entrance
from saltline.server.mailboxes import Mailboxes
from saltline.server.registration import log_entry
from saltline.server.rooms import Rooms
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.switchboard import Switchboard, Ticket

_USES_MAX = 1_000_000


class AdminCore:
    """Answers each request once, with an `Answer`."""

    def __init__(
        self, desk: Switchboard, entrance: Entrance, mailboxes: Mailboxes, rooms: Rooms
    ) -> None:
        self._desk = desk
        self._entrance = entrance
        self._mailboxes = mailboxes
        self._rooms = rooms
        self.requests = 0  # of users, counted by the core
        self._handlers = {
            wish.ListUsers: self._list_users,
            wish.ListRooms: self._list_rooms,
            wish.ReadStats: self._read_stats,
            wish.CreateInvite: self._create_invite,
            wish.ResetUser: self._reset,
            wish.RemoveUser: self._remove,
        }

    def handle(self, _connection: None, ticket: Ticket, request: wish.AdminRequest) -> None:
        """Begin to answer. Raises ProtocolError."""
        if self._desk.is_stopping:
            raise ProtocolError(ErrorCode.STOPPING, "The relay is stopping.")
        handler: Any = self._handlers[type(request)]
        handler(ticket, request)

    def _answer(self, ticket: Ticket, result: wish.AdminResult) -> None:
        self._desk.add(Answer(ticket.number, result))

    # --- reading -------------------------------------------------------------------------------

    def _list_users(self, ticket: Ticket, _request: wish.ListUsers) -> None:
        self._desk.persist(ask.ReadUsers(), self._users_read, None, ticket)

    def _users_read(
        self, _connection: None, ticket: Ticket, _work: ask.ReadUsers, read: told.UsersRead
    ) -> None:
        online = self._desk.accounts
        users = tuple(
            wish.UserRow(
                username=user.username,
                created_ms=user.created_ms,
                closed=user.closed,
                online=user.account in online,
                devices=user.devices,
                rooms=user.rooms,
                waiting=user.waiting,
                waiting_bytes=user.waiting_bytes,
            )
            for user in read.users
        )
        self._answer(ticket, wish.Users(users))

    def _list_rooms(self, ticket: Ticket, _request: wish.ListRooms) -> None:
        self._desk.persist(ask.ReadRooms(ROOM_LIST_MAX), self._rooms_read, None, ticket)

    def _rooms_read(
        self, _connection: None, ticket: Ticket, _work: ask.ReadRooms, read: told.RoomsRead
    ) -> None:
        rooms = tuple(
            wish.RoomRow(room.room, room.members, self._rooms.online(room.room), room.last)
            for room in read.rooms
        )
        self._answer(ticket, wish.Rooms(rooms))

    def _read_stats(self, ticket: Ticket, _request: wish.ReadStats) -> None:
        self._desk.persist(ask.ReadTotals(), self._totals_read, None, ticket)

    def _totals_read(
        self, _connection: None, ticket: Ticket, _work: ask.ReadTotals, read: told.TotalsRead
    ) -> None:
        desk = self._desk
        stats = wish.Stats(
            accounts=read.accounts,
            closed_accounts=read.closed_accounts,
            log_entries=read.log_entries,
            rooms=read.rooms,
            room_entries=read.room_entries,
            waiting=read.waiting,
            waiting_bytes=read.waiting_bytes,
            database_bytes=read.database_bytes,
            connections=len(desk.connections),
            strangers=len(desk.strangers),
            accounts_online=len(desk.accounts),
            requests=self.requests,
            delivered=self._mailboxes.delivered,
            broadcast=self._rooms.pushed,
        )
        self._answer(ticket, stats)

    # --- codes ---------------------------------------------------------------------------------

    def _create_invite(self, ticket: Ticket, request: wish.CreateInvite) -> None:
        if not 1 <= request.uses <= _USES_MAX:
            raise ProtocolError(ErrorCode.BAD_INVITE, "An invite is for 1 to 1,000,000 accounts.")
        self._add_code(ticket, "", request.uses, request.expires_ms)

    def _reset(self, ticket: Ticket, request: wish.ResetUser) -> None:
        self._add_code(ticket, request.username, 1, request.expires_ms)

    def _add_code(self, ticket: Ticket, username: str, uses: int, expires_ms: int) -> None:
        if not self._desk.date_ms < expires_ms < 2**63:
            raise ProtocolError(ErrorCode.BAD_INVITE, "A code has to expire in the future.")
        code = new_code(self._desk.random)

        def added(_connection: None, ticket: Ticket, _work: ask.AddCode, _done: told.Done) -> None:
            self._answer(ticket, wish.Code(code))

        work = ask.AddCode(code_hash(code), username, uses, expires_ms)
        self._desk.persist(work, added, None, ticket)

    # --- removing ------------------------------------------------------------------------------

    def _remove(self, ticket: Ticket, request: wish.RemoveUser) -> None:
        work = ask.FindAccount(request.username)
        self._desk.persist(work, self._account_found, None, ticket)

    def _account_found(
        self, _connection: None, ticket: Ticket, work: ask.FindAccount, found: told.AccountFound
    ) -> None:
        log_key = self._desk.log_key
        account = replay(found.entries, log_key.public)
        revokes: list[Entry] = []
        for identity in account.live:
            entry = revoke_entry(account, identity, self._desk.date_ms, LOG_SIGNER, log_key.sign)
            account = account.apply(entry, log_key.public)
            revokes.append(entry)
        close = ask.CloseAccount(work.username, tuple(log_entry(entry) for entry in revokes))
        self._desk.persist(close, self._closed, None, ticket)

    def _closed(
        self, _connection: None, ticket: Ticket, work: ask.CloseAccount, closed: told.AccountClosed
    ) -> None:
        self._entrance.end_devices(closed.ended, "The relay's admin removed this account.")
        self._rooms.account_closed(closed.rooms)
        self._desk.log(INFO, f"The admin removed {work.username}.")
        self._answer(ticket, wish.Removed(work.username, len(closed.ended)))
