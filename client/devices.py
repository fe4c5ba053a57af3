"""Sessions with the devices of others: cached during a turn, written once before it commits."""

from typing import Final

from saltline.client.context import Context
from saltline.crypto.session import Session
from saltline.crypto.sessions import SessionSet

Peer = tuple[str, int]  # username, device
CACHED_MAX: Final = 1000  # peers; strangers may be without number


class Devices:
    """All sessions of this profile, by peer device."""

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._sets: dict[Peer, SessionSet] = {}
        self._owners: dict[bytes, Peer] = {}
        self._dirty: dict[bytes, Session] = {}

    def forget_caches(self) -> None:
        """A turn was rolled back: what is in memory may not be on disk."""
        self._sets.clear()
        self._owners.clear()
        self._dirty.clear()

    def flush(self) -> None:
        """Write what this turn changed; part of its transaction."""
        for session in self._dirty.values():
            self._ctx.prekeys.save_session(session)
        self._dirty.clear()
        if len(self._sets) > CACHED_MAX:
            self.forget_caches()

    def sessions(self, peer: Peer) -> SessionSet:
        """The sessions with one device."""
        known = self._sets.get(peer)
        if known is None:
            known = SessionSet.of(self._ctx.prekeys.sessions(*peer))
            if self._ctx.clock_agrees:
                known, over = known.prune(self._ctx.now_ms)
                self._ctx.prekeys.delete_sessions(over)
            self._sets[peer] = known
        return known

    def find(self, sid: bytes) -> Session | None:
        """The session with this id, whoever it is with."""
        peer = self._owners.get(sid) or self._ctx.prekeys.owner_of(sid)
        if peer is None:
            return None
        self._owners[sid] = peer
        return self.sessions(peer).get(sid)

    def add(self, session: Session) -> None:
        """A new session; others with that device may change their marks or go."""
        peer = (session.peer.username, session.peer.device)
        before = self.sessions(peer)
        after, dropped = before.add(session, self._ctx.now_ms)
        self._sets[peer] = after
        for each in after.sessions:
            if before.get(each.id) is not each:
                self._dirty[each.id] = each
        for sid in dropped:
            self._dirty.pop(sid, None)
            self._owners.pop(sid, None)
        self._ctx.prekeys.delete_sessions(dropped)
        self._owners[session.id] = peer

    def replace(self, session: Session) -> None:
        """The next state of a session."""
        peer = (session.peer.username, session.peer.device)
        self._sets[peer] = self.sessions(peer).replace(session)
        changed = self._sets[peer].get(session.id)
        if changed is not None:
            self._dirty[session.id] = changed
