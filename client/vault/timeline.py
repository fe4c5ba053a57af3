"""Conversations and their lines, in the vault."""

from dataclasses import dataclass
from typing import Any

from saltline.client.model import Delivery, Line, LineKind
from saltline.client.vault.database import Vault

LINE_COLUMNS = (
    "row, conversation, kind, author, mine, body,"
    " sent_ms, received_ms, id, delivery, number, reason"
)


def to_line(row: tuple[Any, ...]) -> Line:
    """A row of LINE_COLUMNS."""
    return Line(
        row=row[0],
        conversation=row[1],
        kind=LineKind(row[2]),
        author=row[3],
        mine=bool(row[4]),
        body=row[5],
        sent_ms=row[6],
        received_ms=row[7],
        id=row[8],
        delivery=Delivery(row[9]),
        number=row[10],
        reason=row[11],
    )


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line before it has a row."""

    conversation: str
    kind: LineKind
    author: str
    body: str
    sent_ms: int
    received_ms: int
    id: bytes = b""
    mine: bool = False
    delivery: Delivery = Delivery.NONE
    number: int = 0
    reason: str = ""
    mention: bool = False


class Timeline:
    """The vault's tables of conversations, lines and owed receipts."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        # Whether looking for receipts to send could find any: strangers' may wait for long.
        self.may_owe_receipts = True

    def ensure(self, conversation: str) -> bool:
        """Make a conversation if need be; True if it is new."""
        if self._vault.row("SELECT 1 FROM conversations WHERE name = ?", conversation):
            return False
        self._vault.run("INSERT INTO conversations VALUES (?, 0, 0, 0, 0, 0, 0, '')", conversation)
        return True

    def add(self, line: NewLine) -> int:
        """Append a line; returns its row. The id must be new (see `has`)."""
        self.ensure(line.conversation)
        row = self._vault.insert(
            "INSERT INTO lines (conversation, kind, author, mine, body, sent_ms, received_ms, id,"
            " delivery, number, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            line.conversation,
            int(line.kind),
            line.author,
            line.mine,
            line.body,
            line.sent_ms,
            line.received_ms,
            line.id,
            int(line.delivery),
            line.number,
            line.reason,
        )
        self._vault.run("INSERT INTO lines_text (rowid, body) VALUES (?, ?)", row, line.body)
        unread = not line.mine and line.kind in (LineKind.TEXT, LineKind.UNSUPPORTED)
        self._vault.run(
            "UPDATE conversations SET last_row = ?, unread = unread + ?, mentions = mentions + ?"
            " WHERE name = ?",
            row,
            unread,
            unread and line.mention,
            line.conversation,
        )
        return row

    def find(self, conversation: str, author: str, message_id: bytes) -> int | None:
        """The row of an author's message in a conversation."""
        # The last term is the partial index's own: without it SQLite reads the whole conversation.
        found = self._vault.value(
            "SELECT row FROM lines WHERE author = ? AND id = ? AND conversation = ? AND id <> x''",
            author,
            message_id,
            conversation,
        )
        return None if found is None else int(found)

    def line(self, row: int) -> Line | None:
        """One line."""
        found = self._vault.row(f"SELECT {LINE_COLUMNS} FROM lines WHERE row = ?", row)
        return None if found is None else to_line(found)

    def set_delivery(self, row: int, delivery: Delivery, reason: str = "") -> bool:
        """Move a line of ours forward; True if it changed.

        A receipt may overtake the relay's word, and a failure may be retried: only FAILED is left
        backwards. What the relay has does not fail, though its answer never came.
        """
        current = self._vault.value("SELECT delivery FROM lines WHERE row = ? AND mine", row)
        if current is None:
            return False
        moves_on = delivery > current or current == Delivery.FAILED
        if delivery == Delivery.FAILED:
            moves_on = current == Delivery.QUEUED
        if not moves_on:
            return False
        self._vault.run(
            "UPDATE lines SET delivery = ?, reason = ? WHERE row = ?", int(delivery), reason, row
        )
        return True

    def requeue(self, row: int) -> None:
        """A failed line of ours waits again."""
        self._vault.run(
            "UPDATE lines SET delivery = ?, reason = '' WHERE row = ?", int(Delivery.QUEUED), row
        )

    def set_number(self, row: int, number: int) -> None:
        """A room entry of ours has its number."""
        self._vault.run("UPDATE lines SET number = ? WHERE row = ?", number, row)

    def next_seq(self, conversation: str) -> int:
        """Our next count in a private conversation, from 1."""
        self.ensure(conversation)
        self._vault.run(
            "UPDATE conversations SET sent_seq = sent_seq + 1 WHERE name = ?", conversation
        )
        return int(
            self._vault.value("SELECT sent_seq FROM conversations WHERE name = ?", conversation)
        )

    def set_joined(self, room: str, joined: bool) -> None:
        """Membership of a room."""
        self.ensure(room)
        self._vault.run("UPDATE conversations SET joined = ? WHERE name = ?", joined, room)

    def joined_rooms(self) -> list[str]:
        """Rooms that we are a member of."""
        return [row[0] for row in self._vault.rows("SELECT name FROM conversations WHERE joined")]

    def is_joined(self, room: str) -> bool:
        """Whether we are a member of a room."""
        return bool(self._vault.value("SELECT joined FROM conversations WHERE name = ?", room))

    def mark_read(self, conversation: str, row: int) -> list[bytes]:
        """Move the mark, at most to the last line; returns the ids of others' texts it passed."""
        found = self._vault.row(
            "SELECT read_row, last_row FROM conversations WHERE name = ?", conversation
        )
        before, last = found or (0, 0)
        row = min(row, last)
        if row <= before:
            return []
        passed = self._vault.rows(
            "SELECT id FROM lines WHERE conversation = ? AND row > ? AND row <= ? AND kind = ?"
            " AND NOT mine",
            conversation,
            before,
            row,
            int(LineKind.TEXT),
        )
        unread = self._vault.value(
            "SELECT count(*) FROM lines WHERE conversation = ? AND row > ? AND kind IN (?, ?)"
            " AND NOT mine",
            conversation,
            row,
            int(LineKind.TEXT),
            int(LineKind.UNSUPPORTED),
        )
        self._vault.run(
            "UPDATE conversations SET read_row = ?, unread = ?, mentions = min(mentions, ?)"
            " WHERE name = ?",
            row,
            unread,
            unread,
            conversation,
        )
        return [found[0] for found in passed]

    # --- receipts ------------------------------------------------------------------------------

    def owe_receipt(
        self, username: str, message_id: bytes, read: bool, *, at_once: bool = True
    ) -> None:
        """Remember to tell `username` that a message is stored, or read."""
        self.may_owe_receipts |= at_once
        self._vault.run(
            "INSERT OR IGNORE INTO receipts_due VALUES (?, ?, ?)", username, message_id, read
        )

    def receipts_due(self, limit: int) -> list[tuple[str, bool, list[bytes]]]:
        """(username, read, ids) owed to accepted, trusted people; at most `limit` ids each."""
        due: dict[tuple[str, bool], list[bytes]] = {}
        more = False
        for username, message_id, read in self._vault.rows(
            "SELECT d.username, d.id, d.read"
            " FROM people p CROSS JOIN receipts_due d USING (username)"
            " WHERE p.accepted AND NOT p.changed AND NOT p.blocked ORDER BY d.read"
        ):
            ids = due.setdefault((username, bool(read)), [])
            if len(ids) < limit:
                ids.append(message_id)
            else:
                more = True
        self.may_owe_receipts = more
        return [(username, read, ids) for (username, read), ids in due.items()]

    def receipts_queued(self, username: str, read: bool, ids: list[bytes]) -> None:
        """These have gone to the outbox."""
        for message_id in ids:
            self._vault.run(
                "DELETE FROM receipts_due WHERE username = ? AND id = ? AND read = ?",
                username,
                message_id,
                read,
            )

    # --- what a command has printed --------------------------------------------------------------

    def unprinted(self, limit: int) -> list[Line]:
        """What others sent and no command has printed, in order."""
        return [
            to_line(row)
            for row in self._vault.rows(
                f"SELECT {LINE_COLUMNS} FROM lines WHERE row > ? AND NOT mine ORDER BY row LIMIT ?",
                self._vault.meta("printed-row"),
                limit,
            )
        ]

    def mark_printed(self, row: int) -> None:
        """Lines up to this one have left through standard output."""
        self._vault.set_meta("printed-row", max(row, self._vault.meta("printed-row")))
