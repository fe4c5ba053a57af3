"""Public rooms: entries in order, signed by their authors, chained by their hashes.

A room is taken in by number without gaps. Its history hash shows a relay that drops, reorders or
shows different histories to different members (docs/protocol.md §6).
"""

from dataclasses import dataclass, field, replace
from typing import Final

from saltline.client.contacts import CONTRADICTED, UNKNOWN, Contacts
from saltline.client.context import Context, Refusal
from saltline.client.model import ConversationChanged, Delivery, LineChanged, LineKind
from saltline.client.vault.rooms import RoomState
from saltline.client.vault.timeline import NewLine
from saltline.crypto.encoding import Malformed
from saltline.crypto.keylog import Account
from saltline.crypto.primitives import CryptoError
from saltline.crypto.signatures import (
    EMPTY_HISTORY,
    Identity,
    RoomStatement,
    next_history_hash,
    verify,
)
from saltline.protocol.content import BadContent, RoomKind, decode_text
from saltline.protocol.limits import PAGE_MAX_ENTRIES, ROOM_RECENT_ENTRIES, TEXT_MAX_BYTES
from saltline.protocol.messages import RelayMessage
from saltline.protocol.names import BadName, check_user
from saltline.protocol.to_client import HistoryPage, RoomEntry, RoomMark
from saltline.protocol.to_relay import History

_LINE_KINDS: Final = {
    RoomKind.TEXT: LineKind.TEXT,
    RoomKind.JOIN: LineKind.JOIN,
    RoomKind.LEAVE: LineKind.LEAVE,
}
HELD_BACK_MAX: Final = PAGE_MAX_ENTRIES
_SPLIT: Final = (
    "this room is split: the relay shows a history that is not the one it showed before, or not"
    " the one that others see. What you have is kept. Ask the relay's admin."
)


class BadRoomEntry(Exception):
    """An entry that its author did not sign, or not like this."""


@dataclass(slots=True)
class _Held:
    """Entries that wait for their authors' keys, in order."""

    entries: list[RoomEntry] = field(default_factory=list)
    asking: int = 0
    refetch: bool = False


