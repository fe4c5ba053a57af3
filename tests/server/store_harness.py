"""Operations with made-up contents: the store checks no signature and reads no entry."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from random import Random

import apsw
from msgspec.structs import replace

from saltline.crypto.signatures import EMPTY_HISTORY, STATEMENT_HEAD_BYTES, RoomStatement
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    EntryStored,
    Operation,
    Outcome,
    StoreError,
    TextsStored,
)
from saltline.server.store.sqlite import SqliteStore

RELAY_ID = b"r" * 32
DAY_MS = 86_400_000
_later = count(1)
NOW_MS = 20_000 * DAY_MS


def account(name: str, code_hash: bytes = b"") -> ask.CreateAccount:
    """A new account, whose keys follow from its name."""
    plain = name.encode()
    return ask.CreateAccount(
        skeleton=name,
        entry=ask.LogEntry(name, 0, b"create " + plain, b"leaf " + plain),
        device=ask.NewDevice(1, b"id " + plain, b"sig", b"signing " + plain, b"agreement " + plain),
        code_hash=code_hash,
        now_ms=NOW_MS,
    )


def envelope(name: str, content: bytes = b"sealed", now_ms: int = NOW_MS) -> ask.StoreEnvelope:
    """For the first device of an account."""
    return ask.StoreEnvelope(name, 1, content, 1_000_000, 10**9, now_ms)


def entry(account: int, room: str = "#lobby", body: bytes = b"text") -> ask.NewEntry:
    """With a new message id, of an account whose first device has the mailbox of its number."""
    said = RoomStatement(1, os.urandom(16), NOW_MS + next(_later), 0, EMPTY_HISTORY, body)
    return ask.NewEntry(
        room=room,
        account=account,
        mailbox=account,
        username={1: "ada", 2: "bob"}.get(account, f"user{account}"),
        device=1,
        message_id=said.message_id,
        time_ms=said.time_ms,
        seen=said.seen,
        seen_hash=said.seen_hash,
        statement=said.encode(),
        signature=bytes(64),
        now_ms=NOW_MS,
    )


def join(account: int, room: str = "#lobby") -> ask.JoinRoom:
    return ask.JoinRoom(entry(account, room), 50, 100, 1_000)


def texts(*entries: ask.NewEntry) -> ask.StoreTexts:
    return ask.StoreTexts(entries)


def post(account: int, room: str = "#lobby", body: bytes = b"text") -> ask.StoreTexts:
    """One text."""
    return texts(entry(account, room, body))


def posted(number: int, members: int) -> TextsStored:
    """What is told of a new text of four bytes."""
    return TextsStored((EntryStored(number, True, members),), STATEMENT_HEAD_BYTES + 4)


def history(account: int, room: str = "#lobby") -> ask.ReadHistory:
    return ask.ReadHistory(room, account, 0, 200, 10**6)


def mailbox(number: int, after: int = 0) -> ask.ReadMailbox:
    return ask.ReadMailbox(number, after, 1_000, 10**9)


def changed(entry: ask.NewEntry, **changes: object) -> ask.NewEntry:
    """One that says something else, in its statement too."""
    new = replace(entry, **changes)
    said = RoomStatement(
        1, new.message_id, new.time_ms, new.seen, new.seen_hash, entry.statement[65:]
    )
    return replace(new, statement=said.encode())


def variation(rng: Random, author: int, known: list[ask.NewEntry]) -> ask.NewEntry:
    """A text as it should be, or one with something wrong, or one of before."""
    new = entry(author, body=rng.randbytes(rng.randrange(300)))
    own = [each for each in known if each.account == author] or [new]
    known.append(new)
    old = rng.choice(own)
    return rng.choice(
        [
            new,
            new,
            old,
            changed(new, seen=rng.randrange(4)),
            changed(new, time_ms=old.time_ms),
            changed(new, message_id=old.message_id),
        ]
    )


class FaultyDisk(apsw.VFS):
    """The real file system, whose writes or syncs can be made to fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fail_write: type[apsw.Error] | None = None
        self.fail_sync: type[apsw.Error] | None = None
        self.only = ""  # the end of the names of the files that fail
        self.syncs = 0
        self.writes = 0
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "FaultyFile":  # noqa: N802
        return FaultyFile(self, name, flags)


class FaultyFile(apsw.VFSFile):
    """A file on a `FaultyDisk`."""

    def __init__(
        self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.writes += 1
        if self._disk.fail_write and self._name.endswith(self._disk.only):
            raise self._disk.fail_write("injected")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.syncs += 1
        if self._disk.fail_sync and self._name.endswith(self._disk.only):
            raise self._disk.fail_sync("injected")
        super().xSync(flags)


@contextmanager
def faulty_disk(name: str) -> Iterator[FaultyDisk]:
    """A disk under a name for `SqliteStore(vfs=name)`."""
    disk = FaultyDisk(name)
    try:
        yield disk
    finally:
        disk.unregister()


def one(store: SqliteStore, operation: Operation) -> Outcome | StoreError:
    """The outcome of one operation in a group of its own."""
    (outcome,) = store.run([operation])
    return outcome
