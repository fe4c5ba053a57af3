"""A relay and its users in memory: the real cores, no socket, no thread, a clock that we move."""

import random as randomness
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from saltline.client.commands import Answer, Command, Disconnect, Emit, Transmit
from saltline.client.core import ClientCore
from saltline.client.model import (
    Delivery,
    Event,
    Line,
    LineKind,
    Refused,
)
from saltline.client.vault import views
from saltline.client.vault.database import AccountRow, Vault
from saltline.protocol.frames import FrameDecoder
from saltline.server.settings import CertificateStatement, Settings
from tests.pushes import Heard, encode_heard
from tests.server import relay_harness

SPKI = bytes(range(32))
Tamper = Callable[[Heard], Iterable[Heard]]


class MemoryRelay(relay_harness.MemoryRelay):
    """The relay in memory, with its database in `folder`, under the key that everybody expects."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        super().__init__(folder / "relay.db", settings)

    def new_certificate(self, spki_hash: bytes = SPKI) -> CertificateStatement:
        return super().new_certificate(spki_hash)


class Link:
    """Bytes between one client and the relay; `tamper` stands for a relay that misbehaves."""

    def __init__(self, relay: MemoryRelay, tamper: Tamper | None) -> None:
        self._connection = relay.connect()
        self._decoder = FrameDecoder()
        self._tamper = tamper

    @property
    def is_closed(self) -> bool:
        """The relay has closed it."""
        return not self._connection.is_open

    @property
    def is_over(self) -> bool:
        """The same, and all that it said before was taken."""
        return self.is_closed and not self._connection.bodies

    def send(self, data: bytes) -> None:
        bodies = self._decoder.feed(data)
        if bodies and self._connection.is_open:
            self._connection.send_bodies(*bodies)

    def take(self) -> list[bytes]:
        """Bodies for the client, as the network delivers them."""
        bodies, self._connection.bodies = self._connection.bodies, []
        messages = self._connection.take()
        if self._tamper is None:
            return bodies
        return [encode_heard(changed) for each in messages for changed in self._tamper(each)]

    def cut(self) -> None:
        if self._connection.is_open:
            self._connection.cut()


class Person:
    """A client core with its vault and, while online, a link."""

    def __init__(self, relay: MemoryRelay, folder: Path, name: str, invite: str = "") -> None:
        self.relay, self.name = relay, name
        self.folder = folder
        self._seed = f"{folder.name} {name}"
        self.link: Link | None = None
        self.tamper: Tamper | None = None
        self.events: list[Event] = []
        self.answers: dict[int, Any] = {}
        self.last_disconnect: Disconnect | None = None
        self._tickets = 0
        self._starts = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.vault = self._create_vault()
        with self.vault.transaction():
            self.vault.save_account(AccountRow(name, "relay.example", 7443, SPKI))
        self._begin()
        ticket = self._ticket()
        self.perform(self.core.begin_registration(name, invite, ticket, self.now))
        self.registration = ticket

    def _create_vault(self) -> Vault:
        return Vault.create(self.folder / "vault.db", bytes(32))

    def _open_vault(self) -> Vault:
        return Vault.open(self.folder / "vault.db", bytes(32))

    def _begin(self) -> None:
        self._starts += 1
        rng = randomness.Random(f"{self._seed} {self._starts}")
        self.core = ClientCore(self.vault, rng.randbytes)

    @property
    def now(self) -> int:
        return self.relay.now_ms

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    # --- the link ------------------------------------------------------------------------------

    def online(self) -> "Person":
        self.link = Link(self.relay, self.tamper)
        self.perform(self.core.link_up(SPKI, self.now))
        settle(self)
        return self

    def offline(self) -> None:
        if self.link is not None:
            self.link.cut()
            self.link = None
            self.perform(self.core.link_down(self.now))

    def crash(self) -> None:
        """Gone without a word: only the vault stays."""
        if self.link is not None:
            self.link.cut()
            self.link = None
        self.vault.db.close(True)
        self.vault = self._open_vault()
        self._begin()

    def perform(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Transmit(data):
                    if self.link is not None:
                        self.link.send(data)
                case Disconnect():
                    self.last_disconnect = command
                    self.offline()
                case Emit(event):
                    self.events.append(event)
                case Answer(ticket, result, error):
                    self.answers[ticket] = result if error is None else error

    def receive(self) -> bool:
        """Take in what has come; whether anything had."""
        if self.link is None:
            return False
        bodies = self.link.take()
        if bodies:
            self.perform(self.core.received(bodies, self.now))
        if self.link is not None and self.link.is_over:
            self.offline()
        return bool(bodies)

    def tick(self) -> None:
        self.perform(self.core.tick(self.now))

    # --- what a person does ----------------------------------------------------------------------

    def send(self, username: str, text: str) -> Line:
        line, commands = self.core.send(username, text, self.now)
        self.perform(commands)
        return line

    def post(self, room: str, text: str) -> Line:
        line, commands = self.core.post(room, text, self.now)
        self.perform(commands)
        return line

    def ask(self, question: Callable[[int, int], list[Command]]) -> Any:
        """A question to the relay; its answer, or the Refused."""
        ticket = self._ticket()
        self.perform(question(ticket, self.now))
        settle(self)
        return self.answers.get(ticket)

    # --- what a person sees ----------------------------------------------------------------------

    def lines(self, conversation: str) -> list[Line]:
        return list(views.page(self.vault, conversation, limit=100_000))

    def texts(self, conversation: str) -> list[str]:
        return [line.body for line in self.lines(conversation) if line.kind is LineKind.TEXT]

    def notices(self, conversation: str) -> list[str]:
        kinds = (LineKind.NOTICE, LineKind.ALERT)
        return [line.body for line in self.lines(conversation) if line.kind in kinds]

    def delivery(self, line: Line) -> Delivery:
        found = views.line(self.vault, line.row)
        assert found is not None
        return found.delivery

    def reason(self, line: Line) -> str:
        found = views.line(self.vault, line.row)
        assert found is not None
        return found.reason


def settle(*people: Person) -> None:
    """Let everything that is on its way arrive."""
    everybody = set(people)
    for _ in range(100_000):
        if not any([person.receive() for person in everybody]):
            return
    raise AssertionError("it never becomes quiet")


def refusal(result: Any) -> Refused:
    assert isinstance(result, Refused), result
    return result
