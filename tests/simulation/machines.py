"""The machines of one run, and the edges between them: disks, wires, clocks and restarts."""

import random as randomness
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from saltline.client.model import Event
from saltline.server.settings import Settings
from tests.simulation.agenda import Agenda
from tests.simulation.audit import Auditor
from tests.simulation.bounds import bound_outbox
from tests.simulation.client_machine import ClientMachine
from tests.simulation.faults import Faults
from tests.simulation.laboratory import Laboratory, require
from tests.simulation.ledger import Ledger
from tests.simulation.network import Network, Wire
from tests.simulation.relay_machine import RelayMachine
from tests.simulation.town import NAMES, START_MS, founded
from tests.simulation.wiretap import Wiretap
from tests.simulation.workload import Workload

# Raised when the same seed no longer means the same run.
SCENARIO: Final = 1


@cache
def _first_logs() -> dict[str, tuple[bytes, ...]]:
    town = founded()
    auditor = Auditor(town.log_key, Wiretap(), NAMES)
    auditor.audit(town.relay, "in the beginning")
    auditor.forget()
    return auditor.logs


class Machines:
    """The machines, and what happens to them."""

    def __init__(self, seed: int, *, tells: bool = False) -> None:
        self.seed = seed
        self.random = random = randomness.Random(f"scenario {SCENARIO} seed {seed}")
        keys = randomness.Random(f"keys {seed}")
        self.laboratory = Laboratory(keys)
        self.agenda = Agenda(START_MS)
        if tells:
            self.agenda.told = []
        town = founded()
        count = random.choice((2, 2, 2, 3, 3, 4, 4, 5, 6))
        self.names = NAMES[:count]
        if count > 2 and random.random() < 0.4:
            self.names = (*NAMES[: count - 1], NAMES[-1])  # who registers meanwhile
        self.wiretap = Wiretap()
        self.ledger = Ledger()
        self.auditor = Auditor(town.log_key, self.wiretap, self.names)
        self.auditor.logs.update(_first_logs())
        self.relay = RelayMachine(random, keys, self.wiretap, town.log_key, town.relay)
        self.relay.settings = self._settings()
        if self.relay.settings.delivery_window_bytes < 10_000:  # it holds a window, and a page
            self.relay.queue_max_bytes = random.choice((20_000, 60_000, 4_000_000))
        self.wiretap.window = self.relay.settings.delivery_window_envelopes
        self.network = Network(self.agenda, random, self)
        self.relay.network = self.network
        self.clients: dict[str, ClientMachine] = {}
        for name in self.names:
            client = ClientMachine(name, str(seed), random, self, town.clients[name])
            client.network = self.network
            self.clients[name] = client
        self.is_calm = False  # the faults have stopped
        self.workload = Workload(self)
        self.faults = Faults(self)
        self._is_committing = False

    def _settings(self) -> Settings:
        random = self.random
        return replace(
            Settings(),
            delivery_window_envelopes=random.choice((1, 2, 4, 256)),
            delivery_window_bytes=random.choice((8_192, 1024 * 1024)),
            mailbox_max_envelopes=random.choice((3, 20_000, 20_000)),
            waiting_per_connection_bytes=random.choice((6_000, 2 * 1024 * 1024)),
            requests_burst=random.choice((450, 20_000, 20_000)),
            requests_per_second=random.choice((20, 2_000)),
            registrations_per_minute_and_address=1_000,
        )

    # --- the relay -------------------------------------------------------------------------------

    def start_relay(self) -> None:
        """Start it; what the disk has kept is looked at first."""
        if self.relay.is_up:
            return
        self.auditor.audit(self.relay.disk.files(), "on the relay's disk when it starts")
        if not self.relay.start(self.agenda.now_ms):
            self.agenda.later(2_000, "the relay tries to start", self.start_relay)

    def mind_the_relay(self) -> None:
        """Whatever the last step gave to the storage thread, to the worker, or to systemd."""
        relay, agenda = self.relay, self.agenda
        if relay.stop_reason:
            require(self.faults.may_stop, f"the relay stops for a reason: {relay.stop_reason}")
            self.relay_dies(power=self.random.random() < 0.5)
            return
        relay.mind_the_full(agenda.now_ms)
        relay.resume(agenda.now_ms)
        if relay.waiting and not self._is_committing:
            self._is_committing = True
            agenda.later(self.random.choice((0, 1, 5, 40)), "commit", self._commit)

    def _commit(self) -> None:
        self._is_committing = False
        relay = self.relay
        if not relay.is_up or not relay.waiting:
            return
        relay.commit(self.random.choice((1, 2, 1024, 1024)), self.agenda.now_ms)
        relay_at = relay.starts
        if relay.disk.is_down:
            self.relay_dies(power=self.random.random() < 0.6)
            return
        self.agenda.later(self.random.choice((0, 0, 1, 20)), "tell", lambda: self._tell(relay_at))
        if self.random.random() < 0.3:
            relay.maintain()
            if relay.disk.is_down:
                self.relay_dies(power=self.random.random() < 0.6)

    def _tell(self, start: int) -> None:
        relay = self.relay
        if not relay.is_up or relay.starts != start or not relay.done:
            return
        relay.tell(self.agenda.now_ms)
        while len(relay.done) > 1:
            relay.tell(self.agenda.now_ms)
        if self.random.random() < 0.1:
            self.auditor.audit(relay.disk.least(), "on the platters while the relay serves")

    def relay_dies(self, *, power: bool) -> None:
        """It comes back in a while."""
        self.agenda.note(f"the relay dies, {'power' if power else 'kill'}")
        self.relay.die(power=power)
        self._is_committing = False
        self.agenda.later(self.random.choice((100, 3_000)), "the relay starts", self.start_relay)

    def tick_relay(self) -> None:
        if self.relay.is_up:
            self.relay.tick(self.agenda.now_ms)
        self.agenda.later(1_000, "relay ticks", self.tick_relay)

    # --- the clients -----------------------------------------------------------------------------

    def start_client(self, client: ClientMachine) -> None:
        """Start the program, look at what its disk has kept, and connect."""
        if client.is_up:
            return
        client.awaits = ""
        if not client.start():
            self.agenda.later(
                2_000, f"{client.name} tries to start", lambda: self.start_client(client)
            )
            return
        self.ledger.reopened(client)
        if not self.is_registered(client):
            client.do(
                self.agenda.now_ms,
                lambda core, now_ms: core.begin_registration(
                    client.name, "", client.ticket(), now_ms
                ),
            )
        self.connect_soon(client, 10)

    def is_registered(self, client: ClientMachine) -> bool:
        assert client.vault is not None
        account = client.vault.account()
        return bool(account is not None and account.registered)

    def connect_soon(self, client: ClientMachine, delay_ms: int) -> None:
        """One attempt to connect."""
        client.awaits = "connection"
        start = client.starts
        label = f"{client.name} connects"
        self.agenda.later(delay_ms, label, lambda: self._connect(client, start))

    def _connect(self, client: ClientMachine, start: int) -> None:
        if not client.is_up or client.starts != start:
            return
        client.awaits = ""
        if client.wire is not None:
            return
        if client.name in self.faults.asleep or not client.may_retry:
            return
        if not self.relay.is_up or client.name in self.network.partitioned:
            self.connect_soon(client, client.retry_ms())
            return
        wire = self.network.connect(client.name)
        self.relay.open(wire, self.agenda.now_ms)
        client.link_up(wire, self.agenda.now_ms)
        self.after_turn(client)

    def after_turn(self, client: ClientMachine) -> None:
        """It may have died in it, or hung up."""
        if not client.is_up:
            if client.awaits == "start":
                return
            client.awaits = "start"
            self.agenda.note(f"{client.name} dies")
            delay_ms = self.random.choice((100, 5_000))
            label = f"{client.name} starts"
            self.agenda.later(delay_ms, label, lambda: self.start_client(client))
        elif client.wire is None and client.awaits != "connection":
            if not client.may_retry:
                # The relay's last word was final: a person looks, and tries again.
                client.may_retry = True
                self._register_again(client)
            self.connect_soon(client, client.retry_ms())

    def _register_again(self, client: ClientMachine) -> None:
        if not self.is_registered(client):
            client.do(
                self.agenda.now_ms,
                lambda core, now_ms: core.begin_registration(
                    client.name, "", client.ticket(), now_ms
                ),
            )

    def tick_client(self, client: ClientMachine) -> None:
        if client.is_up and client.wire is not None and client.name not in self.faults.asleep:
            client.do(self.agenda.now_ms, lambda core, now_ms: core.tick(now_ms))
            if client.is_up and not client.disk.is_down:
                bound_outbox(client)
            if client.wire is None:
                self.after_turn(client)
        label = f"{client.name} ticks"
        self.agenda.later(2_000, label, lambda: self.tick_client(client))

    # --- the ends of wires (Network calls these) -------------------------------------------------

    def relay_hears(self, wire: Wire, data: bytes) -> None:
        self.relay.hears(wire, data, self.agenda.now_ms)

    def client_hears(self, wire: Wire, data: bytes) -> None:
        client = self.clients.get(wire.client)
        if client is not None and client.wire is wire and client.is_up:
            client.hears(wire, data, self.agenda.now_ms)
            if client.wire is None:
                self.after_turn(client)

    def relay_lost(self, wire: Wire) -> None:
        self.relay.lost(wire, self.agenda.now_ms)

    def client_lost(self, wire: Wire) -> None:
        client = self.clients.get(wire.client)
        if client is not None and client.wire is wire and client.is_up:
            client.lost(wire, self.agenda.now_ms)
            self.after_turn(client)

    def drained(self, wire: Wire) -> None:
        self.relay.drained(wire, self.agenda.now_ms)

    # --- what is seen (machines call these) ------------------------------------------------------

    def client_committed(self, client: ClientMachine, events: Sequence[Event]) -> None:
        self.ledger.client_committed(client, events)

    def client_sends(self, wire: Wire, data: bytes) -> None:
        self.wiretap.client_sends(wire, data)

    def client_heard(self, wire: Wire, bodies: Sequence[bytes]) -> None:
        self.wiretap.client_heard(wire, bodies)

    # --- the end ---------------------------------------------------------------------------------

    def clear(self) -> None:
        """The disks are not needed any more."""
        for client in self.clients.values():
            if client.vault is not None:
                client.disk.kill()
                client.vault.db.close(True)
            client.disk.forget()
        if self.relay.store is not None:
            self.relay.disk.kill()
            self.relay.store._database.close(True)
        self.relay.disk.forget()
        self.auditor.forget()
