"""A client as a machine: the real core and vault, a volatile disk, and a process that may die."""

import random as randomness
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from saltline.client.commands import Answer, Command, Disconnect, Emit, Transmit
from saltline.client.core import ClientCore
from saltline.client.model import Event, LineAdded, LineChanged, Refused
from saltline.client.vault.database import Vault, VaultError
from saltline.protocol.errors import ProtocolError
from saltline.protocol.frames import FrameDecoder
from tests.simulation.laboratory import require
from tests.simulation.network import Network, Wire
from tests.simulation.relay_machine import SPKI
from tests.volatile_disk import VolatileDisk

VAULT: Final = "vault.db"
KEY: Final = bytes(range(32, 64))
RECONNECT_MAX_MS: Final = 60_000

Turn = Callable[[ClientCore, int], list[Command]]


class Watcher(Protocol):
    """Hears what a client has committed."""

    def client_committed(self, client: "ClientMachine", events: Sequence[Event]) -> None: ...
    def client_sends(self, wire: Wire, data: bytes) -> None: ...
    def client_heard(self, wire: Wire, bodies: Sequence[bytes]) -> None: ...


class ClientMachine:
    """A process on a disk, with the link's habits: it comes back after 1, 2, 4 … 60 s."""

    def __init__(
        self,
        name: str,
        seed: str,
        random: randomness.Random,
        watcher: Watcher,
        files: dict[str, bytes],
    ) -> None:
        self.name = name
        self._seed = seed
        self._random = random
        self._watcher = watcher
        self.network: Network | None = None
        self.disk = VolatileDisk(random.choice((512, 4096)))
        self.disk.put(files)
        self.skew_ms = random.choice((0, 0, 0, -200_000, 150_000))
        self.vault: Vault | None = None
        self.core: ClientCore | None = None
        self.wire: Wire | None = None
        self._decoder = FrameDecoder()
        self._heard: list[bytes] = []
        self.failures = 0
        self.may_retry = True  # the relay's last word was not final
        self.awaits = ""  # what is planned for it: "start", "connection" or nothing
        self.starts = self.deaths = self.turns = 0
        self.die_at = ""  # a moment of the next turn that decides something
        self.answers: dict[int, Any] = {}
        self._tickets = 0

    # --- life ------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.core is not None

    def start(self) -> bool:
        """Open the profile; whether it could be."""
        try:
            self.vault = Vault.open(self.disk.path(VAULT), KEY, vfs=self.disk.cipher_vfs)
        except VaultError as error:
            excusable = self.disk.room_bytes is not None or self.disk.is_down
            require(excusable, f"{self.name}'s vault opens again: {error}")
            self.disk.kill()
            return False
        # Another generator for every start: one that began anew would repeat its nonces.
        self.starts += 1
        keys = randomness.Random(f"{self._seed} {self.name} {self.starts}")
        self.core = ClientCore(self.vault, keys.randbytes)
        self.failures, self.may_retry = 0, True
        return True

    def die(self, *, power: bool) -> None:
        """kill -9, or the power is gone."""
        vault, self.vault, self.core = self.vault, None, None
        self.deaths += 1
        self.die_at = ""
        self.answers.clear()
        self._let_go()
        if power:
            self.disk.cut(self._random)
        else:
            self.disk.kill()
        if vault is not None:
            vault.db.close(True)

    def _let_go(self) -> None:
        wire, self.wire = self.wire, None
        self._heard.clear()
        if wire is not None and self.network is not None:
            self.network.hang_up(wire)

    # --- turns -----------------------------------------------------------------------------------

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def do(self, now_ms: int, turn: Turn) -> bool:
        """A turn of the core, and what comes of it; False if the machine died, or it failed."""
        if self.core is None:
            return False
        self.turns += 1
        try:
            commands = turn(self.core, now_ms + self.skew_ms)
        except VaultError:
            commands = []
            is_done = False
        except Refused as refused:
            self.answers[-1] = refused
            return True
        else:
            is_done = True
        if self.disk.is_down:
            self.die(power=self._random.random() < 0.6)
            return False
        events = [each.event for each in commands if isinstance(each, Emit)]
        if any(isinstance(each, LineAdded | LineChanged) for each in events):
            self._watcher.client_committed(self, events)
        return self._carry_out(commands, now_ms) and is_done

    def _carry_out(self, commands: list[Command], now_ms: int) -> bool:
        if self.die_at and any(isinstance(each, Transmit) for each in commands):
            moment, self.die_at = self.die_at, ""
            if moment == "before":
                self.die(power=self._random.random() < 0.5)
                return False
            self._perform(commands, now_ms)
            if self.is_up:
                self.die(power=self._random.random() < 0.5)
            return False
        self._perform(commands, now_ms)
        return self.is_up

    def _perform(self, commands: list[Command], now_ms: int) -> None:
        for command in commands:
            match command:
                case Transmit(data):
                    if self.wire is not None and self.network is not None:
                        self._watcher.client_sends(self.wire, data)
                        self.network.send_up(self.wire, data)
                case Disconnect(_, _, retry):
                    self.may_retry = retry
                    self._let_go()
                    self.do(now_ms, lambda core, at_ms: core.link_down(at_ms))
                case Answer(ticket, result, error):
                    self.answers[ticket] = result if error is None else error
                case Emit():
                    pass

    # --- the link --------------------------------------------------------------------------------

    def retry_ms(self) -> int:
        """How long until the next attempt to connect."""
        wait_ms = min(RECONNECT_MAX_MS, 1000 * 2 ** min(self.failures, 10))
        self.failures += 1
        return int(wait_ms * self._random.uniform(0.75, 1.0))

    def link_up(self, wire: Wire, now_ms: int) -> None:
        self.wire = wire
        self._decoder = FrameDecoder()
        self._heard.clear()
        self.do(now_ms, lambda core, at_ms: core.link_up(SPKI, at_ms))

    def hears(self, wire: Wire, data: bytes, now_ms: int) -> None:
        """Bytes came; what is whole is handed to the core, adjacent deliveries together."""
        if wire is not self.wire or self.core is None:
            return
        try:
            bodies = self._decoder.feed(data)
        except ProtocolError as error:
            require(False, f"{self.name} can read what the relay sends: {error}")
        if bodies:
            self._watcher.client_heard(wire, bodies)
            self.do(now_ms, lambda core, at_ms: core.received(bodies, at_ms))
            if self.core is not None and self.core.caught_up:
                self.failures = 0

    def lost(self, wire: Wire, now_ms: int) -> None:
        """The link broke."""
        if wire is self.wire:
            self.wire = None
            self.do(now_ms, lambda core, at_ms: core.link_down(at_ms))
