"""Envelopes that wait for their devices.

Counters of a mailbox are kept in memory and written once a group; new envelopes are written
together. Whoever reads the tables flushes first.
"""

from collections.abc import Iterable, Iterator

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    Done,
    EnvelopeStored,
    Expired,
    MailboxRead,
    StoredEnvelope,
)
from saltline.server.store.queries import Queries
from saltline.server.store.refusal import Refusal
from saltline.server.store.schema import NUMBER_BITS, NUMBER_MASK

_CACHED_MAX = 100_000


class _Mailbox:
    """What has to be known of a live device's mailbox to put something in."""

    __slots__ = ("id", "last_number", "waiting", "waiting_bytes")

    def __init__(self, id: int, last_number: int, waiting: int, waiting_bytes: int) -> None:
        self.id = id
        self.last_number = last_number
        self.waiting = waiting
        self.waiting_bytes = waiting_bytes


class Mailboxes:
    """The part of the store that holds envelopes."""

    def __init__(self, queries: Queries) -> None:
        self._execute = queries.execute
        self._executemany = queries.executemany
        self._stream = queries.stream
        self._by_address: dict[tuple[str, int], _Mailbox] = {}
        self._by_id: dict[int, _Mailbox] = {}
        self._live: set[int] = set()  # known to be; what is missing has to be looked up
        self._changed: dict[int, _Mailbox] = {}
        self._arrived: list[tuple[int, int, bytes]] = []

    def store(self, work: ask.StoreEnvelope) -> EnvelopeStored:
        """Give an envelope the mailbox's next number."""
        box = self._by_address.get((work.username, work.device))
        if box is None:
            box = self._find(work.username, work.device)
        size = len(work.envelope)
        if box.waiting >= work.max_envelopes or box.waiting_bytes + size > work.max_bytes:
            raise Refusal(
                ErrorCode.MAILBOX_FULL,
                "This mailbox is full until its owner comes and takes what waits.",
            )
        box.last_number = number = box.last_number + 1
        box.waiting += 1
        box.waiting_bytes += size
        self._changed[box.id] = box
        self._arrived.append((box.id << NUMBER_BITS | number, work.now_ms, work.envelope))
        return EnvelopeStored(box.id, number)

    def delete(self, work: ask.DeleteEnvelopes) -> Done:
        """Remove what was acknowledged."""
        first_slot = work.mailbox << NUMBER_BITS
        gone = count = 0
        # What still is to be written cannot have been delivered, so that no flush is needed.
        for first, last in _runs(work.numbers):
            for (size,) in self._execute(
                "DELETE FROM envelope WHERE slot BETWEEN ? AND ? RETURNING length(envelope)",
                (first_slot | first, first_slot | last),
            ):
                gone += size
                count += 1
        if count:
            self._shrink(work.mailbox, count, gone)
        return Done()

    def read(self, work: ask.ReadMailbox) -> MailboxRead:
        """The next envelopes within both bounds."""
        self.flush()
        envelopes: list[StoredEnvelope] = []
        room = work.max_bytes
        more = False
        first_slot = work.mailbox << NUMBER_BITS
        for slot, received_ms, envelope in self._stream(
            "SELECT slot, received_ms, envelope FROM envelope WHERE slot > ? AND slot <= ?"
            " ORDER BY slot LIMIT ?",
            (first_slot | work.after, first_slot | NUMBER_MASK, work.max_envelopes + 1),
        ):
            room -= len(envelope)
            if envelopes and (room < 0 or len(envelopes) == work.max_envelopes):
                more = True
                break
            envelopes.append(StoredEnvelope(slot & NUMBER_MASK, received_ms, envelope))
        return MailboxRead(tuple(envelopes), more)

    def expire(self, work: ask.ExpireEnvelopes) -> Expired:
        """Remove a bounded number of the oldest, or else of those that nobody can fetch."""
        self.flush()
        rows = self._up_to(
            work,
            "SELECT slot, length(envelope) FROM envelope WHERE received_ms < ?"
            " ORDER BY received_ms LIMIT ?",
            (work.before_ms, work.max_envelopes),
        )
        if not rows:
            rows = self._of_the_ended(work)
        self._executemany("DELETE FROM envelope WHERE slot = ?", [(slot,) for slot, _ in rows])
        for slot, size in rows:
            self._shrink(slot >> NUMBER_BITS, 1, size)
        return Expired(len(rows))

    def _of_the_ended(self, work: ask.ExpireEnvelopes) -> list[tuple[int, int]]:
        mailbox = self._execute("SELECT id FROM mailbox WHERE NOT live AND waiting > 0 LIMIT 1").get
        if mailbox is None:
            return []
        first_slot = mailbox << NUMBER_BITS
        return self._up_to(
            work,
            "SELECT slot, length(envelope) FROM envelope WHERE slot BETWEEN ? AND ?"
            " ORDER BY slot LIMIT ?",
            (first_slot, first_slot | NUMBER_MASK, work.max_envelopes),
        )

    def _up_to(
        self, work: ask.ExpireEnvelopes, sql: str, bindings: tuple[int, ...]
    ) -> list[tuple[int, int]]:
        """The slots and sizes of what a query finds, until it is enough bytes."""
        rows: list[tuple[int, int]] = []
        bytes_left = work.max_bytes
        for slot, size in self._stream(sql, bindings):
            rows.append((slot, size))
            bytes_left -= size
            if bytes_left <= 0:
                break
        return rows

    def end(self, mailboxes: Iterable[int]) -> None:
        """The devices are no more. What waited for them goes bit by bit (`expire`)."""
        self.flush()
        self.forget()
        self._executemany(
            "UPDATE mailbox SET live = 0 WHERE id = ?", [(mailbox,) for mailbox in mailboxes]
        )

    def flush(self) -> None:
        """Write what was only noted."""
        if self._arrived:
            self._executemany(
                "INSERT INTO envelope (slot, received_ms, envelope) VALUES (?, ?, ?)",
                self._arrived,
            )
            self._arrived = []
        if self._changed:
            self._executemany(
                "UPDATE mailbox SET last_number = ?, waiting = ?, waiting_bytes = ? WHERE id = ?",
                [
                    (box.last_number, box.waiting, box.waiting_bytes, box.id)
                    for box in self._changed.values()
                ],
            )
            self._changed = {}

    def forget(self) -> None:
        """The transaction was rolled back: only the disk knows."""
        self._by_address = {}
        self._by_id = {}
        self._live = set()
        self._changed = {}
        self._arrived = []

    def has_mail(self, mailbox: int) -> bool:
        """Whether an envelope waits."""
        return self._load(mailbox).waiting > 0

    def check_live(self, mailbox: int) -> None:
        """A device that was ended while its request waited signs nothing for its account."""
        if mailbox in self._live:
            return
        if self._execute("SELECT 1 FROM mailbox WHERE id = ? AND live", (mailbox,)).get is None:
            raise Refusal(ErrorCode.UNKNOWN_DEVICE, "This device was ended.")
        if len(self._live) >= _CACHED_MAX:
            self._live.clear()
        self._live.add(mailbox)

    # --- parts ---------------------------------------------------------------------------------

    def _find(self, username: str, device: int) -> _Mailbox:
        account = self._execute("SELECT id FROM account WHERE username = ?", (username,)).get
        if account is None:
            raise Refusal(ErrorCode.UNKNOWN_USER, "No account has this name.")
        mailbox = self._execute(
            "SELECT id FROM mailbox WHERE account = ? AND device = ? AND live", (account, device)
        ).get
        if mailbox is None:
            raise Refusal(ErrorCode.UNKNOWN_DEVICE, "This account has no such device now.")
        box = self._by_address[(username, device)] = self._load(mailbox)
        return box

    def _load(self, mailbox: int) -> _Mailbox:
        box = self._by_id.get(mailbox)
        if box is None:
            if len(self._by_id) >= _CACHED_MAX:
                self.flush()
                self.forget()
            row = self._execute(
                "SELECT id, last_number, waiting, waiting_bytes FROM mailbox WHERE id = ?",
                (mailbox,),
            ).get
            box = self._by_id[mailbox] = _Mailbox(*row)
        return box

    def _shrink(self, mailbox: int, count: int, size: int) -> None:
        box = self._load(mailbox)
        box.waiting -= count
        box.waiting_bytes -= size
        self._changed[mailbox] = box


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers that a mailbox can have."""
    ordered = sorted({number for number in numbers if 0 < number <= NUMBER_MASK})
    start = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1:
            yield ordered[start], ordered[at - 1]
            start = at