class Rooms:
    """How each room's history is taken in."""

    def __init__(self, context: Context, contacts: Contacts) -> None:
        self._ctx = context
        self._contacts = contacts
        self._fetching: set[str] = set()
        self._held: dict[str, _Held] = {}
        self._split: set[str] = set()

    def link_lost(self) -> None:
        """Everything on its way is asked for again after the next login."""
        self._fetching.clear()
        self._held.clear()

    @property
    def is_busy(self) -> bool:
        """Whether history is on its way."""
        return bool(self._fetching or self._held)

    # --- membership ----------------------------------------------------------------------------

    def welcomed(self, marks: tuple[RoomMark, ...]) -> None:
        """Catch up with every room of the account."""
        timeline = self._ctx.timeline
        there = {mark.room: mark.last for mark in marks}
        for room in timeline.joined_rooms():
            if room not in there:
                timeline.set_joined(room, False)
                self._ctx.say(room, "You are no longer a member of this room.")
                self._ctx.emit(ConversationChanged(room))
        for room, last in there.items():
            state = self._ctx.rooms.state(room)
            if state is None or not timeline.is_joined(room):
                self._start(room, max(0, last - ROOM_RECENT_ENTRIES), None)
            elif last < state.last:
                self._alarm(room)
            elif last > state.last:
                self._fetch(room)

    def joined(self, room: str, after: int, after_hash: bytes, own_time_ms: int) -> None:
        """A member now: the relay's hash at `after` is where this client starts from.

        `own_time_ms` is the time of our own join entry: later entries are later.
        """
        self._start(room, after, after_hash)
        state = self._ctx.rooms.state(room)
        if state is not None:
            self._ctx.rooms.save(replace(state, own_time_ms=max(state.own_time_ms, own_time_ms)))

    def left(self, room: str) -> None:
        """No longer a member, by our own wish."""
        self._ctx.timeline.set_joined(room, False)
        self._ctx.emit(ConversationChanged(room))

    def _start(self, room: str, after: int, after_hash: bytes | None) -> None:
        """Begin, or begin again after an absence, at `after`."""
        state = self._ctx.rooms.state(room)
        own_time_ms = 0 if state is None else state.own_time_ms
        known = state is not None and state.last >= after
        if not known:
            start = EMPTY_HISTORY if after == 0 else (after_hash or b"")
            self._ctx.rooms.save(RoomState(room, after, start, own_time_ms))
        self._ctx.timeline.set_joined(room, True)
        self._ctx.emit(ConversationChanged(room))
        self._fetch(room)

    def state(self, room: str) -> RoomState | None:
        """How far a room is held."""
        return self._ctx.rooms.state(room)

    # --- history -------------------------------------------------------------------------------

    def _fetch(self, room: str) -> None:
        state = self._ctx.rooms.state(room)
        if state is None or room in self._fetching or room in self._held or not self._ctx.ready:
            return
        self._fetching.add(room)
        self._ctx.request(
            lambda number: History(number, room, state.last, PAGE_MAX_ENTRIES),
            lambda answer: self._fetched(room, state.last, answer),
            lambda refusal: self._fetch_refused(room, refusal),
        )

    def _fetch_refused(self, room: str, refusal: Refusal) -> None:
        self._fetching.discard(room)

    def _fetched(self, room: str, asked: int, answer: RelayMessage) -> None:
        """A page after `asked`; pushes may have brought some of it since."""
        self._fetching.discard(room)
        state = self._ctx.rooms.state(room)
        if state is None or not isinstance(answer, HistoryPage) or answer.room != room:
            return
        if asked == state.last and not state.hash:
            # A member from before this vault: the first page says where we start.
            state = replace(state, hash=answer.after_hash)
            self._ctx.rooms.save(state)
        if answer.after != asked or answer.after_hash != self._ctx.rooms.hash_at(room, asked):
            self._alarm(room)
            return
        before = state.last
        entries = [entry for entry in answer.entries if entry.number > before]
        self._take(room, entries, is_history=True)
        state = self._ctx.rooms.state(room)
        if state is not None and answer.last > state.last > before and room not in self._held:
            self._fetch(room)

    def entry(self, entry: RoomEntry) -> None:
        """An entry that the relay pushed."""
        room = entry.room
        held = self._held.get(room)
        state = self._ctx.rooms.state(room)
        if state is None or not self._ctx.timeline.is_joined(room):
            return
        if held is not None:
            self._hold(held, [entry])
        elif entry.number == state.last + 1:
            self._take(room, [entry], is_history=False)
        elif entry.number > state.last:
            self._fetch(room)

    def _hold(self, held: _Held, entries: list[RoomEntry]) -> None:
        """Keep the order while authors are looked up; what is too much is fetched again."""
        space = HELD_BACK_MAX - len(held.entries)
        held.entries += entries[: max(0, space)]
        held.refetch |= len(entries) > space

    def _take(self, room: str, entries: list[RoomEntry], *, is_history: bool) -> None:
        """Entries in order; from the first unknown author on they wait."""
        for position, entry in enumerate(entries):
            state = self._ctx.rooms.state(room)
            if state is None or entry.room != room or entry.number != state.last + 1:
                if state is not None and entry.number > state.last:
                    self._alarm(room)
                return
            if self._is_unknown(entry.username):
                self._look_up(room, entries[position:])
                return
            self._add(state, entry, is_history=is_history)

    def _is_unknown(self, username: str) -> bool:
        try:
            check_user(username)
        except BadName:
            return False  # no lookup for it: the entry is refused as it is
        return self._contacts.account(username) is None

    def _look_up(self, room: str, entries: list[RoomEntry]) -> None:
        held = self._held[room] = _Held()
        self._hold(held, entries)
        names = sorted({e.username for e in held.entries if self._is_unknown(e.username)})
        held.asking = len(names)
        for name in names:
            self._contacts.look_up(name, lambda result: self._looked_up(room, result))

    def _looked_up(self, room: str, result: Account | Refusal) -> None:
        held = self._held.get(room)
        if held is None:
            return
        held.asking -= 1
        if held.asking > 0:
            return
        del self._held[room]
        if isinstance(result, Refusal) and result not in (UNKNOWN, CONTRADICTED):
            return  # fetched again with the next entry or login
        self._take_held(room, held)

    def _take_held(self, room: str, held: _Held) -> None:
        for entry in held.entries:
            state = self._ctx.rooms.state(room)
            if state is None or entry.number != state.last + 1:
                continue
            self._add(state, entry, is_history=True)
        state = self._ctx.rooms.state(room)
        if held.refetch and state is not None:
            self._fetch(room)

    # --- one entry -----------------------------------------------------------------------------

    def _add(self, state: RoomState, entry: RoomEntry, *, is_history: bool) -> None:
        """Take one entry in. The hash goes on whatever the entry is worth."""
        room = state.room
        try:
            statement, author = self._check(state, entry, is_history=is_history)
        except (BadRoomEntry, CryptoError, Malformed) as error:
            self._refuse(room, entry, error)
        else:
            self._ctx.rooms.set_author_time(room, author.hash, statement.time_ms)
            self._show(entry, statement)
        following = next_history_hash(state.hash, entry.signed)
        own_time_ms = self._own_time(state, entry)
        self._ctx.rooms.save(RoomState(room, entry.number, following, own_time_ms))

    def _own_time(self, state: RoomState, entry: RoomEntry) -> int:
        if entry.username != self._ctx.account.username:
            return state.own_time_ms
        mine = self._ctx.rooms.author_time(state.room, self._ctx.me.identity.hash)
        return max(state.own_time_ms, mine)

    def _refuse(self, room: str, entry: RoomEntry, error: Exception) -> None:
        self._ctx.alert(
            room,
            f"Entry {entry.number} of this room is not shown: it is not signed by the author that"
            f" the relay names ({error}). The relay, or somebody on it, may be forging.",
        )

    def _check(
        self, state: RoomState, entry: RoomEntry, *, is_history: bool
    ) -> tuple[RoomStatement, Identity]:
        statement = RoomStatement.decode(entry.signed, TEXT_MAX_BYTES)
        if statement.room != state.room or statement.relay_id != self._ctx.me.identity.relay_id:
            raise BadRoomEntry("signed for another room or relay")
        author = self._author(entry, statement, is_history=is_history)
        verify(author.signing_key, entry.signed, entry.signature)
        if statement.time_ms <= self._ctx.rooms.author_time(state.room, author.hash):
            raise BadRoomEntry("an older entry, repeated")
        seen = self._ctx.rooms.hash_at(state.room, statement.seen)
        if statement.seen >= entry.number or (seen and seen != statement.seen_hash):
            self._alarm(state.room)
        return statement, author

    def _author(self, entry: RoomEntry, statement: RoomStatement, *, is_history: bool) -> Identity:
        """The identity that signed: live now, or, in history, ever."""
        account = self._contacts.account(entry.username)
        for identity in account.live if account is not None else ():
            if identity.hash == statement.author:
                return identity
        past = self._contacts.was_ever_live(entry.username, statement.author)
        if past is None or not is_history:
            raise BadRoomEntry("not a key of that name")
        return past

    def _show(self, entry: RoomEntry, statement: RoomStatement) -> None:
        ctx, room, author = self._ctx, entry.room, entry.username
        kind = statement.kind
        body, line_kind = "", LineKind.UNSUPPORTED
        if kind in RoomKind.__members__.values():
            line_kind = _LINE_KINDS[RoomKind(kind)]
        if line_kind is LineKind.TEXT:
            try:
                body = decode_text(statement.body)
            except BadContent:
                line_kind = LineKind.UNSUPPORTED
        me = ctx.account.username
        row = ctx.timeline.find(room, author, statement.message_id)
        if row is not None:
            if author == me:
                self._arrived(room, row, entry.number)
            return
        ctx.add_line(
            NewLine(
                room,
                line_kind,
                author,
                body,
                statement.time_ms,
                ctx.now_ms,
                statement.message_id,
                mine=author == me,
                delivery=Delivery.RELAYED if author == me else Delivery.NONE,
                number=entry.number,
                mention=_mentions(body, me),
            )
        )

    def _arrived(self, room: str, row: int, number: int) -> None:
        """Our own entry came back with its number."""
        self._ctx.timeline.set_number(row, number)
        self._ctx.timeline.set_delivery(row, Delivery.RELAYED)
        self._ctx.emit(LineChanged(room, row))

    def _alarm(self, room: str) -> None:
        if room not in self._split:
            self._split.add(room)
            self._ctx.alert(room, _SPLIT)


def _mentions(body: str, username: str) -> bool:
    folded = body.casefold()
    at = folded.find(username)
    while at >= 0:
        end = at + len(username)
        before = folded[at - 1] if at else " "
        after = folded[end] if end < len(folded) else " "
        if not (before.isalnum() or before in "_-") and not (after.isalnum() or after in "_-"):
            return True
        at = folded.find(username, end)
    return False
