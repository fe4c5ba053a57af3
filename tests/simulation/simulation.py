"""One run: a town, a seed, and everything that goes wrong in between.

    Simulation(seed=7).run()

raises Broken where a promise does not hold. The seed decides the clocks, the network, which
operations share a commit, who crashes when and what is left on their disks, and what people do.
"""

from dataclasses import dataclass
from typing import Final

from saltline.client.vault.people import PeopleStore
from tests.simulation.bounds import bound_client, bound_relay
from tests.simulation.client_machine import ClientMachine
from tests.simulation.laboratory import require
from tests.simulation.machines import SCENARIO as SCENARIO
from tests.simulation.machines import Machines
from tests.simulation.town import START_MS
from tests.simulation.wiretap import CANARY

# After the faults stop, everything is shown within this.
SETTLED_WITHIN_MS: Final = 60_000
STEPS_MAX: Final = 50_000


@dataclass(frozen=True)
class Outcome:
    """What a run was made of."""

    seed: int
    steps: int
    said: int
    shown: int
    relay_starts: int
    client_deaths: int
    cuts: int
    commits: int
    boxes: int
    audits: int
    looked_up: int
    days: int
    trace: str


class Simulation(Machines):
    """Chaos, calm, and what has to hold after it."""

    def __init__(self, seed: int, *, tells: bool = False) -> None:
        super().__init__(seed, tells=tells)
        self._turns: dict[str, int] = {}  # of each client, and of the relay (""), looked at

    # --- running ---------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Chaos, then calm. Raises Broken."""
        with self.laboratory.at_work():
            try:
                self._run()
            finally:
                self.clear()
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        """The figures so far."""
        days = (self.agenda.now_ms - START_MS) // 86_400_000
        return Outcome(
            self.seed,
            self.agenda.steps,
            len(self.ledger.said),
            self.ledger.shown,
            self.relay.starts,
            sum(client.deaths for client in self.clients.values()),
            self.network.cuts,
            self.relay.commits,
            self.laboratory.boxes,
            self.auditor.count,
            self.auditor.looked_up,
            days,
            self.agenda.trace,
        )

    def _run(self) -> None:
        random = self.random
        self.start_relay()
        for client in self.clients.values():
            self.start_client(client)
        chaos_ms = random.choice((8_000, 30_000, 90_000))
        self.workload.plan(chaos_ms)
        self.faults.plan(chaos_ms)
        self.tick_relay()
        for client in self.clients.values():
            self.tick_client(client)
        is_over: list[bool] = []
        self.agenda.later(chaos_ms, "the chaos ends", lambda: is_over.append(True))
        while not is_over:
            self._step()
        self.is_calm = True
        self.faults.end()
        deadline_ms = self.agenda.now_ms + SETTLED_WITHIN_MS
        while self.agenda.next_ms <= deadline_ms and not self._is_settled():
            for _ in range(20):
                self._step()
        self._require_settled()

    def _step(self) -> None:
        require(self.agenda.steps < STEPS_MAX, "a run comes to an end")
        self.agenda.step()
        self.auditor.look_up_fresh(self.relay)
        self._bound()
        if self.relay.is_up:
            self.mind_the_relay()

    def _bound(self) -> None:
        """Look at whoever had a turn in this step."""
        settings, relay = self.relay.settings, self.relay
        if relay.core is not None and relay.turns != self._turns.get(""):
            self._turns[""] = relay.turns
            bound_relay(relay.core, settings)
        for name, client in self.clients.items():
            if client.core is not None and client.turns != self._turns.get(name):
                self._turns[name] = client.turns
                bound_client(client, settings)

    # --- the end ---------------------------------------------------------------------------------

    def _is_settled(self) -> bool:
        quiet = all(
            client.core is not None and client.core.idle() and not client.core.queued()
            for client in self._staying
        )
        is_idle = self.relay.core is not None and self.relay.core.idle
        return quiet and is_idle and not self._unsettled()

    @property
    def _staying(self) -> list[ClientMachine]:
        """All but whom the admin removed."""
        removed = self.ledger.removed
        return [client for name, client in self.clients.items() if name not in removed]

    def _unsettled(self) -> list[str]:
        missing = self.ledger.missing()
        for client in self._staying:
            assert client.vault is not None
            rows = client.vault.rows(
                "SELECT room, last FROM rooms JOIN conversations ON name = room WHERE joined"
            )
            missing += self.ledger.missing_in_rooms(client.name, dict(rows))
        return missing

    def _require_settled(self) -> None:
        missing = self._unsettled()
        require(not missing, f"within 60 s of calm everything is shown: {'; '.join(missing[:5])}")
        for client in self._staying:
            assert client.core is not None
            require(client.core.idle(), f"{client.name} has nothing left to do")
            require(client.core.queued() == 0, f"{client.name} has nothing queued")
        for client in self.clients.values():
            if client.is_up:
                self.ledger.reopened(client)
        self.auditor.audit(self.relay.disk.least(), "on the platters in the end")
        for client in self.clients.values():
            if client.is_up:
                self._require_same_log(client)
            files = client.disk.files().values()
            require(not any(CANARY in each for each in files), "a vault shows nothing")
        said = [*self.relay.said, *self.laboratory.logged]
        require(not any(CANARY.decode() in line for line in said), "no log tells a text")

    def _require_same_log(self, client: ClientMachine) -> None:
        assert client.vault is not None
        people = PeopleStore(client.vault)
        for name in set(self.names) - self.auditor.ended:
            seen = tuple(people.entries(name))
            log = self.auditor.logs.get(name, ())
            require(log[: len(seen)] == seen, f"{client.name} sees {name}'s log as it is")
