"""What a turn costs, in steps of the vault: by what happens, not by what waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from saltline.client.model import Delivery
from saltline.protocol import to_client
from tests.client.hostile import refusing, under
from tests.client.world import SPKI, Link, MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

_STEPS = 10  # SQLite tells of so many at once
FEW, MANY = 60, 360
# Trees grow by a level now and then; what grows with the square is six times off here.
SLACK = 1.6


class Meter:
    """Steps of SQLite's virtual machine on one vault."""

    steps = 0


@contextmanager
def metering(person: Person) -> Iterator[Meter]:
    meter = Meter()

    def tell() -> bool:
        meter.steps += _STEPS
        return False

    person.vault.db.set_progress_handler(tell, _STEPS)
    try:
        yield meter
    finally:
        person.vault.db.set_progress_handler(None)


def cost_of_each(person: Person, count: int, work: Callable[[], object]) -> float:
    with metering(person) as meter:
        work()
    return meter.steps / count


def one_by_one(person: Person, other: Person) -> None:
    """The network delivers every frame alone: the most turns that can be."""
    while True:
        moved = False
        for each in (person, other):
            if each.link is None:
                continue
            for body in each.link.take():
                each.perform(each.core.received([body], each.now))
                moved = True
        if not moved:
            return


def test_a_long_outbox_of_one_conversation(alice: Person, bob: Person) -> None:
    costs = []
    for count in (FEW, MANY):
        alice.offline()
        bob.offline()
        for number in range(count):
            alice.send("bob", f"text {number}")
        alice.link = Link(alice.relay, None)
        alice.perform(alice.core.link_up(SPKI, alice.now))
        costs.append(cost_of_each(alice, count, lambda: one_by_one(alice, bob)))
        assert alice.core.queued() == 0
        bob.online()
        one_by_one(alice, bob)
    assert costs[1] < SLACK * costs[0]


def test_a_long_outbox_that_is_refused_again_and_again(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    """A full mailbox: every half minute one attempt, whose cost is one line's, not one file's."""
    under(alice, refusing(to_client.Submitted, "mailbox_full", times=10**6))
    costs = []
    for count in (FEW, MANY):
        for number in range(count):
            alice.send("bob", f"text {number}")
        settle(alice)

        def again() -> None:
            relay.now_ms += 31_000
            alice.tick()
            settle(alice)

        costs.append(cost_of_each(alice, alice.core.queued(), again))
    assert costs[1] < SLACK * costs[0]
    assert {alice.delivery(line) for line in alice.lines("@bob")} == {Delivery.QUEUED}


def test_many_conversations_that_wait_cost_the_others_nothing(alice: Person, bob: Person) -> None:
    """Names whose lookups the relay leaves open."""

    def silent(message: Heard) -> list[Heard]:
        return [] if isinstance(message, to_client.LookedUp) else [message]

    alice.send("bob", "hello")
    settle(alice, bob)
    under(alice, silent)
    costs = []
    waiting = 0
    for count in (FEW, MANY):
        while waiting < count:
            alice.send(f"nobody-{waiting}", "hello?")
            waiting += 1

        def talk() -> None:
            for number in range(10):
                alice.send("bob", f"text {number}")
                one_by_one(alice, bob)

        costs.append(cost_of_each(alice, 10, talk))
    assert costs[1] < SLACK * costs[0]


def test_many_posts_that_wait_cost_the_others_nothing(alice: Person, bob: Person) -> None:
    alice.send("bob", "hello")
    settle(alice, bob)
    for number in range(30):
        alice.post(f"#room{number}", "the first joins")
    settle(alice)

    def silent(message: Heard) -> list[Heard]:
        return [] if isinstance(message, to_client.Posted) else [message]

    under(alice, silent)

    def talk() -> None:
        for number in range(10):
            alice.send("bob", f"text {number}")
            one_by_one(alice, bob)

    costs = [cost_of_each(alice, 10, talk)]
    for number in range(30):
        alice.post(f"#room{number}", "hello?")
    settle(alice)
    costs.append(cost_of_each(alice, 10, talk))
    assert costs[1] < SLACK * costs[0]


@pytest.mark.parametrize("is_contact", [True, False])
def test_a_long_mailbox(alice: Person, bob: Person, is_contact: bool) -> None:
    """Strangers' messages owe receipts that wait, perhaps for ever."""
    if is_contact:
        bob.send("alice", "hello")
        settle(alice, bob)
    costs = []
    for count in (FEW, MANY):
        bob.offline()
        for number in range(count):
            alice.send("bob", f"text {number}")
        settle(alice)
        bob.link = Link(bob.relay, None)
        bob.perform(bob.core.link_up(SPKI, bob.now))
        costs.append(cost_of_each(bob, count, lambda: one_by_one(bob, alice)))
    assert len(bob.texts("@alice")) == FEW + MANY + is_contact
    assert costs[1] < SLACK * costs[0]


def test_a_long_room(alice: Person, bob: Person) -> None:
    costs = []
    settle(alice, bob)
    for count in (FEW, MANY):
        with metering(alice) as meter:
            for number in range(count):
                bob.post("#lobby", f"post {number}")
                one_by_one(alice, bob)
        costs.append(meter.steps / count)
    assert len(alice.texts("#lobby")) == FEW + MANY
    assert costs[1] < SLACK * costs[0]


def test_idle_is_asked_after_every_turn(alice: Person) -> None:
    """With messages on their way nothing needs to be read to know that we are busy."""
    for number in range(FEW):
        alice.send(f"nobody-{number}", "hello?")
    with metering(alice) as meter:
        for _ in range(100):
            assert not alice.core.idle()
    assert meter.steps == 0


def test_caches_do_not_grow_with_strangers(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.client.devices.CACHED_MAX", 0)
    monkeypatch.setattr("saltline.client.contacts.CACHED_MAX", 0)
    for number in range(5):
        alice.send("bob", f"text {number}")
        bob.send("alice", f"answer {number}")
        bob.post("#lobby", f"post {number}")
        settle(alice, bob)
    parts = alice.core._parts
    assert not parts.devices._sets and not parts.contacts._accounts
    assert [line.body for line in bob.lines("@alice") if not line.mine] == [
        f"text {number}" for number in range(5)
    ]
    assert alice.texts("#lobby") == [f"post {number}" for number in range(5)]
