"""What we put into rooms: joins, leaves and posts, signed, one at a time in each room.

An entry is signed once, kept in the vault and repeated as it is until the relay has numbered it.
"""

from collections.abc import Callable
from dataclasses import replace

from saltline.client.context import Context, Refusal
from saltline.client.model import Delivery, ExitCode, LineChanged, Refused
from saltline.client.rooms import Rooms
from saltline.client.vault.outbox import Item
from saltline.client.vault.rooms import RoomState
from saltline.client.writing import encode_text
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, room_payload
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import MESSAGE_ID_BYTES, TEXT_MAX_BYTES
from saltline.protocol.messages import RelayMessage
from saltline.protocol.names import BadName, check_room
from saltline.protocol.to_client import Joined, Posted
from saltline.protocol.to_relay import Join, Post

_FINAL = frozenset(
    {
        ErrorCode.BAD_STATEMENT,
        ErrorCode.BAD_MESSAGE,
        ErrorCode.BAD_NAME,
        ErrorCode.TOO_MANY_ROOMS,
        ErrorCode.ROOM_FULL,
    }
)


def checked_room(room: str) -> str:
    """A room's name. Raises Refused."""
    try:
        return check_room(room)
    except BadName as error:
        raise Refused(f"{error} Nothing was sent.") from None


