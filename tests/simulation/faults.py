"""What goes wrong, and when: decided by the seed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from saltline.protocol.frames import encode_frame
from saltline.protocol.messages import PROTOCOL_VERSION, encode_message
from saltline.protocol.to_relay import Hello, Login
from saltline.server.administration import RemoveUser
from tests.simulation.client_machine import ClientMachine
from tests.simulation.wiretap import INTRUDER

if TYPE_CHECKING:
    from tests.simulation.machines import Machines

DAY_MS: Final = 86_400_000
# Together less than an envelope is kept: what expires is lost as promised.
DAYS_MAX: Final = 26


class Faults:
    """Breaks one thing after the other, and mends them all in the end."""

    def __init__(self, town: "Machines") -> None:
        self._town = town
        self._random = town.random
        self.asleep: set[str] = set()
        self.may_stop = False  # a disk was made to fail
        self._days = 0

    def plan(self, chaos_ms: int) -> None:
        """So many faults, at such times."""
        random = self._random
        for _ in range(random.choice((2, 6, 12))):
            (fault,) = random.choices(*zip(*self._kinds(), strict=True))
            self._town.agenda.later(random.randrange(chaos_ms), fault.__name__, fault)

    def _kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.break_wire, 25),
            (self.partition, 8),
            (self.kill_client, 8),
            (self.cut_client_in_a_commit, 14),
            (self.end_client_around_a_transmit, 10),
            (self.kill_relay, 5),
            (self.cut_relay, 5),
            (self.cut_relay_in_a_commit, 10),
            (self.restart_relay, 3),
            (self.fail_the_relays_sync, 4),
            (self.fill_the_relays_disk, 4),
            (self.fill_a_clients_disk, 3),
            (self.sleep_for_days, 6),
            (self.slow_down, 4),
            (self.intrude, 5),
            (self.remove_somebody, 3),
        )

    # --- the network -----------------------------------------------------------------------------

    def break_wire(self) -> None:
        wires = list(self._town.network.wires.values())
        if wires:
            random = self._random
            self._town.network.tear(
                random.choice(wires),
                relay_hears=random.random() < 0.7,
                client_hears=random.random() < 0.7,
            )

    def partition(self) -> None:
        name = self._random.choice(self._town.names)
        network = self._town.network
        network.partitioned.add(name)
        duration_ms = self._random.choice((500, 5_000, 40_000))
        self._town.agenda.later(duration_ms, f"{name} is reachable", lambda: network.heal(name))

    def slow_down(self) -> None:
        self._town.network.slowest_ms = self._random.choice((5, 400, 6_000))

    # --- the clients -----------------------------------------------------------------------------

    def _somebody(self) -> ClientMachine | None:
        clients = [client for client in self._town.clients.values() if client.is_up]
        return self._random.choice(clients) if clients else None

    def kill_client(self) -> None:
        client = self._somebody()
        if client is not None:
            client.die(power=self._random.random() < 0.5)
            self._town.after_turn(client)

    def cut_client_in_a_commit(self) -> None:
        client = self._somebody()
        if client is not None:
            client.disk.cut_after(self._random.choice((1, 2, 3, 5, 8, 13, 21, 34)))

    def end_client_around_a_transmit(self) -> None:
        client = self._somebody()
        if client is not None:
            client.die_at = self._random.choice(("before", "after"))

    def fill_a_clients_disk(self) -> None:
        client = self._somebody()
        if client is not None:
            used = sum(map(len, client.disk.files().values()))
            client.disk.room_bytes = used + self._random.choice((0, 5_000, 20_000))
            self._town.agenda.later(
                self._random.choice((500, 10_000)),
                f"{client.name} has room",
                lambda: _make_room(client),
            )

    # --- the relay -------------------------------------------------------------------------------

    def kill_relay(self) -> None:
        if self._town.relay.is_up:
            self._town.relay_dies(power=False)

    def cut_relay(self) -> None:
        if self._town.relay.is_up:
            self._town.relay_dies(power=True)

    def cut_relay_in_a_commit(self) -> None:
        relay = self._town.relay
        if relay.is_up:
            relay.disk.cut_after(self._random.choice((1, 2, 3, 4, 6, 9, 14, 20)))

    def restart_relay(self) -> None:
        town = self._town
        if town.relay.is_up:
            town.relay.stop(town.agenda.now_ms)
            town.agenda.later(500, "the relay starts", town.start_relay)

    def fail_the_relays_sync(self) -> None:
        self.may_stop = True
        self._town.relay.disk.fail_next_sync(self._random)

    def fill_the_relays_disk(self) -> None:
        disk = self._town.relay.disk
        used = sum(map(len, disk.files().values()))
        disk.room_bytes = used + self._random.choice((0, 5_000, 40_000))

        def make_room() -> None:
            disk.room_bytes = None

        self._town.agenda.later(self._random.choice((500, 10_000)), "the relay has room", make_room)

    def intrude(self) -> None:
        """Somebody says that they are one of us, and signs with a key of their own."""
        town = self._town
        relay, now_ms = town.relay, town.agenda.now_ms
        if relay.is_up:
            wire = town.network.connect(INTRUDER)
            relay.open(wire, now_ms)
            name, signature = self._random.choice(town.names), self._random.randbytes(64)
            for message in (
                Hello((PROTOCOL_VERSION,), (), "saltline"),
                Login(name, 1, signature, (), ()),
            ):
                relay.hears(wire, encode_frame(encode_message(message)), now_ms)

    def remove_somebody(self) -> None:
        """The admin ends an account; what is written to it, or waits for it, comes to nothing."""
        town = self._town
        if town.relay.is_up and len(town.names) > 2 and not town.ledger.removed:
            name = self._random.choice(town.names)
            town.ledger.removed.add(name)
            town.auditor.ended.add(name)
            town.relay.ask(1, RemoveUser(name), town.agenda.now_ms)

    # --- time ------------------------------------------------------------------------------------

    def sleep_for_days(self) -> None:
        """Some are away, perhaps all; the clock goes on without them."""
        random, town = self._random, self._town
        days = random.choice((1, 3, 8))
        if self._days + days > DAYS_MAX:
            return
        self._days += days
        names = [name for name in town.names if random.random() < 0.6]
        for name in names:
            self.asleep.add(name)
            for wire in town.network.of(name):
                town.network.tear(wire, relay_hears=True, client_hears=True)

        def night() -> None:
            if not town.is_calm:
                town.ledger.has_slept = True
                town.agenda.jump(days * DAY_MS)
            town.agenda.later(1_000, "they wake", lambda: self._wake(names))

        town.agenda.later(random.choice((500, 5_000)), f"{days} days pass", night)

    def _wake(self, names: list[str]) -> None:
        for name in names:
            self.asleep.discard(name)
            client = self._town.clients[name]
            if client.is_up and client.wire is None:
                self._town.connect_soon(client, 10)

    # --- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """No more faults: what was broken is mended, and everybody comes back."""
        town = self._town
        network, relay = town.network, town.relay
        self.asleep.clear()
        network.slowest_ms = 50
        relay.disk.mend()
        relay.relax()
        if not relay.is_up:
            town.start_relay()
        for name in town.names:
            network.heal(name)
        for client in town.clients.values():
            client.disk.mend()
            client.die_at = ""
            network.reset(client.name, client.wire)
            if not client.is_up:
                town.start_client(client)
            self._be_kind(client)
            client.failures = 0
            client.may_retry = True
            town.connect_soon(client, 10)

    def _be_kind(self, client: ClientMachine) -> None:
        """Look in from time to time, and accept whoever has written."""
        town = self._town
        town.workload.accept_all(client)
        town.after_turn(client)
        label = f"{client.name} looks in"
        town.agenda.later(3_000, label, lambda: self._be_kind(client))


def _make_room(client: ClientMachine) -> None:
    client.disk.room_bytes = None
