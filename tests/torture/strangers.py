"""Strangers cost little: under every flood an honest client is served, and memory stays bounded."""

import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from saltline.protocol.limits import REGISTRATIONS_PER_MINUTE_AND_ADDRESS
from saltline.server.config import Deadlines
from saltline.server.handshakes import BEGUN_MAX, WAITING_MAX
from saltline.server.listener import ARRIVALS_MAX
from saltline.server.settings import Settings
from tests.torture.attackers import ATTACKS, Attackers, under_attack
from tests.torture.cores import Cores
from tests.torture.honest import Visitors
from tests.torture.measured import MeasuredRelay, Waits
from tests.torture.registrars import Registrars
from tests.torture.trial import Figures, Scale
from tests.waiting import wait_until

# Two threads with 256 handshakes under way, each of 50 KB or, with a ClientHello of 128 KiB, 190;
# and 2,000 strangers after TLS, of 50 KB.
_MEMORY_MAX_MIB: Final = 300.0
# Two threads with silent ones, those that wait and those under way; 2,000 strangers; 256 that
# leave; and what the relay itself has open. What waits takes no more than an eighth of the files
# of a process for each thread.
_FILES_MAX: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
_WAITING_MAX: Final = min(WAITING_MAX, _FILES_MAX // 8)
_DESCRIPTORS_MAX: Final = 2 * (2 * _WAITING_MAX + BEGUN_MAX) + 2000 + 256 + 64
# And what has not been looked at: of each thread so many, and in a flood one more of each address.
_ARRIVALS_MAX: Final = 2 * ARRIVALS_MAX + 1000

# Who stays until a deadline ends it, and at how many a second all of them have room that long: a
# faster crowd is pushed out by its own newest, and no deadline matters.
_UNTIL_TLS: Final = {
    "say nothing": 500,
    "begin TLS and stop": 10,
    "begin TLS at length": 10,
    "begin TLS by halves": 10,
    "drip TLS": 10,
}
_UNTIL_LOGIN: Final = {
    "finish TLS and stop": 15,
    "half a frame": 15,
    "drip a frame": 15,
    "hello and stop": 15,
    "hello and ask": 15,
}
_TLS_S: Final = Deadlines().handshake_s
_LOGIN_S: Final = Settings().login_deadline_s
# Longer than the deadline: TLS before a login, looks at the clock, a last word, a busy machine.
_BEYOND_S: Final = 5.0
_REGISTRARS: Final = 3


@dataclass
class _Scene:
    """A relay with everybody who comes to it, and what was seen of them."""

    relay: MeasuredRelay
    visitors: Visitors
    strangers: int = 0
    descriptors: int = 0
    told: dict[str, str] = field(default_factory=dict)
    longest_s: dict[str, float] = field(default_factory=dict)  # that one of a kind was borne

    def watch(self, name: str, attack: Callable[[], None], scale: Scale) -> None:
        """What the visits during an attack are like; none may take too long."""
        everybody, self.visitors.waits = self.visitors.waits, Waits()
        try:
            attack()
            self.visitors.were_served(scale)
        except AssertionError as error:
            error.add_note(f"{name}; before: {self.told}; visits: {self.visitors.told()}")
            raise
        self.told[name] = self.visitors.told()
        self.visitors.waits = Waits(everybody.each_s + self.visitors.waits.each_s)

    def visit_while(self, goes_on: Callable[[], bool]) -> None:
        """One visit after the other, and one at least."""
        while True:
            self.visitors.visit()
            self.descriptors = max(self.descriptors, self.relay.descriptors)
            if not goes_on():
                return

    def flood(self, kinds: Iterable[str], seconds: float, addresses: int, rate: int) -> None:
        """One kind after the other, each for so long."""
        port = self.relay.port
        self._visit_under(Attackers(port, kinds, seconds=seconds, addresses=addresses, rate=rate))

    def wait_for_deadlines(self) -> None:
        """All kinds that stay, at once, until the relay has had to end some for their time."""
        patient = {
            kind: rate for crowd in (_UNTIL_TLS, _UNTIL_LOGIN) for kind, rate in crowd.items()
        }
        self._visit_under(
            *(
                Attackers(
                    self.relay.port,
                    [kind],
                    seconds=_LOGIN_S + 2 * _BEYOND_S,  # whoever is borne too long is seen
                    addresses=1000,
                    rate=rate,
                )
                for kind, rate in patient.items()
            )
        )
        for kind in patient:
            borne_s = self.longest_s[kind]
            assert borne_s >= _deadline_s(kind), f"{kind}: gone after {borne_s:.1f} s"
        tls_s = max(self.longest_s[kind] for kind in _UNTIL_TLS)
        login_s = max(self.longest_s[kind] for kind in _UNTIL_LOGIN)
        self.told["borne at most, s"] = f"{tls_s:.1f} before TLS, {login_s:.1f} before a login"

    def _visit_under(self, *attackers: Attackers) -> None:
        """Visit until they have all had their time; nobody is borne beyond a deadline.

        The quick form is too short for one: tests/server/test_deadlines.py holds those.
        """
        with under_attack(*attackers):
            self.visit_while(lambda: any(each.are_busy for each in attackers))
            for each in attackers:
                for kind, came in each.told().items():
                    self.strangers += came.connected
                    self.longest_s[kind] = came.oldest_s
                    allowed_s = _deadline_s(kind) + _BEYOND_S
                    assert came.oldest_s <= allowed_s, f"{kind}: borne for {came.oldest_s:.1f} s"

    def register(self, seconds: float, addresses: Sequence[str]) -> None:
        """As fast as they can: each address gets its number of accounts, then a time to wait."""
        with closing(Registrars(self.relay.port, seconds, addresses, _REGISTRARS)) as registrars:
            self.visit_while(lambda: registrars.are_busy)
            each = REGISTRATIONS_PER_MINUTE_AND_ADDRESS
            accounts, refused = registrars.told(each)
        assert accounts and refused, (accounts, refused)
        self.told[f"accounts and refusals of {len(addresses)}"] = f"{accounts}, {refused}"


def _deadline_s(kind: str) -> float:
    return _TLS_S if kind in _UNTIL_TLS else _LOGIN_S


def run(scale: Scale, folder: Path) -> Figures:
    """One kind of stranger after the other, from one address and from many; then all at once."""
    is_long = scale is Scale.LONG
    limits = {"registrations_per_minute_and_address": REGISTRATIONS_PER_MINUTE_AND_ADDRESS}
    with Cores.divided(really=is_long) as cores, MeasuredRelay(folder, limits=limits) as relay:
        relay.start()
        cores.give(relay.pid)
        visitors = Visitors(relay)
        for _ in range(20):
            visitors.visit()
        usual, visitors.waits = visitors.waits, Waits()
        relay.begin_to_measure()
        usual_descriptors = relay.descriptors
        scene = _Scene(relay, visitors)
        for name, attack in (_at_length if is_long else _in_short)(scene, cores):
            scene.watch(name, attack, scale)
        relay.is_well()
        assert relay.peak_growth_mib <= _MEMORY_MAX_MIB
        most = _DESCRIPTORS_MAX + (_ARRIVALS_MAX if is_long else 0)
        assert scene.descriptors <= most, f"{scene.descriptors} descriptors"
        wait_until(lambda: relay.descriptors <= usual_descriptors, "all strangers are let go")
        return {
            "cores": str(cores),
            "connections of strangers": scene.strangers,
            "usually served within": usual.told(),
            **scene.told,
            "honest clients": len(visitors.waits.each_s),
            "at the latest, ms": round(visitors.waits.longest_s * 1000),
            "cut off and back": visitors.cut_off,
            "memory, MiB": relay.peak_growth_mib,
            "descriptors": scene.descriptors,
        }


Attacks = Iterator[tuple[str, Callable[[], None]]]


def _in_short(scene: _Scene, _cores: Cores) -> Attacks:
    yield "under attack", lambda: scene.flood(ATTACKS, 0.25, 100, 1000)
    yield "while some registered", lambda: scene.register(0.0, ["127.0.0.1", "127.0.0.2"])


def _at_length(scene: _Scene, cores: Cores) -> Attacks:
    brief = [kind for kind in ATTACKS if kind not in _UNTIL_TLS and kind not in _UNTIL_LOGIN]

    def flood(addresses: int) -> None:
        scene.flood(brief, 3, addresses, 0)
        scene.flood(_UNTIL_TLS, _TLS_S + 2, addresses, 0)
        scene.flood(_UNTIL_LOGIN, _LOGIN_S + 2, addresses, 0)

    yield "from those who wait for a deadline", scene.wait_for_deadlines
    yield "from one address", lambda: flood(1)
    yield "from 1,000", lambda: flood(1000)
    yield "while one address registered", lambda: scene.register(15.0, ["127.0.0.1"])
    many = [f"127.0.0.{place + 2}" for place in range(40)]
    yield "while 40 registered", lambda: scene.register(15.0, many)
    cores.share(scene.relay.pid)
    yield "on shared cores", lambda: scene.flood(ATTACKS, 3, 1000, 0)
