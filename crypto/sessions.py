"""All sessions with one device, and which of them sends: docs/protocol.md §3.

Both sides send on the session with the greatest (started, sid) that is not abandoned: both compute
it, simultaneous starts included, so they converge without a word.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

from saltline.crypto.bundles import DAY_MS
from saltline.crypto.session import Session

MAX_SESSIONS = 5
UNCONFIRMED_LIFE_MS = 7 * DAY_MS
"""An unanswered session is used for as long as its prekeys are sure to be held at arrival."""
RECEIVING_LIFE_MS = 31 * DAY_MS
"""30 days in a mailbox, and one."""


@dataclass(frozen=True, slots=True)
class SessionSet:
    """Sessions with one peer device, lowest (started, sid) first. Immutable."""

    sessions: tuple[Session, ...] = ()

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> Self:
        """From stored sessions, in any order. Raises ValueError for two devices or a double id."""
        ordered = tuple(sorted(sessions, key=_rank))
        if len({each.id for each in ordered}) != len(ordered):
            raise ValueError("a session is there twice")
        if any(each.peer != ordered[0].peer for each in ordered):
            raise ValueError("sessions with two devices")
        return cls(ordered)

    def __len__(self) -> int:
        return len(self.sessions)

    def get(self, session_id: bytes) -> Session | None:
        """The session with this 16-byte id."""
        return next((each for each in self.sessions if each.id == session_id), None)

    def choose(self, now_ms: int) -> Session | None:
        """The session to send on, or None: then start a new one.

        An unanswered session of 7 days gives None and not the one below it: an older session may
        be known to a thief (Cremers, Jacomme and Naska, USENIX Security 2023).
        """
        chosen = self._greatest()
        if chosen is None:
            return None
        is_stale = not chosen.confirmed and now_ms - chosen.created_ms >= UNCONFIRMED_LIFE_MS
        return None if is_stale else chosen

    def next_started_ms(self, now_ms: int) -> int:
        """``started`` for a new session: above all others, whatever the clock says."""
        return max([now_ms, *(each.started_ms + 1 for each in self.sessions)])

    def add(self, session: Session, now_ms: int) -> tuple[Self, tuple[bytes, ...]]:
        """With a new session; the ids of those that go, since 5 are kept. Raises ValueError."""
        everyone = type(self).of((*self.sessions, session)).sessions
        kept = everyone[-MAX_SESSIONS:]
        dropped = tuple(each.id for each in everyone[:-MAX_SESSIONS])
        return type(self)(kept)._mark(now_ms), dropped

    def replace(self, session: Session) -> Self:
        """With the next state of a session that is here; the set's own marks stay.

        Raises KeyError for a session that is not here.
        """
        old = self.get(session.id)
        if old is None:
            raise KeyError("no such session")
        session = session.marked(abandoned=old.abandoned, superseded_ms=old.superseded_ms)
        return type(self)(tuple(session if each is old else each for each in self.sessions))

    def abandon(self, session_ids: Collection[bytes], now_ms: int) -> Self:
        """These only receive from now on (§5, Resync)."""
        sessions = tuple(
            each.marked(abandoned=True, superseded_ms=each.superseded_ms)
            if each.id in session_ids
            else each
            for each in self.sessions
        )
        return type(self)(sessions)._mark(now_ms)

    def prune(self, now_ms: int) -> tuple[Self, tuple[bytes, ...]]:
        """Without what is over: sessions by their age, and old skipped keys in the others.

        The greatest of those that stay sends again, and is no longer counted out.
        """
        kept = tuple(each.expire(now_ms) for each in self.sessions if not _is_over(each, now_ms))
        kept_ids = {each.id for each in kept}
        dropped = tuple(each.id for each in self.sessions if each.id not in kept_ids)
        return type(self)(kept)._mark(now_ms), dropped

    def _greatest(self) -> Session | None:
        return next((each for each in reversed(self.sessions) if not each.abandoned), None)

    def _mark(self, now_ms: int) -> Self:
        sending = self._greatest()
        return type(self)(
            tuple(
                each.marked(
                    abandoned=each.abandoned,
                    superseded_ms=None if each is sending else _since(each, now_ms),
                )
                for each in self.sessions
            )
        )


def _rank(session: Session) -> tuple[int, bytes]:
    return session.started_ms, session.id


def _since(session: Session, now_ms: int) -> int:
    return now_ms if session.superseded_ms is None else session.superseded_ms


def _is_over(session: Session, now_ms: int) -> bool:
    """Has it only received for 31 days?"""
    since = session.superseded_ms
    if since is None and not session.confirmed:
        since = session.created_ms + UNCONFIRMED_LIFE_MS
    return since is not None and now_ms - since >= RECEIVING_LIFE_MS
