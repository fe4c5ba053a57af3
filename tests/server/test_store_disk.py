"""A disk that is full, and one that fails: what was not stored is said, and nothing is retried."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    EnvelopeStored,
    HistoryRead,
    MailboxRead,
    Operation,
    StoreError,
    StoreUnusable,
)
from saltline.server.store.schema import PAGE_BYTES
from saltline.server.store.sqlite import CHECKPOINT_PAGES, SqliteStore
from tests.server.store_harness import (
    RELAY_ID,
    FaultyDisk,
    account,
    envelope,
    faulty_disk,
    history,
    join,
    mailbox,
    post,
    posted,
)

NAMES = (f"faulty-disk-{number}" for number in itertools.count())


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    with faulty_disk(next(NAMES)) as made:
        yield made


@pytest.fixture
def store(disk: FaultyDisk, tmp_path: Path) -> Iterator[SqliteStore]:
    """With the accounts ada (1) and bob (2), both in the lobby."""
    opened = SqliteStore(tmp_path / "relay.db", RELAY_ID, vfs=disk.name)
    opened.run([account("ada"), account("bob"), join(1), join(2)])
    yield opened
    disk.fail_write = disk.fail_sync = None
    opened.close()


def errors(outcomes: list[object]) -> list[tuple[ErrorCode, bool]]:
    assert all(isinstance(outcome, StoreError) for outcome in outcomes), outcomes
    return [
        (outcome.code, outcome.fatal) for outcome in outcomes if isinstance(outcome, StoreError)
    ]


def test_every_group_is_synced_once_before_it_is_answered(
    disk: FaultyDisk, store: SqliteStore
) -> None:
    before = disk.syncs
    store.run([envelope("ada"), envelope("bob"), post(1)])
    assert disk.syncs == before + 1
    store.run([mailbox(1), history(1)])
    assert disk.syncs == before + 1, "reading alone waits for nothing"


def test_a_full_disk_is_said_and_service_resumes(
    disk: FaultyDisk, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.run([envelope("ada", b"before")])
    disk.fail_write = apsw.FullError
    group: list[Operation] = [
        envelope("ada", b"lost"),
        post(1),
        mailbox(1),
        account("eve"),
        history(1),
    ]
    outcomes = store.run(group)
    not_done = [outcomes[0], outcomes[1], outcomes[3]]
    assert errors(list(not_done)) == [(ErrorCode.STORAGE_FAILED, False)] * 3
    assert "full" in str(outcomes[0])
    store.run([envelope("ada", b"lost")])
    assert caplog.text.count("disk is full") == 1, "the admin reads it once, not for each message"
    # What writes nothing is answered, from what is on the disk.
    box, room = outcomes[2], outcomes[4]
    assert isinstance(box, MailboxRead)
    assert isinstance(room, HistoryRead)
    assert [each.envelope for each in box.envelopes] == [b"before"]
    assert room.last == 2

    disk.fail_write = None
    assert store.run([envelope("ada", b"after"), post(1), account("eve")])[:2] == [
        EnvelopeStored(1, 2),
        posted(3, 2),
    ]
    assert store.check() == []


@pytest.mark.parametrize("kind", [apsw.IOError, apsw.CorruptError])
@pytest.mark.parametrize("call", ["fail_write", "fail_sync"])
def test_a_disk_that_fails_is_never_written_again(
    disk: FaultyDisk, store: SqliteStore, kind: type[apsw.Error], call: str
) -> None:
    store.run([envelope("ada", b"before")])
    setattr(disk, call, kind)
    fatal = (ErrorCode.STORAGE_FAILED, True)
    assert errors(list(store.run([envelope("ada"), mailbox(1)]))) == [fatal, fatal]
    # Even if it seems to work again: the kernel may have dropped what it could not write.
    disk.fail_write = disk.fail_sync = None
    writes, syncs = disk.writes, disk.syncs
    assert errors(list(store.run([envelope("ada")]))) == [fatal]
    assert errors(list(store.run([mailbox(1)]))) == [fatal]
    assert store.maintain() is None
    store.close()
    assert (disk.writes, disk.syncs) == (writes, syncs)


def test_what_was_acknowledged_before_the_disk_failed_is_kept(
    disk: FaultyDisk, store: SqliteStore, tmp_path: Path
) -> None:
    store.run([envelope("ada", b"acknowledged"), post(1, body=b"acknowledged")])
    disk.fail_sync = apsw.IOError
    store.run([envelope("ada", b"not acknowledged")])
    store.close()
    disk.fail_sync = None
    again = SqliteStore(tmp_path / "relay.db", RELAY_ID, vfs=disk.name)
    box, room = again.run([mailbox(1), history(1)])
    assert isinstance(box, MailboxRead)
    assert isinstance(room, HistoryRead)
    assert box.envelopes[0].envelope == b"acknowledged"
    assert room.entries[2].statement[65:] == b"acknowledged"
    assert again.check() == []
    again.close()


def test_after_a_failure_the_log_is_copied_home_before_anything_new(
    disk: FaultyDisk, store: SqliteStore, tmp_path: Path
) -> None:
    # What the failed sync left may be in the kernel's cache alone: frames of the log that later
    # ones build on. Copied into the database and synced there, they cannot go missing under them.
    disk.fail_sync = apsw.IOError
    store.run([envelope("ada", b"perhaps")])
    store.close()
    disk.fail_sync = None
    again = SqliteStore(tmp_path / "relay.db", RELAY_ID, vfs=disk.name)
    # One page in a log of its own, whose commit synced that the old one is gone.
    log_bytes = (tmp_path / "relay.db-wal").stat().st_size
    assert 0 < log_bytes <= 32 + 24 + PAGE_BYTES
    again.close()


def test_a_failed_sync_while_the_log_is_copied_home_stops_the_store(
    disk: FaultyDisk, store: SqliteStore
) -> None:
    # SQLite's own checkpoints ignore this, and sync again later, which then succeeds.
    store.run([envelope("ada", bytes(200_000)) for _ in range(CHECKPOINT_PAGES // 20)])
    disk.fail_sync = apsw.IOError
    failure = store.maintain()
    assert failure is not None
    assert failure.fatal
    disk.fail_sync = None
    assert errors(list(store.run([envelope("ada")]))) == [(ErrorCode.STORAGE_FAILED, True)]


def test_a_full_disk_while_the_log_is_copied_home_stops_nothing(
    disk: FaultyDisk, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.run([envelope("ada", bytes(200_000)) for _ in range(CHECKPOINT_PAGES // 20)])
    disk.fail_write, disk.only = apsw.FullError, "relay.db"
    assert store.maintain() is None
    assert "finds no room at home" in caplog.text
    assert "takes nothing new" not in caplog.text, "it does"
    for _ in range(5):
        assert isinstance(store.run([envelope("ada")])[0], EnvelopeStored)
        assert store.maintain() is None
    assert caplog.text.count("finds no room at home") == 1, "said once, however often it is tried"
    disk.fail_write = None
    store.run([ask.ExpireEnvelopes(0, 1, 1)])
    assert store.maintain() is None
    assert store.check() == []
    store.run([envelope("ada", bytes(200_000)) for _ in range(CHECKPOINT_PAGES // 20)])
    disk.fail_write = apsw.FullError
    assert store.maintain() is None
    assert caplog.text.count("finds no room at home") == 2, "it was better meanwhile"
    disk.fail_write = None


def test_a_full_disk_at_the_end_leaves_the_log_for_the_next_start(
    disk: FaultyDisk, store: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.run([envelope("ada", b"kept")])
    disk.fail_write = apsw.FullError
    store.close()
    assert "stays beside its database" in caplog.text
    disk.fail_write = None
    again = SqliteStore(tmp_path / "relay.db", RELAY_ID, vfs=disk.name)
    (box,) = again.run([mailbox(1)])
    assert isinstance(box, MailboxRead)
    assert box.envelopes[0].envelope == b"kept"
    again.close()


@pytest.mark.parametrize("kind", [apsw.FullError, apsw.IOError])
def test_a_disk_that_fails_at_the_first_start_is_said(
    disk: FaultyDisk, tmp_path: Path, kind: type[apsw.Error]
) -> None:
    disk.fail_write = kind
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        SqliteStore(tmp_path / "relay.db", RELAY_ID, vfs=disk.name)
    disk.fail_write = None
    SqliteStore(tmp_path / "relay.db", RELAY_ID, vfs=disk.name).close()
