"""kill -9 at every commit: before it, before its commands, after them. Nothing lost or twice."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from saltline.client.model import Delivery, LineKind
from tests.client.faults import Died, Mortal
from tests.client.world import MemoryRelay, Person

pytestmark = pytest.mark.usefixtures("quick")

# 1 tries every moment of every commit; more tries every commit, at one of its moments.
STRIDE = int(os.environ.get("SALTLINE_STRIDE", "3"))
MOMENTS = ("before the commit", "before the commands", "after the commands")


@dataclass
class Script:
    """A talk between two people; whoever dies comes back and goes on where they were."""

    relay: MemoryRelay
    folder: Path
    alice: Mortal = field(init=False)
    bob: Mortal = field(init=False)
    said: dict[str, list[str]] = field(default_factory=lambda: {"alice": [], "bob": []})
    posts: list[str] = field(default_factory=list)

    def begin(self, name: str) -> Mortal:
        return Mortal(self.relay, self.folder / name, name)

    def safely(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Died:
            for person in (self.alice, self.bob):
                if person.died:
                    person.died = 0
                    self.revive(person)

    def revive(self, person: Mortal) -> None:
        person.crash()
        account = person.vault.account()
        assert account is not None
        if not account.registered:
            person.perform(person.core.begin_registration(person.name, "", 99, person.now))
        self.safely(person.online)

    def settle(self) -> None:
        for _ in range(1000):
            busy: list[bool] = []
            for person in (self.alice, self.bob):
                self.safely(partial(receive, person, busy))
            if busy == [False, False]:
                return
        raise AssertionError("it never becomes quiet")

    def say(self, person: Mortal, other: Mortal, text: str) -> None:
        """As a person does who looks whether it was taken before typing it again."""
        conversation = f"@{other.name}"
        self.safely(lambda: person.send(other.name, text))
        if text not in person.texts(conversation):
            self.safely(lambda: person.send(other.name, text))
        self.said[person.name].append(text)

    def post(self, person: Mortal, text: str) -> None:
        self.safely(lambda: person.post("#lobby", text))
        if text not in person.texts("#lobby"):
            self.safely(lambda: person.post("#lobby", text))
        self.posts.append(text)

    def play(self) -> None:
        alice, bob = self.alice, self.bob
        self.say(alice, bob, "first, to somebody unknown")
        self.settle()
        self.safely(bob.offline)
        self.say(alice, bob, "while you were away")
        self.post(alice, "in public")
        self.settle()
        self.safely(bob.online)
        self.say(bob, alice, "an answer")
        self.settle()
        self.safely(lambda: read_all(bob, "@alice"))
        self.say(alice, bob, "and another")
        self.post(bob, "in public too")
        self.settle()

    def finish(self) -> None:
        for person in (self.alice, self.bob):
            person.fuse = 0
            if person.link is None:
                person.online()
        for _ in range(3):
            self.relay.now_ms += 31_000
            for person in (self.alice, self.bob):
                person.tick()
            self.settle()

    def check(self) -> None:
        alice, bob = self.alice, self.bob
        for person, other in ((alice, bob), (bob, alice)):
            lines = person.lines(f"@{other.name}")
            assert [line.body for line in lines if line.mine] == self.said[person.name]
            assert [line.body for line in lines if not line.mine] == self.said[other.name]
            delivered = {line.delivery for line in lines if line.mine}
            assert delivered <= {Delivery.DELIVERED, Delivery.READ}
            assert sorted(person.texts("#lobby")) == sorted(self.posts)
            assert person.notices("#lobby") == [] == person.notices("@saltline")
            joined = [e.author for e in person.lines("#lobby") if e.kind is LineKind.JOIN]
            assert sorted(joined) == ["alice", "bob"]
            assert person.core.idle() and person.core.queued() == 0


def receive(person: Person, busy: list[bool]) -> None:
    busy.append(person.receive())


def read_all(person: Person, conversation: str) -> None:
    last = max([line.row for line in person.lines(conversation)], default=0)
    person.perform(person.core.mark_read(conversation, last, person.now))


def play(folder: Path, victim: str, moment: str, fuse: int) -> int:
    """Returns how many commits the victim made; 0 if it died."""
    folder.mkdir()
    script = Script(MemoryRelay(folder), folder)
    script.alice, script.bob = script.begin("alice"), script.begin("bob")
    dying = script.alice if victim == "alice" else script.bob
    dying.moment, dying.fuse = moment, dying.commits + fuse
    for person in (script.alice, script.bob):
        script.safely(person.online)
        script.settle()
    script.play()
    has_died = dying.fuse == 0
    script.finish()
    script.check()
    return 0 if has_died else dying.commits


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_every_commit_from_registration_on(tmp_path: Path, victim: str, moment: str) -> None:
    fuse = 1 + MOMENTS.index(moment) % STRIDE
    while not play(tmp_path / f"world {fuse}", victim, moment, fuse):
        fuse += STRIDE
    assert fuse > 10


def test_the_crashes_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that forgets its outbox at every start does not come through."""
    monkeypatch.setattr("saltline.client.vault.outbox.OutboxStore.conversations", lambda self: [])
    with pytest.raises(AssertionError):
        for fuse in range(15, 40):
            play(tmp_path / f"world {fuse}", "alice", MOMENTS[1], fuse)


def test_both_die_again_and_again(tmp_path: Path) -> None:
    """Every third commit of either is the last for a while."""
    script = Script(MemoryRelay(tmp_path), tmp_path)
    script.alice, script.bob = script.begin("alice"), script.begin("bob")
    for person in (script.alice, script.bob):
        script.safely(person.online)
        script.settle()
    for number in range(36):
        for person in (script.alice, script.bob):
            person.moment, person.fuse = MOMENTS[number % 3], person.commits + 1 + number % 4
        script.say(script.alice, script.bob, f"alice {number}")
        script.say(script.bob, script.alice, f"bob {number}")
        script.post(script.alice, f"post {number}")
        script.settle()
    script.finish()
    script.check()


def test_the_lobby_is_joined_by_who_died_between_registering_and_joining(
    relay: MemoryRelay, tmp_path: Path
) -> None:
    ada = Mortal(relay, tmp_path / "ada", "ada")
    ada.moment, ada.fuse = "before the commands", ada.commits + 3  # the welcome is saved
    with pytest.raises(Died):
        ada.online()
    account = ada.vault.account()
    assert account is not None and account.registered
    ada.crash()
    ada.online()
    assert [line.author for line in ada.lines("#lobby")] == ["ada"]
    assert ada.core.idle()
