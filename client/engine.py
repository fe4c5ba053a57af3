"""The thread that alone touches the core: calls and link events in, effects out, in one order."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from saltline.client.commands import Answer, Command, Disconnect, Emit, Transmit
from saltline.client.failures import Closed, as_refused, describe, refused_link
from saltline.client.link_events import (
    LinkDown,
    LinkEvent,
    LinkReceived,
    LinkRefused,
    LinkTrying,
    LinkUp,
    Target,
)
from saltline.client.model import (
    ConnectionChanged,
    ConnectionState,
    Event,
    ExitCode,
    Refused,
)
from saltline.client.vault.database import VaultError

_log = logging.getLogger("saltline.client")
_log.addHandler(logging.NullHandler())

_TICK_S: Final = 1.0
# Adjacent deliveries are handed over together: one transaction of the vault.
_BATCH_BYTES: Final = 1024 * 1024

Result = TypeVar("Result")


class Core(Protocol):
    """What the engine asks of the core by itself; it carries out whatever a call returns."""

    @property
    def caught_up(self) -> bool: ...
    def link_up(self, spki_hash: bytes, now_ms: int) -> list[Command]: ...
    def received(self, bodies: Sequence[bytes], now_ms: int) -> list[Command]: ...
    def link_down(self, now_ms: int) -> list[Command]: ...
    def tick(self, now_ms: int) -> list[Command]: ...
    def idle(self) -> bool: ...


class LinkPort(Protocol):
    """What the engine asks of the link."""

    def start(self) -> None: ...
    def send(self, connection: int, data: bytes) -> None: ...
    def consumed(self, size_bytes: int) -> None: ...
    def settled(self, connection: int) -> None: ...
    def drop(self, connection: int, *, retry: bool) -> None: ...
    def reconnect(self) -> None: ...
    def retarget(self, target: Target) -> None: ...
    def stop(self, flush_s: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    """Work for the engine's thread; it completes the future itself."""

    run: Callable[[], None]
    future: "Future[Any]"


