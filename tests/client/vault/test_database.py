"""The vault: encrypted as a whole, all or nothing, and clear about what it refuses."""

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from saltline.client.vault.database import (
    AccountRow,
    NewerVault,
    Vault,
    VaultFailed,
    WrongKey,
)
from tests.volatile_disk import VolatileDisk

KEY = bytes(range(32))
CANARY = "the quick brown canary"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    opened = Vault.create(tmp_path / "vault.db", KEY)
    yield opened
    opened.close()


def everything_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_nothing_that_was_written_stands_in_the_files(vault: Vault, tmp_path: Path) -> None:
    with vault.transaction():
        vault.save_account(AccountRow(CANARY, "relay.example", 7443, identity=CANARY.encode()))
    found = everything_on_disk(tmp_path)
    assert len(found) > 4096
    assert CANARY.encode() not in found
    assert b"relay.example" not in found
    assert b"SQLite format 3" not in found
    assert b"CREATE TABLE" not in found


def test_another_key_is_refused_and_changes_nothing(vault: Vault, tmp_path: Path) -> None:
    with vault.transaction():
        vault.set_meta("kept", 7)
    vault.close()
    before = everything_on_disk(tmp_path)
    with pytest.raises(WrongKey, match="does not open this vault"):
        Vault.open(tmp_path / "vault.db", bytes(32))
    assert everything_on_disk(tmp_path) == before
    again = Vault.open(tmp_path / "vault.db", KEY)
    assert again.meta("kept") == 7
    again.close()


def test_it_does_not_open_before_the_name_of_its_log_is_on_the_disk(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.close()
    assert not (tmp_path / "vault.db-wal").exists()
    there: list[bool] = []

    def fails(_descriptor: int) -> None:
        there.append((tmp_path / "vault.db-wal").exists())
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(VaultFailed, match="disk failed"):
        Vault.open(tmp_path / "vault.db", KEY)
    assert there == [True]
    monkeypatch.undo()
    Vault.open(tmp_path / "vault.db", KEY).close()


def test_a_newer_vault_is_refused(vault: Vault, tmp_path: Path) -> None:
    vault.db.execute("PRAGMA user_version = 99")
    vault.close()
    with pytest.raises(NewerVault, match="update saltline"):
        Vault.open(tmp_path / "vault.db", KEY)


def test_every_commit_waits_for_the_disk_also_in_a_vault_that_was_there(tmp_path: Path) -> None:
    for opens in (Vault.create, Vault.open):
        vault = opens(tmp_path / "vault.db", KEY)
        names = ("journal_mode", "synchronous", "secure_delete", "fullfsync", "foreign_keys")
        assert {name: vault.value(f"PRAGMA {name}") for name in names} == {
            "journal_mode": "wal",
            "synchronous": 2,
            "secure_delete": 1,
            "fullfsync": 1,
            "foreign_keys": 1,
        }
        vault.close()


def test_an_existing_file_is_not_overwritten(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(VaultFailed, match="exists"):
        Vault.create(tmp_path / "vault.db", KEY)


def test_a_file_that_is_no_vault_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vault.db").write_bytes(b"hello" * 4096)
    with pytest.raises(WrongKey):
        Vault.open(tmp_path / "vault.db", KEY)


def test_a_transaction_that_fails_leaves_nothing(vault: Vault) -> None:
    with pytest.raises(RuntimeError), vault.transaction():
        vault.set_meta("half", 1)
        raise RuntimeError("in the middle")
    assert vault.meta("half") == 0


@pytest.mark.parametrize("name", ["vault.db", "vault.db-wal"])
def test_what_no_name_leads_to_is_not_saved(vault: Vault, tmp_path: Path, name: str) -> None:
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(VaultFailed, match="removed or replaced"), vault.transaction():
        vault.set_meta("answer", 42)
    assert vault.meta("answer") == 0
    (tmp_path / "elsewhere").rename(tmp_path / name)
    with vault.transaction():
        vault.set_meta("answer", 43)
    assert vault.meta("answer") == 43


def test_nor_is_what_goes_beside_a_vault_that_was_put_there(vault: Vault, tmp_path: Path) -> None:
    copy = (tmp_path / "vault.db").read_bytes()
    (tmp_path / "vault.db").rename(tmp_path / "elsewhere")
    (tmp_path / "vault.db").write_bytes(copy)
    with pytest.raises(VaultFailed, match="removed or replaced"), vault.transaction():
        vault.set_meta("answer", 42)


def test_a_disk_that_fails_is_a_sentence(vault: Vault) -> None:
    with pytest.raises(VaultFailed, match="nothing of this was saved"), vault.transaction():
        raise apsw.FullError("full")
    with pytest.raises(VaultFailed, match="disk failed"), vault.transaction():
        raise apsw.IOError("no")


def test_a_reader_sees_what_was_committed_and_cannot_write(vault: Vault) -> None:
    reader = vault.reader()
    with vault.transaction():
        vault.set_meta("seen", 1)
        assert reader.meta("seen") == 0
    assert reader.meta("seen") == 1
    with pytest.raises(VaultFailed, match="ReadOnlyError"):
        reader.run("DELETE FROM meta")
    reader.close()


def test_closing_empties_the_log_that_could_hold_deleted_keys(tmp_path: Path) -> None:
    vault = Vault.create(tmp_path / "vault.db", KEY)
    with vault.transaction():
        vault.set_meta("x", 1)
    assert (tmp_path / "vault.db-wal").stat().st_size > 0
    vault.close()
    wal = tmp_path / "vault.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0


def test_tidying_empties_the_log_once_and_waits_for_a_reader(tmp_path: Path) -> None:
    vault = Vault.create(tmp_path / "vault.db", KEY)
    wal = tmp_path / "vault.db-wal"
    reader = vault.reader()
    reader.db.execute("BEGIN")
    assert reader.meta("x") == 0
    with vault.transaction():
        vault.set_meta("x", 1)
    vault.db.set_busy_timeout(1)
    vault.tidy()
    assert wal.stat().st_size > 0, "the reader still needs it"
    reader.db.execute("COMMIT")
    vault.tidy()
    assert wal.stat().st_size == 0
    assert reader.meta("x") == 1
    reader.close()
    vault.close()


def test_a_repr_shows_no_key(vault: Vault) -> None:
    row = AccountRow("ada", "relay.example", 7443, identity=b"SECRET", invite="CODE-CODE")
    assert KEY.hex() not in repr(vault) and repr(KEY) not in repr(vault)
    assert "SECRET" not in repr(row) and "CODE" not in repr(row)


def test_files_are_private(vault: Vault, tmp_path: Path) -> None:
    assert (tmp_path / "vault.db").stat().st_mode & 0o077 == 0


def test_what_a_failed_sync_leaves_is_not_said_to_be_gone() -> None:
    """The kernel may still write it: then it is there at the next start."""
    disk = VolatileDisk()
    vault = Vault.create(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
    with vault.transaction():
        vault.set_meta("kept", 1)
    disk.fail_next_sync(random.Random(2))

    with pytest.raises(VaultFailed, match="may or may not be there"), vault.transaction():
        vault.set_meta("kept", 2)

    assert vault.meta("kept") == 1
    disk.kill()
    vault.db.close(True)
    vault = Vault.open(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
    assert vault.meta("kept") == 2
    vault.close()
