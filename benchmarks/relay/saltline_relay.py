"""The relay as shipped: `saltline-server` on its own data folder, with what the bench raises."""

import os
import sys
from pathlib import Path
from typing import Final

from benchmarks.relay import saltline_wire as wire
from benchmarks.relay.building import Built
from benchmarks.relay.plans import Connection, Flag, Plan, SignStep
from benchmarks.relay.setups import Idle, Offline, Pairs, Room, Setup, Stored, Waiting
from benchmarks.relay.world import Member, World

# One machine stands for a crowd: the limits of one address, and of accounts that write for many.
RAISED: Final = {
    "unauthenticated_per_address": 20_000,
    "unauthenticated_max": 20_000,
    "requests_per_second": 10_000_000,
    "requests_burst": 10_000_000,
    "mailbox_max_envelopes": 100_000_000,
    "mailbox_max_bytes": 1_000_000_000_000,
}


def command(folder: Path, built: Built, port: int) -> list[str]:
    """The program, on a configuration that names what is raised."""
    limits = "\n".join(f"{name} = {value}" for name, value in RAISED.items())
    file = folder / "relay.toml"
    file.write_text(
        f'listen = "127.0.0.1:{port}"\ndata = "data"\n'
        f'certificate = "{built.certificate_file}"\nkey = "{built.key_file}"\n\n'
        f"[limits]\n{limits}\n",
        "utf-8",
    )
    return [str(Path(sys.executable).with_name("saltline-server")), "run", "--config", str(file)]


class Scene:
    """Fills a data folder for a setup, and plans what the generator does there."""

    def __init__(self, world: World, built: Built) -> None:
        self._world = world
        self._spki = built.certificate.spki_hash

    def plan(self, setup: Setup, stored: Stored = Stored()) -> Plan:
        """For one run; the data folder is complete afterwards."""
        if stored.accounts:
            crowd = self._world.add_members(stored.accounts, "crowd")
            self._world.fill_mailbox(crowd[0], stored.waiting, 200)
        match setup:
            case Room():
                return Plan(wire.ROOMS, self._room(setup))
            case Pairs():
                return Plan(wire.MAILBOXES, self._pairs(setup))
            case Offline():
                return Plan(wire.MAILBOXES, self._offline(setup))
            case Idle():
                members = self._world.add_members(setup.clients)
                idle = tuple(Connection((self._login(member),)) for member in members)
                return Plan(wire.MAILBOXES, idle)
            case Waiting():
                return Plan(wire.MAILBOXES, self._waiting(setup))

    def _login(self, member: Member) -> SignStep:
        return wire.login_step(self._world.relay_id, member.username, 1, member.seed, self._spki)

    def _room(self, setup: Room) -> tuple[Connection, ...]:
        everybody = setup.members + setup.senders
        members = self._world.add_members(everybody * setup.rooms)
        connections: list[Connection] = []
        for number in range(setup.rooms):
            room = f"#bench-{number}"
            crowd = members[number * everybody : (number + 1) * everybody]
            self._world.join(room, crowd)
            for at, member in enumerate(crowd):
                login = (self._login(member),)
                if at < setup.members:
                    connections.append(Connection(login, Flag.RECEIVES))
                    continue
                message = wire.post(room, setup.body_bytes, self._world.now_ms + 1, os.urandom(8))
                sends = Connection(login, Flag.SENDS, fanout=everybody, message=message)
                connections.append(sends)
        return tuple(connections)

    def _pairs(self, setup: Pairs) -> tuple[Connection, ...]:
        members = self._world.add_members(2 * setup.pairs)
        recipients, senders = members[: setup.pairs], members[setup.pairs :]
        reading = [
            Connection(
                (self._login(member), wire.caught_up_step()), Flag.RECEIVES | Flag.ACKNOWLEDGES
            )
            for member in recipients
        ]
        writing = [
            self._writer(sender, recipient, number, setup.body_bytes)
            for number, (sender, recipient) in enumerate(zip(senders, recipients, strict=True))
        ]
        return (*reading, *writing)

    def _offline(self, setup: Offline) -> tuple[Connection, ...]:
        members = self._world.add_members(2 * setup.senders)
        pairs = zip(members[: setup.senders], members[setup.senders :], strict=True)
        return tuple(
            self._writer(sender, recipient, -1, setup.body_bytes) for sender, recipient in pairs
        )

    def _writer(
        self, sender: Member, recipient: Member, peer: int, body_bytes: int
    ) -> Connection:
        message = wire.submit(recipient.username, 1, body_bytes)
        fanout = 0 if peer < 0 else 1
        return Connection((self._login(sender),), Flag.SENDS, peer, fanout, message)

    def _waiting(self, setup: Waiting) -> tuple[Connection, ...]:
        (member,) = self._world.add_members(1)
        self._world.fill_mailbox(member, setup.waiting, setup.body_bytes)
        return (Connection((self._login(member),), Flag.RECEIVES | Flag.ACKNOWLEDGES),)
