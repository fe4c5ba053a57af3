"""Strangers cost little: under every flood an honest client is served, and memory stays bounded."""

import resource
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Final

from saltline.crypto.keys import IdentityKeys
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import Error, Welcome
from saltline.server.handshakes import BEGUN_MAX, WAITING_MAX
from tests.server.wire_client import WireClient
from tests.torture.attackers import ATTACKS, under_attack
from tests.torture.measured import MeasuredRelay, Waits
from tests.torture.trial import Figures, Scale
from tests.waiting import wait_until

SERVED_WITHIN_S: Final = 2.0
# Two threads with 256 handshakes under way, each of 50 KB or, with a ClientHello of 128 KiB, 190;
# and 2,000 strangers after TLS, of 50 KB.
_MEMORY_MAX_MIB: Final = 300.0
# Two threads with silent ones, those that wait and those under way; 2,000 strangers; 256 that
# leave; and what the relay itself has open. What waits takes no more than an eighth of the files
# of a process for each thread.
_WAITING_MAX: Final = min(WAITING_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 8)
_DESCRIPTORS_MAX: Final = 2 * (2 * _WAITING_MAX + BEGUN_MAX) + 2000 + 256 + 64
_REGISTRATIONS: Final = 20
_GIVE_UP_S: Final = 30.0


class Visitors:
    """Honest people: each connects once from an address of their own, writes, and leaves."""

    def __init__(self, relay: MeasuredRelay) -> None:
        self._relay = relay
        self._turn = count()
        self.waits = Waits()
        self.cut_off = 0
        with WireClient(relay.port, "friend") as friend:
            friend.register()
        with WireClient(relay.port, "visitor") as visitor:
            self._keys: IdentityKeys = visitor.register()

    def visit(self) -> None:
        """Connect, TLS, hello, login, an envelope, its acknowledgement."""
        number = next(self._turn)
        source = f"127.99.{number // 250 + 1}.{number % 250 + 1}"
        began_s = monotonic()
        while True:
            try:
                with WireClient(self._relay.port, "visitor", source=source) as visitor:
                    visitor.log_in(self._keys)
                    visitor.submit("friend", b"x" * 3632)
                break
            except (OSError, AssertionError):  # cut off: like everyone, they try again
                self.cut_off += 1
                assert monotonic() < began_s + _GIVE_UP_S, "an honest client is not served at all"
        self.waits.each_s.append(monotonic() - began_s)


def run(scale: Scale, folder: Path) -> Figures:
    """One kind of stranger after the other, from one address and from many."""
    seconds = scale.of(3, 30) / 10
    limits = {"login_deadline_s": 3.0, "registrations_per_minute_and_address": _REGISTRATIONS}
    with MeasuredRelay(folder, limits=limits, deadlines={"handshake_s": 2.0}) as relay:
        relay.start()
        visitors = Visitors(relay)
        for _ in range(20):
            visitors.visit()
        usual, visitors.waits = visitors.waits, Waits()
        relay.begin_to_measure()
        descriptors = usual_descriptors = relay.descriptors
        made = 0
        kinds = list(ATTACKS)
        crowds = [([kind], addresses) for kind in kinds for addresses in (1, 1000)]
        for some, addresses in crowds if scale is Scale.LONG else [(kinds, 100)]:
            with under_attack(
                relay.port, some, seconds=seconds, addresses=addresses, rate=scale.of(1000, 0)
            ) as attackers:
                while attackers.poll() is None:
                    visitors.visit()
                    descriptors = max(descriptors, relay.descriptors)
                assert attackers.stdout is not None
                made += int(attackers.stdout.read())
        registered, refused = _register_as_fast_as_possible(relay, scale.of(2, 20))
        relay.is_well()
        served_s = visitors.waits.longest_s
        assert served_s <= scale.of(3, 1) * SERVED_WITHIN_S, f"served only after {served_s:.2f} s"
        assert relay.peak_growth_mib <= _MEMORY_MAX_MIB
        assert descriptors <= _DESCRIPTORS_MAX
        wait_until(lambda: relay.descriptors <= usual_descriptors, "all strangers are let go")
        return {
            "connections of strangers": made,
            "honest clients": len(visitors.waits.each_s),
            "usually served within": usual.told(),
            "under attack": visitors.waits.told(),
            "at the latest, ms": round(served_s * 1000),
            "cut off and back": visitors.cut_off,
            "registered, refused": f"{registered}, {refused}",
            "memory, MiB": relay.peak_growth_mib,
            "descriptors": descriptors,
        }


def _register_as_fast_as_possible(relay: MeasuredRelay, addresses: int) -> tuple[int, int]:
    """From a few addresses: each gets its number of accounts, and then a time to wait."""
    registered = refused = 0
    for place in range(addresses):
        source = f"127.77.1.{place + 1}"
        began_s = monotonic()
        here = 0
        for number in range(_REGISTRATIONS + 5):
            name = f"mass{place * 100 + number:04}"  # of one length: no two look alike
            with WireClient(relay.port, name, source=source) as stranger:
                stranger.ask_to_register()
                answer = decode_relay_message(stranger.receive())
            if isinstance(answer, Welcome):
                here += 1
            else:
                assert isinstance(answer, Error)
                assert answer.code == ErrorCode.RATE_LIMITED, answer
                assert answer.retry_after_ms > 0
                refused += 1
        elapsed_s = monotonic() - began_s
        assert _REGISTRATIONS <= here <= _REGISTRATIONS * (1 + elapsed_s / 60) + 1, here
        registered += here
    return registered, refused
