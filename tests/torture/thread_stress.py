"""Threads that change places at every instruction: a crowd, stops in its middle, coming and going.

The real relay in this process, several workers, and the interpreter switching threads as often as
it can.
"""

import faulthandler
import random
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saltline.client import Client
from saltline.client.certificates import parse_pin
from saltline.client.link_events import Target
from saltline.client.model import ConnectionState
from saltline.client.profile import Profile
from saltline.crypto.keys import IdentityKeys
from saltline.protocol.to_client import Deliver, Submitted
from saltline.protocol.to_relay import (
    Acknowledge,
    History,
    ListRooms,
    Lookup,
    LookupName,
    Submit,
    Who,
)
from saltline.server import events
from saltline.server.config import Config
from saltline.server.core import RelayCore
from saltline.server.effects import Effect
from saltline.server.relay import Relay
from saltline.server.settings import Settings
from tests.server.edge import RawClient, config_in, open_descriptors
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.trial import Figures, Scale
from tests.waiting import wait_until

SWITCH_S = 1e-6
WORKERS = 3
TALKERS = 6
TOGETHER = 4
_JOIN_S = 120.0
_HANDLERS = ("_admin._handlers", "_stranger_handlers", "_handlers")


@contextmanager
def restless() -> Iterator[None]:
    """Threads change places as often as the interpreter can; a hang shows all stacks and ends."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    faulthandler.dump_traceback_later(600, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        sys.setswitchinterval(before)


def config(folder: Path) -> Config:
    """Several of each kind of thread, and no limit that a stress would meet."""
    settings = Settings(
        registrations_per_minute_and_address=10**6,
        unauthenticated_per_address=10**4,
        requests_burst=10**9,
    )
    return config_in(folder, workers=WORKERS, handshake_threads=2, settings=settings)


class Crowd:
    """Threads that each do `work(place)`; `join` raises what the first of them raised."""

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._work = work
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(place,), name=f"talker {place}", daemon=True)
            for place in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, place: int) -> None:
        try:
            self._work(place)
        except BaseException as failure:
            self._failures.append(failure)

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(_JOIN_S)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self._failures:
            raise self._failures[0]


# --- everything at once ---------------------------------------------------------------------------


def everything_at_once(folder: Path, messages: int) -> int:
    """Everyone writes to the next one, posts, asks and reconnects; returns what was acknowledged.

    All that was acknowledged comes, once for each number, in the order sent.
    """
    names = [f"talker-{place}" for place in range(TALKERS)]
    received: list[dict[int, bytes]] = [{} for _ in names]
    everyone = threading.Barrier(TALKERS)

    def talk(place: int) -> None:
        client = WireClient(relay.address.port, names[place])
        keys = client.register()
        client.join(keys)
        everyone.wait(_JOIN_S)
        for number in range(0, messages, TOGETHER):
            _submit_some(client, names[(place + 1) % TALKERS], number)
            _one_thing_more(client, keys, number // TOGETHER)
            if number // TOGETHER % 2:
                client.sock.close()
                client = WireClient(relay.address.port, names[place])
                client.log_in(keys)
        while len(received[place]) < messages:
            delivered = client.expect(Deliver)
            assert received[place].setdefault(delivered.number, delivered.envelope) == (
                delivered.envelope
            )
            client.say(Acknowledge((delivered.number,), b""))
        client.sock.close()

    with Relay(config(folder)) as relay:
        Crowd(TALKERS, talk).join()
        assert not relay.failure, relay.failure
    for mail in received:
        assert [int(mail[number]) for number in sorted(mail)] == list(range(messages))
        assert sorted(mail) == list(range(1, messages + 1)), "a number was given twice, or never"
    return messages * TALKERS


def _submit_some(client: WireClient, to: str, first: int) -> None:
    """Several without waiting, so that they share a turn and a commit; answered in order."""
    asked = [client.next_id() for _ in range(TOGETHER)]
    client.say(*(Submit(asked[n], to, 1, b"%d" % (first + n), b"") for n in range(TOGETHER)))
    assert [client.expect(Submitted).id for _ in asked] == asked


def _one_thing_more(client: WireClient, keys: IdentityKeys, number: int) -> None:
    asked = client.next_id()
    match number % 6:
        case 0:
            client.post(keys, b"%d" % number)
        case 1:
            client.say(Who(asked, LOBBY))
        case 2:
            client.say(History(asked, LOBBY, 0, 20))
        case 3:
            client.say(Lookup(asked, (LookupName("talker-0", 0),)))
        case 4:
            client.say(ListRooms(asked))
        case _:
            client.ping()


# --- stops in its middle --------------------------------------------------------------------------


def stop_in_the_middle(folder: Path, rounds: int, seed: int) -> int:
    """Stop while everyone writes, and look what is there; returns how much was acknowledged."""
    rng = random.Random(seed)
    return sum(_stop_once(folder / str(turn), rng.randrange(60)) for turn in range(rounds))


def _stop_once(folder: Path, enough: int) -> int:
    acknowledged: list[list[bytes]] = [[] for _ in range(TALKERS)]
    threads, descriptors = threading.active_count(), open_descriptors()

    def talk(place: int) -> None:
        # The stop ends this: an error, or the end of the connection, whichever comes first.
        with suppress(OSError, AssertionError), WireClient(port, f"talker-{place}") as client:
            client.register()
            while True:
                text = b"%d %d" % (place, len(acknowledged[place]))
                client.submit("sink", text)
                acknowledged[place].append(text)

    relay = Relay(config(folder))
    relay.start()
    port = relay.address.port
    with WireClient(port, "sink") as sink:
        keys = sink.register()
    crowd = Crowd(TALKERS, talk)
    wait_until(lambda: sum(map(len, acknowledged)) >= enough)
    relay.stop()
    crowd.join()
    assert threading.active_count() == threads, f"left: {threading.enumerate()}"
    assert open_descriptors() == descriptors
    assert not relay.failure, relay.failure
    _fetch_all(folder, keys, acknowledged)
    return sum(map(len, acknowledged))


def _fetch_all(folder: Path, keys: IdentityKeys, acknowledged: list[list[bytes]]) -> None:
    """After a start, the sink gets what was acknowledged, each sender's in order."""
    got: list[list[bytes]] = [[] for _ in acknowledged]
    with Relay(config(folder)) as relay, WireClient(relay.address.port, "sink") as sink:
        sink.log_in(keys)
        while any(len(got[place]) < len(said) for place, said in enumerate(acknowledged)):
            text = sink.fetch()
            got[int(text.split()[0])].append(text)
    for said, there in zip(acknowledged, got, strict=True):
        assert there[: len(said)] == said, "out of order, or lost"