class Posting:
    """What waits for rooms."""

    def __init__(self, context: Context, rooms: Rooms) -> None:
        self._ctx = context
        self._rooms = rooms
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._not_before_ms: dict[str, int] = {}
        self._compared: set[str] = set()  # rooms whose history the relay called another

    def link_lost(self) -> None:
        """Everything on its way will be done again, with the bytes that were signed."""
        self._busy.clear()
        self._not_before_ms.clear()
        self._compared.clear()

    def load(self) -> None:
        """What an earlier run left."""
        names = self._ctx.outbox.conversations()
        self._waiting = {name for name in names if name.startswith("#")}

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way or could leave now."""
        now_ms = self._ctx.now_ms
        ready = [r for r in self._waiting if self._not_before_ms.get(r, 0) <= now_ms]
        return bool(self._busy or ready)

    def queue_text(self, room: str, text: str, message_id: bytes = b"") -> int:
        """A new line at the end of a room; returns its row. Raises Refused.

        With the id of a line that is there already, nothing new: the row of that.
        """
        before = self._ctx.own_row(checked_room(room), message_id)
        if before is not None:
            return before
        self._ctx.check_not_ended()
        data = encode_text(text)
        ctx = self._ctx
        row, message_id = ctx.add_own_text(room, text, message_id)
        ctx.outbox.add(room, row, message_id + data)
        self._waiting.add(room)
        return row

    def requeue(self, row: int) -> None:
        """A failed post again, under its own id. Raises Refused."""
        self._ctx.check_not_ended()
        line = self._ctx.again(row)
        self._ctx.outbox.add(line.conversation, row, line.id + line.body.encode("utf-8"))
        self._waiting.add(line.conversation)

    def pump(self) -> None:
        """Send what can leave."""
        if not self._ctx.ready:
            return
        for room in sorted(self._waiting):
            if room in self._busy or self._not_before_ms.get(room, 0) > self._ctx.now_ms:
                continue
            item = self._ctx.outbox.first(room)
            if item is None:
                self._waiting.discard(room)
            elif not self._ctx.timeline.is_joined(room):
                self._join_first(room)
            else:
                self._post(room, item)

    def _join_first(self, room: str) -> None:
        self.join(room, lambda: None, lambda refusal: self._refused(room, refusal))

    # --- joining and leaving -------------------------------------------------------------------

    def join(self, room: str, done: Callable[[], None], refused: Callable[[Refusal], None]) -> None:
        """Become a member; the relay makes a room that is new. Raises Refused for a bad name."""
        checked_room(room)
        self._busy.add(room)
        message_id = self._ctx.random(MESSAGE_ID_BYTES)
        statement = self._statement(room, RoomKind.JOIN, message_id, b"")
        signed = self._sign(room, statement)

        def joined(answer: RelayMessage) -> None:
            assert isinstance(answer, Joined)
            self._busy.discard(room)
            self._rooms.joined(room, answer.after, answer.after_hash, statement.time_ms)
            done()

        def not_joined(refusal: Refusal) -> None:
            self._busy.discard(room)
            self._forget_time(room, refusal)
            refused(refusal)

        self._ctx.request(lambda number: Join(number, room, *signed), joined, not_joined, room)

    def leave(
        self, room: str, done: Callable[[], None], refused: Callable[[Refusal], None]
    ) -> None:
        """End the membership. Raises Refused where there is none."""
        checked_room(room)
        if not self._ctx.timeline.is_joined(room):
            raise Refused(f"You are not in {room}.", ExitCode.UNKNOWN_NAME)
        message_id = self._ctx.random(MESSAGE_ID_BYTES)
        signed = self._sign(room, self._statement(room, RoomKind.LEAVE, message_id, b""))

        def left(_answer: RelayMessage | None = None) -> None:
            self._rooms.left(room)
            self._give_up(room)
            done()

        def not_left(refusal: Refusal) -> None:
            self._forget_time(room, refusal)
            if refusal.code in (ErrorCode.NOT_A_MEMBER, ErrorCode.UNKNOWN_ROOM):
                left()
            else:
                refused(refusal)

        self._ctx.request(lambda number: Post(number, room, *signed), left, not_left, room)

    def _give_up(self, room: str) -> None:
        """What still waits would join the room again."""
        sentence = f"Not sent: you left {room}."
        for item in self._ctx.outbox.items(room):
            self._fail(item, Refused(sentence))

    # --- posting -------------------------------------------------------------------------------

    def _statement(
        self, room: str, kind: RoomKind, message_id: bytes, body: bytes
    ) -> RoomStatement:
        """What to sign; raises the room's own time so that entries are in order."""
        ctx = self._ctx
        state = ctx.rooms.state(room) or RoomState(room, 0, b"", 0)
        time_ms = max(ctx.now_ms, state.own_time_ms + 1)
        ctx.rooms.save(replace(state, own_time_ms=time_ms))
        # Of a split room we claim nothing: the relay may hold less than we have seen. Nor when we
        # join: of a room that we are not in, nothing would show that it is split.
        claims = kind != RoomKind.JOIN and bool(state.hash) and not self._rooms.is_split(room)
        return RoomStatement(
            kind=kind,
            message_id=message_id,
            time_ms=time_ms,
            seen=state.last if claims else 0,
            seen_hash=state.hash if claims else EMPTY_HISTORY,
            body=body,
        )

    def _sign(self, room: str, statement: RoomStatement) -> tuple[bytes, bytes]:
        """The statement's bytes, and our signature of it in this room."""
        me, data = self._ctx.me, statement.encode()
        payload = room_payload(me.identity.relay_id, room, me.identity.hash, data)
        return data, me.sign(payload)

    def _forget_time(self, room: str, refusal: Refusal) -> None:
        """What was refused is in nobody's history: its time, from a wrong clock, binds nobody."""
        if refusal.code != ErrorCode.BAD_STATEMENT:
            return  # and nothing is read: the link may be lost because the disk fails
        state = self._ctx.rooms.state(room)
        if state is not None:
            last_ms = self._ctx.rooms.author_time(room, self._ctx.me.identity.hash)
            self._ctx.rooms.save(replace(state, own_time_ms=max(0, last_ms)))

    def _signed_before(self, room: str, item: Item) -> tuple[bytes, bytes] | None:
        """What an earlier attempt signed, unless something signed later has overtaken it.

        Nor if it claims what the relay will not take, in a split room.

        Signed again it has the same id: no relay or member takes it in twice.
        """
        signed = self._ctx.outbox.room_post(item.item)
        state = self._ctx.rooms.state(room)
        if signed is None or state is None:
            return signed
        statement = RoomStatement.decode(signed[0], TEXT_MAX_BYTES)
        if statement.seen and self._rooms.is_split(room):
            return None
        return signed if statement.time_ms >= state.own_time_ms else None

    def _post(self, room: str, item: Item) -> None:
        signed = self._signed_before(room, item)
        if signed is None:
            message_id, body = item.content[:MESSAGE_ID_BYTES], item.content[MESSAGE_ID_BYTES:]
            signed = self._sign(room, self._statement(room, RoomKind.TEXT, message_id, body))
            self._ctx.outbox.add_room_post(item.item, *signed)
        self._busy.add(room)
        post = signed
        self._ctx.request(
            lambda number: Post(number, room, *post),
            lambda answer: self._posted(room, item, answer),
            lambda refusal: self._refused(room, refusal),
            room,
        )

    def _posted(self, room: str, item: Item, answer: RelayMessage) -> None:
        """On the relay. The entry itself may never come back: who left the room gets no more."""
        assert isinstance(answer, Posted)
        self._busy.discard(room)
        self._compared.discard(room)
        self._ctx.outbox.remove(item.item)
        self._ctx.timeline.set_number(item.row, answer.number)
        if self._ctx.timeline.set_delivery(item.row, Delivery.RELAYED):
            self._ctx.emit(LineChanged(room, item.row))

    def _refused(self, room: str, refusal: Refusal) -> None:
        self._busy.discard(room)
        if refusal.lost:
            return
        self._forget_time(room, refusal)
        refused = refusal.as_refused()
        item = self._ctx.outbox.first(room)
        if refusal.code == ErrorCode.NOT_A_MEMBER:
            self._rooms.ended(room)  # joined again with the next attempt
        if refusal.code in _FINAL and item is not None:
            if refusal.code != ErrorCode.BAD_STATEMENT or not self._may_yet_pass(room, item):
                self._fail(item, refused)
            return
        self._not_before_ms[room] = self._ctx.now_ms + refusal.delay_ms
        for row in self._ctx.outbox.say_why(room, refused.sentence):
            self._ctx.emit(LineChanged(room, row, refused.code))

    def _may_yet_pass(self, room: str, item: Item) -> bool:
        """Whether it claims a history that the relay may no longer have: then we look, once."""
        signed = self._ctx.outbox.room_post(item.item)
        if signed is None or not RoomStatement.decode(signed[0], TEXT_MAX_BYTES).seen:
            return False
        if self._rooms.is_split(room):
            return True  # signed anew it claims nothing
        if room in self._compared:
            return False
        self._compared.add(room)
        self._rooms.compare(room)
        return True

    def _fail(self, item: Item, refused: Refused) -> None:
        self._ctx.outbox.remove(item.item)
        if self._ctx.timeline.set_delivery(item.row, Delivery.FAILED, refused.sentence):
            self._ctx.emit(LineChanged(item.conversation, item.row, refused.code))
