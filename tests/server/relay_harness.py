"""A whole relay in memory: the real core on the real store, without sockets, threads or a clock.

    relay = MemoryRelay(folder / "relay.db")
    ada = relay.connect()
    ada.send(hello)
    assert ada.take() == [challenge]

Everything that one call asks of the store is done at once, as one group with one commit, and its
outcomes are told to the core, until nothing is left to do. `relay.now_ms` is the clock.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from saltline.crypto.keylog import LogKey
from saltline.crypto.signatures import certificate_payload
from saltline.protocol.errors import ProtocolError
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.messages import (
    ClientMessage,
    decode_relay_message,
    encode_message,
)
from saltline.server.administration import AdminRequest, AdminResult
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
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.interface import Operation, Store
from saltline.server.store.sqlite import SqliteStore
from tests.pushes import Heard, unfolded

DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS

Message = TypeVar("Message", bound=Heard)


class MemoryConnection:
    """A client's end of a connection to a `MemoryRelay`.

    `received` has every message that came and was not taken yet.
    """

    def __init__(self, relay: "MemoryRelay", number: int) -> None:
        self._relay = relay
        self._frames = FrameDecoder()
        self.number = number
        self.received: list[Heard] = []
        self.bodies: list[bytes] = []  # of all that came, as sent
        self.is_open = True
        self.is_promoted = False
        self.is_paused = False
        self.close_reason = ""

    def send(self, *messages: ClientMessage) -> None:
        """Send messages, which arrive together."""
        self.send_bodies(*(encode_message(message) for message in messages))

    def send_bodies(self, *bodies: bytes) -> None:
        """Send frames' bodies, which arrive together."""
        core = self._relay.core
        self._relay.perform(core.received(self.number, bodies, self._relay.now_ms))

    def send_broken(self, error: ProtocolError) -> None:
        """Send what cannot be cut into frames."""
        self._relay.perform(self._relay.core.broken(self.number, error, self._relay.now_ms))

    def cut(self) -> None:
        """The network is gone, or the client closes; what was pushed is lost with it."""
        self.is_open = False
        self._relay.connections.pop(self.number, None)
        self._relay.perform(self._relay.core.closed(self.number, self._relay.now_ms))

    def congest(self, is_congested: bool) -> None:
        """The queue to this client rose above its bound, or drained."""
        core = self._relay.core
        self._relay.perform(core.congested(self.number, is_congested, self._relay.now_ms))

    def take(self) -> list[Heard]:
        """What came since the last time."""
        received, self.received = self.received, []
        return received

    def take_one(self, kind: type[Message]) -> Message:
        """The only message that came since the last time, which is of this kind."""
        received = self.take()
        assert len(received) == 1, received
        assert isinstance(received[0], kind), received[0]
        return received[0]

    def take_all(self, kind: type[Message]) -> list[Message]:
        """Those of this kind, of what came since the last time; the others are dropped."""
        return [message for message in self.take() if isinstance(message, kind)]

    def deliver(self, frame: bytes) -> None:
        """The relay sent a frame."""
        for body in self._frames.feed(frame):
            self.bodies.append(body)
            self.received += unfolded(decode_relay_message(body))