# --- coming and going -----------------------------------------------------------------------------


def _reset(sock: socket.socket) -> None:
    """Close with a reset, as a program does that is killed with bytes unread."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def visit(relay: Relay, way: int, name: str, keys: IdentityKeys) -> None:
    """Come, and go in one of eight ways."""
    port = relay.address.port
    if way < 3:  # without TLS: nothing, half a greeting, and something else
        raw = socket.create_connection(("127.0.0.1", port), 20)
        raw.sendall((b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n")[way])
        raw.close() if way else _reset(raw)
        return
    if way < 6:  # a stranger: no word, half a frame, a whole hello
        with RawClient(port) as stranger:
            if way == 4:
                stranger.send_raw(b"\0\0\x01\0half")
                _reset(stranger.sock)
            elif way == 5:
                stranger.send(b"\xc1")
                stranger.receive()
        return
    client = WireClient(port, name)
    client.log_in(keys)
    if way == 6:
        client.send_raw(b"\0\0\x40\0half of a frame")
        _reset(client.sock)
    else:
        client.ping()
        client.sock.close()


def sizes(thing: object, path: str = "", seen: set[int] | None = None) -> dict[str, int]:
    """How much each collection holds that is reached from an object of the relay's."""
    seen = set() if seen is None else seen
    found: dict[str, int] = {}
    if id(thing) in seen:
        return found
    seen.add(id(thing))
    if isinstance(thing, dict | list | set | deque):
        found[path] = len(thing)
        return found
    if not type(thing).__module__.startswith("saltline."):
        return found
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    for name in names:
        if name in ("_driver", "_cost"):
            continue  # the core, again; and what is forgotten by the half, in its own time
        found |= sizes(getattr(thing, name, None), f"{path}.{name}", seen)
    return found


