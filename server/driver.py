"""Drives the core under its one lock, and hands its effects to those who carry them out.

Lock tiers (a thread that holds one takes only locks of a higher number):

    1  CoreDriver._lock   the core, and the order of everything that it asks for

Under tier 1 there are decisions and appends to queues: never a socket, a disk, a log or a wait.
Effects are queued under the lock, so that no two threads can swap what the core put in order.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from saltline.protocol.text import sanitise
from saltline.server.clock import Clock
from saltline.server.core import RelayCore
from saltline.server.effects import (
    Answer,
    Broadcast,
    Close,
    Effect,
    Log,
    Pause,
    Persist,
    Promote,
    Resume,
    Send,
    Stop,
)
from saltline.server.events import Event
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.interface import Operation

log: Final = logging.getLogger("saltline.server")


class Owner(Protocol):
    """The inbox of the thread that owns connections."""

    def put(self, item: Effect, /) -> None:
        """Append; never blocks."""

    def wake(self) -> None:
        """Let the thread look."""

    def __len__(self) -> int: ...


class CoreDriver:
    """The only way to the core. Any thread may call it."""

    def __init__(
        self,
        core: RelayCore,
        clock: Clock,
        on_answer: Callable[[Answer], None],
        on_stop: Callable[[str], None],
    ) -> None:
        self._core = core
        self._clock = clock
        self._on_answer = on_answer
        self._on_stop = on_stop
        self._owners: Sequence[Owner] = ()
        self._submit: Callable[[Sequence[tuple[int, Operation]]], None] = _not_attached
        self._lock: Final = threading.Lock()  # tier 1

    def attach(
        self, owners: Sequence[Owner], submit: Callable[[Sequence[tuple[int, Operation]]], None]
    ) -> None:
        """Name who carries effects out; before the first event.

        Connection `n` belongs to `owners[n % len(owners)]`.
        """
        self._owners = owners
        self._submit = submit

    def drive(self, events: Iterable[Event]) -> None:
        """Tell the core what happened, in order, with one lock take."""
        aside: list[Effect] = []
        operations: list[tuple[int, Operation]] = []
        with self._lock:
            now_ms = self._clock.now_ms()
            self._core.set_date(self._clock.date_ms(), now_ms)
            try:
                for event in events:
                    self._queue(event(self._core, now_ms), operations, aside)
            finally:
                if operations:  # at once: they may share a commit, and one wake-up
                    self._submit(operations)
        for owner in self._owners:
            if len(owner):
                owner.wake()
        for effect in aside:
            self._carry_out(effect)

    def _queue(
        self,
        effects: Iterable[Effect],
        operations: list[tuple[int, Operation]],
        aside: list[Effect],
    ) -> None:
        owners = self._owners
        for effect in effects:
            # By type and in this order, since all that a busy relay does passes here.
            if type(effect) is Send:
                owners[effect.connection % len(owners)].put(effect)
            elif type(effect) is Persist:
                operations.append((effect.token, effect.operation))
            elif type(effect) is Broadcast:
                for owner in owners:
                    owner.put(effect)
            elif isinstance(effect, (Promote, Close, Pause, Resume)):
                owners[effect.connection % len(owners)].put(effect)
            else:
                aside.append(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Log():
                log.log(effect.level, "%s", sanitise(effect.text, newlines=False))
            case Answer():
                self._on_answer(effect)
            case Stop():
                self._on_stop(effect.reason)
            case _:
                raise TypeError(f"the core asked for a {type(effect).__name__}")

    @property
    def logins(self) -> int:
        """See `RelayCore.logins`; without the lock, since a glance will do."""
        return self._core.logins

    @property
    def is_idle(self) -> bool:
        """Whether the core waits for no operation."""
        with self._lock:
            return self._core.idle

    def reconfigure(self, statement: CertificateStatement, settings: Settings) -> None:
        """From now on, new connections get this statement, and requests these settings."""

        def event(core: RelayCore, now_ms: int) -> Iterable[Effect]:
            core.certificate_changed(statement)
            core.settings_changed(settings)
            return ()

        self.drive([event])


def _not_attached(operations: Sequence[tuple[int, Operation]]) -> None:
    raise RuntimeError("no storage is attached yet")
