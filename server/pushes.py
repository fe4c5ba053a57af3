"""A room's new entries on their way to its members: those of one commit in one frame."""

from typing import Final

from saltline.crypto.signatures import shorten
from saltline.protocol.limits import PAGE_MAX_ENTRIES
from saltline.protocol.messages import encode_framed
from saltline.protocol.to_client import Author, Entries, Pushed
from saltline.server.effects import Broadcast
from saltline.server.presence import LiveRoom
from saltline.server.store.operations import NewEntry
from saltline.server.switchboard import Switchboard

# With so many bytes of statements a frame is full: two TLS records.
_FRAME_BYTES: Final = 32 * 1024


class Pushes:
    """Gathers consecutive entries of one room until `leave`."""

    def __init__(self, desk: Switchboard) -> None:
        self._desk = desk
        self.pushed = 0  # entries times connections
        self._room: LiveRoom | None = None
        self._first = 0
        self._next = 0
        self._authors: dict[tuple[str, int], int] = {}
        self._entries: list[Pushed] = []
        self._size_bytes = 0

    def add(self, room: LiveRoom, entry: NewEntry, number: int) -> None:
        """The room's newest entry, for all its connected members."""
        entries, statement = self._entries, entry.statement
        if (
            room is not self._room
            or number != self._next
            or self._size_bytes + len(statement) > _FRAME_BYTES
            or len(entries) >= PAGE_MAX_ENTRIES
        ):
            self.leave()
            self._room, self._first = room, number
            entries = self._entries
        authors = self._authors
        author = authors.setdefault((entry.username, entry.device), len(authors))
        entries.append(Pushed(author, shorten(statement), entry.signature))
        self._next = number + 1
        self._size_bytes += len(statement)
        room.last = number

    def leave(self) -> None:
        """Send what is gathered to those who are members now, the authors too, encoded once."""
        room, entries, authors = self._room, self._entries, self._authors
        if room is None:
            return
        self._room = None
        self._entries, self._authors, self._size_bytes = [], {}, 0
        by_name = tuple(Author(*author) for author in authors)
        frame = encode_framed(Entries(room.name, self._first, by_name, tuple(entries)))
        recipients = room.recipients()
        room.last_frame = frame if room.has_slow else b""  # not 64 KiB a room for nobody
        if recipients:
            self.pushed += len(recipients) * len(entries)
            self._desk.add(Broadcast(recipients, frame))
