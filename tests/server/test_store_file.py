"""The store's file: who may open it, what vanishes from it, what a crash leaves of it."""

import errno
import os
import shutil
import stat
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    AccountCreated,
    EnvelopeStored,
    HistoryRead,
    MailboxRead,
    StoreError,
    StoreUnusable,
    TextsStored,
)
from saltline.server.store.schema import SCHEMA
from saltline.server.store.sqlite import CALM_CHECKPOINT_PAGES, CHECKPOINT_PAGES, SqliteStore
from tests.server.store_harness import (
    NOW_MS,
    RELAY_ID,
    account,
    envelope,
    history,
    join,
    mailbox,
    one,
    post,
    posted,
)


def copy_as_left(path: Path, to: Path) -> Path:
    """The files as kill -9 leaves them."""
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copyfile(path.with_name(path.name + suffix), to.with_name(to.name + suffix))
    return to


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    for file in (path, tmp_path / "relay.db-wal"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    pragmas = {
        name: store._database.execute(f"PRAGMA {name}").get
        for name in ("journal_mode", "synchronous", "locking_mode", "secure_delete", "fullfsync")
    }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "secure_delete": 1,
        "fullfsync": 1,
    }
    store.close()


@pytest.mark.parametrize("is_new", [True, False], ids=["a new database", "an old one"])
def test_it_does_not_serve_before_the_name_of_its_log_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    path = tmp_path / "relay.db"
    if not is_new:
        SqliteStore(path, RELAY_ID).close()
        path.with_name("relay.db-wal").unlink(missing_ok=True)
    there: list[bool] = []

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            there.append(path.with_name("relay.db-wal").exists())
            raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        SqliteStore(path, RELAY_ID)
    assert there == [True]
    monkeypatch.undo()
    SqliteStore(path, RELAY_ID).close()


def test_a_second_relay_on_the_same_file_is_shut_out(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    with pytest.raises(StoreUnusable, match="Another relay is using"):
        SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.close()
    SqliteStore(tmp_path / "relay.db", RELAY_ID).close()


def test_how_much_a_room_holds_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada"), join(1), post(1, body=b"x" * 1_000)])
    store.close()
    store = SqliteStore(path, RELAY_ID)
    one_more = replace(post(1, body=b"x"), room_max_bytes=1_700)
    (outcome,) = store.run([one_more])
    assert isinstance(outcome, TextsStored)
    (refused,) = outcome.outcomes
    assert isinstance(refused, StoreError) and refused.code == ErrorCode.ROOM_FULL
    (outcome,) = store.run([replace(one_more, room_max_bytes=2_000)])
    assert isinstance(outcome, TextsStored)
    assert outcome.outcomes == posted(3, 1).outcomes
    store.close()


def test_a_database_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    SqliteStore(path, RELAY_ID).close()
    database = apsw.Connection(str(path))
    database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="newer saltline-server"):
        SqliteStore(path, RELAY_ID)
    assert path.read_bytes() == before


def test_a_database_of_another_log_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    SqliteStore(path, RELAY_ID).close()
    with pytest.raises(StoreUnusable, match="another log key"):
        SqliteStore(path, b"other" * 6 + b"xx")
    SqliteStore(path, RELAY_ID).close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 500])
def test_a_file_that_is_no_database_is_refused_and_not_touched(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnusable):
        SqliteStore(path, RELAY_ID)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        SqliteStore(tmp_path / "nowhere" / "relay.db", RELAY_ID)


def test_closing_leaves_one_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.run([account("ada"), envelope("ada")])
    store.close()
    left = tmp_path / "relay.db-wal"
    assert not left.exists() or left.stat().st_size == 0
    assert os.listdir(tmp_path)[0].startswith("relay.db")


def test_what_was_acknowledged_vanishes_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    canary = b"canary" * 500
    store.run([account("ada"), envelope("ada", canary)])
    assert canary in (tmp_path / "relay.db-wal").read_bytes()
    store.run([ask.DeleteEnvelopes(1, (1,))])
    store.run([ask.ExpireEnvelopes(0, 10, 1)])
    store.maintain()
    for file in tmp_path.iterdir():
        assert b"canary" not in file.read_bytes()
    store.close()


