"""Two devices under every weather: each message is shown once, no key serves twice, and they meet.

The state machine of docs/protocol.md §3–§5 over saltline.crypto, driven by Hypothesis, and by long
seeded walks. The invariants live in `pair`: a message key that makes two committed boxes, a content
shown twice, a message that arrives in time and does not open, or two devices that go on sending on
different sessions fail the test.
"""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from saltline.crypto.bundles import DAY_MS
from tests.crypto.device import Device
from tests.crypto.pair import Pair

NAMES = st.sampled_from(["alice", "bob"])
CRASHES = st.sampled_from(["", "", "", "before", "after"])
PLACES = st.integers(0, 7)  # in a mailbox, counted from its end: 0 is the latest


class TwoDevices(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.pair = Pair(seed)

    @rule(name=NAMES, count=st.integers(1, 3), crash=CRASHES)
    def send(self, name: str, count: int, crash: str) -> None:
        for _ in range(count):
            self.pair.send(self.pair.devices[name])
        self.pair.flush(self.pair.devices[name])
        if crash:
            self.pair.send(self.pair.devices[name], crash)

    @rule()
    def both_send_at_once(self) -> None:
        for device in self.pair.devices.values():
            self.pair.send(device)
        self.flush("alice", False)
        self.flush("bob", False)

    @rule(name=NAMES, crash=st.booleans())
    def flush(self, name: str, crash: bool) -> None:
        self.pair.flush(self.pair.devices[name], crash)

    def mail(self) -> bool:
        return any(self.pair.mailbox.values())

    @precondition(mail)
    @rule(name=NAMES, place=PLACES, crash=CRASHES)
    def deliver(self, name: str, place: int, crash: str) -> None:
        if waiting := len(self.pair.mailbox[name]):
            self.pair.deliver(self.pair.devices[name], -1 - place % waiting, crash)

    @precondition(mail)
    @rule(name=NAMES)
    def deliver_all_in_order(self, name: str) -> None:
        while self.pair.mailbox[name]:
            self.pair.deliver(self.pair.devices[name], 0)

    @precondition(mail)
    @rule(name=NAMES, place=PLACES)
    def lose(self, name: str, place: int) -> None:
        if waiting := len(self.pair.mailbox[name]):
            self.pair.mailbox[name].pop(-1 - place % waiting)

    @precondition(lambda self: any(self.pair.archive.values()))
    @rule(name=NAMES, place=PLACES)
    def repeat(self, name: str, place: int) -> None:
        """The relay hands out something again, acknowledged or lost or not."""
        if ever := self.pair.archive[name]:
            self.pair.mailbox[name].append(ever[-1 - place % len(ever)])

    @rule(name=NAMES)
    def resync(self, name: str) -> None:
        """Abandon the session in use, and say so on a new one."""
        self.pair.resync(self.pair.devices[name])

    @rule(name=NAMES)
    def restore(self, name: str) -> None:
        """A device comes back from its backup, without sessions and prekeys."""
        self.pair.restore(self.pair.devices[name])

    @rule(name=NAMES)
    def prekeys(self, name: str) -> None:
        self.pair.rotate(self.pair.devices[name])
        self.pair.top_up(self.pair.devices[name], 1)

    @rule(days=st.sampled_from([1, 1, 6, 8, 32]))
    def time_passes(self, days: int) -> None:
        self.pair.advance(days * DAY_MS)

    @rule()
    def quiet(self) -> None:
        self.pair.converge()

    @invariant()
    def nothing_is_shown_twice(self) -> None:
        for device in self.pair.devices.values():
            assert len(set(device.shown)) == len(device.shown)

    def teardown(self) -> None:
        self.pair.converge()


def test_two_devices_in_every_order() -> None:
    run_state_machine_as_test(
        TwoDevices,
        settings=settings(
            max_examples=70,
            stateful_step_count=50,
            report_multiple_bugs=False,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def step(pair: Pair, device: Device, choose: random.Random) -> None:
    crash = choose.choice(["", "", "", "before", "after"])
    mailbox = pair.mailbox[device.name]
    place = choose.choice([0, -1, choose.randrange(len(mailbox))]) if mailbox else None
    what = choose.choices(
        "send flush deliver lose repeat resync restore prekeys time quiet".split(),
        (60, 40, 120, 8, 12, 2, 1, 4, 6, 4),
    )[0]
    if what == "send":
        pair.send(device, crash)
    elif what == "flush":
        pair.flush(device, bool(crash))
    elif what == "deliver" and place is not None:
        pair.deliver(device, place, crash)
    elif what == "lose" and place is not None:
        mailbox.pop(place)
    elif what == "repeat" and pair.archive[device.name]:
        ever = pair.archive[device.name]
        mailbox.append(choose.choice(choose.choice([ever, ever[-20:]])))
    elif what == "resync":
        pair.resync(device, crash)
    elif what == "restore":
        pair.restore(device)
    elif what == "prekeys":
        pair.rotate(device)
        pair.top_up(device, choose.choice([0, 1, 5]))
    elif what == "time":
        pair.advance(choose.choice([1000, DAY_MS // 24, DAY_MS, 8 * DAY_MS, 16 * DAY_MS]))
    elif what == "quiet":
        pair.converge()


@pytest.mark.parametrize("seed", range(6))
def test_long_walks(seed: int) -> None:
    choose = random.Random(seed)
    pair = Pair(seed)
    for _ in range(2500):
        step(pair, pair.devices[choose.choice(["alice", "bob"])], choose)
    pair.converge()
    shown = sum(len(device.shown) for device in pair.devices.values())
    assert shown > 500
    assert all(sent.shown <= 1 for sent in pair.sent.values())


@pytest.mark.parametrize("seed", range(20))
def test_both_start_in_the_same_millisecond(seed: int) -> None:
    """Equal `started`: the session ids decide, whichever way the dice fell."""
    pair = Pair(seed)
    alice, bob = pair.devices.values()
    bob.skew_ms = 0
    pair.send(alice)
    pair.now_ms -= 1
    pair.send(bob)
    started = [device.sessions.sessions[0].started_ms for device in (alice, bob)]
    assert started[0] == started[1]
    pair.converge()
    assert all(sent.shown == 1 for sent in pair.sent.values())
    assert len(alice.sessions) == len(bob.sessions) == 2


def test_a_session_that_sends_again_is_kept() -> None:
    """Bob's session is superseded by one of Alice's that is lost, and later takes its place."""
    pair = Pair(0)
    alice, bob = pair.devices.values()
    bob.skew_ms = -DAY_MS // 2
    pair.send(alice)
    pair.flush(alice)
    pair.mailbox["bob"].clear()
    pair.tick(DAY_MS // 3)
    pair.send(bob)  # later, but `started` is lower by his clock
    pair.flush(bob)
    pair.advance(20 * DAY_MS)
    pair.deliver(alice, 0)
    pair.advance(18 * DAY_MS - DAY_MS // 6)  # Alice's own session was never answered, and is over
    assert [session.initiator for session in alice.sessions.sessions] == [False]
    pair.send(alice)
    pair.settle()
    for _ in range(7):
        pair.converge()
        pair.advance(5 * DAY_MS)
    assert [session.initiator for session in alice.sessions.sessions] == [False]
    assert [sent.shown for sent in pair.sent.values()] == [0] + [1] * (len(pair.sent) - 1)