def held(relay: Relay) -> dict[str, int]:
    """What the relay keeps in memory, after a tick, once its buckets have filled up again."""
    later_ms = relay._driver._clock_ms() + 10**9

    def prune(core: RelayCore, _now_ms: int) -> Iterable[Effect]:
        core._requests.prune(later_ms)
        core._registration.attempts.prune(later_ms)
        return ()

    relay._driver.drive([events.ticked, prune])
    found = sizes(relay._driver._core, "core")
    for place, part in enumerate((*relay._workers, *relay._handshakes)):
        found |= sizes(part, f"thread {place}")
    return found


def come_and_go(folder: Path, rounds: int) -> int:
    """Many visits of every kind leave no thread, no descriptor and nothing in a table."""
    with Relay(config(folder)) as relay:
        with WireClient(relay.address.port, "visitor") as client:
            keys = client.register()
        for way in range(8):
            visit(relay, way, "visitor", keys)
        quiet = _quiet(relay)
        before = {path: count for path, count in held(relay).items() if count}
        # Besides what a core is made of, nothing is kept of who is gone.
        assert set(before) == {"core._desk.departures", *map("core.{}".format, _HANDLERS)}
        descriptors, threads = open_descriptors(), threading.active_count()
        everyone = [number % 8 for number in range(rounds)]

        def go(place: int) -> None:
            for way in everyone[place::4]:
                visit(relay, way, "visitor", keys)

        Crowd(4, go).join()
        wait_until(quiet, "every visitor forgotten")
        wait_until(lambda: open_descriptors() <= descriptors, "every descriptor closed")
        assert threading.active_count() == threads
        left = {path: count for path, count in held(relay).items() if count}
        assert left == before, "memory was left behind"
        assert not relay.failure, relay.failure
    return rounds


def _quiet(relay: Relay) -> Callable[[], bool]:
    def is_quiet() -> bool:
        busy = sum(map(len, relay._workers)) + sum(map(len, relay._handshakes))
        return not busy and not relay._driver._core._desk.connections and relay._driver.is_idle

    wait_until(is_quiet, "the first visitors forgotten")
    return is_quiet


# --- clients --------------------------------------------------------------------------------------


def clients_start_and_stop(folder: Path, rounds: int) -> int:
    """A client that is opened, connected and closed at any moment leaves nothing."""
    profile = Profile(folder / "profile", create=True)
    with Relay(config(folder)) as relay:
        profile.acquire()
        key = profile.create_key(None)
        with Client.open(profile, key) as client:
            target = Target(relay.address, parse_pin(relay.pin))
            client.register("starter", target).result(_JOIN_S)
        wait_until(_quiet(relay))
        threads, descriptors = threading.active_count(), open_descriptors()
        for turn in range(rounds):
            with Client.open(profile, key) as client:
                client.start()
                if turn % 3 == 1:
                    wait_until(lambda c=client: c.status().connection is ConnectionState.ONLINE)  # type: ignore[misc]
                elif turn % 3 == 2:
                    client.reconnect()
        wait_until(lambda: threading.active_count() <= threads, "every thread ended")
        wait_until(lambda: open_descriptors() <= descriptors, "every descriptor closed")
        assert not relay.failure, relay.failure
    return rounds


def run(scale: Scale, folder: Path) -> Figures:
    """All of it, one after the other."""
    with restless():
        done = {
            "messages": everything_at_once(folder / "crowd", scale.of(32, 400)),
            "acknowledged before stops": stop_in_the_middle(folder / "stops", scale.of(2, 20), 1),
            "visits": come_and_go(folder / "visits", scale.of(150, 1000)),
            "clients": clients_start_and_stop(folder / "clients", scale.of(15, 100)),
        }
    return done
