"""What the parts of the core share during one turn: vault, requests, commands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from saltline.client.commands import Answer, Command, Emit, Transmit
from saltline.client.model import (
    ConversationChanged,
    Event,
    ExitCode,
    LineAdded,
    LineKind,
    Refused,
)
from saltline.client.vault.database import AccountRow, Vault
from saltline.client.vault.keys import KeyStore
from saltline.client.vault.outbox import OutboxStore
from saltline.client.vault.people import PeopleStore
from saltline.client.vault.rooms import RoomStore
from saltline.client.vault.timeline import NewLine, Timeline
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.primitives import Random
from saltline.protocol.errors import ErrorCode
from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import REQUEST_TIMEOUT_S
from saltline.protocol.messages import ClientMessage, RelayMessage, encode_message
from saltline.protocol.text import sanitise

# Where this client says what belongs to no conversation. The name is reserved on every relay.
SYSTEM: Final = "@saltline"
LINK_LOST: Final = "link_lost"
NO_ANSWER: Final = "no_answer"

_EXIT_CODES: Final = {
    ErrorCode.RATE_LIMITED: ExitCode.LIMITED,
    ErrorCode.MAILBOX_FULL: ExitCode.LIMITED,
    ErrorCode.TOO_MANY_ROOMS: ExitCode.LIMITED,
    ErrorCode.TOO_MANY_CONNECTIONS: ExitCode.LIMITED,
    ErrorCode.STORAGE_FAILED: ExitCode.LIMITED,
    ErrorCode.UNKNOWN_USER: ExitCode.UNKNOWN_NAME,
    ErrorCode.UNKNOWN_ROOM: ExitCode.UNKNOWN_NAME,
    ErrorCode.STOPPING: ExitCode.UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request was not done: the relay's error, LINK_LOST or NO_ANSWER."""

    code: str
    detail: str
    retry_after_ms: int = 0

    @property
    def lost(self) -> bool:
        """Whether nobody refused anything: the link broke."""
        return self.code in (LINK_LOST, NO_ANSWER)

    def as_refused(self) -> Refused:
        """The sentence and exit code for a person."""
        if self.lost:
            return Refused(
                "The relay did not answer. Nothing was lost; try again.", ExitCode.TIMED_OUT
            )
        known = self.code in ErrorCode.__members__.values()
        code = _EXIT_CODES.get(ErrorCode(self.code)) if known else None
        return Refused(sanitise(self.detail, newlines=False), code or ExitCode.USAGE)


@dataclass(slots=True)
class _Pending:
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
    keys: IdentityKeys | None = None
    commands: list[Command] = field(default_factory=list)
    prekeys: KeyStore = field(init=False)
    people: PeopleStore = field(init=False)
    timeline: Timeline = field(init=False)
    outbox: OutboxStore = field(init=False)
    rooms: RoomStore = field(init=False)
    _frames: list[bytes] = field(default_factory=list)
    _pending: dict[int, _Pending] = field(default_factory=dict)
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

    @property
    def pending_requests(self) -> int:
        """Requests that wait for the relay's answer."""
        return len(self._pending)

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
        commands, self.commands = self.commands, []
        if self._frames:
            commands.insert(0, Transmit(b"".join(self._frames)))
            self._frames = []
        return commands

    def drop_commands(self) -> None:
        """The turn did not commit: nothing of it leaves."""
        self.commands, self._frames = [], []

    def request(
        self,
        build: Callable[[int], ClientMessage],
        on_answer: Callable[[RelayMessage], None],
        on_refused: Callable[[Refusal], None],
    ) -> None:
        """Send a request; one of the two is called in a later turn."""
        self._last_request = self._last_request % (2**32 - 1) + 1
        deadline_ms = self.now_ms + int(REQUEST_TIMEOUT_S * 1000)
        self._pending[self._last_request] = _Pending(on_answer, on_refused, deadline_ms)
        self.transmit(build(self._last_request))

    def answered(self, request_id: int, message: RelayMessage) -> bool:
        """Hand an answer to whoever asked; False if nobody did."""
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return False
        pending.on_answer(message)
        return True

    def refused(self, request_id: int, refusal: Refusal) -> bool:
        """Hand a refusal to whoever asked; False if nobody did."""
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return False
        pending.on_refused(refusal)
        return True

    def overdue(self) -> bool:
        """Whether the relay has left a request without an answer for too long."""
        return any(pending.deadline_ms <= self.now_ms for pending in self._pending.values())

    def fail_all(self, code: str) -> None:
        """The link is gone, and with it every answer."""
        pending, self._pending = self._pending, {}
        for each in pending.values():
            each.on_refused(Refusal(code, ""))

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

    def say(self, conversation: str, sentence: str, kind: LineKind = LineKind.NOTICE) -> None:
        """A line in this client's own words."""
        self.add_line(NewLine(conversation, kind, SYSTEM[1:], sentence, self.now_ms, self.now_ms))

    def alert(self, conversation: str, sentence: str) -> None:
        """The same, where it may mean an attack."""
        self.say(conversation, sentence, LineKind.ALERT)
        self.emit(ConversationChanged(conversation))
