"""Accounts, their key log entries, devices and codes."""

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    AccountClosed,
    AccountCreated,
    AccountFound,
    AccountReset,
    CodeFound,
    DeviceFound,
    Done,
    EntriesPage,
    EntriesRead,
    UserFound,
    UsersRead,
)
from saltline.server.store.mailboxes import Mailboxes
from saltline.server.store.prekeys import Prekeys
from saltline.server.store.queries import Queries
from saltline.server.store.refusal import Refusal
from saltline.server.store.rooms import Rooms

_BAD_CODE = "This code is unknown, used up or expired. Ask the relay's admin for a new one."


class Accounts:
    """The part of the store that knows who is who."""

    def __init__(
        self, queries: Queries, prekeys: Prekeys, mailboxes: Mailboxes, rooms: Rooms
    ) -> None:
        self._execute = queries.execute
        self._executemany = queries.executemany
        self._stream = queries.stream
        self._prekeys = prekeys
        self._mailboxes = mailboxes
        self._rooms = rooms

    # --- looking up ----------------------------------------------------------------------------

    def find_device(self, work: ask.FindDevice) -> DeviceFound:
        """Live or ended."""
        row = self._execute(
            "SELECT account.id, mailbox.id, identity FROM account"
            " JOIN mailbox ON mailbox.account = account.id WHERE username = ? AND device = ?",
            (work.username, work.device),
        ).get
        if row is None:
            raise Refusal(ErrorCode.UNKNOWN_DEVICE, "No such device is known here.")
        return DeviceFound(*row)

    def find(self, work: ask.FindAccount) -> AccountFound:
        """An open account's whole log."""
        return AccountFound(self._entries(self._open_account(work.username)))

    def read_entries(self, work: ask.ReadEntries) -> EntriesRead:
        """Pages, until either bound is reached."""
        pages: list[EntriesPage] = []
        room_for, bytes_left = work.max_entries, work.max_bytes
        for username, after in work.names:
            if room_for <= 0 or bytes_left <= 0:
                break
            row = self._execute(
                "SELECT id, (SELECT count(*) FROM log WHERE account = account.id) FROM account"
                " WHERE username = ?",
                (username,),
            ).get
            account, total = row or (0, 0)
            entries: list[bytes] = []
            for (entry,) in self._stream(
                "SELECT entry FROM log WHERE account = ? AND number >= ? ORDER BY number LIMIT ?",
                (account, after, room_for),
            ):
                entries.append(entry)
                bytes_left -= len(entry)
                if bytes_left <= 0:
                    break
            room_for -= len(entries)
            pages.append(EntriesPage(username, total, tuple(entries)))
        return EntriesRead(tuple(pages))

    def read_users(self, work: ask.ReadUsers) -> UsersRead:
        """Everyone, closed names too."""
        rows = self._execute(
            "SELECT account.id, username, created_ms, closed,"
            " coalesce(sum(live), 0), (SELECT count(*) FROM member WHERE account = account.id),"
            " coalesce(sum(waiting), 0), coalesce(sum(waiting_bytes), 0)"
            " FROM account LEFT JOIN mailbox ON mailbox.account = account.id"
            " GROUP BY account.id ORDER BY username"
        )
        return UsersRead(
            tuple(UserFound(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows)
        )

    def _open_account(self, username: str) -> int:
        row = self._execute("SELECT id, closed FROM account WHERE username = ?", (username,)).get
        if row is None:
            raise Refusal(ErrorCode.UNKNOWN_USER, "No account has this name.")
        account, closed = row
        if closed:
            raise Refusal(ErrorCode.UNKNOWN_USER, "This account was removed.")
        return int(account)

    def _entries(self, account: int) -> tuple[bytes, ...]:
        rows = self._execute("SELECT entry FROM log WHERE account = ? ORDER BY number", (account,))
        return tuple(entry for (entry,) in rows)

    # --- codes ---------------------------------------------------------------------------------

    def add_code(self, work: ask.AddCode) -> Done:
        """Newer reset codes of an account replace older ones."""
        if work.username:
            self._open_account(work.username)
            self._execute("DELETE FROM code WHERE username = ?", (work.username,))
        self._execute(
            "INSERT INTO code (hash, username, uses, expires_ms) VALUES (?, ?, ?, ?)",
            (work.code_hash, work.username, work.uses, work.expires_ms),
        )
        return Done()

    def find_code(self, work: ask.FindCode) -> CodeFound:
        """What a code is for, without using it."""
        username = self._check_code(work.code_hash, work.now_ms)
        if not username:
            return CodeFound("", ())
        return CodeFound(username, self._entries(self._open_account(username)))

    def _check_code(self, code_hash: bytes, now_ms: int) -> str:
        username: str | None = self._execute(
            "SELECT username FROM code WHERE hash = ? AND uses > 0 AND expires_ms > ?",
            (code_hash, now_ms),
        ).get
        if username is None:
            raise Refusal(ErrorCode.BAD_INVITE, _BAD_CODE)
        return username

    def _use_code(self, code_hash: bytes) -> None:
        self._execute("UPDATE code SET uses = uses - 1 WHERE hash = ?", (code_hash,))
        self._execute("DELETE FROM code WHERE hash = ? AND uses <= 0", (code_hash,))

    # --- changing the log ----------------------------------------------------------------------

    def create(self, work: ask.CreateAccount) -> AccountCreated:
        """The same create entry again, because its answer was lost, finds the same account."""
        username = work.entry.username
        row = self._execute(
            "SELECT account.id, username, entry, mailbox.id FROM account"
            " JOIN log ON log.account = account.id AND number = 0"
            " JOIN mailbox ON mailbox.account = account.id AND device = ? WHERE skeleton = ?",
            (work.device.device, work.skeleton),
        ).get
        if row is not None:
            account, taken, entry, mailbox = row
            if entry == work.entry.encoded:
                return AccountCreated(account, mailbox)
            looks = "is taken" if taken == username else f"looks like {taken}, which is taken"
            raise Refusal(ErrorCode.NAME_TAKEN, f"The name {username} {looks}. Choose another.")
        self._check_new_keys(work.device)
        if work.code_hash:
            if self._check_code(work.code_hash, work.now_ms):
                raise Refusal(ErrorCode.BAD_INVITE, "This code resets an account; it opens none.")
            self._use_code(work.code_hash)
        self._execute(
            "INSERT INTO account (username, skeleton, created_ms) VALUES (?, ?, ?)",
            (username, work.skeleton, work.now_ms),
        )
        account = self._last_row()
        self._log(account, work.entry)
        return AccountCreated(account, self._add_device(account, work.device))

    def reset(self, work: ask.ResetAccount) -> AccountReset:
        """End every device, then begin again with the new one."""
        username = work.entry.username
        if self._check_code(work.code_hash, work.now_ms) != username:
            raise Refusal(ErrorCode.BAD_INVITE, "This code belongs to another account.")
        account = self._open_account(username)
        self._check_follows(account, work.entry.number)
        self._check_new_keys(work.device)
        self._use_code(work.code_hash)
        self._log(account, work.entry)
        ended = self._end_devices(account)
        return AccountReset(account, self._add_device(account, work.device), ended)

    def close(self, work: ask.CloseAccount) -> AccountClosed:
        """End every device, leave every room, and keep the name for ever."""
        account = self._open_account(work.username)
        self._check_follows(account, work.entries[0].number)
        for entry in work.entries:
            self._log(account, entry)
        self._execute("UPDATE account SET closed = 1 WHERE id = ?", (account,))
        self._execute("DELETE FROM code WHERE username = ?", (work.username,))
        ended = self._end_devices(account)
        return AccountClosed(account, ended, self._rooms.drop_account(account))

    def _check_follows(self, account: int, number: int) -> None:
        held = self._execute("SELECT count(*) FROM log WHERE account = ?", (account,)).get
        if number != held:
            raise Refusal(ErrorCode.BAD_ENTRY, "The account changed meanwhile. Try again.")

    def _check_new_keys(self, device: ask.NewDevice) -> None:
        row = self._execute(
            "SELECT 1 FROM logged_key WHERE key IN (?, ?)",
            (device.signing_key, device.agreement_key),
        ).get
        if row is not None:
            raise Refusal(ErrorCode.BAD_ENTRY, "A key of this entry is in the key log already.")

    def _log(self, account: int, entry: ask.LogEntry) -> None:
        self._execute(
            "INSERT INTO log (account, number, entry, leaf) VALUES (?, ?, ?, ?)",
            (account, entry.number, entry.encoded, entry.leaf),
        )

    def _add_device(self, account: int, device: ask.NewDevice) -> int:
        self._executemany(
            "INSERT INTO logged_key (key) VALUES (?)",
            ((device.signing_key,), (device.agreement_key,)),
        )
        self._execute(
            "INSERT INTO mailbox (account, device, identity, identity_signature)"
            " VALUES (?, ?, ?, ?)",
            (account, device.device, device.identity, device.identity_signature),
        )
        return self._last_row()

    def _end_devices(self, account: int) -> tuple[int, ...]:
        rows = self._execute("SELECT id FROM mailbox WHERE account = ? AND live", (account,))
        ended = tuple(mailbox for (mailbox,) in rows)
        self._mailboxes.end(ended)
        self._prekeys.end(ended)
        return ended

    def _last_row(self) -> int:
        return int(self._execute("SELECT last_insert_rowid()").get)
