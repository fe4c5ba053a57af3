"""The vault: one SQLite database, encrypted as a whole (docs/protocol.md §8)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from saltline.client.vault.folder import sync_folder
from saltline.client.vault.schema import SCHEMA_VERSION, TABLES

KEY_BYTES = 32
SQLiteValue = None | int | float | bytes | str


class VaultError(Exception):
    """The text is the sentence that a person reads."""


class WrongKey(VaultError):
    """The passphrase or key file does not open this vault. Nothing was changed; try again."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class NewerVault(VaultError):
    """A newer version of saltline wrote this vault. Nothing was changed; update saltline."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class VaultFailed(VaultError):
    """The disk refused a read or a write; what the last command did is not saved."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """Who we are and where our relay is."""

    username: str
    host: str
    port: int
    pin: bytes = b""
    ca_file: str = ""
    log_key: bytes = b""
    identity: bytes = field(default=b"", repr=False)
    entry: bytes = b""
    invite: str = field(default="", repr=False)
    registered: int = 0


class Vault:
    """A connection to the vault. One writes; `reader()` gives others that only read.

    Not for use by two threads at once. `vfs` names an apsw VFS, for tests on a simulated disk.
    """

    def __init__(self, db: apsw.Connection, path: Path, key: bytes, vfs: str | None = None) -> None:
        self.db = db
        self._path = path
        self._key = key
        self._vfs = vfs
        self._file = _file_at(path)
        self._tidied = -1  # how many rows had changed when the log was last emptied

    def __repr__(self) -> str:
        return f"Vault({str(self._path)!r})"

    @classmethod
    def create(cls, path: Path, key: bytes, *, vfs: str | None = None) -> "Vault":
        """A new vault; `key` has 32 bytes. Raises VaultFailed, also when the file exists."""
        if path.exists():
            raise VaultFailed("A vault exists there already. Nothing was changed.")
        flags = apsw.SQLITE_OPEN_READWRITE
        if vfs is None:
            path.touch(mode=0o600)
        else:
            flags |= apsw.SQLITE_OPEN_CREATE
        vault = cls(_connect(path, key, flags, vfs), path, key, vfs)
        with vault.transaction():
            vault.db.execute(TABLES)
            vault.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return vault

    @classmethod
    def open(cls, path: Path, key: bytes, *, vfs: str | None = None) -> "Vault":
        """An existing vault. Raises WrongKey, NewerVault, VaultFailed."""
        vault = cls(_connect(path, key, apsw.SQLITE_OPEN_READWRITE, vfs), path, key, vfs)
        version = vault.value("PRAGMA user_version")
        if version != SCHEMA_VERSION:
            vault.db.close()
            raise NewerVault()
        vault._settle_log()
        vault._sync_name_of_log()
        return vault

    def _sync_name_of_log(self) -> None:
        """SQLite does so as well, with the first commit, and takes no notice when it fails."""
        if self._vfs is None:
            try:
                sync_folder(self._path.parent)
            except OSError as error:
                self.db.close()
                raise _failed(error) from None

    def _settle_log(self) -> None:
        """What a crash left of the log may lie in the kernel's cache alone, if a sync failed.

        Copied home, it is on the disk before anything new stands on it; and a commit syncs that the
        log is empty, so that no part of it comes back over a newer vault. A disk on which that
        fails fails again with the first commit.
        """
        with suppress(apsw.Error, VaultFailed):
            if self.rows("PRAGMA wal_checkpoint(PASSIVE)")[0][1] > 0:
                self.run("PRAGMA wal_checkpoint(TRUNCATE)")
                self.run(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def reader(self) -> "Vault":
        """A second connection, read-only, for another thread."""
        db = _connect(self._path, self._key, apsw.SQLITE_OPEN_READONLY, self._vfs)
        return Vault(db, self._path, self._key, self._vfs)

    def tidy(self) -> None:
        """Empty the log, which could hold deleted keys; where a reader holds it, the next time."""
        with suppress(apsw.Error, VaultFailed):
            changes = self.db.total_changes()
            if changes == self._tidied or self.db.readonly("main"):
                return
            busy = self.value("PRAGMA wal_checkpoint(TRUNCATE)")
            if not busy:
                self._tidied = changes

    def close(self) -> None:
        """Close; the log is emptied first."""
        self.tidy()
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on disk when the block has ended. Raises VaultFailed."""
        if self.db.in_transaction:  # an earlier rollback failed
            self.run("ROLLBACK")
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self._check_in_place()
            self._commit()
        except BaseException as error:
            if self.db.in_transaction:
                with suppress(VaultFailed):  # tried again at the next beginning
                    self.run("ROLLBACK")
            if isinstance(error, apsw.Error):
                raise _failed(error) from None
            raise

    def _check_in_place(self) -> None:
        """What goes into files that no name leads to any more is gone with this process."""
        if self._vfs is None:
            if _file_at(self._path) != self._file or not os.path.exists(self.db.filename_wal):
                raise VaultFailed(
                    "The vault's files were removed or replaced while they were in use: nothing of"
                    " this was saved or sent. Close saltline, and put them back."
                )

    def _commit(self) -> None:
        """After a sync that failed nobody knows what the disk has; the next start finds out."""
        try:
            self.db.execute("COMMIT")
        except apsw.IOError as error:
            raise VaultFailed(
                f"The vault's disk failed ({type(error).__name__}) while this was saved: it may or"
                " may not be there. Look before you do it again."
            ) from None
        except apsw.Error as error:
            raise _failed(error) from None

    # Whatever SQLite refuses is a VaultFailed, also outside a transaction.

    def rows(self, sql: str, *values: SQLiteValue) -> list[tuple[Any, ...]]:
        """All rows of a query. Raises VaultFailed."""
        try:
            return self.db.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise _failed(error) from None

    def row(self, sql: str, *values: SQLiteValue) -> tuple[Any, ...] | None:
        """The first row of a query, or None. Raises VaultFailed."""
        try:
            found: tuple[Any, ...] | None = self.db.execute(sql, values).fetchone()
        except apsw.Error as error:
            raise _failed(error) from None
        return found

    def value(self, sql: str, *values: SQLiteValue) -> Any:
        """The first column of the first row, or None."""
        found = self.row(sql, *values)
        return None if found is None else found[0]

    def run(self, sql: str, *values: SQLiteValue) -> None:
        """A statement that changes rows. Raises VaultFailed."""
        try:
            self.db.execute(sql, values)
        except apsw.Error as error:
            raise _failed(error) from None

    def insert(self, sql: str, *values: SQLiteValue) -> int:
        """An INSERT; returns the new row's number. Raises VaultFailed."""
        self.run(sql, *values)
        return self.db.last_insert_rowid()

    def account(self) -> AccountRow | None:
        """The profile's account, or None before set-up."""
        found = self.row(
            "SELECT username, host, port, pin, ca_file, log_key, identity, entry, invite,"
            " registered FROM account"
        )
        return None if found is None else AccountRow(*found)

    def save_account(self, row: AccountRow) -> None:
        """Write the profile's account."""
        self.run(
            "INSERT OR REPLACE INTO account VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.username,
            row.host,
            row.port,
            row.pin,
            row.ca_file,
            row.log_key,
            row.identity,
            row.entry,
            row.invite,
            row.registered,
        )

    def meta(self, key: str, default: int = 0) -> int:
        """A number that is kept by name."""
        found = self.value("SELECT value FROM meta WHERE key = ?", key)
        return default if found is None else int(found)

    def set_meta(self, key: str, value: int) -> None:
        """Keep a number by name."""
        self.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)


