"""People and the key log entries that were accepted for them, in the vault."""

from dataclasses import dataclass

from saltline.client.vault.database import Vault
from saltline.crypto.signatures import Identity


@dataclass(frozen=True, slots=True)
class Person:
    """What was decided about a person; their keys follow from their entries."""

    username: str
    verified: bool = False
    changed: bool = False
    old_root: Identity | None = None
    blocked: bool = False
    accepted: bool = False


class PeopleStore:
    """The vault's tables of people and their entries."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def person(self, username: str) -> Person | None:
        """None for somebody who was never met."""
        row = self._vault.row(
            "SELECT username, verified, changed, old_root, blocked, accepted FROM people"
            " WHERE username = ?",
            username,
        )
        if row is None:
            return None
        old_root = Identity.decode(row[3]) if row[3] else None
        return Person(row[0], bool(row[1]), bool(row[2]), old_root, bool(row[4]), bool(row[5]))

    def save(self, person: Person) -> None:
        """Write what was decided."""
        self._vault.run(
            "INSERT OR REPLACE INTO people VALUES (?, ?, ?, ?, ?, ?)",
            person.username,
            person.verified,
            person.changed,
            person.old_root.encode() if person.old_root else b"",
            person.blocked,
            person.accepted,
        )

    def entries(self, username: str) -> list[bytes]:
        """The accepted entries of a name, in order."""
        rows = self._vault.rows(
            "SELECT entry FROM entries WHERE username = ? ORDER BY number", username
        )
        return [row[0] for row in rows]

    def add_entry(self, username: str, number: int, entry: bytes) -> None:
        """Keep an entry that followed from the ones before."""
        self._vault.run("INSERT INTO entries VALUES (?, ?, ?)", username, number, entry)

    def forget_entries(self, username: str) -> None:
        """They turned out not to be this name's."""
        self._vault.run("DELETE FROM entries WHERE username = ?", username)
