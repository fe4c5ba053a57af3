"""Who of a room's members is connected, and telling the others when that changes.

Changes are gathered and told once a second: who comes back at once was never gone.
"""

from collections.abc import Iterable

from saltline.protocol import to_client
from saltline.protocol.messages import encode_framed
from saltline.server.effects import Broadcast
from saltline.server.peers import Account, Connection
from saltline.server.switchboard import Switchboard


class LiveRoom:
    """A room with at least one connected member."""

    __slots__ = ("_recipients", "accounts", "has_slow", "last", "last_frame", "members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members = 0  # connected or not
        self.last = 0
        self.has_slow = False  # a connection that is too slow for entries now
        self.last_frame = b""  # the newest entry, for those who were
        self.accounts: dict[int, Account] = {}  # of connected members
        self._recipients: list[int] | None = None

    def recipients(self) -> list[int]:
        """The connections that an entry goes to now. The same list until that changes."""
        if self._recipients is None:
            connections = [
                connection
                for account in self.accounts.values()
                for connection in account.connections
            ]
            self._recipients = [each.number for each in connections if not each.is_congested]
            self.has_slow = len(self._recipients) < len(connections)
        return self._recipients

    def changed(self) -> None:
        """Someone came, left, connected, fell behind or caught up."""
        self._recipients = None


class Presence:
    """Live rooms, and whose comings and goings are still to be told."""

    def __init__(self, desk: Switchboard) -> None:
        self._desk = desk
        self.rooms: dict[str, LiveRoom] = {}
        # Whose presence may have changed: what was last told, and where it was told.
        self._untold: dict[int, tuple[str, bool, set[str]]] = {}
        self._newcomers: dict[int, Connection] = {}  # connections that know of nobody yet

    def enter(self, account: Account, name: str, last: int, members: int) -> LiveRoom:
        """A connected account is a member of this room, in which this is known."""
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = LiveRoom(name)
        room.last = max(room.last, last)
        room.members = members
        room.accounts[account.id] = account
        room.changed()
        account.rooms.add(name)
        return room

    def leave(self, account: Account, name: str) -> None:
        """A connected account is no longer a member, or no longer connected."""
        account.rooms.discard(name)
        room = self.rooms.get(name)
        if room is not None:
            room.accounts.pop(account.id, None)
            room.changed()
            if not room.accounts:
                del self.rooms[name]

    def greet(self, connection: Connection) -> None:
        """A connection has logged in: it is to learn who of its small rooms is there."""
        self._newcomers[connection.number] = connection

    def came(self, account: Account) -> None:
        """Its first device has connected, and it has entered its rooms."""
        self._untold.setdefault(account.id, (account.username, False, set()))

    def went(self, account: Account) -> None:
        """Its last device is gone; it is still in its rooms."""
        _, _, rooms = self._untold.setdefault(account.id, (account.username, True, set()))
        rooms |= account.rooms

    def tell(self) -> None:
        """Tell the others in small rooms what changed since the last time."""
        untold, self._untold = self._untold, {}
        for id, (username, was_online, rooms) in untold.items():
            account = self._desk.accounts.get(id)
            if (account is not None) is was_online:
                continue
            online = account is not None
            self._tell(id, username, online, account.rooms if account is not None else rooms)
        newcomers, self._newcomers = self._newcomers, {}
        for connection in newcomers.values():
            if connection.is_open:
                self._introduce(connection)

    def _introduce(self, connection: Connection) -> None:
        account = connection.known.account
        others = self._neighbours(account.id, account.rooms)
        for name in sorted([other.username for other in others]):
            self._desk.send(connection, to_client.Presence(name, True))

    def _tell(self, id: int, username: str, online: bool, rooms: set[str]) -> None:
        # Also to those too slow for entries: this cannot be caught up by number.
        numbers = [
            connection.number
            for other in self._neighbours(id, rooms)
            for connection in other.connections
        ]
        if numbers:
            frame = encode_framed(to_client.Presence(username, online))
            self._desk.add(Broadcast(sorted(numbers), frame))

    def _neighbours(self, id: int, rooms: set[str]) -> Iterable[Account]:
        """The others who are connected, of these rooms as far as they are small."""
        small = self._desk.settings.presence_max_members
        others: dict[int, Account] = {}
        for name in rooms:
            room = self.rooms.get(name)
            if room is not None and room.members <= small:
                others.update(room.accounts)  # in C: many share a hundred rooms
        others.pop(id, None)
        return others.values()

    def connections_changed(self, account: Account) -> None:
        """One of its connections came, went, fell behind or caught up."""
        for name in account.rooms:
            self.rooms[name].changed()

    def congested(self, connection: Connection) -> None:
        """From now on it gets no pushes of rooms."""
        connection.is_congested = True
        account = connection.known.account
        connection.missed_after = {name: self.rooms[name].last for name in account.rooms}
        self.connections_changed(account)

    def drained(self, connection: Connection) -> None:
        """It gets the newest entry of each room that went on without it, and sees the gap."""
        connection.is_congested = False
        account = connection.known.account
        for name in sorted(account.rooms):
            room = self.rooms[name]
            if room.last > connection.missed_after.get(name, 0) and room.last_frame:
                self._desk.send_frame(connection, room.last_frame)
        connection.missed_after = {}
        self.connections_changed(account)
