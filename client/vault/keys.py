"""Prekeys, sessions and what guards them against replay, in the vault."""

from collections.abc import Iterable

from saltline.client.vault.database import Vault
from saltline.crypto.bundles import DAY_MS, PREKEY_LIFE_MS, PrekeyKind
from saltline.crypto.keys import PrekeyPair
from saltline.crypto.session import Session

SEEN_KEPT_MS = 45 * 86_400_000
FAILED_KEPT_MS = 30 * 86_400_000
FAILED_KEPT_PER_PEER = 100

# What has expired, or was made by a clock that was ahead, is refused with all that comes with it.
_PUBLISHABLE = "published = 0 AND made_ms > ? AND made_ms <= ?"


def _dates(now_ms: int) -> tuple[int, int]:
    return now_ms - PREKEY_LIFE_MS, now_ms + DAY_MS


class KeyStore:
    """The vault's tables of prekeys and sessions."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    # --- prekeys -------------------------------------------------------------------------------

    def next_prekey_id(self, kind: PrekeyKind) -> int:
        """Ids of a kind only grow, whatever was deleted."""
        number = self._vault.meta(f"prekey-id-{kind:d}") + 1
        self._vault.set_meta(f"prekey-id-{kind:d}", number)
        return number

    def add_prekey(self, pair: PrekeyPair, made_ms: int, delete_ms: int) -> None:
        """Keep a new pair; committed before its public half leaves."""
        self._vault.run(
            "INSERT INTO prekeys VALUES (?, ?, ?, ?, 0, ?)",
            int(pair.public.kind),
            pair.public.id,
            pair.to_bytes(),
            made_ms,
            delete_ms,
        )

    def prekey(self, kind: PrekeyKind, number: int) -> PrekeyPair | None:
        """A pair whose private half is still held."""
        found = self._vault.value(
            "SELECT pair FROM prekeys WHERE kind = ? AND id = ?", int(kind), number
        )
        return None if found is None else PrekeyPair.from_bytes(found)

    def unpublished(self, now_ms: int, limit: int) -> list[PrekeyPair]:
        """Pairs that the relay has not confirmed and would take now, oldest first."""
        return [
            PrekeyPair.from_bytes(row[0])
            for row in self._vault.rows(
                f"SELECT pair FROM prekeys WHERE {_PUBLISHABLE} ORDER BY kind, id LIMIT ?",
                *_dates(now_ms),
                limit,
            )
        ]

    def set_published(self, kind: PrekeyKind, number: int) -> None:
        """The relay holds the public half."""
        self._vault.run(
            "UPDATE prekeys SET published = 1 WHERE kind = ? AND id = ?", int(kind), number
        )

    def set_unpublished(self, kind: PrekeyKind, number: int) -> None:
        """The relay does not hold the public half, or no longer."""
        self._vault.run(
            "UPDATE prekeys SET published = 0 WHERE kind = ? AND id = ?", int(kind), number
        )

    def unpublished_counts(self, now_ms: int) -> dict[PrekeyKind, int]:
        """How many pairs of each kind the relay has not confirmed and would take now."""
        rows = self._vault.rows(
            f"SELECT kind, count(*) FROM prekeys WHERE {_PUBLISHABLE} GROUP BY kind",
            *_dates(now_ms),
        )
        return {PrekeyKind(kind): count for kind, count in rows}

    def count(self, kind: PrekeyKind) -> int:
        """How many private halves of a kind are held."""
        return int(self._vault.value("SELECT count(*) FROM prekeys WHERE kind = ?", int(kind)))

    def newest(self, kind: PrekeyKind) -> tuple[int, int] | None:
        """(id, made_ms) of the newest pair of a kind."""
        found = self._vault.row(
            "SELECT id, made_ms FROM prekeys WHERE kind = ? ORDER BY id DESC LIMIT 1", int(kind)
        )
        return None if found is None else (found[0], found[1])

    def held_ids(self, kind: PrekeyKind, limit: int) -> tuple[int, ...]:
        """The newest ids of a kind that the relay may hand out."""
        rows = self._vault.rows(
            "SELECT id FROM prekeys WHERE kind = ? ORDER BY id DESC LIMIT ?", int(kind), limit
        )
        return tuple(sorted(row[0] for row in rows))

    def delete_prekey(self, kind: PrekeyKind, number: int) -> None:
        """A one-time private half goes on use."""
        self._vault.run("DELETE FROM prekeys WHERE kind = ? AND id = ?", int(kind), number)

    def retire(self, kind: PrekeyKind, below: int, delete_ms: int) -> None:
        """The relay has taken a successor: older private halves go at `delete_ms`."""
        self._vault.run(
            "UPDATE prekeys SET delete_ms = min(delete_ms, ?) WHERE kind = ? AND id < ?",
            delete_ms,
            int(kind),
            below,
        )

    # --- sessions ------------------------------------------------------------------------------

    def sessions(self, username: str, device: int) -> list[Session]:
        """All sessions with one device."""
        rows = self._vault.rows(
            "SELECT state FROM sessions WHERE username = ? AND device = ?", username, device
        )
        return [Session.from_bytes(row[0]) for row in rows]

    def owner_of(self, sid: bytes) -> tuple[str, int] | None:
        """(username, device) of the peer of a session."""
        found = self._vault.row("SELECT username, device FROM sessions WHERE sid = ?", sid)
        return None if found is None else (found[0], found[1])

    def save_session(self, session: Session) -> None:
        """Write a session's state over its last one."""
        self._vault.run(
            "INSERT INTO sessions VALUES (?, ?, ?, ?)"
            " ON CONFLICT (sid) DO UPDATE SET state = excluded.state",
            session.id,
            session.peer.username,
            session.peer.device,
            session.to_bytes(),
        )

    def delete_sessions(self, sids: Iterable[bytes]) -> None:
        """Forget sessions."""
        for sid in sids:
            self._vault.run("DELETE FROM sessions WHERE sid = ?", sid)

    # --- against replay ------------------------------------------------------------------------

    def was_accepted(self, sid: bytes) -> bool:
        """Whether a set-up with this session id was accepted before."""
        return self._vault.row("SELECT 1 FROM accepted WHERE sid = ?", sid) is not None

    def remember_accepted(self, sid: bytes, prekey_id: int) -> None:
        """Keep a session id while its signed prekey's private half lives."""
        self._vault.run("INSERT INTO accepted VALUES (?, ?)", sid, prekey_id)

    def was_seen(self, digest: bytes) -> bool:
        """Whether an envelope with this SHA-256 was taken in."""
        return self._vault.row("SELECT 1 FROM seen WHERE digest = ?", digest) is not None

    def remember_seen(self, digest: bytes, now_ms: int) -> None:
        """Take an envelope in, once."""
        self._vault.run("INSERT OR IGNORE INTO seen VALUES (?, ?)", digest, now_ms)

    def keep_failed(self, digest: bytes, username: str, envelope: bytes, now_ms: int) -> None:
        """Keep an envelope that did not decrypt; the oldest of a peer's go first."""
        self._vault.run(
            "INSERT OR IGNORE INTO failed VALUES (?, ?, ?, ?)", digest, username, now_ms, envelope
        )
        self._vault.run(
            "DELETE FROM failed WHERE username = ? AND digest NOT IN (SELECT digest FROM failed"
            " WHERE username = ? ORDER BY failed_ms DESC LIMIT ?)",
            username,
            username,
            FAILED_KEPT_PER_PEER,
        )

    def peer_count(self, username: str, device: int) -> int:
        """The last seq that came from a device."""
        found = self._vault.value(
            "SELECT seq FROM peer_counts WHERE username = ? AND device = ?", username, device
        )
        return 0 if found is None else int(found)

    def set_peer_count(self, username: str, device: int, seq: int) -> None:
        """Remember the last seq of a device."""
        self._vault.run(
            "INSERT OR REPLACE INTO peer_counts VALUES (?, ?, ?)", username, device, seq
        )

    def expire(self, now_ms: int) -> None:
        """What time has ended: private halves, remembered envelopes and session ids."""
        run = self._vault.run
        run("DELETE FROM prekeys WHERE delete_ms <= ?", now_ms)
        run(
            "DELETE FROM accepted WHERE prekey_id NOT IN (SELECT id FROM prekeys WHERE kind = ?)",
            int(PrekeyKind.SIGNED),
        )
        run("DELETE FROM seen WHERE seen_ms <= ?", now_ms - SEEN_KEPT_MS)
        run("DELETE FROM failed WHERE failed_ms <= ?", now_ms - FAILED_KEPT_MS)
