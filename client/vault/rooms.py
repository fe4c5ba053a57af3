"""How far each room's history is held, in the vault."""

from dataclasses import dataclass

from saltline.client.vault.database import Vault


@dataclass(frozen=True, slots=True)
class RoomState:
    """`last` is the number of the last entry held, `hash` the history hash there (32 bytes).

    Without a hash, the first page of history says where it begins.
    """

    room: str
    last: int
    hash: bytes
    own_time_ms: int


class RoomStore:
    """The vault's tables of rooms, their hashes and their authors' clocks."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def state(self, room: str) -> RoomState | None:
        """None for a room that was never joined."""
        row = self._vault.row(
            "SELECT room, last, hash, own_time_ms FROM rooms WHERE room = ?", room
        )
        return None if row is None else RoomState(*row)

    def save(self, state: RoomState) -> None:
        """Write how far a room is held; its hash there, if known, is kept for checks to come."""
        self._vault.run(
            "INSERT OR REPLACE INTO rooms VALUES (?, ?, ?, ?)",
            state.room,
            state.last,
            state.hash,
            state.own_time_ms,
        )
        if state.hash:
            self._vault.run(
                "INSERT OR REPLACE INTO room_hashes VALUES (?, ?, ?)",
                state.room,
                state.last,
                state.hash,
            )

    def forget(self, room: str) -> None:
        """Its history begins anew; only the time of our own last entry is still of use."""
        self._vault.run("UPDATE rooms SET last = 0, hash = x'' WHERE room = ?", room)
        self._vault.run("DELETE FROM room_hashes WHERE room = ?", room)
        self._vault.run("DELETE FROM room_authors WHERE room = ?", room)

    def hash_at(self, room: str, number: int) -> bytes | None:
        """The history hash at a number, if it is held."""
        found: bytes | None = self._vault.value(
            "SELECT hash FROM room_hashes WHERE room = ? AND number = ?", room, number
        )
        return found

    def author_time(self, room: str, author: bytes) -> int:
        """The time of an author's last entry; `author` is H(ID)."""
        found = self._vault.value(
            "SELECT time_ms FROM room_authors WHERE room = ? AND author = ?", room, author
        )
        return -1 if found is None else int(found)

    def set_author_time(self, room: str, author: bytes, time_ms: int) -> None:
        """Remember the time of an author's last entry."""
        self._vault.run(
            "INSERT OR REPLACE INTO room_authors VALUES (?, ?, ?)", room, author, time_ms
        )
