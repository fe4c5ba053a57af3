"""A room of thousands: everyone hears everything soon, and who comes and goes costs no crowd."""

import resource
import selectors
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import msgspec

from saltline.crypto.keys import IdentityKeys
from saltline.protocol.content import RoomKind
from saltline.protocol.to_client import CaughtUp, Posted
from saltline.protocol.to_relay import Post
from tests.server.edge import TIMEOUT_S
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.companions import Bystanders
from tests.torture.measured import MeasuredRelay, Waits, close_all
from tests.torture.trial import Figures, Lacking, Scale

_MEMORY_MAX_MIB: Final = 50.0
_EVERYONE_WITHIN_S: Final = 2.0
_PROBES: Final = 20
_AT_ONCE: Final = 8
_BURST: Final = 20
_PRESENCE: Final = msgspec.msgpack.encode("presence")  # a message begins with its tag


class _Audience:
    """Many connections, read by one thread."""

    def __init__(self, members: Sequence[WireClient]) -> None:
        self._selector = selectors.DefaultSelector()
        self._members = list(members)
        self.presences = 0
        for place, member in enumerate(members):
            member.sock.setblocking(False)
            self._selector.register(member.sock, selectors.EVENT_READ, place)

    def hear(self, text: bytes) -> None:
        """Until everyone has heard it. Raises AssertionError after a while."""
        give_up_s = monotonic() + TIMEOUT_S
        heard = [False] * len(self._members)
        while not all(heard):
            assert monotonic() < give_up_s, f"{heard.count(False)} have not heard {text!r}"
            for key, _ in self._selector.select(0.1):
                for body in self._members[key.data].receive_all():
                    if text in body:
                        heard[key.data] = True
                    elif body[1:].startswith(_PRESENCE):
                        self.presences += 1

    def close(self) -> None:
        self._selector.close()


class _Town:
    """All members, and an author who is one of them."""

    def __init__(self, relay: MeasuredRelay, count: int) -> None:
        self._relay = relay
        self._texts = 0
        self.author = WireClient(relay.port, "author")
        self._author_keys = self.author.register()
        self.author.join(self._author_keys)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self._keys = list(pool.map(self._settle, range(count)))
        self.members: list[WireClient] = []

    def _settle(self, number: int) -> IdentityKeys:
        """A new member, whose connection ends at once."""
        with WireClient(self._relay.port, f"member{number}") as member:
            keys = member.register()
            member.join(keys)
            return keys

    def come(self) -> None:
        """Everyone logs in."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self.members = list(pool.map(self._log_in, range(len(self._keys))))

    def _log_in(self, number: int) -> WireClient:
        member = WireClient(self._relay.port, f"member{number}")
        member.log_in(self._keys[number])
        member.expect(CaughtUp)
        return member

    def go(self) -> None:
        """Everyone is gone at once."""
        close_all(self.members)
        self.members = []

    def say(self, audience: _Audience, count: int = 1) -> None:
        """So many texts at once, until the last member has heard the last of them."""
        text = b""
        for _ in range(count):
            self._texts += 1
            text = b"text %d." % self._texts
            self.author.post(self._author_keys, text)
        audience.hear(text)
        for _ in range(count):
            self.author.expect(Posted)
        self.author.aside.clear()

    def leave_and_join(self, count: int) -> None:
        """The first members, one after the other, each on a new connection, which stays."""
        for number in range(count):
            keys = self._keys[number]
            member = self._log_in(number)
            self.members[number].sock.close()
            self.members[number] = member
            leave = member.statement(keys, LOBBY, RoomKind.LEAVE, b"")
            member.say(Post(member.next_id(), LOBBY, *leave))
            member.expect(Posted)
            member.join(keys)


def run(scale: Scale, folder: Path) -> Figures:
    """All come; texts; all go and come; a part leaves and joins; texts again."""
    count = scale.of(210, 2000)
    _need_open_files(count + 200)
    with MeasuredRelay(folder, limits={"silence_max_s": 3600.0}) as relay:  # nobody pings
        relay.start()
        with Bystanders(relay) as others:
            figures = _try(relay, others, scale, count)
            others.end()
        relay.is_well()
    return figures


def _try(relay: MeasuredRelay, others: Bystanders, scale: Scale, count: int) -> Figures:
    town = _Town(relay, count)
    relay.begin_to_measure()
    town.come()
    connected_mib = relay.peak_growth_mib
    relay.begin_to_measure()
    audience = _Audience(town.members)
    used_s = relay.processor_s
    usual = Waits.of(lambda: town.say(audience), _PROBES)
    broadcast_s = (relay.processor_s - used_s) / _PROBES
    with others.watching() as calm:
        for _ in range(scale.of(2, 20)):
            town.say(audience)
            sleep(0.5)
    with others.watching() as stormy:
        for _ in range(scale.of(5, 60)):
            town.say(audience, _BURST)

    used_s = relay.processor_s
    presences = audience.presences
    audience.close()
    town.go()
    town.come()
    come_and_go_ms = (relay.processor_s - used_s) * 1000 / count
    leavers = scale.of(10, 100)
    used_s = relay.processor_s
    with others.watching() as moving:
        town.leave_and_join(leavers)
        storm_us = (relay.processor_s - used_s) * 1e6 / (2 * leavers * count)
    audience = _Audience(town.members)  # who left and joined too: they get every text after it
    town.say(audience)  # behind all of it
    after = Waits.of(lambda: town.say(audience), _PROBES)
    growth_mib = relay.peak_growth_mib
    # Whoever comes while the relay writes to 2,000 waits for that, and perhaps for the next time.
    for now in (stormy, moving):
        now.are_usual(calm, scale, median_more_s=usual.median_s, p95_more_s=2 * usual.median_s)
    presences += audience.presences
    assert presences == 0, "presence was told in a large room"
    assert usual.p95_s <= _EVERYONE_WITHIN_S and after.p95_s <= _EVERYONE_WITHIN_S
    assert growth_mib <= _MEMORY_MAX_MIB, f"{growth_mib} MiB"
    # An entry costs each reader some 10 us, a login some 2 ms, whatever the size of the room.
    assert storm_us <= scale.of(100, 30), f"{storm_us:.0f} us an entry and reader"
    assert come_and_go_ms <= scale.of(20, 4), f"{come_and_go_ms:.1f} ms for each who comes"
    audience.close()
    town.go()
    town.author.sock.close()
    return {
        "members": count,
        "KiB for each who is connected": round(connected_mib * 1024 / count, 1),
        "a text, until the last has it": usual.told(),
        "after the storm": after.told(),
        "CPU of a text to all, ms": round(broadcast_s * 1000, 1),
        "others, letters and texts, while the room is calm (median/p95)": calm.told(),
        f"while it has bursts of {_BURST} texts": stormy.told(),
        "while members leave and join": moving.told(),
        "CPU of one login, ms": round(come_and_go_ms, 1),
        "CPU of one join or leave for each member, us": round(storm_us, 1),
        "memory while they talk and storm, MiB": growth_mib,
    }


def _need_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise Lacking(f"{wanted} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