class MemoryRelay:
    """A relay and its disk.

    `path` is its database, None for one in memory that no crash survives. `wrap_store` may put
    something between the core and its store.
    """

    def __init__(
        self,
        path: Path | None = None,
        settings: Settings | None = None,
        *,
        seed: int = 1,
        wrap_store: Callable[[Store], Store] = lambda store: store,
    ) -> None:
        self.random = random.Random(seed).randbytes
        self.log_key = LogKey.generate(self.random)
        self.certificate = self.new_certificate()
        self.settings = settings or Settings()
        self.now_ms = START_MS
        self.connections: dict[int, MemoryConnection] = {}
        self.effects: list[Effect] = []  # all of them, for tests that look closer
        self.logged: list[Log] = []
        self.stopped_for: str | None = None
        self.is_holding = False
        self._held: list[Persist] = []
        self.answers: dict[int, AdminResult] = {}
        self._path = path
        self._wrap_store = wrap_store
        self._last_number = 0
        self._last_ticket = 0
        self._start()

    def _start(self) -> None:
        self.database = SqliteStore(self._path or ":memory:", self.log_key.relay_id)
        self.store = self._wrap_store(self.database)
        self.core = RelayCore(self.settings, self.log_key, self.certificate, self.random)

    def new_certificate(self, spki_hash: bytes = b"") -> CertificateStatement:
        """A new TLS key's statement, signed by the log key; of a key that nobody has, unless told.

        `spki_hash` has 32 bytes.
        """
        spki_hash = spki_hash or self.random(32)
        not_after_ms = START_MS + 3650 * DAY_MS
        signature = self.log_key.sign(certificate_payload(spki_hash, not_after_ms))
        return CertificateStatement(spki_hash, not_after_ms, signature)

    # --- events --------------------------------------------------------------------------------

    def connect(self, address: str = "192.0.2.1") -> MemoryConnection:
        """A new connection, TLS done."""
        self._last_number += 1
        connection = MemoryConnection(self, self._last_number)
        self.connections[connection.number] = connection
        self.perform(self.core.opened(connection.number, address, self.now_ms))
        return connection

    def advance(self, ms: int) -> None:
        """Time goes on by `ms`, with a tick at the end."""
        self.now_ms += ms
        self.perform(self.core.tick(self.now_ms))

    def set_clock(self, ahead_ms: int) -> None:
        """Somebody sets the computer's clock: the date is so far ahead of `now_ms`."""
        self.core.set_date(self.now_ms + ahead_ms, self.now_ms)

    def admin(self, request: AdminRequest) -> AdminResult:
        """Ask as the relay's admin, and wait for the answer."""
        return self.answers[self.ask(request)]

    def ask(self, request: AdminRequest) -> int:
        """Ask as the relay's admin: the ticket, under which `answers` has the answer later."""
        self._last_ticket += 1
        self.perform(self.core.admin(self._last_ticket, request, self.now_ms))
        return self._last_ticket

    def stop(self) -> None:
        """Stop in order, as for SIGTERM."""
        self.perform(self.core.stop(self.now_ms))

    def restart(self) -> None:
        """Close the database and start anew on it. All connections are gone."""
        self.database.close()
        self._lose_connections()
        self._start()

    def crash(self) -> None:
        """Start anew on what kill -9 leaves: the files, as they are now. Connections are gone."""
        assert self._path is not None, "a database in memory survives no crash"
        left = self._path.with_name(f"{self._path.name}.after-crash-{self._last_number}")
        for suffix in ("", "-wal"):
            written = self._path.with_name(self._path.name + suffix)
            if written.exists():
                shutil.copyfile(written, left.with_name(left.name + suffix))
        self.database.close()
        self._path = left
        self._lose_connections()
        self._start()

    def _lose_connections(self) -> None:
        for connection in self.connections.values():
            connection.is_open = False
        self.connections.clear()
        self._held.clear()

    # --- the disk ------------------------------------------------------------------------------

    def hold(self) -> None:
        """From now on, nothing is committed."""
        self.is_holding = True

    def release(self) -> None:
        """Commit everything that was held, as one group."""
        self.is_holding = False
        self._commit()

    def release_one_group(self) -> None:
        """Commit what is held now as one group; what comes of it is held again."""
        group, self._held = self._held, []
        operations: Sequence[Operation] = [persist.operation for persist in group]
        outcomes = self.store.run(operations)
        tokens = (persist.token for persist in group)
        results = list(zip(tokens, outcomes, strict=True))
        self._carry_out(self.core.stored_all(results, self.now_ms))
        self.store.maintain()

    def _commit(self) -> None:
        while self._held and not self.is_holding:
            self.release_one_group()

    # --- effects -------------------------------------------------------------------------------

    def perform(self, effects: Sequence[Effect]) -> None:
        """Do what the core asked for, and what comes of it."""
        self._carry_out(effects)
        self._commit()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            match effect:
                case Send():
                    self._deliver(effect.connection, effect.frame)
                case Broadcast():
                    for number in effect.connections:
                        self._deliver(number, effect.frame)
                case Persist():
                    self._held.append(effect)
                case Promote():
                    self.connections[effect.connection].is_promoted = True
                case Pause() | Resume():
                    self.connections[effect.connection].is_paused = isinstance(effect, Pause)
                case Close():
                    closed = self.connections.pop(effect.connection)
                    closed.is_open = False
                    closed.close_reason = effect.reason
                case Answer():
                    assert effect.ticket not in self.answers, "answered twice"
                    self.answers[effect.ticket] = effect.result
                case Log():
                    self.logged.append(effect)
                case Stop():
                    assert self.stopped_for is None, "stopped twice"
                    self.stopped_for = effect.reason
                case _:
                    raise AssertionError(f"an unknown effect: {effect!r}")

    def _deliver(self, number: int, frame: bytes) -> None:
        connection = self.connections.get(number)
        if connection is not None and connection.is_open:
            connection.deliver(frame)
