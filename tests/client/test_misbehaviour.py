"""Seeded: a relay that misbehaves at random, people who do as they like, programs that die."""

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from saltline.client.model import Delivery, LineKind, Refused
from saltline.client.vault.database import VaultError
from saltline.server.settings import Settings
from tests.client.faults import Disk
from tests.client.liar import Liar
from tests.client.test_attacks import one_of_each
from tests.client.world import MemoryRelay, Person
from tests.pushes import encode_heard

pytestmark = pytest.mark.usefixtures("quick")

SEEDS = int(os.environ.get("SALTLINE_SEEDS", "8"))
STEPS = 90
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace")
ROOMS = ("#lobby", "#dev")


class World:
    """Some people, each behind a liar; more come later."""

    def __init__(self, folder: Path, seed: int, *, is_honest: bool) -> None:
        self.folder, self.is_honest = folder, is_honest
        self.rng = random.Random(seed)
        settings = Settings(registrations_per_minute_and_address=1000)
        self.relay = MemoryRelay(folder, settings)
        self.people: dict[str, Person] = {}
        self.liars: dict[str, Liar] = {}
        self.sent: dict[tuple[str, str], list[bytes]] = {}
        self.posted: dict[tuple[str, str], list[bytes]] = {}
        for name in NAMES[:3]:
            self.meet(name)

    def meet(self, name: str) -> None:
        self.people[name] = person = Person(self.relay, self.folder / name, name)
        self.liars[name] = Liar(self.rng, is_honest=self.is_honest)
        person.online()
        person.tamper = self.liars[name]

    def safely(self, work: Callable[[], Any]) -> Any:
        """Whatever happens: only these two leave the core."""
        try:
            return work()
        except (Refused, VaultError):
            return None

    def move(self, turns: int) -> None:
        for _ in range(turns):
            if not any([self.safely(person.receive) for person in self.people.values()]):
                return

    def step(self, number: int) -> None:
        rng = self.rng
        if number % 12 == 11 and len(self.people) < len(NAMES):
            self.meet(NAMES[len(self.people)])
            self.meet(NAMES[len(self.people)])
            for newcomer in list(self.people)[-2:]:
                self.post(newcomer, "#lobby", f"{newcomer} is new")
        name, other = rng.sample(list(self.people), 2)
        person, room = self.people[name], rng.choice(ROOMS)
        self.liars[name].rate = rng.choice([0.0, 0.2, 0.5])
        self.relay.now_ms += rng.choice([10, 1000, 40_000])
        match rng.randrange(14):
            case 0 | 1 | 2 | 3:
                self.say(name, other, f"{name} {number}")
            case 4 | 5:
                self.post(name, room, f"{name} {number}")
            case 6:
                self.safely(person.crash)
            case 7:
                self.safely(person.offline)
            case 8:
                for each in self.people.values():
                    each.offline()
                self.relay.crash()
            case 9:
                for each in self.people.values():
                    self.safely(each.tick)
            case 10:
                rows = [line.row for line in person.lines(f"@{other}")]
                if rows:
                    row = rng.choice(rows)
                    self.read(person, f"@{other}", row)
            case 11:
                disk = Disk(
                    person, rng.randrange(1, 30), error=rng.choice([apsw.FullError, apsw.IOError])
                )
                self.say(name, other, f"{name} {number} on a bad disk")
                self.move(3)
                disk.mend()
            case 12:
                self.retry(person)
            case _:
                if person.core.ready:
                    self.safely(lambda: person.perform(self.question(person, other, room)))
        self.move(rng.randrange(6))
        for each in self.people.values():
            if each.link is None and rng.random() < 0.6:
                self.safely(each.online)

    def question(self, person: Person, other: str, room: str) -> Any:
        core, now = person.core, person.now
        ask = self.rng.choice([core.fetch_contact, core.join, core.who])
        return ask(other if ask == core.fetch_contact else room, person._ticket(), now)

    def say(self, name: str, other: str, text: str) -> None:
        line = self.safely(lambda: self.people[name].send(other, text))
        if line is not None:
            self.sent.setdefault((name, other), []).append(line.id)

    def post(self, name: str, room: str, text: str) -> None:
        line = self.safely(lambda: self.people[name].post(room, text))
        if line is not None:
            self.posted.setdefault((name, room), []).append(line.id)

    def read(self, person: Person, conversation: str, row: int) -> None:
        self.safely(lambda: person.perform(person.core.mark_read(conversation, row, person.now)))

    def retry(self, person: Person) -> None:
        for conversation in [*(f"@{name}" for name in NAMES), *ROOMS]:
            failed = [e.row for e in person.lines(conversation) if e.delivery is Delivery.FAILED]
            if failed:
                self.safely(partial(self.send_again, person, failed[0]))
                return

    def send_again(self, person: Person, row: int) -> None:
        person.perform(person.core.retry(row, person.now))

    def make_honest(self) -> None:
        """From now on the relay is; time passes until everything is at rest."""
        for name, person in self.people.items():
            self.liars[name].rate = 0.0
            person.offline()
        for person in self.people.values():
            person.online()
        for _ in range(8):
            self.relay.now_ms += 61_000
            for person in self.people.values():
                person.tick()
                if person.link is None:
                    person.online()
            self.move(10_000)

    def check(self) -> None:
        if self.is_honest:
            self.check_rooms()
        for (name, other), ids in self.sent.items():
            self.check_private(self.people[name], self.people[other], ids)
        for person in self.people.values():
            assert person.core.idle() and person.core.queued() == 0
            texts = [line for room in ROOMS for line in person.lines(room)]
            keys = [(line.author, line.id, line.conversation) for line in texts if line.id]
            assert len(keys) == len(set(keys))
            for line in texts:
                if line.kind is LineKind.TEXT:
                    assert line.id in self.posted[(line.author, line.conversation)]
                    assert line.body.startswith(line.author)

    def check_rooms(self) -> None:
        """Under an honest relay no room lacks a word, and nothing looks like an attack."""
        for room in ROOMS:
            entries = [
                {e.number: e.id for e in p.lines(room) if e.number} for p in self.people.values()
            ]
            last = max([max(each, default=0) for each in entries])
            for person, each in zip(self.people.values(), entries, strict=True):
                numbers = sorted(each)
                assert person.notices(room) == []
                if person.core._ctx.timeline.is_joined(room):
                    assert numbers == list(range(numbers[0], last + 1))
            for each in entries:
                for number, message_id in each.items():
                    assert {other.get(number, message_id) for other in entries} == {message_id}
        for (name, room), ids in self.posted.items():
            mine = [line for line in self.people[name].lines(room) if line.mine and line.number]
            arrived = [e.id for e in sorted(mine, key=lambda e: e.number) if e.id in ids]
            assert arrived == ids
        for (name, other), ids in self.sent.items():
            theirs = [e.id for e in self.people[other].lines(f"@{name}") if not e.mine and e.id]
            assert theirs == ids
            assert self.people[other].notices(f"@{name}") == []

    def check_private(self, sender: Person, recipient: Person, ids: list[bytes]) -> None:
        mine = [line for line in sender.lines(f"@{recipient.name}") if line.mine]
        assert [line.id for line in mine] == ids
        theirs = [line for line in recipient.lines(f"@{sender.name}") if not line.mine and line.id]
        arrived = [line.id for line in theirs]
        assert len(arrived) == len(set(arrived))  # once
        bodies = {line.id: line.body for line in mine}
        for line in theirs:  # nothing that was not sent
            assert bodies[line.id] == line.body and line.author == sender.name
        for line in mine:  # everything, or a failure with its reason
            if line.delivery is Delivery.FAILED:
                assert line.reason
            else:
                assert line.delivery >= Delivery.RELAYED
                assert line.id in arrived


@pytest.mark.parametrize("is_honest", [True, False])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_nothing_is_lost_repeated_or_made_up(
    tmp_path: Path, seed: int, is_honest: bool
) -> None:
    world = World(tmp_path, seed, is_honest=is_honest)
    for number in range(STEPS):
        world.step(number)
    world.make_honest()
    world.check()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_bytes_from_nowhere_in_every_state(tmp_path: Path, seed: int) -> None:
    """Frames of real messages, cut, joined and bent, before and after login."""
    rng = random.Random(seed)
    relay = MemoryRelay(tmp_path)
    person = Person(relay, tmp_path / "ada", "ada").online()
    for _ in range(150):
        body = bytearray(encode_heard(rng.choice(one_of_each(rng.randrange(1, 9)))))
        for _ in range(rng.randrange(4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        del body[rng.randrange(len(body) + 1) :]
        if person.link is None:
            if rng.random() < 0.5:
                person.perform(person.core.link_up(bytes(range(32)), person.now))
            else:
                person.online()
        person.perform(person.core.received([bytes(body)], person.now))
        person.tick()
    person.offline()
    person.online()
    assert person.core.ready and person.core.idle()
