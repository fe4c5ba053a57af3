"""Who of a room's members is connected, and telling the others when that changes.

Changes are gathered and told once a second: who comes back at once was never gone.
"""

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
            self._tell(username, account, rooms if account is None else account.rooms)
        newcomers, self._newcomers = self._newcomers, {}
        for connection in newcomers.values():
            if connection.is_open:
                self._introduce(connection)

    def _introduce(self, connection: Connection) -> None:
        account = connection.known.account
        names = {
            other.username
            for room in map(self.rooms.__getitem__, account.rooms)
            if room.members <= self._desk.settings.presence_max_members
            for other in room.accounts.values()
            if other is not account
        }
        for name in sorted(names):
            self._desk.send(connection, to_client.Presence(name, True))

    def _tell(self, username: str, account: Account | None, names: set[str]) -> None:
        numbers: set[int] = set()
        for name in names:
            room = self.rooms.get(name)
            if room is None or room.members > self._desk.settings.presence_max_members:
                continue
            for other in room.accounts.values():
                if other is not account:
                    # Also to those too slow for entries: this cannot be caught up by number.
                    numbers |= {connection.number for connection in other.connections}
        if numbers:
            message = to_client.Presence(username, account is not None)
            frame = encode_framed(message)
            self._desk.add(Broadcast(sorted(numbers), frame))

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
