"""Prekeys: each one-time key is handed out once, durably before anyone sees it."""

from saltline.crypto.bundles import PrekeyKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import ONE_TIME_IDS_MAX
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    BundleClaimed,
    Done,
    PrekeysStored,
    SessionBegun,
)
from saltline.server.store.mailboxes import Mailboxes
from saltline.server.store.queries import Queries
from saltline.server.store.refusal import Refusal
from saltline.server.store.rooms import Rooms

_ONE_TIME = (PrekeyKind.ONE_TIME, PrekeyKind.ONE_TIME_KEM)


class Prekeys:
    """The part of the store that holds what others need to begin a session."""

    def __init__(self, queries: Queries, mailboxes: Mailboxes, rooms: Rooms) -> None:
        self._execute = queries.execute
        self._executemany = queries.executemany
        self._mailboxes = mailboxes
        self._rooms = rooms

    def begin_session(self, work: ask.BeginSession) -> SessionBegun:
        """Forget the one-time prekeys whose private halves the device no longer holds."""
        generation = self._live_generation(work.mailbox)
        held = {
            PrekeyKind.ONE_TIME: frozenset(work.one_time_ids),
            PrekeyKind.ONE_TIME_KEM: frozenset(work.one_time_kem_ids),
        }
        left = dict.fromkeys(_ONE_TIME, 0)
        current: dict[int, int] = {}
        gone: list[tuple[int]] = []
        for row, kind, id in self._execute(
            "SELECT rowid, kind, id FROM prekey WHERE mailbox = ?", (work.mailbox,)
        ):
            if kind not in held:
                current[kind] = id
            elif id in held[kind]:
                left[kind] += 1
            else:
                gone.append((row,))
        if gone:
            self._executemany("DELETE FROM prekey WHERE rowid = ?", gone)
        return SessionBegun(
            rooms=self._rooms.of_account(work.account),
            signed_prekey_id=current.get(PrekeyKind.SIGNED, 0),
            kem_prekey_id=current.get(PrekeyKind.LAST_RESORT_KEM, 0),
            one_time_left=left[PrekeyKind.ONE_TIME],
            one_time_kem_left=left[PrekeyKind.ONE_TIME_KEM],
            generation=generation,
            has_mail=self._mailboxes.has_mail(work.mailbox),
        )

    def keep_generations(self, work: ask.KeepGenerations) -> Done:
        """Remember the greatest generation that each device has shown."""
        self._executemany(
            "UPDATE mailbox SET generation = ?2 WHERE id = ?1 AND generation < ?2",
            work.generations,
        )
        return Done()

    def store(self, work: ask.StorePrekeys) -> PrekeysStored:
        """Idempotent: what is held, was handed out or is outdated already changes nothing."""
        self._live_generation(work.mailbox)
        highest = {kind: self._highest(work.mailbox, kind) for kind in PrekeyKind}
        news: dict[tuple[PrekeyKind, int], ask.PublicPrekey] = {}
        for prekey in work.prekeys:
            place = (prekey.kind, prekey.id)
            known = news[place].encoded if place in news else self._encoded(work.mailbox, *place)
            if known is not None and known != prekey.encoded:
                raise Refusal(
                    ErrorCode.BAD_PREKEY, "A prekey's id was used before for another key."
                )
            if known is None and prekey.id > highest[prekey.kind]:
                news[place] = prekey
        self._check_count(work.mailbox, news)
        for kind in PrekeyKind:
            of_kind = [news[place] for place in sorted(news) if place[0] is kind]
            if of_kind:
                self._insert(work.mailbox, kind, of_kind)
        return self._left(work.mailbox)

    def claim(self, work: ask.ClaimBundle) -> BundleClaimed:
        """One bundle, and its one-time keys are gone."""
        mailbox, identity, identity_signature = self._live_device(work.username, work.device)
        signed = self._usable(mailbox, PrekeyKind.SIGNED, work.now_ms)
        one_time = kem = None
        if work.one_time:
            one_time = self._usable(mailbox, PrekeyKind.ONE_TIME, work.now_ms)
            kem = self._usable(mailbox, PrekeyKind.ONE_TIME_KEM, work.now_ms)
        last_resort = self._usable(mailbox, PrekeyKind.LAST_RESORT_KEM, work.now_ms)
        handed_kem = kem or last_resort
        if signed is None or handed_kem is None:
            raise Refusal(
                ErrorCode.NO_PREKEYS, "This device has no usable prekeys on the relay yet."
            )
        for taken in (one_time, kem):
            if taken is not None:
                self._execute("DELETE FROM prekey WHERE rowid = ?", (taken[0],))
        return BundleClaimed(
            identity=identity,
            identity_signature=identity_signature,
            signed_prekey=signed[1],
            kem_prekey=handed_kem[1],
            one_time_prekey=one_time[1] if one_time else b"",
        )

    def end(self, mailboxes: tuple[int, ...]) -> None:
        """The devices are no more."""
        rows = [(mailbox,) for mailbox in mailboxes]
        self._executemany("DELETE FROM prekey WHERE mailbox = ?", rows)
        self._executemany("DELETE FROM prekey_mark WHERE mailbox = ?", rows)

    # --- parts ---------------------------------------------------------------------------------

    def _live_generation(self, mailbox: int) -> bytes:
        generation = self._execute(
            "SELECT generation FROM mailbox WHERE id = ? AND live", (mailbox,)
        ).get
        if generation is None:
            raise Refusal(ErrorCode.UNKNOWN_DEVICE, "This device was ended.")
        return bytes(generation)

    def _live_device(self, username: str, device: int) -> tuple[int, bytes, bytes]:
        account = self._execute("SELECT id FROM account WHERE username = ?", (username,)).get
        if account is None:
            raise Refusal(ErrorCode.UNKNOWN_USER, "No account has this name.")
        row = self._execute(
            "SELECT id, identity, identity_signature FROM mailbox"
            " WHERE account = ? AND device = ? AND live",
            (account, device),
        ).get
        if row is None:
            raise Refusal(ErrorCode.UNKNOWN_DEVICE, "This account has no such device now.")
        mailbox, identity, identity_signature = row
        return mailbox, identity, identity_signature

    def _left(self, mailbox: int) -> PrekeysStored:
        rows = self._execute(
            "SELECT kind, count(*) FROM prekey WHERE mailbox = ? GROUP BY kind", (mailbox,)
        )
        counts = dict(rows)
        return PrekeysStored(*(counts.get(kind, 0) for kind in _ONE_TIME))

    def _highest(self, mailbox: int, kind: PrekeyKind) -> int:
        highest: int | None = self._execute(
            "SELECT highest FROM prekey_mark WHERE mailbox = ? AND kind = ?", (mailbox, kind)
        ).get
        return highest or 0

    def _encoded(self, mailbox: int, kind: PrekeyKind, id: int) -> bytes | None:
        encoded: bytes | None = self._execute(
            "SELECT encoded FROM prekey WHERE mailbox = ? AND kind = ? AND id = ?",
            (mailbox, kind, id),
        ).get
        return encoded

    def _usable(self, mailbox: int, kind: PrekeyKind, now_ms: int) -> tuple[int, bytes] | None:
        """The oldest that is in date, as (rowid, encoded)."""
        row: tuple[int, bytes] | None = self._execute(
            "SELECT rowid, encoded FROM prekey WHERE mailbox = ? AND kind = ?"
            " AND not_after_ms > ? ORDER BY id LIMIT 1",
            (mailbox, kind, now_ms),
        ).get
        return row

    def _check_count(
        self, mailbox: int, news: dict[tuple[PrekeyKind, int], ask.PublicPrekey]
    ) -> None:
        left = self._left(mailbox)
        for kind, held in zip(_ONE_TIME, (left.one_time_left, left.one_time_kem_left), strict=True):
            if held + sum(place[0] is kind for place in news) > ONE_TIME_IDS_MAX:
                raise Refusal(
                    ErrorCode.BAD_PREKEY,
                    f"A device has at most {ONE_TIME_IDS_MAX} one-time prekeys of a kind here.",
                )

    def _insert(self, mailbox: int, kind: PrekeyKind, prekeys: list[ask.PublicPrekey]) -> None:
        """In order of id. Of the kinds that are not one-time, only the newest stays."""
        if kind not in _ONE_TIME:
            self._execute("DELETE FROM prekey WHERE mailbox = ? AND kind = ?", (mailbox, kind))
            prekeys = prekeys[-1:]
        self._executemany(
            "INSERT INTO prekey (mailbox, kind, id, not_after_ms, encoded) VALUES (?, ?, ?, ?, ?)",
            [(mailbox, kind, each.id, each.not_after_ms, each.encoded) for each in prekeys],
        )
        self._execute(
            "INSERT INTO prekey_mark (mailbox, kind, highest) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET highest = excluded.highest",
            (mailbox, kind, prekeys[-1].id),
        )
