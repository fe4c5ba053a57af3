"""The relay's store on SQLite: a write-ahead log, one fsync for each group of operations.

What the settings of the database are for:

- `journal_mode = WAL`, `synchronous = FULL`: a commit returns after its fsync.
- `fullfsync`: on macOS, an fsync that reaches the disk. Nothing elsewhere.
- `locking_mode = EXCLUSIVE`: room tails and mailbox counters are kept in memory, so that a second
  relay on this file must be shut out; and no shared-memory file that a full disk can break.
- `wal_autocheckpoint = 0`: SQLite's own checkpoints ignore errors. A failed fsync there, retried
  later, would pass although the kernel has dropped the pages; ours stops the relay instead.
- `secure_delete`: what was acknowledged vanishes from the file.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import apsw

from saltline.protocol.errors import ErrorCode
from saltline.server.data_folder import sync_folder
from saltline.server.store import operations as ask
from saltline.server.store.accounts import Accounts
from saltline.server.store.interface import (
    Operation,
    Outcome,
    StoreError,
    StoreUnusable,
    TotalsRead,
)
from saltline.server.store.mailboxes import Mailboxes
from saltline.server.store.prekeys import Prekeys
from saltline.server.store.queries import Queries
from saltline.server.store.refusal import Refusal
from saltline.server.store.rooms import Rooms
from saltline.server.store.schema import CREATE, LAST_NUMBER, PAGE_BYTES, SCHEMA
from saltline.server.store.space import Measure, Space, growth_bytes, measure_at, plenty

_log = logging.getLogger(__name__)

# 32 MiB of write-ahead log: a page that changes with every group is copied home once in 4,000.
CHECKPOINT_PAGES: Final = 4_000
# 4 MiB where nobody waits for the next commit: a copy of so little is short, one of 32 MiB is not,
# and a room with 1,000 messages a second would meet it every ten seconds.
CALM_CHECKPOINT_PAGES: Final = 500
_WAL_KEPT_BYTES: Final = 2 * CHECKPOINT_PAGES * PAGE_BYTES
_CACHE_KIB: Final = 64 * 1024

RESTORE: Final = "Keep a copy of the folder, then restore a backup (docs/relay.md, Backups)."

# After these nobody knows what is on the disk.
_DISK_FAILED: Final = (
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
)


class SqliteStore:
    """A `Store` in one file. Used by one thread, which may be another than the one that opens it.

    `relay_id` (32 bytes) is H(log public key): accounts belong to a log key, and a database with
    another's is refused. `vfs` names an apsw VFS, for tests on a simulated disk, and `space` tells
    how much it has (None: enough). Raises StoreUnusable.
    """

    def __init__(
        self,
        path: str | Path,
        relay_id: bytes,
        *,
        vfs: str | None = None,
        space: Measure | None = None,
    ) -> None:
        self._path = str(path)
        is_file = vfs is None and self._path != ":memory:"
        self._space = Space(space or (measure_at(Path(path).parent) if is_file else plenty))
        self._failure: StoreError | None = None
        self._wal_pages = 0  # not copied home yet
        self._is_log_empty = True  # else what was copied home may still be read in it
        self._is_truncation_due = False
        self._was_full = False
        self._is_log_stuck = False  # for lack of room at home
        self._database = self._open(relay_id, vfs, is_file)
        queries = self._queries = Queries(self._database)
        self._mailboxes = Mailboxes(queries)
        self._rooms = Rooms(queries, self._mailboxes.check_live)
        prekeys = Prekeys(queries, self._mailboxes, self._rooms)
        accounts = Accounts(queries, prekeys, self._mailboxes, self._rooms)
        self._handlers: dict[type[Operation], Callable[[Any], Outcome]] = {
            ask.FindDevice: accounts.find_device,
            ask.FindAccount: accounts.find,
            ask.FindCode: accounts.find_code,
            ask.AddCode: accounts.add_code,
            ask.CreateAccount: accounts.create,
            ask.ResetAccount: accounts.reset,
            ask.CloseAccount: accounts.close,
            ask.ReadEntries: accounts.read_entries,
            ask.BeginSession: prekeys.begin_session,
            ask.KeepGenerations: prekeys.keep_generations,
            ask.StorePrekeys: prekeys.store,
            ask.ClaimBundle: prekeys.claim,
            ask.StoreEnvelope: self._mailboxes.store,
            ask.ReadMailbox: self._mailboxes.read,
            ask.DeleteEnvelopes: self._mailboxes.delete,
            ask.ExpireEnvelopes: self._expire,
            ask.StoreTexts: self._rooms.store_texts,
            ask.LeaveRoom: self._rooms.leave,
            ask.JoinRoom: self._rooms.join,
            ask.ReadHistory: self._rooms.read_history,
            ask.ReadMembers: self._rooms.read_members,
            ask.ReadRooms: self._rooms.read_rooms,
            ask.ReadUsers: self._read_users(accounts),
            ask.ReadTotals: self._read_totals,
        }

    # --- running operations --------------------------------------------------------------------

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        """See `Store.run`."""
        if self._failure is not None:
            return [self._failure] * len(operations)
        try:
            self._require_space(operations)
            return self._run_group(operations)
        except _DISK_FAILED as error:
            return [self._fail(error)] * len(operations)
        except Exception:
            # The disk is full, or one of them cannot be done: find out which. The others can.
            return [self._run_alone(operation) for operation in operations]

    def maintain(self, *, nobody_waits: bool = False) -> StoreError | None:
        """See `Store.maintain`: copies the write-ahead log home."""
        if self._failure is not None:
            return None
        pages_max = CALM_CHECKPOINT_PAGES if nobody_waits else CHECKPOINT_PAGES
        if not self._is_truncation_due and self._wal_pages < pages_max:
            return None
        truncates = self._is_truncation_due and not self._is_log_empty
        try:
            self._checkpoint(
                apsw.SQLITE_CHECKPOINT_TRUNCATE if truncates else apsw.SQLITE_CHECKPOINT_PASSIVE
            )
        except _DISK_FAILED as error:
            return self._fail(error)
        except apsw.FullError:
            # Everything is safe in the log, which grows until there is room again. What does not
            # fit there any more is refused, and that is said then.
            self._wal_pages = 0
            self._warn_of_stuck_log()
        return None

    def close(self) -> None:
        """See `Store.close`. After a failure nothing is written any more."""
        if self._failure is None:
            try:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.Error as error:
                _log.warning("The relay's log stays beside its database: %s.", _name(error))
        self._database.close(True)

    def check(self) -> list[str]:
        """Read the whole database; what is wrong with it, in SQLite's words."""
        findings = [row[0] for row in self._queries.execute("PRAGMA integrity_check")]
        return [] if findings == ["ok"] else findings

    def _run_group(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        """All of it in one transaction, or an exception and nothing of it."""
        queries, handlers = self._queries, self._handlers
        outcomes: list[Outcome | StoreError] = []
        queries.command("BEGIN IMMEDIATE")
        try:
            for operation in operations:
                try:
                    outcomes.append(handlers[type(operation)](operation))
                except Refusal as refusal:
                    outcomes.append(StoreError(refusal.code, refusal.detail))
            self._flush()
            queries.command("COMMIT")
        except BaseException:
            self._forget()
            raise
        return outcomes

    def _run_alone(self, operation: Operation) -> Outcome | StoreError:
        if self._failure is not None:
            return self._failure
        try:
            self._require_space((operation,))
            return self._run_group((operation,))[0]
        except _DISK_FAILED as error:
            return self._fail(error)
        except apsw.FullError:
            self._warn_of_full_disk()
            return StoreError(
                ErrorCode.STORAGE_FAILED,
                "The relay's disk is full. Nothing was stored; try again later.",
            )
        except Exception as error:
            _log.error("%s failed in the store: %s.", type(operation).__name__, _name(error))
            return StoreError(ErrorCode.INTERNAL, "The relay could not do this. Nothing changed.")

    def _require_space(self, operations: Sequence[Operation]) -> None:
        """Raises apsw.FullError where too little would stay free to delete with."""
        if not self._space.lacks(operations, self._wal_pages * PAGE_BYTES, 0):
            return
        with suppress(apsw.FullError):  # others filled it: deleting may fit all the same
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        spare_pages: int = self._queries.execute("PRAGMA freelist_count").get
        if any(map(growth_bytes, operations)) and self._space.lacks(
            operations, self._wal_pages * PAGE_BYTES, spare_pages * PAGE_BYTES
        ):
            raise apsw.FullError("what is left is for deleting")

    def _warn_of_full_disk(self) -> None:
        """Once, and again only after it was better."""
        if not self._was_full:
            self._was_full = True
            _log.warning("The relay's disk is full: it takes nothing new until there is room.")

    def _warn_of_stuck_log(self) -> None:
        """Once until it went home: each commit tries, and these lines may be on the same disk."""
        if not self._is_log_stuck:
            self._is_log_stuck = True
            _log.warning("The relay's log finds no room at home: it stays, and is tried again.")

    def _fail(self, error: Exception) -> StoreError:
        """Remember that the disk failed. What it holds of the last group is unknown."""
        _log.error("The store's last call failed: %s.", _name(error))
        self._failure = StoreError(
            ErrorCode.STORAGE_FAILED,
            "The relay's disk failed, and the relay stops. What it acknowledged before is kept.",
            fatal=True,
        )
        return self._failure

    def _flush(self) -> None:
        self._mailboxes.flush()
        self._rooms.flush()

    def _forget(self) -> None:
        self._mailboxes.forget()
        self._rooms.forget()
        if self._database.in_transaction:
            self._queries.execute("ROLLBACK")

    # --- the file ------------------------------------------------------------------------------

    def _open(self, relay_id: bytes, vfs: str | None, is_file: bool) -> apsw.Connection:
        try:
            if is_file:
                require_database_of_log(Path(self._path))
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            database = apsw.Connection(self._path, vfs=vfs)
            try:
                self._prepare(database, relay_id)
                if is_file:
                    # SQLite syncs the name of a new log, and takes no notice when that fails.
                    sync_folder(Path(self._path).parent)
            except BaseException:
                database.close(True)
                raise
        except apsw.BusyError:
            raise StoreUnusable(
                f"Another relay is using {self._path}. Stop it, or give this one another folder."
            ) from None
        except apsw.NotADBError:
            raise StoreUnusable(
                f"{self._path} is not a relay's database, or is damaged at its beginning. Nothing"
                f" was changed. If it was one: {RESTORE}"
            ) from None
        except apsw.CorruptError:
            raise StoreUnusable(
                f"The relay's database {self._path} is damaged. Nothing was changed. {RESTORE}"
            ) from None
        except (apsw.Error, OSError) as error:
            raise StoreUnusable(
                f"The relay's database {self._path} cannot be opened: {_name(error)}."
                " Nothing was changed. Is the disk full or read-only, or the file damaged?"
            ) from None
        return database

    def _prepare(self, database: apsw.Connection, relay_id: bytes) -> None:
        pragmas = (
            f"page_size = {PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "fullfsync = ON",
            "checkpoint_fullfsync = ON",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {_WAL_KEPT_BYTES}",
            f"cache_size = -{_CACHE_KIB}",
            "secure_delete = ON",
            "temp_store = MEMORY",
        )
        queries = Queries(database)
        # Before the first read, so that there never is a shared-memory file.
        queries.execute("PRAGMA locking_mode = EXCLUSIVE")
        schema: int = queries.execute("PRAGMA user_version").get
        if schema > SCHEMA:
            raise StoreUnusable(
                f"{self._path} was written by a newer saltline-server (schema {schema}; this one"
                f" knows {SCHEMA}). Nothing was changed. Run that version."
            )
        for pragma in pragmas:
            queries.execute(f"PRAGMA {pragma}")
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if schema == 0:
            with database:
                queries.execute(CREATE)
                queries.execute("INSERT INTO relay (relay_id) VALUES (?)", (relay_id,))
        owner: bytes = queries.execute("SELECT relay_id FROM relay").get
        if owner != relay_id:
            raise StoreUnusable(
                f"{self._path} belongs to another log key: its accounts cannot be served with this"
                " one. Restore the log key that lay beside it."
            )
        database.set_wal_hook(self._note_wal_pages)
        # A log left by a crash may lie in the kernel's cache alone, if its last fsync failed:
        # copied home, it is on the disk before anything new is acknowledged. Its truncation is not
        # synced: an older part of it would come back over the newer database with the next power
        # cut, and damage it. A commit syncs that.
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        database.execute(f"PRAGMA user_version = {SCHEMA}")

    def _note_wal_pages(self, _database: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        self._is_log_empty = False
        if self._was_full and self._space.is_ample():
            self._was_full = False
        return apsw.SQLITE_OK

    def _checkpoint(self, mode: int) -> None:
        self._database.wal_checkpoint(mode=mode)
        self._wal_pages = 0
        self._is_log_stuck = False
        if mode == apsw.SQLITE_CHECKPOINT_TRUNCATE:
            self._is_log_empty = True
        self._is_truncation_due = False

    # --- operations over several parts ---------------------------------------------------------

    def _expire(self, work: ask.ExpireEnvelopes) -> Outcome:
        # Comes once a minute: as good a time as any to let deleted bytes vanish from the log too.
        self._is_truncation_due = True
        return self._mailboxes.expire(work)

    def _read_users(self, accounts: Accounts) -> Callable[[ask.ReadUsers], Outcome]:
        def read_users(work: ask.ReadUsers) -> Outcome:
            self._flush()
            return accounts.read_users(work)

        return read_users

    def _read_totals(self, _work: ask.ReadTotals) -> Outcome:
        self._flush()
        row = self._queries.execute(
            "SELECT (SELECT count(*) FROM account WHERE NOT closed),"
            " (SELECT count(*) FROM account WHERE closed), (SELECT count(*) FROM log),"
            f" (SELECT count(*) FROM room), (SELECT coalesce(sum({LAST_NUMBER}), 0) FROM room),"
            " (SELECT coalesce(sum(waiting), 0) FROM mailbox),"
            " (SELECT coalesce(sum(waiting_bytes), 0) FROM mailbox),"
            " (SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size())"
        ).get
        return TotalsRead(*row)


def require_database_of_log(path: Path) -> None:
    """SQLite deletes a log whose database is missing or empty, with all that only it holds.

    Raises StoreUnusable.
    """
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if has_log and not (path.exists() and path.stat().st_size > 0):
        raise StoreUnusable(
            f"{path} is missing or empty, and its log {log.name} is beside it. Nothing was"
            f" changed. {RESTORE}"
        )


def _name(error: Exception) -> str:
    """What failed, in a word: an exception's text could hold what people wrote."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return f"its database is damaged. {RESTORE}".rstrip(".")
    if isinstance(error, apsw.Error):
        known = apsw.mapping_extended_result_codes.get(getattr(error, "extendedresult", 0))
        return f"{type(error).__name__} ({known})" if known else type(error).__name__
    return type(error).__name__
