"""What the parts of the core share during one turn: vault, requests, commands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from saltline.client.commands import Answer, Command, Emit, Transmit
from saltline.client.model import (
    ConversationChanged,
    Delivery,
    Event,
    ExitCode,
    Line,
    LineAdded,
    LineChanged,
    LineKind,
    Refused,
)
from saltline.client.vault.database import AccountRow, Vault, VaultError
from saltline.client.vault.keys import KeyStore
from saltline.client.vault.outbox import OutboxStore
from saltline.client.vault.people import PeopleStore
from saltline.client.vault.rooms import RoomStore
from saltline.client.vault.timeline import NewLine, Timeline
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.primitives import Random
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode
from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import MESSAGE_ID_BYTES, REQUEST_TIMEOUT_S
from saltline.protocol.messages import ClientMessage, RelayMessage, encode_message
from saltline.protocol.text import sanitise

ENDED: Final = (
    "Not sent: this device was ended, by a reset or by the relay's admin. Nothing left this"
    " computer. Ask the admin for a reset code, and register with it in a new profile; this one"
    " keeps its messages to read."
)
# Where this client says what belongs to no conversation. The name is reserved on every relay.
SYSTEM: Final = "@saltline"
RETRY_MS: Final = 30_000  # after "mailbox full" and the like, where the relay names no time
RETRY_MAX_MS: Final = 3_600_000  # however long the relay says: it may be wrong, or lie
_ANSWERS: Final[dict[type, type]] = {
    to_relay.CheckInvite: to_client.Invited,
    to_relay.Publish: to_client.Published,
    to_relay.Lookup: to_client.LookedUp,
    to_relay.Claim: to_client.Claimed,
    to_relay.Submit: to_client.Submitted,
    to_relay.Join: to_client.Joined,
    to_relay.Post: to_client.Posted,
    to_relay.History: to_client.HistoryPage,
    to_relay.Who: to_client.Members,
    to_relay.ListRooms: to_client.RoomList,
    to_relay.Ping: to_client.Pong,
}

_EXIT_CODES: Final = {
    ErrorCode.RATE_LIMITED: ExitCode.LIMITED,
    ErrorCode.MAILBOX_FULL: ExitCode.LIMITED,
    ErrorCode.TOO_MANY_ROOMS: ExitCode.LIMITED,
    ErrorCode.ROOM_FULL: ExitCode.LIMITED,
    ErrorCode.TOO_MANY_CONNECTIONS: ExitCode.LIMITED,
    ErrorCode.STORAGE_FAILED: ExitCode.LIMITED,
    ErrorCode.UNKNOWN_USER: ExitCode.UNKNOWN_NAME,
    ErrorCode.UNKNOWN_ROOM: ExitCode.UNKNOWN_NAME,
    ErrorCode.STOPPING: ExitCode.UNREACHABLE,
}


class Misbehaved(Exception):
    """The relay does not keep to the protocol: hang up. The text is a sentence for a person."""


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A request was not done. `lost`: nobody refused anything, the link broke."""

    code: str
    detail: str
    retry_after_ms: int = 0
    lost: bool = False

    @property
    def delay_ms(self) -> int:
        """How long to wait before asking again."""
        return min(self.retry_after_ms or RETRY_MS, RETRY_MAX_MS)

    def as_refused(self) -> Refused:
        """The sentence and exit code for a person."""
        if self.lost:
            return Refused(
                "The relay did not answer. Nothing was lost; try again.", ExitCode.TIMED_OUT
            )
        known = self.code in ErrorCode.__members__.values()
        code = _EXIT_CODES.get(ErrorCode(self.code)) if known else None
        sentence = sanitise(self.detail, newlines=False)
        return Refused(sentence, code or ExitCode.USAGE, relay_code=self.code)


LINK_LOST: Final = Refusal("link_lost", "", lost=True)