def test_it_vanishes_too_when_the_log_was_copied_home_before(tmp_path: Path) -> None:
    # A removed account's mail, and nothing new after it: what was copied home is in the log still.
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.run([account("ada")])
    canary = b"canary" * 500
    store.run([envelope("ada", canary) for _ in range(3 * CALM_CHECKPOINT_PAGES)])
    store.run([ask.DeleteEnvelopes(1, tuple(range(1, 3 * CALM_CHECKPOINT_PAGES + 1)))])
    store.maintain(nobody_waits=True)
    assert store._wal_pages == 0
    assert canary in (tmp_path / "relay.db-wal").read_bytes()
    store.run([ask.ExpireEnvelopes(0, 10, 1)])
    store.maintain()
    for file in tmp_path.iterdir():
        assert b"canary" not in file.read_bytes()
    store.close()


def test_the_log_is_copied_home_when_it_is_long(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    for _ in range(2):
        store.run([envelope("ada", bytes(200_000)) for _ in range(CHECKPOINT_PAGES // 40)])
        store.maintain()
    assert path.stat().st_size > CHECKPOINT_PAGES * 8192
    assert store._wal_pages == 0
    store.close()


def test_where_nobody_waits_it_is_copied_before_that_takes_long(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.run([account("ada")])
    store.run([envelope("ada", bytes(200_000)) for _ in range(CALM_CHECKPOINT_PAGES // 20)])
    pages = store._wal_pages
    assert CALM_CHECKPOINT_PAGES < pages < CHECKPOINT_PAGES
    store.maintain()
    assert store._wal_pages == pages, "somebody may wait"
    store.maintain(nobody_waits=True)
    assert store._wal_pages == 0
    store.close()


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_log_without_its_database_is_left_alone(tmp_path: Path, is_empty: bool) -> None:
    # Half of a copy: SQLite would delete the log, and the relay begin anew.
    path, log = tmp_path / "relay.db", tmp_path / "relay.db-wal"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    held = log.read_bytes()
    store.close()
    path.unlink()
    log.write_bytes(held)
    if is_empty:
        path.touch()
    with pytest.raises(StoreUnusable, match="relay.db is missing or empty, and its log"):
        SqliteStore(path, RELAY_ID)
    assert log.read_bytes() == held
    assert path.exists() == is_empty
    log.write_bytes(b"")  # what a relay that stopped in order leaves
    SqliteStore(path, RELAY_ID).close()


# --- crashes -------------------------------------------------------------------------------------


def test_a_crash_keeps_every_group_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada"), join(1)])
    for group in range(1, 8):
        store.run([post(1, body=b"%d" % group), envelope("ada", b"%d" % group)])
        left = SqliteStore(copy_as_left(path, tmp_path / f"left-{group}.db"), RELAY_ID)
        read, box = left.run([history(1), mailbox(1)])
        assert isinstance(read, HistoryRead)
        assert isinstance(box, MailboxRead)
        expected = [b"%d" % number for number in range(1, group + 1)]
        assert [each.statement[65:] for each in read.entries[1:]] == expected
        assert [each.envelope for each in box.envelopes] == expected
        # It goes on where it was.
        assert left.run([post(1)]) == [posted(group + 2, 1)]
        assert left.run([envelope("ada")]) == [EnvelopeStored(1, group + 1)]
        assert left.check() == []
        left.close()
    store.close()


def test_a_log_cut_off_anywhere_loses_the_last_groups_and_nothing_else(tmp_path: Path) -> None:
    # What power loss leaves if the last fsync did not happen: a log that ends early.
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada"), account("bob")])
    store._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    sizes = [0]
    for number in range(1, 6):
        store.run([envelope("ada", b"%d" % number), envelope("bob", b"%d" % number)])
        sizes.append((tmp_path / "relay.db-wal").stat().st_size)
    for cut in sorted({*sizes, *(size - 1 for size in sizes[1:]), sizes[2] + 5_000}):
        left_path = copy_as_left(path, tmp_path / f"cut-{cut}.db")
        os.truncate(left_path.with_name(left_path.name + "-wal"), cut)
        left = SqliteStore(left_path, RELAY_ID)
        whole_groups = sum(size <= cut for size in sizes[1:])
        for box in left.run([mailbox(1), mailbox(2)]):
            assert isinstance(box, MailboxRead)
            kept = [each.envelope for each in box.envelopes]
            assert kept == [b"%d" % number for number in range(1, whole_groups + 1)]
        left.close()
    store.close()


def test_accounts_are_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    left = SqliteStore(copy_as_left(path, tmp_path / "left.db"), RELAY_ID)
    assert left.run([account("ada")]) == [AccountCreated(1, 1)], "the same entry: the same account"
    other = account("bob")
    refused = one(left, ask.CreateAccount("ada", other.entry, other.device, b"", NOW_MS))
    assert isinstance(refused, StoreError)
    assert refused.code == ErrorCode.NAME_TAKEN
    left.close()
    store.close()
