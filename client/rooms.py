"""Public rooms: entries in order, signed by their authors, chained by their hashes.

A room is taken in by number without gaps. Its history hash shows a relay that drops, reorders or
shows different histories to different members (docs/protocol.md §6).
"""

from dataclasses import dataclass, field, replace
from typing import Final

from saltline.client.contacts import CONTRADICTED, UNKNOWN, Contacts
from saltline.client.context import Context, Misbehaved, Refusal
from saltline.client.model import ConversationChanged
from saltline.client.room_entries import RoomEntries
from saltline.client.vault.rooms import RoomState
from saltline.crypto.encoding import Malformed
from saltline.crypto.keylog import Account
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import PAGE_MAX_ENTRIES, ROOM_RECENT_ENTRIES, TEXT_MAX_BYTES
from saltline.protocol.messages import RelayMessage
from saltline.protocol.names import BadName, check_room, check_user
from saltline.protocol.to_client import HistoryPage, RoomEntry, RoomMark
from saltline.protocol.to_relay import History

HELD_BACK_MAX: Final = PAGE_MAX_ENTRIES
HELD_BACK_MAX_BYTES: Final = 1024 * 1024
# Of all rooms together, but for one entry of each: a relay may say that we are in a thousand.
HELD_BACK_ALL_MAX_BYTES: Final = 8 * 1024 * 1024
# A member can push to all others what each of them has to ask for whole: one question for many.
WHOLE_EVERY_MS: Final = 2_000
_NOT_OURS: Final = (ErrorCode.NOT_A_MEMBER, ErrorCode.UNKNOWN_ROOM)
_ALL: Final = 2**63


@dataclass(slots=True)
class _Held:
    """Entries that wait for their authors' keys, in order and without a gap.

    The authors of those up to `asked_to` are being looked up. Those above `whole_to` were pushed:
    the hash that each leaves out is taken from us.
    """

    entries: list[RoomEntry] = field(default_factory=list)
    size_bytes: int = 0
    asked_to: int = 0
    whole_to: int = 0
    asking: int = 0
    refused: Refusal | None = None
    refetch: bool = False

    def add(self, entries: list[RoomEntry]) -> None:
        """What is too much, or does not follow, is fetched again."""
        for entry in entries:
            last = self.entries[-1].number if self.entries else entry.number - 1
            if self.refetch or entry.number <= last:
                continue
            self.size_bytes += len(entry.statement)
            self.refetch = (
                entry.number > last + 1
                or len(self.entries) >= HELD_BACK_MAX
                or self.size_bytes > HELD_BACK_MAX_BYTES
            )
            if not self.refetch:
                self.entries.append(entry)


