"""What the store keeps in memory of a room: its tail, and who is in it."""

from itertools import islice
from typing import Final

# Of this many of its newest entries at least, a room in memory knows the ids and the hashes.
RECENT: Final = 256


class Author:
    """A member's newest entry: number, the author's time, and the mailbox of its device."""

    __slots__ = ("mailbox", "number", "time_ms")

    def __init__(self, number: int, time_ms: int, mailbox: int) -> None:
        self.number = number
        self.time_ms = time_ms
        self.mailbox = mailbox


class Room:
    """A room's tail and its members' account numbers."""

    __slots__ = (
        "authors",
        "hashes",
        "id",
        "last_hash",
        "last_number",
        "members",
        "recent",
        "size_bytes",
        "unwritten",
        "written",
    )

    def __init__(
        self, id: int, last_number: int, last_hash: bytes, size_bytes: int, members: set[int]
    ) -> None:
        self.id = id
        self.size_bytes = size_bytes  # of all entries
        self.last_number = last_number
        self.last_hash = last_hash
        self.members = members
        self.authors: dict[int, Author] = {}  # by account, of those who posted since it was loaded
        self.written = last_number  # what its row and its members' rows on the disk know
        self.unwritten: dict[int, Author] = {}  # by account, of those who posted above that
        # Of its newest entries, the oldest first.
        self.recent: dict[tuple[int, bytes], int] = {}  # (account, message id) -> number
        self.hashes: dict[int, bytes] = {}  # number -> history hash

    def remember(self, number: int, account: int, message_id: bytes, history_hash: bytes) -> None:
        """The room's newest entry. Now and then the older half is forgotten."""
        if len(self.recent) >= 2 * RECENT:
            self.forget_old()
        # An id that came back after it was forgotten is among the newest, not where it first was.
        self.recent.pop((account, message_id), None)
        self.recent[account, message_id] = number
        self.hashes[number] = history_hash

    def forget_old(self) -> None:
        """All but the newest."""
        surplus = len(self.recent) - RECENT
        self.recent = dict(islice(self.recent.items(), surplus, None))
        surplus = len(self.hashes) - RECENT
        self.hashes = dict(islice(self.hashes.items(), surplus, None))
