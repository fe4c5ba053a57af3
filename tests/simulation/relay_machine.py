"""The relay as a machine: the real core and store, a volatile disk, and a process that may die."""

import random as randomness
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from saltline.crypto.keylog import LogKey
from saltline.crypto.signatures import certificate_payload
from saltline.protocol.errors import ProtocolError
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.limits import FRAME_MAX_BEFORE_LOGIN_BYTES, FRAME_MAX_BYTES
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import Entries
from saltline.server import effects
from saltline.server.administration import AdminRequest
from saltline.server.core import RelayCore
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.interface import Outcome, StoreError, StoreUnusable
from saltline.server.store.sqlite import SqliteStore
from tests.simulation.laboratory import require
from tests.simulation.network import Network, Wire
from tests.volatile_disk import VolatileDisk

SPKI: Final = bytes(range(32))
DATABASE: Final = "relay.db"

Results = tuple[tuple[int, Outcome | StoreError], ...]


class Witness(Protocol):
    """Hears what the relay takes in and says."""

    def relay_took(self, wire: Wire, bodies: Sequence[bytes]) -> None: ...
    def relay_says(self, wire: Wire, frame: bytes) -> None: ...


@dataclass
class Seat:
    """A connection at the relay's end, as its edge sees it."""

    wire: Wire
    decoder: FrameDecoder = field(
        default_factory=lambda: FrameDecoder(FRAME_MAX_BEFORE_LOGIN_BYTES)
    )
    held: list[bytes] = field(default_factory=list)  # read, while the core wants nothing
    is_paused: bool = False
    is_congested: bool = False


