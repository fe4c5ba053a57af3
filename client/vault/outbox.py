"""What has not reached the relay, in the vault: nothing here is ever overtaken."""

from dataclasses import dataclass, field

from saltline.client.vault.database import Vault


@dataclass(frozen=True, slots=True)
class Item:
    """Something to send. `row` is its line, or 0 for a receipt."""

    item: int
    conversation: str
    row: int
    content: bytes = field(repr=False)
    encrypted: bool


@dataclass(frozen=True, slots=True)
class PendingEnvelope:
    """An envelope that the relay has not confirmed."""

    envelope_id: int
    item: int
    username: str
    device: int
    identity_hash: bytes
    envelope: bytes = field(repr=False)


class OutboxStore:
    """The vault's tables of items, envelopes and signed room entries on their way."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def add(self, conversation: str, row: int, content: bytes) -> int:
        """Queue an item at the end."""
        return self._vault.insert(
            "INSERT INTO outbox (conversation, row, content, encrypted) VALUES (?, ?, ?, 0)",
            conversation,
            row,
            content,
        )

    def conversations(self) -> list[str]:
        """Conversations with something to send, the longest waiting first."""
        return [
            row[0]
            for row in self._vault.rows(
                "SELECT conversation FROM outbox GROUP BY conversation ORDER BY min(item)"
            )
        ]

    def last_encrypted(self, conversation: str) -> int:
        """The last item that has envelopes, or 0. Reads every item: remember the answer."""
        return int(
            self._vault.value(
                "SELECT coalesce(max(item), 0) FROM outbox WHERE conversation = ? AND encrypted",
                conversation,
            )
        )

    def count_to(self, conversation: str, item: int) -> int:
        """How many items of a conversation there are, up to this one."""
        return int(
            self._vault.value(
                "SELECT count(*) FROM outbox WHERE conversation = ? AND item <= ?",
                conversation,
                item,
            )
        )

    def after(self, conversation: str, item: int, limit: int) -> list[Item]:
        """The items of a conversation that come after this one, in order."""
        return [
            Item(row[0], row[1], row[2], row[3], bool(row[4]))
            for row in self._vault.rows(
                "SELECT item, conversation, row, content, encrypted FROM outbox"
                " WHERE conversation = ? AND item > ? ORDER BY item LIMIT ?",
                conversation,
                item,
                limit,
            )
        ]

    def first(self, conversation: str) -> Item | None:
        """The item whose turn it is."""
        row = self._vault.row(
            "SELECT item, conversation, row, content, encrypted FROM outbox"
            " WHERE conversation = ? ORDER BY item LIMIT 1",
            conversation,
        )
        return None if row is None else Item(row[0], row[1], row[2], row[3], bool(row[4]))

    def items(self, conversation: str) -> list[Item]:
        """All items of a conversation, in order, without their content."""
        rows = self._vault.rows(
            "SELECT item, conversation, row, encrypted FROM outbox"
            " WHERE conversation = ? ORDER BY item",
            conversation,
        )
        return [Item(row[0], row[1], row[2], b"", bool(row[3])) for row in rows]

    def receipts(self, conversation: str) -> list[bytes]:
        """The contents of the receipts among its items."""
        rows = self._vault.rows(
            "SELECT content FROM outbox WHERE conversation = ? AND row = 0 ORDER BY item",
            conversation,
        )
        return [row[0] for row in rows]

    def say_why(self, conversation: str, reason: str) -> list[int]:
        """Note on every line that waits why it does; returns their rows."""
        self._vault.run(
            "UPDATE lines SET reason = ? WHERE reason <> ? AND row IN"
            " (SELECT row FROM outbox WHERE conversation = ? AND row > 0)",
            reason,
            reason,
            conversation,
        )
        rows = self._vault.rows(
            "SELECT row FROM outbox WHERE conversation = ? AND row > 0 ORDER BY item", conversation
        )
        return [row[0] for row in rows]

    def set_encrypted(self, item: int) -> None:
        """All envelopes of an item are made."""
        self._vault.run("UPDATE outbox SET encrypted = 1 WHERE item = ?", item)

    def add_envelope(
        self, item: int, username: str, device: int, identity_hash: bytes, envelope: bytes
    ) -> None:
        """A finished envelope, in the transaction that advances its session."""
        self._vault.run(
            "INSERT INTO envelopes (item, username, device, identity_hash, envelope)"
            " VALUES (?, ?, ?, ?, ?)",
            item,
            username,
            device,
            identity_hash,
            envelope,
        )

    def next_envelope(self, username: str, device: int) -> PendingEnvelope | None:
        """The envelope whose turn it is for one device."""
        row = self._vault.row(
            "SELECT envelope_id, item, username, device, identity_hash, envelope"
            " FROM envelopes WHERE username = ? AND device = ? ORDER BY envelope_id LIMIT 1",
            username,
            device,
        )
        return None if row is None else PendingEnvelope(*row)

    def targets(self, item: int) -> list[bytes]:
        """H(ID) of every device that an item's envelopes still wait for."""
        rows = self._vault.rows("SELECT identity_hash FROM envelopes WHERE item = ?", item)
        return [row[0] for row in rows]

    def envelope_done(self, envelope_id: int, item: int) -> int | None:
        """The relay has it. When it was the item's last, the item goes: returns its row."""
        self._vault.run("DELETE FROM envelopes WHERE envelope_id = ?", envelope_id)
        if self._vault.row("SELECT 1 FROM envelopes WHERE item = ?", item):
            return None
        row = self._vault.value("SELECT row FROM outbox WHERE item = ? AND encrypted", item)
        if row is None:
            return None
        self.remove(item)
        return int(row)

    def remove(self, item: int) -> None:
        """Take an item and all that was made of it out."""
        self._vault.run("DELETE FROM envelopes WHERE item = ?", item)
        self._vault.run("DELETE FROM room_posts WHERE item = ?", item)
        self._vault.run("DELETE FROM outbox WHERE item = ?", item)

    def room_post(self, item: int) -> tuple[bytes, bytes] | None:
        """(signed, signature) of a room entry that was signed before."""
        row = self._vault.row("SELECT signed, signature FROM room_posts WHERE item = ?", item)
        return None if row is None else (row[0], row[1])

    def add_room_post(self, item: int, signed: bytes, signature: bytes) -> None:
        """Keep what was signed, so that a retry repeats it."""
        self._vault.run(
            "INSERT OR REPLACE INTO room_posts VALUES (?, ?, ?)", item, signed, signature
        )

    def count(self, receipts: bool = False) -> int:
        """Messages (and, where asked, receipts) that the relay does not have."""
        where = "" if receipts else " WHERE row > 0"
        return int(self._vault.value(f"SELECT count(*) FROM outbox{where}"))