class Rooms:
    """How each room's history is taken in."""

    def __init__(self, context: Context, contacts: Contacts) -> None:
        self._ctx = context
        self._contacts = contacts
        self._fetching: dict[str, int] = {}  # and the last number that was pushed meanwhile
        self._held: dict[str, _Held] = {}
        self._whole_at_ms: dict[str, int] = {}  # when entries may be asked for whole again
        self._due: set[str] = set()  # to be asked then
        self._put_off: set[str] = set()  # the relay refused, and is asked again when it said
        self._entries = RoomEntries(context, contacts)

    def link_lost(self) -> None:
        """Everything on its way is asked for again after the next login."""
        self._fetching.clear()
        self._held.clear()
        self._due.clear()
        self._put_off.clear()

    def forget_caches(self) -> None:
        """A turn was rolled back, and with it what it said."""
        self._entries.forget_caches()

    def flush(self) -> None:
        """Say what this turn refused."""
        self._entries.flush()

    @property
    def is_busy(self) -> bool:
        """Whether history is on its way."""
        return bool(self._fetching or self._held or self._due or self._put_off)

    # --- membership ----------------------------------------------------------------------------

    def welcomed(self, marks: tuple[RoomMark, ...]) -> None:
        """Catch up with every room of the account. Raises Misbehaved."""
        timeline = self._ctx.timeline
        there = {_checked(mark.room): mark.last for mark in marks}
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
                self._entries.alarm(room)
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
        """We left it. Of a split room only the lines are kept: joined again, it is new."""
        if self._entries.is_split(room):
            self._ctx.rooms.forget(room)
            self._entries.mended(room)
        self.ended(room)

    def ended(self, room: str) -> None:
        """No longer a member, says the relay: that decides nothing about what it showed before."""
        self._ctx.timeline.set_joined(room, False)
        self._ctx.emit(ConversationChanged(room))

    def _start(self, room: str, after: int, after_hash: bytes | None) -> None:
        """Begin, or begin again after an absence, at `after`.

        Without a hash the first page says where: the relay shows no more than a newcomer may see.
        """
        state = self._ctx.rooms.state(room)
        if state is None:
            state = RoomState(room, after, _hash_at_start(after, after_hash), 0)
        elif not self._ctx.timeline.is_joined(room):
            if after_hash is None:
                if state.last and after > state.last:
                    self._say_missed(room, after - state.last)
                state = replace(state, last=max(state.last, after), hash=b"")
            elif state.last < after or not state.last:
                if state.last:
                    self._say_missed(room, after - state.last)
                state = replace(state, last=after, hash=_hash_at_start(after, after_hash))
        self._ctx.rooms.save(state)
        self._ctx.timeline.set_joined(room, True)
        self._ctx.emit(ConversationChanged(room))
        self._fetch(room)

    def _say_missed(self, room: str, count: int) -> None:
        many = "1 entry" if count == 1 else f"{count} entries"
        self._ctx.say(room, f"a gap of {many}: they came while you were not a member")

    def is_split(self, room: str) -> bool:
        """Whether the relay's history of it is not ours."""
        return self._entries.is_split(room)

    def compare(self, room: str) -> None:
        """Look whether the relay's history of it is still ours."""
        self._fetch(room)

    # --- history -------------------------------------------------------------------------------

    def _fetch(self, room: str) -> None:
        state = self._ctx.rooms.state(room)
        is_asked = room in self._fetching or room in self._held or room in self._put_off
        if state is None or is_asked or not self._ctx.ready:
            return
        self._fetching[room] = 0
        self._ctx.request(
            lambda number: History(number, room, state.last, PAGE_MAX_ENTRIES),
            lambda answer: self._fetched(room, state.last, answer),
            lambda refusal: self._fetch_refused(room, refusal),
            room,
        )

    def _fetch_whole(self, room: str) -> None:
        """A pushed entry says too little: its author may have seen another history."""
        now_ms = self._ctx.now_ms
        wait_ms = self._whole_at_ms.get(room, 0) - now_ms
        if room in self._due:
            return
        if 0 < wait_ms <= WHOLE_EVERY_MS:
            self._due.add(room)
            self._ctx.later(wait_ms, lambda: self._fetch_due(room))
            return
        self._whole_at_ms[room] = now_ms + WHOLE_EVERY_MS
        self._fetch(room)

    def _fetch_due(self, room: str) -> None:
        self._due.discard(room)
        self._whole_at_ms[room] = self._ctx.now_ms + WHOLE_EVERY_MS
        self._fetch(room)

    def _fetch_refused(self, room: str, refusal: Refusal) -> None:
        self._fetching.pop(room, None)
        if refusal.code not in _NOT_OURS:
            self._fetch_later(room, refusal)

    def _fetch_later(self, room: str, refusal: Refusal) -> None:
        """Once, however many entries are pushed until then."""
        if not refusal.lost and room not in self._put_off:
            self._put_off.add(room)
            self._ctx.later(refusal.delay_ms, lambda: self._fetch_again(room))

    def _fetch_again(self, room: str) -> None:
        self._put_off.discard(room)
        self._fetch(room)

    def _fetched(self, room: str, asked: int, answer: RelayMessage) -> None:
        """A page after `asked`; pushes may have brought some of it since."""
        assert isinstance(answer, HistoryPage)
        pushed = self._fetching.pop(room, 0)
        state = self._ctx.rooms.state(room)
        if state is None:
            return
        hash_at = self._ctx.rooms.hash_at
        if not state.hash and answer.after >= asked:
            # A member since before this vault, or this answer: the first page says where we start.
            if answer.after > asked and hash_at(room, asked):
                self._say_missed(room, answer.after - asked)
            asked = answer.after
            state = replace(state, last=asked, hash=hash_at(room, asked) or answer.after_hash)
            self._ctx.rooms.save(state)
        if answer.after != asked or answer.after_hash != hash_at(room, asked):
            self._entries.alarm(room)
            return
        before = state.last
        entries = [entry for entry in answer.entries if entry.number > before]
        self._take(room, entries, is_history=True, whole_to=_ALL)
        state = self._ctx.rooms.state(room)
        held = self._held.get(room)
        if held is not None:
            held.refetch |= max(answer.last, pushed) > held.entries[-1].number
        elif state is not None and (answer.last > state.last > asked or pushed > state.last):
            self._fetch(room)  # also what came before this answer, and was not in it

    def entry(self, entry: RoomEntry) -> None:
        """An entry that the relay pushed."""
        room = entry.room
        held = self._held.get(room)
        state = self._ctx.rooms.state(room)
        if state is None or not self._ctx.timeline.is_joined(room):
            return
        if room in self._fetching:
            self._fetching[room] = max(entry.number, self._fetching[room])
        whole = self._entries.whole(entry)
        if held is not None:
            if whole is None or self._is_full():
                held.refetch = True
            else:
                held.add([whole])
        elif entry.number == state.last + 1 and state.hash:
            if whole is None:
                self._fetch_whole(room)
            else:
                self._take(room, [whole], is_history=False, whole_to=0)
        elif entry.number > state.last and room not in self._due:
            self._fetch(room)

    def _take(
        self,
        room: str,
        entries: list[RoomEntry],
        *,
        is_history: bool,
        whole_to: int,
        asked_to: int = 0,
    ) -> None:
        """Entries in order; from the first unknown author above `asked_to` on they wait."""
        for position, entry in enumerate(entries):
            state = self._ctx.rooms.state(room)
            if state is None or entry.room != room or entry.number != state.last + 1:
                if state is not None and entry.number > state.last:
                    self._entries.alarm(room)
                return
            if entry.number > asked_to and self._is_unknown(entry):
                self._look_up(room, entries[position:], whole_to)
                return
            is_whole = entry.number <= whole_to
            if not self._entries.add(state, entry, is_history=is_history, is_whole=is_whole):
                self._fetch_whole(room)
                return

    def _is_full(self) -> bool:
        return sum(held.size_bytes for held in self._held.values()) > HELD_BACK_ALL_MAX_BYTES

    def _is_unknown(self, entry: RoomEntry) -> bool:
        """Whether a lookup may tell who signed: a stranger, or a member with a new key."""
        try:
            check_user(entry.username)
            RoomStatement.decode(entry.statement, TEXT_MAX_BYTES)
        except (BadName, Malformed):
            return False  # no lookup for it: the entry is refused as it is
        return self._entries.identity(entry.username, entry.device) is None

    def _look_up(self, room: str, entries: list[RoomEntry], whole_to: int) -> None:
        is_full = self._is_full()
        held = self._held[room] = _Held()
        held.add(entries[:1] if is_full else entries)
        held.refetch |= is_full
        held.asked_to = held.entries[-1].number
        held.whole_to = min(whole_to, held.asked_to)
        names = sorted({e.username for e in held.entries if self._is_unknown(e)})
        held.asking = len(names)
        for name in names:
            self._contacts.look_up(name, lambda result: self._looked_up(room, held, result))

    def _looked_up(self, room: str, held: _Held, result: Account | Refusal) -> None:
        """Once all were answered. A refused lookup says nothing about an author."""
        if self._held.get(room) is not held:
            return
        held.asking -= 1
        if isinstance(result, Refusal) and result not in (UNKNOWN, CONTRADICTED):
            held.refused = result
        if held.asking > 0:
            return
        del self._held[room]
        if held.refused is not None:
            self._fetch_later(room, held.refused)  # not sooner: while it is held, nothing is asked
            return
        self._take(
            room,
            held.entries,
            is_history=True,
            whole_to=held.whole_to,
            asked_to=held.asked_to,
        )
        waiting = self._held.get(room)
        if waiting is not None:
            waiting.refetch |= held.refetch
        elif held.refetch:
            self._fetch(room)


def _hash_at_start(after: int, after_hash: bytes | None) -> bytes:
    return EMPTY_HISTORY if after == 0 and after_hash is not None else after_hash or b""


def _checked(room: str) -> str:
    """Only a room's name may name a conversation here: others name people."""
    try:
        return check_room(room)
    except BadName:
        raise Misbehaved("The relay named a room that cannot be one.") from None
