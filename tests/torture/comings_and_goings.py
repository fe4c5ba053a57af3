"""Visitors who come and go in every way: nothing of them is left in any table of the relay."""

import socket
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from saltline.crypto.keys import IdentityKeys
from saltline.server import events
from saltline.server.core import RelayCore
from saltline.server.effects import Effect
from saltline.server.relay import Relay
from tests.server.edge import RawClient, open_descriptors, reset
from tests.server.wire_client import WireClient
from tests.torture.restless import Threads, await_quiet, config
from tests.waiting import wait_until

# What a core is made of.
KEPT = ("_desk.departures", "_admin._handlers", "_stranger_handlers", "_handlers")


def visit(relay: Relay, way: int, name: str, keys: IdentityKeys) -> None:
    """Come, and go in one of eight ways."""
    port = relay.address.port
    if way < 3:  # without TLS: nothing, half a greeting, and something else
        raw = socket.create_connection(("127.0.0.1", port), 20)
        raw.sendall((b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n")[way])
        raw.close() if way else reset(raw)
        return
    if way < 6:  # a stranger: no word, half a frame, a whole hello
        with RawClient(port) as stranger:
            if way == 4:
                stranger.send_raw(b"\0\0\x01\0half")
                reset(stranger.sock)
            elif way == 5:
                stranger.send(b"\xc1")
                stranger.receive()
        return
    client = WireClient(port, name)
    client.log_in(keys)
    if way == 6:
        client.send_raw(b"\0\0\x40\0half of a frame")
        reset(client.sock)
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
    later_ms = relay._driver._clock.now_ms() + 10**9

    def prune(core: RelayCore, _now_ms: int) -> Iterable[Effect]:
        core._requests.prune(later_ms)
        core._registration.attempts.prune(later_ms)
        return ()

    relay._driver.drive([events.ticked, prune])
    found = sizes(relay._driver._core, "core")
    for place, part in enumerate((*relay._workers, *relay._handshakes)):
        found |= sizes(part, f"thread {place}")
    return found


def await_nothing_but(relay: Relay, expected: Mapping[str, int]) -> None:
    """Until the relay holds just that; a thread in the middle of a turn, or a tick, holds more."""
    held_now: dict[str, int] = {}

    def is_so() -> bool:
        nonlocal held_now
        held_now = {path: count for path, count in held(relay).items() if count}
        return held_now == expected

    with suppress(AssertionError):  # below is said what is left
        wait_until(is_so)
    assert held_now == expected, f"left behind: {sorted(held_now.items() ^ expected.items())}"


def come_and_go(folder: Path, rounds: int) -> int:
    """Many visits of every kind leave no thread, no descriptor and nothing in a table."""
    with Relay(config(folder)) as relay:
        with WireClient(relay.address.port, "visitor") as client:
            keys = client.register()
        for way in range(8):
            visit(relay, way, "visitor", keys)
        await_quiet(relay)
        core = relay._driver._core
        # Besides what a core is made of, nothing is kept of who is gone.
        expected = {f"core.{path}": len(attrgetter(path)(core)) for path in KEPT}
        await_nothing_but(relay, expected)
        descriptors, threads = open_descriptors(), threading.active_count()
        everyone = [number % 8 for number in range(rounds)]

        def go(place: int) -> None:
            for way in everyone[place::4]:
                visit(relay, way, "visitor", keys)

        Threads(4, go).join()
        await_quiet(relay)
        wait_until(lambda: open_descriptors() <= descriptors, "every descriptor closed")
        assert threading.active_count() == threads
        await_nothing_but(relay, expected)
        assert not relay.failure, relay.failure
    return rounds
