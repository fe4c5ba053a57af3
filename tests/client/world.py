"""A relay and its users in memory: the real cores, no socket, no thread, a clock that we move."""

import random as randomness
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from saltline.client.commands import Answer, Command, Disconnect, Emit, Transmit
from saltline.client.core import ClientCore
from saltline.client.model import (
    ConnectionState,
    Delivery,
    Event,
    Line,
    LineKind,
    Refused,
)
from saltline.client.vault import views
from saltline.client.vault.database import AccountRow, Vault
from saltline.crypto.keylog import LogKey
from saltline.crypto.signatures import certificate_payload
from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.protocol.messages import RelayMessage, decode_relay_message, encode_message
from saltline.server import administration as admin
from saltline.server import effects
from saltline.server.core import RelayCore
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.sqlite import SqliteStore

START_MS = 1_790_000_000_000
SPKI = bytes(range(32))
Tamper = Callable[[RelayMessage], Iterable[RelayMessage]]


class MemoryRelay:
    """The relay's real core and store, driven by hand."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.now_ms = START_MS
        self._path = folder / "relay.db"
        self._settings = settings or Settings()
        self._random = randomness.Random(1)
        self.log_key = LogKey.generate(self._random.randbytes)
        self._connections = 0
        self.links: dict[int, Link] = {}
        self.answers: dict[int, Any] = {}
        self._start()

    def _start(self) -> None:
        not_after_ms = self.now_ms + 10**10
        signature = self.log_key.sign(certificate_payload(SPKI, not_after_ms))
        statement = CertificateStatement(SPKI, not_after_ms, signature)
        self.store = SqliteStore(self._path, self.log_key.relay_id)
        self.core = RelayCore(self._settings, self.log_key, statement, self._random.randbytes)

    def crash(self) -> None:
        """Gone in the middle of whatever it did; what was committed is on the disk."""
        for link in list(self.links.values()):
            link.cut()
        self.store.close()
        self._start()

    def open(self, link: "Link") -> int:
        self._connections += 1
        self.links[self._connections] = link
        self.perform(self.core.opened(self._connections, "192.0.2.7", self.now_ms))
        return self._connections

    def perform(self, todo: list[effects.Effect]) -> None:
        for effect in todo:
            match effect:
                case effects.Send(connection, frame):
                    self._push(connection, frame)
                case effects.Broadcast(connections, frame):
                    for connection in connections:
                        self._push(connection, frame)
                case effects.Close(connection, _):
                    if connection in self.links:
                        self.links[connection].closing = True
                case effects.Persist(operation, token):
                    (outcome,) = self.store.run([operation])
                    self.perform(self.core.stored(token, outcome, self.now_ms))
                case effects.Answer(ticket, result):
                    self.answers[ticket] = result

    def _push(self, connection: int, frame: bytes) -> None:
        if connection in self.links:
            self.links[connection].to_client.extend(frame)

    def admin(self, request: admin.AdminRequest) -> Any:
        """Ask as the admin does."""
        ticket = len(self.answers) + 1
        self.perform(self.core.admin(ticket, request, self.now_ms))
        return self.answers[ticket]


class Link:
    """Bytes between one client and the relay; `tamper` stands for a relay that misbehaves."""

    def __init__(self, relay: MemoryRelay, tamper: Tamper | None) -> None:
        self._relay = relay
        self._tamper = tamper
        self.to_client = bytearray()
        self.to_relay = FrameDecoder()
        self._from_relay = FrameDecoder()
        self.closing = False
        self.number = relay.open(self)

    def send(self, data: bytes) -> None:
        bodies = self.to_relay.feed(data)
        if bodies and self.number in self._relay.links and not self.closing:
            relay = self._relay
            relay.perform(relay.core.received(self.number, bodies, relay.now_ms))

    def take(self) -> list[bytes]:
        """Bodies for the client, as the network delivers them."""
        data = bytes(self.to_client)
        self.to_client.clear()
        bodies = self._from_relay.feed(data)
        if self._tamper is None:
            return bodies
        return [
            encode_message(changed)
            for body in bodies
            for changed in self._tamper(decode_relay_message(body))
        ]

    def cut(self) -> None:
        if self._relay.links.pop(self.number, None) is not None:
            self._relay.perform(self._relay.core.closed(self.number, self._relay.now_ms))


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
        if self.link is not None and self.link.closing and not self.link.to_client:
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


__all__ = ["ConnectionState", "MemoryRelay", "Person", "encode_frame", "refusal", "settle"]
