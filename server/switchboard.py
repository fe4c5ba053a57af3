"""What the core's parts share: who is connected, what waits for the disk, the effects so far."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from saltline.crypto.keylog import LogKey
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.messages import RelayMessage, encode_framed
from saltline.protocol.to_client import Error
from saltline.server.administration import Refused
from saltline.server.effects import (
    ERROR,
    Answer,
    Close,
    Effect,
    Log,
    Pause,
    Persist,
    Resume,
    Send,
    Stop,
)
from saltline.server.peers import Account, Connection, Device, Pausing, Strangers
from saltline.server.settings import Settings
from saltline.server.store.interface import Operation, Outcome, StoreError

# What waiting work counts for besides its bytes, so that a bound on bytes bounds the work: an
# operation as much as a short message, and each further request in it what it takes in memory.
_OPERATION_BYTES: Final = 3584
_REQUEST_BYTES: Final = 512

# So many answers of up to 200 KB are under way at a time. Others wait for their turn, so that a
# hundred who ask at once neither hold up who only writes a line, nor fill the memory.
LONG_READS_AT_ONCE: Final = 2

# A stranger may correct these and try again on the same connection.
_CORRECTABLE: Final = frozenset(
    (
        ErrorCode.BAD_NAME,
        ErrorCode.NAME_TAKEN,
        ErrorCode.INVITE_NEEDED,
        ErrorCode.BAD_INVITE,
    )
)
# A client that sends these is broken, or of another version.
_INCORRIGIBLE: Final = frozenset(
    (
        ErrorCode.BAD_FRAME,
        ErrorCode.FRAME_TOO_LARGE,
        ErrorCode.BAD_MESSAGE,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.REMOVED,
        ErrorCode.INTERNAL,
    )
)

# (connection, request, operation, outcome); request and connection as they were given to persist.
Continue = Callable[[Any, Any, Any, Any], None]


@dataclass(frozen=True, slots=True)
class Ticket:
    """The admin's side of a request."""

    number: int