def _connect(path: Path, key: bytes, flags: int, vfs: str | None) -> apsw.Connection:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a vault's key has {KEY_BYTES} bytes")
    try:
        db = apsw.Connection(str(path), flags=flags, vfs=vfs)
        db.set_busy_timeout(5000)
        db.pragma("cipher", "chacha20")
        db.pragma("key", f"raw:{key.hex()}")
        db.pragma("temp_store", "memory")  # before the first read: nothing in temporary files
        if vfs is not None:  # a simulated disk has no memory to share, without which WAL wants this
            db.pragma("locking_mode", "exclusive")
        db.pragma("user_version")
        if flags & apsw.SQLITE_OPEN_READWRITE:
            # secure_delete overwrites used keys; fullfsync is what fsync means on macOS.
            for pragma, value in (
                ("secure_delete", "on"),
                ("journal_mode", "wal"),
                ("synchronous", "full"),
                ("fullfsync", "on"),
                ("foreign_keys", "on"),
            ):
                db.pragma(pragma, value)
        return db
    except apsw.NotADBError:
        raise WrongKey() from None
    except apsw.Error as error:
        raise _failed(error) from None


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file a name leads to; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _failed(error: apsw.Error | OSError) -> VaultFailed:
    if isinstance(error, apsw.FullError):
        return VaultFailed(
            "The disk is full: nothing of this was saved or sent. Make room and try again."
        )
    if isinstance(error, apsw.BusyError):
        return VaultFailed("Another program holds the vault. Nothing was changed; try again.")
    kind = type(error).__name__
    return VaultFailed(f"The vault's disk failed ({kind}): nothing of this was saved or sent.")
