"""A relay and its people, registered once a process: every run begins with copies of it all."""

import random as randomness
from dataclasses import dataclass
from functools import cache
from typing import Final

from saltline.client.commands import Command, Transmit
from saltline.client.core import ClientCore
from saltline.client.vault.database import AccountRow, Vault
from saltline.crypto.keylog import LogKey
from saltline.crypto.signatures import certificate_payload
from saltline.protocol.frames import FrameDecoder
from saltline.server import effects
from saltline.server.core import RelayCore
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.sqlite import SqliteStore
from tests.simulation.client_machine import KEY, VAULT
from tests.simulation.laboratory import Laboratory
from tests.simulation.relay_machine import DATABASE, SPKI
from tests.volatile_disk import VolatileDisk

NAMES: Final = ("ada", "ben", "cyd", "dan", "eve", "fay")
START_MS: Final = 1_790_000_000_000


@dataclass(frozen=True)
class Town:
    """Disk images: all but the last are registered, in the lobby, and know nobody."""

    log_key: LogKey
    relay: dict[str, bytes]
    clients: dict[str, dict[str, bytes]]


class _Founding:
    """One connection after the other, without anything that goes wrong."""

    def __init__(self, random: randomness.Random) -> None:
        self.disk = VolatileDisk()
        self.log_key = LogKey.generate(random.randbytes)
        self.store = SqliteStore(self.disk.path(DATABASE), self.log_key.relay_id, vfs=self.disk.vfs)
        not_after_ms = START_MS + 10**11
        signature = self.log_key.sign(certificate_payload(SPKI, not_after_ms))
        statement = CertificateStatement(SPKI, not_after_ms, signature)
        self.relay = RelayCore(Settings(), self.log_key, statement, random.randbytes)

    def serve(self, connection: int, core: ClientCore) -> None:
        to_relay, to_client = FrameDecoder(), FrameDecoder()
        down: list[bytes] = []

        def perform(todo: list[effects.Effect]) -> None:
            for effect in todo:
                if isinstance(effect, effects.Persist):
                    (outcome,) = self.store.run([effect.operation])
                    perform(self.relay.stored(effect.token, outcome, START_MS))
                elif isinstance(effect, effects.Send) and effect.connection == connection:
                    down.append(effect.frame)
                elif isinstance(effect, effects.Broadcast) and connection in effect.connections:
                    down.append(effect.frame)

        def send(commands: list[Command]) -> None:
            for command in commands:
                if isinstance(command, Transmit):
                    bodies = to_relay.feed(command.data)
                    perform(self.relay.received(connection, bodies, START_MS))

        perform(self.relay.opened(connection, f"192.0.2.{connection}", START_MS))
        send(core.link_up(SPKI, START_MS))
        while down:
            bodies = [body for frame in down for body in to_client.feed(frame)]
            down.clear()
            send(core.received(bodies, START_MS))
        assert core.idle()
        perform(self.relay.closed(connection, START_MS))


@cache
def founded() -> Town:
    """The town, as it is on the first morning."""
    random = randomness.Random("town")
    with Laboratory(random).at_work():
        founding = _Founding(random)
        clients = {}
        for connection, name in enumerate(NAMES, 1):
            disk = VolatileDisk()
            vault = Vault.create(disk.path(VAULT), KEY, vfs=disk.cipher_vfs)
            with vault.transaction():
                vault.save_account(AccountRow(name, "relay.example", 7443, SPKI))
            core = ClientCore(vault, random.randbytes)
            if name != NAMES[-1]:
                core.begin_registration(name, "", 1, START_MS)
                founding.serve(connection, core)
            vault.close()
            clients[name] = disk.files()
            disk.forget()
        founding.store.close()
        relay = founding.disk.files()
        founding.disk.forget()
    return Town(founding.log_key, relay, clients)