class Switchboard:
    """Connections by number and, of those logged in, by account and by mailbox."""

    def __init__(self, settings: Settings, log_key: LogKey, random: Callable[[int], bytes]) -> None:
        self.settings = settings
        self.log_key = log_key
        self.random = random
        self.now_ms = 0
        self.ahead_ms = 0  # the date, of the time that nobody sets
        self.connections: dict[int, Connection] = {}
        self.strangers = Strangers()
        self.accounts: dict[int, Account] = {}
        self.mailboxes: dict[int, Connection] = {}
        self.is_stopping = False
        self.has_failed = False
        self.request_bytes = 0  # of the request that is being handled
        # Called with each connection that had logged in and is gone.
        self.departures: list[Callable[[Connection], None]] = []
        self._effects: list[Effect] = []
        self._tokens = count(1)
        self._pending: dict[
            int, tuple[Continue, Continue, Connection | None, Any, Operation, int]
        ] = {}
        self._waiting_bytes = 0
        self._long_reads: set[int] = set()  # tokens of those that the store has
        self._later_reads: deque[Persist] = deque()
        self._paused: dict[int, Connection] = {}

    @property
    def date_ms(self) -> int:
        """Unix ms, by the computer's clock: for what is written down, or compared with that."""
        return self.now_ms + self.ahead_ms

    # --- effects -------------------------------------------------------------------------------

    def begin(self, now_ms: int) -> None:
        """An event came."""
        self.now_ms = now_ms

    def finish(self) -> list[Effect]:
        """What the event led to."""
        effects, self._effects = self._effects, []
        return effects

    def add(self, effect: Effect) -> None:
        """Ask the edge for something."""
        self._effects.append(effect)

    def send(self, connection: Connection, message: RelayMessage) -> None:
        """A message for one connection, unless it is gone."""
        if connection.is_open:
            self._effects.append(Send(connection.number, encode_framed(message)))

    def send_frame(self, connection: Connection, frame: bytes) -> None:
        """The same, encoded before; or several."""
        if connection.is_open:
            self._effects.append(Send(connection.number, frame))

    def refuse(self, connection: Connection, request_id: int, error: ProtocolError) -> None:
        """Answer a request, or the connection (0), with an error; some end the connection."""
        code = error.code
        self.send(connection, Error(request_id, code, error.detail[:400], error.retry_after_ms))
        self.strangers.serve(connection, False)
        ends = code in _INCORRIGIBLE if connection.device else code not in _CORRECTABLE
        if ends:
            self.close(connection, f"refused with {code.value}")

    def dismiss(self, connection: Connection, code: ErrorCode, detail: str) -> None:
        """Tell a connection why it ends, and end it."""
        self.send(connection, Error(0, code, detail, 0))
        self.close(connection, f"dismissed with {code.value}")

    def close(self, connection: Connection, reason: str) -> None:
        """End a connection after what was sent."""
        if connection.is_open:
            self._effects.append(Close(connection.number, reason))
            self.forget(connection)

    def log(self, level: int, text: str) -> None:
        """A line for the log, without secrets."""
        self._effects.append(Log(level, text))

    # --- connections ---------------------------------------------------------------------------

    def welcome(self, connection: Connection, device: Device) -> None:
        """A stranger became a device of an account."""
        self.strangers.discard(connection)
        connection.hello = connection.challenge = b""
        connection.device = device
        self.strangers.serve(connection, False)
        device.account.connections.append(connection)
        self.accounts[device.account.id] = device.account
        self.mailboxes[device.mailbox] = connection

    def forget(self, connection: Connection) -> None:
        """A connection is gone; what it still waits for is done, but not answered."""
        if not connection.is_open:
            return
        connection.is_open = False
        self.connections.pop(connection.number, None)
        self.strangers.discard(connection)
        self._paused.pop(connection.number, None)
        device = connection.device
        if device is None:
            return
        account = device.account
        account.connections.remove(connection)
        if not account.connections:
            self.accounts.pop(account.id, None)
        if self.mailboxes.get(device.mailbox) is connection:
            del self.mailboxes[device.mailbox]
        for departure in self.departures:
            departure(connection)

    # --- the disk ------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for the disk."""
        return not self._pending

    def persist(
        self,
        operation: Operation,
        then: Continue,
        connection: Connection | None,
        request: Any,
        otherwise: Continue | None = None,
        request_bytes: int = 0,
    ) -> None:
        """Hand an operation to the store; go on with `then` or, if it was not done, `otherwise`.

        Without `otherwise` the request is answered with the error. `request_bytes` counts more
        than the request that is being handled. Raises ProtocolError once the disk has failed.
        """
        if self.has_failed:
            raise ProtocolError(ErrorCode.STORAGE_FAILED, "The relay's disk failed.")
        token = next(self._tokens)
        size = 0
        if connection is not None:
            size = (request_bytes or self.request_bytes) + _OPERATION_BYTES
            connection.waiting_bytes += size
            self._waiting_bytes += size
        self._pending[token] = (
            then,
            otherwise or self._refuse_request,
            connection,
            request,
            operation,
            size,
        )
        self._effects.append(Persist(operation, token))

    def read_long(
        self, operation: Operation, then: Continue, connection: Connection, request: Any
    ) -> None:
        """As `persist`, for what may have a long answer: when others have had theirs.

        Until then nothing more is read from the connection.
        """
        self.persist(operation, then, connection, request)
        effect = self._effects.pop()
        assert type(effect) is Persist
        self._later_reads.append(effect)
        self._read_on()
        if effect.token not in self._long_reads:
            self.pause(connection, Pausing.TURN)

    def persist_many(
        self,
        operation: Operation,
        then: Continue,
        connection: Connection,
        requests: Sequence[Any],
        requests_bytes: int,
    ) -> None:
        """One operation for several requests of a connection, each of which is answered."""
        size = requests_bytes + (len(requests) - 1) * _REQUEST_BYTES
        try:
            self.persist(operation, then, connection, requests, self._refuse_requests, size)
        except ProtocolError as error:
            for request in requests:
                self.failed(connection, request, error)

    def settle(self, token: int, outcome: Outcome | StoreError) -> None:
        """Go on with what waited for an outcome."""
        if type(outcome) is StoreError:
            self._note_failure(outcome)
        waiting = self._pending.pop(token, None)
        if waiting is None:
            return
        then, otherwise, connection, request, operation, size = waiting
        if connection is not None:
            connection.waiting_bytes -= size
            self._waiting_bytes -= size
        if token in self._long_reads:
            self._long_reads.remove(token)
            self._read_on()
        step = otherwise if type(outcome) is StoreError else then
        try:
            step(connection, request, operation, outcome)
        except Exception as error:
            self.failed(connection, request, error)

    def _read_on(self) -> None:
        """As many of those that wait for their turn as may be under way."""
        while self._later_reads and len(self._long_reads) < LONG_READS_AT_ONCE:
            effect = self._later_reads.popleft()
            _, _, connection, _, _, size = self._pending[effect.token]
            assert connection is not None
            if connection.is_open:
                self._long_reads.add(effect.token)
                self._effects.append(effect)
                self.resume(connection, Pausing.TURN)
            else:  # nobody waits for it any more
                del self._pending[effect.token]
                self._waiting_bytes -= size

    def attempt(
        self, step: Callable[..., None], connection: Connection | None, request: Any, *more: Any
    ) -> None:
        """Take a step for a request: step(connection, request, …); answer what it raises."""
        try:
            step(connection, request, *more)
        except Exception as error:
            self.failed(connection, request, error)

    def failed(self, connection: Connection | None, request: Any, error: Exception) -> None:
        """A step for a request raised this: answer it."""
        if isinstance(error, ProtocolError):
            self._answer_error(connection, request, error)
            return
        # A mistake of ours costs the one who met it, not everyone.
        self.log(ERROR, f"A step of {_describe(request)} failed: {_origin(error)}.")
        self._answer_error(
            connection,
            request,
            ProtocolError(ErrorCode.INTERNAL, "The relay made a mistake. Try again."),
        )

    def pause_if_too_much(self, connection: Connection) -> None:
        """Take nothing more from one who asks faster than the disk can do."""
        settings = self.settings
        if (
            connection.waiting_bytes > settings.waiting_per_connection_bytes
            or self._waiting_bytes > settings.waiting_in_all_bytes
        ) and connection.is_open:
            self._paused[connection.number] = connection
            self.pause(connection, Pausing.WORK)

    def resume_paused(self) -> None:
        """Take more from those of whom half is done."""
        settings = self.settings
        if not self._paused or self._waiting_bytes > settings.waiting_in_all_bytes // 2:
            return
        enough = settings.waiting_per_connection_bytes // 2
        for connection in list(self._paused.values()):
            if connection.waiting_bytes <= enough:
                del self._paused[connection.number]
                self.resume(connection, Pausing.WORK)

    def pause(self, connection: Connection, why: Pausing) -> None:
        """Read nothing more from it until every `why` is over."""
        if not connection.pauses:
            self._effects.append(Pause(connection.number))
        connection.pauses |= why

    def resume(self, connection: Connection, why: Pausing) -> None:
        """This one is over. What it could not say meanwhile was no silence of its own."""
        if why in connection.pauses:
            connection.pauses &= ~why
            if not connection.pauses:
                connection.heard_ms = self.now_ms
                self._effects.append(Resume(connection.number))

    def _refuse_request(
        self,
        _connection: Connection | None,
        _request: Any,
        _operation: Operation,
        error: StoreError,
    ) -> None:
        raise ProtocolError(error.code, error.detail)

    def _refuse_requests(
        self,
        connection: Connection | None,
        requests: Sequence[Any],
        _operation: Operation,
        error: StoreError,
    ) -> None:
        for request in requests:
            self.failed(connection, request, ProtocolError(error.code, error.detail))

    def _answer_error(
        self, connection: Connection | None, request: Any, error: ProtocolError
    ) -> None:
        if connection is not None:
            self.refuse(connection, getattr(request, "id", 0), error)
        elif isinstance(request, Ticket):
            self._effects.append(Answer(request.number, Refused(error.code, error.detail)))

    def _note_failure(self, error: StoreError) -> None:
        if error.fatal and not self.has_failed:
            self.has_failed = True
            self._effects.append(Stop(error.detail))


def _describe(request: object) -> str:
    return type(request).__name__


def _origin(error: BaseException) -> str:
    """The kind and place of a mistake. Its text could hold what people wrote."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}" if trace else ""
    return type(error).__name__ + place


def ignore(
    _connection: Connection | None, _request: Any, _operation: Operation, _result: Any
) -> None:
    """There is nobody to tell."""