class Engine:
    """Serialises everything that reaches the core, and ticks it once a second."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._link: LinkPort | None = None
        self._live = 0  # the connection that the core knows of, or 0
        self._ending: Disconnect | None = None  # why the core wants the live connection closed
        self._tickets: dict[int, Future[Any]] = {}
        self._last_ticket = 0
        self._idle_waiters: list[Future[None]] = []
        self._impatient: list[Future[Any]] = []  # fail when the first attempt to connect does
        self._events: deque[Event] = deque()
        self._subscribers: dict[int, Callable[[Event], None]] = {}
        self._last_subscriber = 0
        # Guards the inbox and the subscribers; tier 1, and nothing is called under it.
        self._lock = threading.Condition()
        self._inbox: deque[_Call | LinkEvent] = deque()
        self._stopping = False
        self._failure: Refused | None = None
        self.connection = ConnectionChanged(ConnectionState.OFFLINE)
        self._thread = threading.Thread(target=self._run, name="saltline-engine", daemon=True)

    # --- for any thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def attach(self, link: LinkPort) -> None:
        """Begin to connect. On the engine's thread only (through `call`)."""
        self._link = link
        link.start()

    @property
    def link(self) -> LinkPort | None:
        """The link, once there is one."""
        return self._link

    def deliver(self, event: LinkEvent) -> None:
        """For the link: take an event; never blocks."""
        with self._lock:
            self._inbox.append(event)
            self._lock.notify()

    def call(self, work: Callable[[int], tuple[Result, list[Command]]]) -> Result:
        """Run `work(now_ms)` on the engine's thread, carry out its commands, give its result.

        Raises Refused.
        """
        future: Future[Result] = Future()

        def run() -> None:
            try:
                result, commands = work(_now_ms())
                self._perform(commands)
            except Exception as error:
                future.set_exception(as_refused(error))
            else:
                future.set_result(result)

        if threading.current_thread() is self._thread:
            run()  # a subscriber that asks: waiting for ourselves would never end
        else:
            self._submit(run, future)
        return future.result()

    def ask(
        self, work: Callable[[int, int], list[Command]], *, impatient: bool = False
    ) -> Future[Any]:
        """Run `work(ticket, now_ms)` on the engine's thread; the future is the ticket's answer.

        `impatient`: it fails when the relay cannot be reached, instead of waiting for retries.
        """
        future: Future[Any] = Future()

        def run() -> None:
            self._last_ticket += 1
            ticket = self._last_ticket
            self._tickets[ticket] = future
            if impatient:
                self._impatient.append(future)
            try:
                self._perform(work(ticket, _now_ms()))
            except Exception as error:
                self._tickets.pop(ticket, None)
                _fail(future, as_refused(error))

        self._submit(run, future)
        return future

    def when_idle(self) -> Future[None]:
        """Done when all is sent and taken in; fails when the relay is out of the question."""
        future: Future[None] = Future()

        def run() -> None:
            if self.connection.state is ConnectionState.REFUSED:
                _fail(future, refused_link(self.connection))
            else:
                self._idle_waiters.append(future)

        self._submit(run, future)
        return future

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event, on the engine's thread; returns how to stop it."""
        with self._lock:
            self._last_subscriber += 1
            number = self._last_subscriber
            self._subscribers[number] = callback

        def stop() -> None:
            with self._lock:
                self._subscribers.pop(number, None)

        return stop

    def stop(self) -> None:
        """Finish what was asked, then end the thread; open questions are refused."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _submit(self, run: Callable[[], None], future: Future[Any]) -> None:
        with self._lock:
            refusal = self._failure or (Closed() if self._stopping else None)
            if refusal is None:
                self._inbox.append(_Call(run, future))
                self._lock.notify()
        if refusal is not None:
            _fail(future, refusal)

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # a defect: say so to everybody, then refuse everything
            with self._lock:
                self._failure = as_refused(error)
            self._say(ConnectionChanged(ConnectionState.REFUSED, self._failure.sentence))
            self._deliver_events()
        finally:
            with self._lock:
                self._stopping = True
                left, self._inbox = self._inbox, deque()
            waiting = [item.future for item in left if isinstance(item, _Call)]
            for future in [*waiting, *self._tickets.values(), *self._idle_waiters]:
                _fail(future, self._failure or Closed())

    def _loop(self) -> None:
        next_tick = time.monotonic() + _TICK_S
        while True:
            with self._lock:
                if not self._inbox and not self._stopping:
                    self._lock.wait(max(0.0, next_tick - time.monotonic()))
                items, self._inbox = self._inbox, deque()
                last = self._stopping and not items
            if last:
                return
            while items:
                item = items.popleft()
                if isinstance(item, LinkReceived):
                    self._received(item, items)
                elif isinstance(item, _Call):
                    item.run()
                else:
                    self._link_event(item)
                self._after_turn()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_S
                self._core_turn(lambda now_ms: self._core.tick(now_ms))
                self._after_turn()

    def _after_turn(self) -> None:
        if self._idle_waiters and self._is_idle():
            waiters, self._idle_waiters = self._idle_waiters, []
            for future in waiters:
                with suppress(InvalidStateError):
                    future.set_result(None)
        self._deliver_events()

    def _is_idle(self) -> bool:
        try:
            return self._core.idle()
        except VaultError:
            return False  # who waits is told when the time is over

    def _received(self, first: LinkReceived, items: "deque[_Call | LinkEvent]") -> None:
        bodies, size = list(first.bodies), first.size_bytes
        while items and size < _BATCH_BYTES:
            following = items[0]
            if not isinstance(following, LinkReceived) or following.connection != first.connection:
                break
            bodies += following.bodies
            size += following.size_bytes
            items.popleft()
        try:
            if first.connection == self._live:
                self._core_turn(lambda now_ms: self._core.received(bodies, now_ms))
                if self._core.caught_up and self._link is not None:
                    self._link.settled(first.connection)
        finally:
            if self._link is not None:
                self._link.consumed(size)

    def _link_event(self, event: LinkEvent) -> None:
        match event:
            case LinkTrying():
                self._say(ConnectionChanged(ConnectionState.CONNECTING))
            case LinkUp(connection, spki_hash):
                self._live = connection
                self._ending = None
                self._core_turn(lambda now_ms: self._core.link_up(spki_hash, now_ms))
            case LinkDown():
                self._link_down(event)
            case LinkRefused(sentence):
                self._never_reached(sentence)
                self._say(ConnectionChanged(ConnectionState.REFUSED, sentence))
            case LinkReceived():  # see _received
                pass

    def _never_reached(self, sentence: str) -> None:
        waiters, self._impatient = self._impatient, []
        for future in waiters:
            _fail(future, Refused(sentence, ExitCode.UNREACHABLE))

    def _link_down(self, event: LinkDown) -> None:
        if self._live:
            self._live = 0
            self._core_turn(lambda now_ms: self._core.link_down(now_ms))
        elif not event.connection:
            self._never_reached(f"{event.detail}. Nothing was sent.")
        ending, self._ending = self._ending, None
        if ending is None:
            ending = Disconnect(ConnectionState.OFFLINE, event.detail, True)
        self._say(ConnectionChanged(ending.state, ending.detail, event.retry_in_s))

    def _core_turn(self, turn: Callable[[int], list[Command]]) -> None:
        """A turn that nobody waits for. Where the vault fails, the relay keeps what it has."""
        try:
            commands = turn(_now_ms())
        except VaultError as error:
            commands = [Disconnect(ConnectionState.OFFLINE, str(error), True)]
        self._perform(commands)

    def _perform(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Transmit(data):
                    if self._link is not None and self._live:
                        self._link.send(self._live, data)
                case Disconnect():
                    if self._link is not None and self._live:
                        self._ending = command
                        self._link.drop(self._live, retry=command.retry)
                case Emit(event):
                    self._say(event)
                case Answer(ticket, result, error):
                    self._answer(ticket, result, error)

    def _answer(self, ticket: int, result: object, error: Refused | None) -> None:
        future = self._tickets.pop(ticket, None)
        if future is None:
            return
        if error is not None:
            _fail(future, error)
        else:
            with suppress(InvalidStateError):  # cancelled by who asked
                future.set_result(result)

    def _say(self, event: Event) -> None:
        if isinstance(event, ConnectionChanged):
            self.connection = event
            if event.state is ConnectionState.REFUSED:
                waiters, self._idle_waiters = self._idle_waiters, []
                for future in waiters:
                    _fail(future, refused_link(event))
        self._events.append(event)

    def _deliver_events(self) -> None:
        """After the turn, so that a subscriber's own calls find everything in place."""
        while self._events:
            event = self._events.popleft()
            with self._lock:
                callbacks = list(self._subscribers.values())
            for callback in callbacks:
                try:
                    callback(event)
                except Exception as error:  # a face that fails must not stop the messenger
                    _log.error("a subscriber failed: %s", describe(error))


def _fail(future: "Future[Any]", refusal: Refused) -> None:
    with suppress(InvalidStateError):
        future.set_exception(refusal)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
