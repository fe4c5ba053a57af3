"""Threads that change places at every instruction: a crowd, stops in its middle, coming and going.

The real relay in this process, several workers, and the interpreter switching threads as often as
it can.
"""

import random
import threading
from contextlib import suppress
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
from saltline.server.relay import Relay
from tests.server.edge import open_descriptors
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.comings_and_goings import come_and_go
from tests.torture.restless import JOIN_S, Threads, await_quiet, config, restless
from tests.torture.trial import Figures, Scale
from tests.waiting import wait_until

TALKERS = 6
TOGETHER = 4


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
        everyone.wait(JOIN_S)
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
        Threads(TALKERS, talk).join()
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
    talkers = Threads(TALKERS, talk)
    wait_until(lambda: sum(map(len, acknowledged)) >= enough)
    relay.stop()
    talkers.join()
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


# --- clients --------------------------------------------------------------------------------------


def clients_start_and_stop(folder: Path, rounds: int) -> int:
    """A client that is opened, connected and closed at any moment leaves nothing."""
    profile = Profile(folder / "profile", create=True)
    with Relay(config(folder)) as relay:
        profile.acquire()
        key = profile.create_key(None)
        with Client.open(profile, key) as client:
            target = Target(relay.address, parse_pin(relay.pin))
            client.register("starter", target).result(JOIN_S)
        await_quiet(relay)
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
