"""What people do: write, read, answer, come and go in rooms. Decided by the seed."""

from typing import TYPE_CHECKING, Final

from saltline.client.model import Delivery, LineKind
from saltline.client.vault import views
from tests.simulation.client_machine import ClientMachine
from tests.simulation.ledger import Diary

if TYPE_CHECKING:
    from tests.simulation.machines import Machines

ROOMS: Final = ("#lobby", "#tea")


class Workload:
    """Somebody does something, now and then."""

    def __init__(self, town: "Machines") -> None:
        self._town = town
        self._random = town.random
        self._count = 0

    def plan(self, chaos_ms: int) -> None:
        """So many things, at such times."""
        random = self._random
        for _ in range(random.choice((6, 12, 24))):
            at_ms = random.randrange(chaos_ms)
            for _ in range(random.choice((1, 1, 1, 1, 4, 8))):
                self._town.agenda.later(at_ms, "somebody", self._somebody_acts)

    def _somebody_acts(self) -> None:
        clients = [client for client in self._town.clients.values() if client.is_up]
        if clients:
            self.act(self._random.choice(clients))

    def act(self, client: ClientMachine) -> None:
        """One thing that this person does."""
        if not self._town.is_registered(client):
            return
        (what,) = self._random.choices(
            *zip(
                (self._write, 50),
                (self._post, 15),
                (self._read, 15),
                (self._accept, 10),
                (self._join, 5),
                (self._leave, 3),
                (self._retry, 3),
                (self._look_around, 1),
                strict=True,
            )
        )
        what(client)
        self._town.after_turn(client)

    def _text(self, kind: str) -> str:
        self._count += 1
        sizes = (
            (0, 0, 0, 0, 0, 200, 4_000) if kind == "public" else (0, 0, 0, 0, 200, 4_000, 30_000)
        )
        size = self._random.choice(sizes)
        return f"{kind} {self._town.seed}-{self._count} " + "x" * size

    def _write(self, client: ClientMachine) -> None:
        here = self._town.auditor.logs.keys() | self._town.wiretap.accounts
        others = [name for name in self._town.names if name != client.name and name in here]
        if not others:
            return
        to, text = self._random.choice(others), self._text("canary")
        self._town.ledger.typed.add(text)
        self._town.agenda.note(f"{client.name} writes to {to} {len(text)}")
        client.do(self._town.agenda.now_ms, lambda core, at_ms: core.send(to, text, at_ms)[1])

    def _post(self, client: ClientMachine) -> None:
        room, text = self._random.choice((*ROOMS, ROOMS[0])), self._text("public")
        self._town.ledger.typed.add(text)
        self._town.agenda.note(f"{client.name} posts to {room} {len(text)}")
        client.do(self._town.agenda.now_ms, lambda core, at_ms: core.post(room, text, at_ms)[1])

    def _read(self, client: ClientMachine) -> None:
        other = self._random.choice(self._town.names)
        diary = self._town.ledger.diaries.get(client.name, Diary())
        rows = [line for line in diary.rows.values() if line.conversation == f"@{other}"]
        if not rows:
            return
        last = rows[-1].row
        diary.read |= {line.body for line in rows if not line.mine and line.kind is LineKind.TEXT}
        client.do(
            self._town.agenda.now_ms,
            lambda core, at_ms: core.mark_read(f"@{other}", last, at_ms),
        )

    def _look_around(self, client: ClientMachine) -> None:
        client.do(
            self._town.agenda.now_ms, lambda core, at_ms: core.list_rooms(client.ticket(), at_ms)
        )

    def _accept(self, client: ClientMachine) -> None:
        self.accept_all(client)

    def accept_all(self, client: ClientMachine) -> None:
        """Every stranger who has written."""
        if client.vault is None:
            return
        for summary in views.conversations(client.vault):
            if summary.request and client.is_up:
                name = summary.name[1:]
                client.do(
                    self._town.agenda.now_ms,
                    lambda core, at_ms, name=name: core.accept(name, at_ms),  # type: ignore[misc]
                )

    def _join(self, client: ClientMachine) -> None:
        room = self._random.choice(ROOMS)
        client.do(
            self._town.agenda.now_ms,
            lambda core, at_ms: core.join(room, client.ticket(), at_ms),
        )

    def _leave(self, client: ClientMachine) -> None:
        room = ROOMS[1]
        self._town.ledger.left.add((client.name, room))
        client.do(
            self._town.agenda.now_ms,
            lambda core, at_ms: core.leave(room, client.ticket(), at_ms),
        )

    def _retry(self, client: ClientMachine) -> None:
        diary = self._town.ledger.diaries.get(client.name, Diary())
        failed = [line.row for line in diary.rows.values() if line.delivery is Delivery.FAILED]
        if failed:
            row = self._random.choice(failed)
            client.do(self._town.agenda.now_ms, lambda core, at_ms: core.retry(row, at_ms))