@dataclass(slots=True)
class _Pending:
    answer: type
    room: str  # that the answer must name, or ""
    on_answer: Callable[[RelayMessage], None]
    on_refused: Callable[[Refusal], None]
    deadline_ms: int


@dataclass(slots=True)
class Context:
    """One per core. `now_ms` and `commands` belong to the turn that is running."""

    vault: Vault
    random: Random
    now_ms: int = 0
    ready: bool = False
    # Whether the relay's clock agrees. Without that nothing is thrown away because of its age, and
    # no key is made: a clock that jumped by years would end all, or make what nobody takes.
    clock_agrees: bool = False
    keys: IdentityKeys | None = None
    commands: list[Command] = field(default_factory=list)
    prekeys: KeyStore = field(init=False)
    people: PeopleStore = field(init=False)
    timeline: Timeline = field(init=False)
    outbox: OutboxStore = field(init=False)
    rooms: RoomStore = field(init=False)
    _frames: list[bytes] = field(default_factory=list)
    _owed: list[Command] = field(default_factory=list)  # answers of a turn that failed
    _pending: dict[int, _Pending] = field(default_factory=dict)
    _answered: dict[int, _Pending] = field(default_factory=dict)  # in this turn
    _later: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    _last_request: int = 0

    def __post_init__(self) -> None:
        self.prekeys = KeyStore(self.vault)
        self.people = PeopleStore(self.vault)
        self.timeline = Timeline(self.vault)
        self.outbox = OutboxStore(self.vault)
        self.rooms = RoomStore(self.vault)

    @property
    def account(self) -> AccountRow:
        """The profile's account. Raises Refused before set-up."""
        row = self.vault.account()
        if row is None:
            raise Refused("This profile has no account yet. Register first: saltline register")
        return row

    @property
    def me(self) -> IdentityKeys:
        """Our identity keys; they exist from the first challenge on."""
        if self.keys is None:
            raise Refused("This profile is not registered yet. Register first: saltline register")
        return self.keys

    def check_not_ended(self) -> None:
        """Raises Refused where the relay has said that it knows this device no more."""
        if self.vault.meta("ended"):
            raise Refused(ENDED, ExitCode.NOT_TRUSTED)

    def emit(self, event: Event) -> None:
        """Tell whoever watches, once this turn has committed."""
        self.commands.append(Emit(event))

    def transmit(self, message: ClientMessage) -> None:
        """Send a message, once this turn has committed."""
        self._frames.append(encode_frame(encode_message(message)))

    def transmit_body(self, body: bytes) -> None:
        """Send an encoded message."""
        self._frames.append(encode_frame(body))

    def take_commands(self) -> list[Command]:
        """What this turn decided; its frames leave as one write."""
        commands, self.commands = [*self._owed, *self.commands], []
        self._owed = []
        self._answered.clear()
        if self._frames:
            commands.insert(0, Transmit(b"".join(self._frames)))
            self._frames = []
        return commands

    def drop_commands(self, why: BaseException) -> None:
        """The turn did not commit: nothing of it leaves.

        Its answers came to nothing, and whoever waits for one is told so.
        """
        self._pending |= self._answered
        self._answered.clear()
        error = LINK_LOST.as_refused()
        if isinstance(why, VaultError):
            error = Refused(str(why), ExitCode.INTERNAL)
        for command in self.commands:
            if isinstance(command, Answer):
                self._owed.append(Answer(command.ticket, None, command.error or error))
        self.commands, self._frames = [], []

    def request(
        self,
        build: Callable[[int], ClientMessage],
        on_answer: Callable[[RelayMessage], None],
        on_refused: Callable[[Refusal], None],
        room: str = "",
    ) -> None:
        """Send a request; one of the two is called in a later turn.

        An answer that names a room names `room`.
        """
        self._last_request = self._last_request % (2**32 - 1) + 1
        message = build(self._last_request)
        self.transmit(message)
        deadline_ms = self.now_ms + int(REQUEST_TIMEOUT_S * 1000)
        self._pending[self._last_request] = _Pending(
            _ANSWERS[type(message)], room, on_answer, on_refused, deadline_ms
        )

    def answered(self, request_id: int, message: RelayMessage) -> None:
        """Hand an answer to whoever asked, if anybody did. Raises Misbehaved."""
        pending = self._pending.get(request_id)
        if pending is None:
            return
        room = getattr(message, "room", pending.room)
        if type(message) is not pending.answer or room != pending.room:
            raise Misbehaved("The relay answered another question than the one it was asked.")
        self._answered[request_id] = self._pending.pop(request_id)
        pending.on_answer(message)

    def refused(self, request_id: int, refusal: Refusal) -> None:
        """Hand a refusal to whoever asked, if anybody did."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            self._answered[request_id] = pending
            pending.on_refused(refusal)

    def later(self, delay_ms: int, work: Callable[[], None]) -> None:
        """Do this in a turn of its own when the time is over, unless the link breaks before."""
        self._later.append((self.now_ms + delay_ms, work))

    def do_what_is_due(self) -> None:
        """Once a second."""
        due = [work for at_ms, work in self._later if at_ms <= self.now_ms]
        self._later = [each for each in self._later if each[0] > self.now_ms]
        for work in due:
            work()

    def overdue(self, grace_ms: int) -> bool:
        """Whether the relay has left a request unanswered for REQUEST_TIMEOUT_S and this time."""
        began_ms = self.now_ms - grace_ms
        return any(pending.deadline_ms <= began_ms for pending in self._pending.values())

    def fail_all(self) -> None:
        """The link is gone, and with it every answer."""
        pending, self._pending = self._pending, {}
        self._later.clear()
        for each in pending.values():
            each.on_refused(LINK_LOST)

    def answer(self, ticket: int, result: object) -> None:
        """A caller's question is answered."""
        self.commands.append(Answer(ticket, result))

    def reject(self, ticket: int, error: Refused) -> None:
        """A caller's question is refused."""
        self.commands.append(Answer(ticket, None, error))

    def add_line(self, line: NewLine) -> int:
        """Append a line and tell of it."""
        row = self.timeline.add(line)
        self.emit(LineAdded(line.conversation, row))
        return row

    def own_row(self, conversation: str, message_id: bytes) -> int | None:
        """The row of a line of ours with this id, if whoever asks again has queued it before."""
        if not message_id:
            return None
        return self.timeline.find(conversation, self.account.username, message_id)

    def add_own_text(
        self, conversation: str, text: str, message_id: bytes = b""
    ) -> tuple[int, bytes]:
        """A line of ours that waits to leave: its row and its id (16 bytes; "": a new one)."""
        message_id = message_id or self.random(MESSAGE_ID_BYTES)
        line = NewLine(
            conversation,
            LineKind.TEXT,
            self.account.username,
            text,
            self.now_ms,
            self.now_ms,
            message_id,
            mine=True,
            delivery=Delivery.QUEUED,
        )
        return self.add_line(line), message_id

    def again(self, row: int) -> Line:
        """A line of ours that failed waits again. Raises Refused for any other."""
        line = self.timeline.line(row)
        if line is None or not line.mine or line.delivery is not Delivery.FAILED:
            raise Refused("Only a message that failed can be sent again.")
        self.timeline.requeue(row)
        self.emit(LineChanged(line.conversation, row))
        return line

    def say(self, conversation: str, sentence: str, kind: LineKind = LineKind.NOTICE) -> None:
        """A line in this client's own words."""
        self.add_line(NewLine(conversation, kind, SYSTEM[1:], sentence, self.now_ms, self.now_ms))

    def alert(self, conversation: str, sentence: str) -> None:
        """The same, where it may mean an attack."""
        self.say(conversation, sentence, LineKind.ALERT)
        self.emit(ConversationChanged(conversation))
