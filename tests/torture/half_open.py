"""A connection that stays open while nothing comes through it any more, in either direction.

Short: the real cores under a clock that we move. Long: real sockets, and a proxy that swallows.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from saltline.protocol.limits import PING_INTERVAL_S, PINGS_MISSED_MAX, REQUEST_TIMEOUT_S
from saltline.server.settings import Settings
from tests.client.programs import House
from tests.client.world import Link, MemoryRelay, Person, settle
from tests.torture.ledger import Ledger
from tests.torture.lost_answers import stats
from tests.torture.trial import Figures, Scale
from tests.torture.visitors import Visitor
from tests.waiting import wait_until

# A ping leaves at the latest after its interval, and its answer is waited for; both look at their
# clocks once a second.
CLIENT_NOTICES_S = PING_INTERVAL_S + REQUEST_TIMEOUT_S + 2
RELAY_NOTICES_S = PING_INTERVAL_S * (PINGS_MISSED_MAX + 1) + 10
# What the long form allows for a busy machine.
_SLACK_S = 5


class Swallowed(Link):
    """What a client still believes to be a connection."""

    is_over = False

    def __init__(self) -> None:
        """Nobody is at the other end."""

    def send(self, data: bytes) -> None:
        """Nobody gets it."""

    def take(self) -> list[bytes]:
        return []

    def cut(self) -> None:
        """Nobody hears of it."""


def second(relay: MemoryRelay, *people: Person) -> None:
    """One second passes for everybody."""
    relay.now_ms += 1000
    relay.perform(relay.core.tick(relay.now_ms))
    for person in people:
        person.tick()
        person.receive()
    settle(*people)


def silence(relay: MemoryRelay, alice: Person, bob: Person, nth: int) -> tuple[int, int]:
    """Alice's connection falls silent while both write; when she, and the relay, notice, in s."""
    old = alice.link
    assert old is not None
    alice.link = Swallowed()
    if nth % 2:  # else nothing of hers waits for an answer: only a ping finds out
        alice.send("bob", f"from alice {nth}")
    bob.send("alice", f"from bob {nth}")
    settle(bob)
    client_s = relay_s = waited_s = 0
    while not (client_s and relay_s):
        second(relay, alice, bob)
        waited_s += 1
        assert waited_s < 1000, (client_s, relay_s)
        client_s = client_s or (waited_s if alice.link is None else 0)
        relay_s = relay_s or (waited_s if old.is_closed else 0)
    return client_s, relay_s


def under_our_clock(folder: Path, times: int) -> Figures:
    """The cores: at every second between two pings, once."""
    folder.mkdir(exist_ok=True)
    relay = MemoryRelay(folder, Settings(registrations_per_minute_and_address=1000))
    alice = Person(relay, folder / "alice", "alice").online()
    bob = Person(relay, folder / "bob", "bob").online()
    alice.send("bob", "hello")
    bob.send("alice", "hello")
    settle(alice, bob)
    slowest_client_s = slowest_relay_s = 0
    for nth in range(times):
        for _ in range(nth % int(PING_INTERVAL_S)):
            second(relay, alice, bob)
        client_s, relay_s = silence(relay, alice, bob, nth)
        slowest_client_s = max(slowest_client_s, client_s)
        slowest_relay_s = max(slowest_relay_s, relay_s)
        alice.online()
        settle(alice, bob)
    assert slowest_client_s <= CLIENT_NOTICES_S, slowest_client_s
    assert slowest_relay_s <= RELAY_NOTICES_S, slowest_relay_s
    wanted = ["hello", *(f"from bob {nth}" for nth in range(times))]
    assert [line.body for line in alice.lines("@bob") if not line.mine] == wanted
    wanted = ["hello", *(f"from alice {nth}" for nth in range(1, times, 2))]
    assert [line.body for line in bob.lines("@alice") if not line.mine] == wanted
    return {"silences": times, "client s": slowest_client_s, "relay s": slowest_relay_s}


def under_the_worlds_clock(folder: Path) -> Figures:
    """Three people on real connections; alice's and carol's fall silent, and carol stays away."""
    ledger = Ledger()
    with ExitStack() as stack:
        house = stack.enter_context(House.running(folder))
        alice, bob, carol = (
            stack.enter_context(Visitor.at(house, name, ledger, {}))
            for name in ("alice", "bob", "carol")
        )
        for one, other in ((alice, "bob"), (bob, "alice"), (bob, "carol")):
            one.say(other)
        for person in (alice, bob, carol):
            person.settle()
        alice.proxy.swallow()
        carol.proxy.swallow()
        carol.proxy.is_refusing = True
        begun_s = time.monotonic()
        bob.say("alice")
        wait_until(lambda: not alice.is_online, "alice notices that it is only silence")
        client_s = time.monotonic() - begun_s
        pending = alice.say("bob")
        wait_until(lambda: alice.is_online and alice.has_relayed(pending), "alice comes back")
        alice.settle()
        bob.settle()
        wait_until(lambda: stats(house).connections == 2, "the relay notices that carol is gone")
        relay_s = time.monotonic() - begun_s
        alice.tell("@bob")
        bob.tell("@alice")
        carol.tell("@bob")
        assert client_s <= CLIENT_NOTICES_S + _SLACK_S, client_s
        assert relay_s <= RELAY_NOTICES_S + _SLACK_S, relay_s
    return {
        "client s, real": round(client_s, 1),
        "relay s, real": round(relay_s, 1),
        **ledger.hold(5),
    }


def run(scale: Scale, folder: Path) -> Figures:
    """Simulated silences; long: as many as there are seconds between pings, and real ones."""
    figures = dict(under_our_clock(folder / "memory", scale.of(4, 2 * int(PING_INTERVAL_S))))
    if scale is Scale.LONG:
        figures |= under_the_worlds_clock(folder / "house")
    return figures
