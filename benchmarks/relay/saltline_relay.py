"""The relay as shipped: `saltline-server` on its own data folder, with what the bench raises."""

import os
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.relay import saltline_wire as wire
from benchmarks.relay.building import Built
from benchmarks.relay.peers import Begun, ServerPeer
from benchmarks.relay.plans import NOBODY, Connection, Flag, Plan, SignStep
from benchmarks.relay.setups import (
    SHORT_BYTES,
    Idle,
    Offline,
    Pairs,
    Room,
    Setup,
    Stored,
    Waiting,
)
from benchmarks.relay.world import Member, World

# A few accounts write for a crowd. Addresses need nothing: every client has its own.
RAISED: Final = {
    "unauthenticated_max": 20_000,
    "requests_per_second": 10_000_000,
    "requests_burst": 10_000_000,
    "mailbox_max_envelopes": 100_000_000,
    "mailbox_max_bytes": 1_000_000_000_000,
}
NOTHING: Final = Stored()
FULL: Final = Stored(accounts=100_000, waiting=1_000_000)


class Saltline(ServerPeer):
    """The relay, with nothing on its disk but what a work needs, or with a lot."""

    name = "saltline"

    def __init__(self, stored: Stored = NOTHING) -> None:
        self._stored = stored
        self._template: Path | None = None
        self._crowd: list[Member] = []  # their seeds are nowhere but here

    def version(self) -> str:
        return f"saltline {version('saltline')}"

    def begin(self, folder: Path, built: Built, setup: Setup, port: int) -> Begun:
        data = folder / "data"
        if self._stored.accounts:
            shutil.copytree(self._filled(built), data)
        with World(data) as world:
            plan = Scene(world, built, self._crowd).plan(setup)
        os.sync()  # what was prepared is written now, and not while something is measured
        return Begun(command(folder, built, port), plan)

    def _filled(self, built: Built) -> Path:
        """A data folder with all that is to be stored; made once."""
        if self._template is None:
            template = built.fresh("template") / "data"
            with World(template) as world:
                self._crowd = world.add_members(self._stored.accounts, "crowd")
                world.fill_mailbox(self._crowd[0], self._stored.waiting, SHORT_BYTES)
            self._template = template
        return self._template


class FullSaltline(Saltline):
    """With 100,000 accounts, and 1,000,000 envelopes that wait in one mailbox."""

    name = "saltline (full)"

    def __init__(self) -> None:
        super().__init__(FULL)


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
    """Fills a data folder for a setup, and plans what the generator does there.

    `crowd` is who has an account already: the first has the full mailbox.
    """

    def __init__(self, world: World, built: Built, crowd: Sequence[Member] = ()) -> None:
        self._world = world
        self._crowd = crowd
        self._spki = built.certificate.spki_hash

    def plan(self, setup: Setup) -> Plan:
        """For one run; the data folder is complete afterwards."""
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
        senders = self._world.add_members(setup.senders)
        away = self._spread(setup.senders) or self._world.add_members(setup.senders, "away")
        return tuple(
            self._writer(sender, recipient, NOBODY, setup.body_bytes)
            for sender, recipient in zip(senders, away, strict=True)
        )

    def _spread(self, count: int) -> Sequence[Member]:
        """Some of the crowd, from all over the database, the one with the full mailbox first."""
        return self._crowd[:: len(self._crowd) // count][:count] if self._crowd else ()

    def _writer(self, sender: Member, recipient: Member, peer: int, body_bytes: int) -> Connection:
        message = wire.submit(recipient.username, 1, body_bytes)
        fanout = 0 if peer == NOBODY else 1
        return Connection((self._login(sender),), Flag.SENDS, peer, fanout, message)

    def _waiting(self, setup: Waiting) -> tuple[Connection, ...]:
        if self._crowd:
            member = self._crowd[0]
        else:
            (member,) = self._world.add_members(1)
            self._world.fill_mailbox(member, setup.waiting, setup.body_bytes)
        return (Connection((self._login(member),), Flag.RECEIVES | Flag.ACKNOWLEDGES),)