class RelayMachine:
    """A process on a disk. Its edge is ours: what is queued for the disk, and for the clients."""

    def __init__(
        self,
        random: randomness.Random,
        keys: randomness.Random,
        witness: Witness,
        log_key: LogKey,
        files: dict[str, bytes],
    ) -> None:
        self._random = random
        self._keys = keys
        self._witness = witness
        self.network: Network | None = None
        self.log_key = log_key
        self.disk = VolatileDisk(random.choice((512, 4096)))
        self.disk.put(files)
        self.settings = Settings()
        self.queue_max_bytes = 4 * 1024 * 1024
        self.store: SqliteStore | None = None
        self.core: RelayCore | None = None
        self.seats: dict[int, Seat] = {}
        self.waiting: deque[effects.Persist] = deque()
        self.done: deque[Results] = deque()
        self.stop_reason = ""
        self.answers: dict[int, object] = {}
        self.said: list[str] = []  # lines for the log
        self.commits = self.starts = self.turns = 0

    # --- life ------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.core is not None

    def start(self, now_ms: int) -> bool:
        """Whether it could."""
        failed_syncs = self.disk.failed_syncs
        try:
            self.store = SqliteStore(
                self.disk.path(DATABASE), self.log_key.relay_id, vfs=self.disk.vfs
            )
        except StoreUnusable as error:
            disk = self.disk
            is_faulty = disk.is_down or disk.failed_syncs > failed_syncs
            require(is_faulty or disk.room_bytes is not None, f"the relay starts again: {error}")
            disk.kill()  # the process that could not start is gone, with its handles
            return False
        not_after_ms = now_ms + 10**11
        signature = self.log_key.sign(certificate_payload(SPKI, not_after_ms))
        statement = CertificateStatement(SPKI, not_after_ms, signature)
        self.core = RelayCore(self.settings, self.log_key, statement, self._keys.randbytes)
        self.starts += 1
        return True

    def die(self, *, power: bool) -> None:
        """kill -9, or the power is gone. Everything in memory with it."""
        store, self.store, self.core = self.store, None, None
        self.seats.clear()
        self.waiting.clear()
        self.done.clear()
        self.stop_reason = ""
        if power:
            self.disk.cut(self._random)
        else:
            self.disk.kill()
        if store is not None:
            store._database.close(True)
        if self.network is not None:
            self.network.relay_gone()

    def stop(self, now_ms: int) -> None:
        """As for SIGTERM: what was taken is done, then the store is closed."""
        if self.core is None or self.store is None:
            return
        self._carry_out(self.core.stop(now_ms))
        while self.waiting and not self.stop_reason:
            self.commit(len(self.waiting), now_ms)
            while self.done:
                self.tell(now_ms)
        if not self.disk.is_down:
            self.store.close()
        self.die(power=False)

    # --- the disk --------------------------------------------------------------------------------

    def commit(self, count: int, now_ms: int) -> None:
        """One group of what waits. The core is told later: see `tell`."""
        assert self.store is not None
        group = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        outcomes = self.store.run([persist.operation for persist in group])
        require(len(outcomes) == len(group), "each operation has its outcome")
        self.commits += 1
        self.done.append(tuple(zip((persist.token for persist in group), outcomes, strict=True)))

    def maintain(self) -> None:
        """What the storage thread does after a commit."""
        assert self.store is not None
        failure = self.store.maintain(nobody_waits=not self.waiting)
        if failure is not None:
            self.done.append(((0, failure),))

    def tell(self, now_ms: int) -> None:
        """The outcomes of the oldest group reach the core."""
        assert self.core is not None
        self._carry_out(self.core.stored_all(self.done.popleft(), now_ms))

    # --- connections -----------------------------------------------------------------------------

    def open(self, wire: Wire, now_ms: int) -> None:
        assert self.core is not None
        self.seats[wire.number] = Seat(wire)
        self._carry_out(self.core.opened(wire.number, f"192.0.2.{wire.number % 200}", now_ms))

    def hears(self, wire: Wire, data: bytes, now_ms: int) -> None:
        """Bytes came."""
        seat = self.seats.get(wire.number)
        if seat is None or self.core is None:
            return
        try:
            seat.held += seat.decoder.feed(data)
        except ProtocolError as error:
            self._carry_out(self.core.broken(wire.number, error, now_ms))
            return
        self._hand_over(seat, now_ms)

    def _hand_over(self, seat: Seat, now_ms: int) -> None:
        if self.core is None or seat.is_paused or seat.is_congested or not seat.held:
            return
        bodies, seat.held = seat.held, []
        self._witness.relay_took(seat.wire, bodies)
        self._carry_out(self.core.received(seat.wire.number, bodies, now_ms))

    def lost(self, wire: Wire, now_ms: int) -> None:
        """The connection is gone."""
        if self.seats.pop(wire.number, None) is not None and self.core is not None:
            self._carry_out(self.core.closed(wire.number, now_ms))

    def drained(self, wire: Wire, now_ms: int) -> None:
        """Some of what was queued for a client has arrived."""
        seat = self.seats.get(wire.number)
        if seat is None or self.core is None or not seat.is_congested:
            return
        if wire.down.waiting_bytes * 4 <= self.queue_max_bytes:
            seat.is_congested = False
            self._carry_out(self.core.congested(wire.number, False, now_ms))
            self._hand_over(seat, now_ms)

    def tick(self, now_ms: int) -> None:
        assert self.core is not None
        self._carry_out(self.core.tick(now_ms))

    def ask(self, ticket: int, request: AdminRequest, now_ms: int) -> None:
        """As the admin."""
        assert self.core is not None
        self._carry_out(self.core.admin(ticket, request, now_ms))

    def relax(self) -> None:
        """From now on as generous as a relay usually is, with the windows that it had."""
        usual = Settings()
        self.settings = replace(
            self.settings,
            requests_burst=usual.requests_burst,
            requests_per_second=usual.requests_per_second,
            mailbox_max_envelopes=usual.mailbox_max_envelopes,
        )
        if self.core is not None:
            self.core.settings_changed(self.settings)

    # --- effects ---------------------------------------------------------------------------------

    def _carry_out(self, todo: Sequence[effects.Effect]) -> None:
        self.turns += 1
        for effect in todo:
            match effect:
                case effects.Send():
                    self._say(effect.connection, effect.frame)
                case effects.Broadcast():
                    self._require_for_the_quick(effect)
                    for number in effect.connections:
                        self._say(number, effect.frame)
                case effects.Persist():
                    self.waiting.append(effect)
                case effects.Promote():
                    self.seats[effect.connection].decoder.max_body_bytes = FRAME_MAX_BYTES
                case effects.Pause() | effects.Resume():
                    self.seats[effect.connection].is_paused = isinstance(effect, effects.Pause)
                case effects.Close():
                    seat = self.seats.pop(effect.connection, None)
                    if seat is not None and self.network is not None:
                        self.network.close(seat.wire)
                case effects.Answer():
                    self.answers[effect.ticket] = effect.result
                case effects.Log():
                    self.said.append(effect.text)
                case effects.Stop():
                    self.stop_reason = effect.reason

    def _require_for_the_quick(self, effect: effects.Broadcast) -> None:
        seats = [self.seats.get(number) for number in effect.connections]
        if any(seat is not None and seat.is_congested for seat in seats):
            messages = map(decode_relay_message, FrameDecoder().feed(effect.frame))
            is_of_rooms = any(isinstance(message, Entries) for message in messages)
            require(not is_of_rooms, "who reads too slowly gets no room entries")

    def _say(self, number: int, frame: bytes) -> None:
        seat = self.seats.get(number)
        if seat is None or self.network is None:
            return
        self._witness.relay_says(seat.wire, frame)
        self.network.send_down(seat.wire, frame)

    def mind_the_full(self, now_ms: int) -> None:
        """The edge tells the core who reads too slowly, and cuts off who does not read at all."""
        for seat in self.seats.copy().values():
            size = seat.wire.down.waiting_bytes
            if self.core is None or size <= self.queue_max_bytes:
                continue
            if size > 4 * self.queue_max_bytes:
                self.lost(seat.wire, now_ms)
                if self.network is not None:
                    self.network.tear(seat.wire, relay_hears=False, client_hears=True)
            elif not seat.is_congested:
                seat.is_congested = True
                self._carry_out(self.core.congested(seat.wire.number, True, now_ms))

    def resume(self, now_ms: int) -> None:
        """What was read while the core wanted nothing, now that it may."""
        for seat in self.seats.copy().values():
            self._hand_over(seat, now_ms)
