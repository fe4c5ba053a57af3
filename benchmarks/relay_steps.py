"""What a post, an envelope and a login cost the relay, step by step, without sockets or a disk.

    python -m benchmarks.relay_steps

The real core and the real store, in memory, in one thread: a room of 104, of whom 4 post 128 texts
of 200 bytes a batch. Prints microseconds each, the best of many batches: everything is warm, as it
never is in a relay that also encrypts and sends.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay

from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement
from saltline.protocol.content import RoomKind
from saltline.protocol.messages import encode_message
from saltline.protocol.to_relay import Post, Submit
from saltline.server.effects import Broadcast, Effect, Persist, Send
from saltline.server.fanout import Fanout
from saltline.server.settings import Settings
from saltline.server.store.interface import Operation

_MEMBERS: Final = 104
_AUTHORS: Final = 4
_POSTS_EACH: Final = 32
_BATCHES: Final = 200
_TEXT: Final = b"x" * 200
_ROOM: Final = "#steps"
_SIGNATURE: Final = b"\xaa" * 64  # for the members to check, not for the relay
_PLENTY: Final = 1_000_000_000

Timed = dict[str, float]


@contextmanager
def timed(found: Timed, step: str, count: int) -> Iterator[None]:
    """Keep the least that one of `count` took, in microseconds."""
    began = time.perf_counter()
    yield
    each_us = (time.perf_counter() - began) * 1e6 / count
    found[step] = min(found.get(step, each_us), each_us)


class Bench:
    """A relay in memory, whose effects are looked at between the steps."""

    def __init__(self) -> None:
        settings = Settings(
            requests_per_second=_PLENTY,
            requests_burst=_PLENTY,
            registrations_per_minute_and_address=_PLENTY,
            mailbox_max_envelopes=_PLENTY,
            mailbox_max_bytes=_PLENTY,
            room_max_bytes=_PLENTY,
        )
        self.relay = MemoryRelay(settings=settings)
        self.people = [Person(self.relay, f"user{number}") for number in range(_MEMBERS)]
        for person in self.people:
            person.register()
            person.join(_ROOM)
            person.take()
        self.effects: list[Effect] = []

    def receive(self, senders: Sequence[Person], bodies: Sequence[Sequence[bytes]]) -> None:
        core, now_ms = self.relay.core, self.relay.now_ms
        for sender, part in zip(senders, bodies, strict=True):
            self.effects += core.received(sender.connection.number, part, now_ms)

    def take(self) -> tuple[list[int], list[Operation]]:
        """What is to be stored, with its tokens."""
        asked = [effect for effect in self.effects if isinstance(effect, Persist)]
        self.effects = []
        return [effect.token for effect in asked], [effect.operation for effect in asked]

    def posts(self, batch: int) -> list[list[bytes]]:
        """A batch of each author, later than the one before."""
        bodies: list[list[bytes]] = []
        for author in range(_AUTHORS):
            part: list[bytes] = []
            for number in range(_POSTS_EACH):
                said = RoomStatement(
                    kind=RoomKind.TEXT,
                    message_id=self.relay.random(16),
                    time_ms=self.relay.now_ms + 1 + batch * _POSTS_EACH + number,
                    seen=0,
                    seen_hash=EMPTY_HISTORY,
                    body=_TEXT,
                )
                part.append(encode_message(Post(author + 1, _ROOM, said.encode(), _SIGNATURE)))
            bodies.append(part)
        return bodies


def gather(effects: Sequence[Effect]) -> None:
    """As a worker does, for queues that take everything at once."""
    fanout = Fanout(lambda *_: None, lambda *_: None)
    for effect in effects:
        if isinstance(effect, Send):
            fanout.send(effect.connection, effect.frame)
        elif isinstance(effect, Broadcast):
            fanout.broadcast(effect.connections, effect.frame)
    fanout.end()


def measure(
    bench: Bench, senders: list[Person], bodies: Callable[[int], list[list[bytes]]]
) -> Timed:
    """The four steps of a batch, many times."""
    found: Timed = {}
    core, store, now_ms = bench.relay.core, bench.relay.store, bench.relay.now_ms
    for batch in range(_BATCHES):
        batch_bodies = bodies(batch)
        count = sum(map(len, batch_bodies))
        with timed(found, "from bodies to the store", count):
            bench.receive(senders, batch_bodies)
        tokens, operations = bench.take()
        with timed(found, "the store", count):
            outcomes = store.run(operations)
        results = list(zip(tokens, outcomes, strict=True))
        with timed(found, "from outcomes to frames", count):
            told = core.stored_all(results, now_ms)
        with timed(found, "gathering for everybody", count):
            gather(told)
        store.maintain()
    return found


def logins(bench: Bench) -> Timed:
    """All of a login but TLS: its signature is checked, and its client reads the answers."""
    found: Timed = {}
    for person in bench.people:
        person.connect()
        request = person.login_request()
        with timed(found, "core, store and client", 1):
            person.connection.send(request)
    return found


def show(title: str, found: Timed) -> None:
    """A table."""
    print(title)
    for step, each_us in found.items():
        print(f"  {step:28}{each_us:8.2f} us")
    print(f"  {'together':28}{sum(found.values()):8.2f} us\n")


def main() -> None:
    """Print everything."""
    bench = Bench()
    authors = bench.people[:_AUTHORS]
    show(f"A post in a room of {_MEMBERS}", measure(bench, authors, bench.posts))
    away = Person(bench.relay, "away")
    away.register()
    away.connection.cut()
    submit = encode_message(Submit(1, "away", 1, b"x" * 215, b""))
    envelopes = [[submit] * _POSTS_EACH for _ in authors]
    show("An envelope for who is away", measure(bench, authors, lambda _: envelopes))
    show("A login", logins(bench))


if __name__ == "__main__":
    main()
