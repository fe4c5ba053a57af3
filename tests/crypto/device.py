"""One small device for `pair`: what it knows, what its disk keeps, and when it forgets."""

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from saltline.crypto.bundles import DAY_MS, PrekeyKind
from saltline.crypto.keys import IdentityKeys, PrekeyPair
from saltline.crypto.session import Session
from saltline.crypto.sessions import SessionSet

PRIVATE_HALF_MS = 38 * DAY_MS  # 7 in use, 30 in a mailbox, 1
RECEIVING_MS = 31 * DAY_MS
DEDUPE_MS = 45 * DAY_MS
SIGNED = PrekeyKind.SIGNED


@dataclass
class Device:
    """One device's memory; after a crash, what `disk` holds."""

    name: str
    keys: IdentityKeys
    sessions: SessionSet = field(default_factory=SessionSet)
    prekeys: dict[tuple[PrekeyKind, int], PrekeyPair] = field(default_factory=dict)
    delete_at_ms: dict[tuple[PrekeyKind, int], int] = field(default_factory=dict)
    accepted: dict[bytes, int] = field(default_factory=dict)  # sid to the SPK's id
    gone: set[bytes] = field(default_factory=set)  # sids of sessions dropped by count or age
    seen: dict[bytes, int] = field(default_factory=dict)  # H(envelope) to when
    shown: list[bytes] = field(default_factory=list)
    outbox: list[bytes] = field(default_factory=list)
    chosen_ms: dict[bytes, int] = field(default_factory=dict)  # sid to when it last sent
    heard: dict[bytes, int] = field(default_factory=dict)  # sid to the peer's latest count there
    given_up: set[bytes] = field(default_factory=set)  # sids that were abandoned
    skew_ms: int = 0
    rotated_ms: int = 0
    next_id: int = 1
    first_id: int = 1  # of the prekeys made since the last restore
    disk: dict[str, Any] = field(default_factory=dict)

    def commit(self) -> None:
        stored = [session.to_bytes() for session in self.sessions.sessions]
        self.sessions = SessionSet.of(Session.from_bytes(each) for each in stored)
        self.disk = {k: copy.copy(v) for k, v in vars(self).items() if k != "disk"}

    def restart(self) -> None:
        vars(self).update({k: copy.copy(v) for k, v in self.disk.items()})

    def greatest(self) -> Session | None:
        """By the rule of §3, from our own memory of what was abandoned."""
        good = [each for each in self.sessions.sessions if each.id not in self.given_up]
        return max(good, key=lambda each: (each.started_ms, each.id), default=None)

    def abandon(self, sids: Collection[bytes], now_ms: int) -> None:
        self.sessions = self.sessions.abandon(sids, now_ms)
        self.given_up.update(sids)

    def prune(self, now_ms: int) -> None:
        self.sessions, dropped = self.sessions.prune(now_ms)
        assert all(now_ms - self.chosen_ms[sid] >= RECEIVING_MS for sid in dropped)
        self.gone.update(dropped)
        others = [each for each in self.sessions.sessions if each is not self.greatest()]
        assert all(now_ms - (each.superseded_ms or 0) < RECEIVING_MS for each in others)
        for name in [n for n, at_ms in self.delete_at_ms.items() if at_ms <= now_ms]:
            del self.delete_at_ms[name], self.prekeys[name]
        self.seen = {k: at_ms for k, at_ms in self.seen.items() if now_ms - at_ms < DEDUPE_MS}
        self.accepted = {
            sid: spk for sid, spk in self.accepted.items() if (SIGNED, spk) in self.prekeys
        }

    def lose_state(self) -> None:
        """What a backup does not hold: sessions, prekeys, what was queued or seen."""
        self.gone |= {each.id for each in self.sessions.sessions} | self.accepted.keys()
        self.sessions, self.first_id = SessionSet(), self.next_id
        self.prekeys, self.delete_at_ms, self.accepted = {}, {}, {}
        self.seen, self.heard, self.outbox = {}, {}, []
