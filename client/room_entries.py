"""One entry of a public room: who signed it, whether it fits its history, and its line.

An entry that is refused is announced, not shown, and the history hash goes on over it
(docs/protocol.md §6).
"""

from typing import Final

from msgspec.structs import replace

from saltline.client.contacts import Contacts
from saltline.client.context import SYSTEM, Context
from saltline.client.model import Delivery, LineChanged, LineKind
from saltline.client.vault.rooms import RoomState
from saltline.client.vault.timeline import NewLine
from saltline.crypto.encoding import Malformed
from saltline.crypto.primitives import CryptoError
from saltline.crypto.signatures import (
    EMPTY_HISTORY,
    Identity,
    RoomStatement,
    lengthen,
    next_history_hash,
    room_payload,
    seen_of,
    verify,
)
from saltline.protocol.content import BadContent, RoomKind, decode_text
from saltline.protocol.limits import TEXT_MAX_BYTES
from saltline.protocol.to_client import RoomEntry

_LINE_KINDS: Final = {
    RoomKind.TEXT: LineKind.TEXT,
    RoomKind.JOIN: LineKind.JOIN,
    RoomKind.LEAVE: LineKind.LEAVE,
}
_SPLIT: Final = (
    "this room is split: the relay shows a history that is not the one it showed before, or not"
    " the one that others see. What you have is kept. Ask the relay's admin. To go on with what it"
    " shows now, leave the room and join it again."
)


class BadRoomEntry(Exception):
    """An entry that its author did not sign, or not like this."""


class EndedDevice(BadRoomEntry):
    """A key of that name that is no longer in use. It may have signed in time."""


class RoomEntries:
    """Takes entries in, one after the other."""

    def __init__(self, context: Context, contacts: Contacts) -> None:
        self._ctx = context
        self._contacts = contacts
        self._split: dict[str, int] = {}  # when it was said
        self._refused: dict[str, list[tuple[int, str]]] = {}  # in this turn

    def forget_caches(self) -> None:
        """A turn was rolled back, and with it what it said."""
        now_ms = self._ctx.now_ms
        self._split = {room: at_ms for room, at_ms in self._split.items() if at_ms != now_ms}
        self._refused.clear()

    def is_split(self, room: str) -> bool:
        """Whether the relay's history of it is not ours."""
        return room in self._split

    def mended(self, room: str) -> None:
        """The person has decided to take the relay's."""
        self._split.pop(room, None)

    def flush(self) -> None:
        """One sentence a room, however many entries a turn refused."""
        for room, refused in self._refused.items():
            number, why = refused[0]
            what = f"Entry {number} of this room is"
            if len(refused) > 1:
                what = (
                    f"{len(refused)} entries of this room, from {number} to {refused[-1][0]}, are"
                )
            self._ctx.alert(
                room,
                f"{what} not shown: not signed by the author that the relay names ({why})."
                " The relay, or somebody on it, may be forging.",
            )
        self._refused.clear()

    def whole(self, pushed: RoomEntry) -> RoomEntry | None:
        """A pushed entry with the hash that it leaves out; None if only the relay has that."""
        try:
            seen = seen_of(pushed.statement)
        except Malformed:
            return None
        seen_hash = self._ctx.rooms.hash_at(pushed.room, seen) if seen else EMPTY_HISTORY
        if not seen_hash:
            return None
        return replace(pushed, statement=lengthen(pushed.statement, seen_hash))

    def add(self, state: RoomState, entry: RoomEntry, *, is_history: bool, is_whole: bool) -> bool:
        """Take one entry in. The hash goes on whatever the entry is worth.

        False, and nothing was done, for a pushed one that only history can tell: its signature is
        not good, since its author may have seen another history than ours; or its device was ended,
        perhaps while it was on its way.
        """
        room = state.room
        try:
            statement, author = self._check(state, entry, is_history=is_history)
        except (BadRoomEntry, CryptoError, Malformed) as error:
            if isinstance(error, CryptoError | EndedDevice) and not is_whole:
                return False
            self._refused.setdefault(room, []).append((entry.number, str(error)))
        else:
            self._ctx.rooms.set_author_time(room, author.hash, statement.time_ms)
            self._show(entry, statement)
        following = next_history_hash(
            state.hash, entry.username, entry.device, entry.statement, entry.signature
        )
        own_time_ms = self._own_time(state, entry)
        self._ctx.rooms.save(RoomState(room, entry.number, following, own_time_ms))
        return True

    def _own_time(self, state: RoomState, entry: RoomEntry) -> int:
        if entry.username != self._ctx.account.username:
            return state.own_time_ms
        mine = self._ctx.rooms.author_time(state.room, self._ctx.me.identity.hash)
        return max(state.own_time_ms, mine)

    def _check(
        self, state: RoomState, entry: RoomEntry, *, is_history: bool
    ) -> tuple[RoomStatement, Identity]:
        statement = RoomStatement.decode(entry.statement, TEXT_MAX_BYTES)
        author = self._author(entry, is_history=is_history)
        relay_id = self._ctx.me.identity.relay_id
        signed = room_payload(relay_id, state.room, author.hash, entry.statement)
        verify(author.signing_key, signed, entry.signature)
        if statement.time_ms <= self._ctx.rooms.author_time(state.room, author.hash):
            raise BadRoomEntry("an older entry, repeated")
        seen = self._ctx.rooms.hash_at(state.room, statement.seen)
        if statement.seen >= entry.number or (seen and seen != statement.seen_hash):
            self.alarm(state.room)
        return statement, author

    def _author(self, entry: RoomEntry, *, is_history: bool) -> Identity:
        """The identity that signed: live now, or, in history, ever."""
        identity = self.identity(entry.username, entry.device)
        account = self._contacts.account(entry.username)
        is_live = account is not None and identity is not None and account.is_live(identity)
        if identity is None:
            raise BadRoomEntry("not a key of that name")
        if not (is_live or is_history or identity == self._ctx.me.identity):
            raise EndedDevice("not a key that this name still uses")
        return identity

    def identity(self, username: str, device: int) -> Identity | None:
        """The key of that name's device, if it is known. Ours needs no relay's word."""
        mine = self._ctx.me.identity
        if username == mine.username and device == mine.device:
            return mine
        account = self._contacts.account(username)
        if account is None or username == SYSTEM[1:]:
            return None
        for identity in account.live:
            if identity.device == device:
                return identity
        return self._contacts.was_ever_live(username, device)

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

    def alarm(self, room: str) -> None:
        if room not in self._split:
            self._split[room] = self._ctx.now_ms
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
