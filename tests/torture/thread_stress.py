"""Threads that change places at every instruction: a crowd, stops in its middle, coming and going.

The real relay in this process, several workers, and the interpreter switching threads as often as
it can.
"""

import random
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from saltline.client import Client
from saltline.client.certificates import parse_pin
from saltline.client.link_events import Target
from saltline.client.model import ConnectionState
from saltline.client.profile import Profile
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import RoomStatement
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import PAGE_MAX_ENTRIES
from saltline.protocol.to_client import (
    CaughtUp,
    Deliver,
    HistoryPage,
    LookedUp,
    Posted,
    Submitted,
)
from saltline.protocol.to_relay import (
    Acknowledge,
    History,
    ListRooms,
    Lookup,
    LookupName,
    Post,
    Submit,
    Who,
)
from saltline.server.relay import Relay
from tests.server.edge import open_descriptors
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.comings_and_goings import come_and_go
from tests.torture.crowd import Caller, Cut
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
    """Stop while everyone is at work, and look what is there; returns how much was acknowledged."""
    rng = random.Random(seed)
    return sum(_stop_once(folder / str(turn), rng.randrange(60)) for turn in range(rounds))


@dataclass
class _Busy:
    """One of those who are at work when the relay stops, and what it was told until then."""

    name: str
    keys: IdentityKeys | None = None
    submitted: list[bytes] = field(default_factory=list)  # to the sink, acknowledged
    posted: dict[int, bytes] = field(default_factory=dict)  # number -> text
    taken: int = 0  # of the own mailbox: the last number that was acknowledged
    deleted: int = 0  # the last that the relay has deleted for sure

    def work(self, client: WireClient) -> None:
        """Many kinds of requests at once, again and again, until the relay ends it. Raises Cut."""
        self.keys = client.register()
        client.join(self.keys)
        while True:
            client.aside = [each for each in client.aside if isinstance(each, Deliver)]
            self._ask(client, self.keys)

    def _ask(self, client: WireClient, keys: IdentityKeys) -> None:
        text = b"%s %d" % (self.name.encode(), len(self.submitted))
        to_sink, to_self, post, history, lookup = (client.next_id() for _ in range(5))
        acknowledged = self.taken
        client.say(
            Submit(to_sink, "sink", 1, text, b""),
            Post(post, LOBBY, *client.statement(keys, LOBBY, RoomKind.TEXT, text)),
            History(history, LOBBY, 0, 20),
            Lookup(lookup, (LookupName("sink", 0),)),
            Submit(to_self, self.name, 1, text, b""),
        )
        assert client.expect(Submitted).id == to_sink
        self.submitted.append(text)
        assert client.expect(Submitted).id == to_self
        self.deleted = acknowledged  # the store works in order
        posted = client.expect(Posted)
        assert (posted.id, posted.room) == (post, LOBBY)
        assert self.posted.setdefault(posted.number, text) is text, "a number twice"
        page = client.expect(HistoryPage)
        assert (page.id, page.room) == (history, LOBBY) and page.entries
        (account,) = (looked_up := client.expect(LookedUp)).accounts
        assert (looked_up.id, account.username, account.total) == (lookup, "sink", 1)
        delivered = client.expect(Deliver)
        assert (delivered.number, delivered.envelope) == (self.taken + 1, text)
        client.say(Acknowledge((delivered.number,), b""))
        self.taken = delivered.number

    def look_after_it(self, client: WireClient) -> None:
        """After a start: what was posted is there, and what was deleted does not come again."""
        if self.keys is None:
            return
        client.log_in(self.keys)
        client.expect(CaughtUp)
        waiting = [each.number for each in client.aside if isinstance(each, Deliver)]
        assert all(number > self.deleted for number in waiting), (waiting, self.deleted)
        there: dict[int, bytes] = {}
        last = max(self.posted, default=0)
        while (after := max(there, default=0)) < last:
            client.say(History(client.next_id(), LOBBY, after, PAGE_MAX_ENTRIES))
            for entry in client.expect(HistoryPage).entries:
                statement = RoomStatement.decode(entry.statement, len(entry.statement))
                there[entry.number] = statement.body
            assert max(there, default=0) > after, "a page of nothing"
        assert there | self.posted == there, "a post is lost, or under another number"


def _stop_once(folder: Path, enough: int) -> int:
    everyone = [_Busy(f"talker-{place}") for place in range(TALKERS)]
    threads, descriptors = threading.active_count(), open_descriptors()

    def work(place: int) -> None:
        # The stop ends this, with the one error or the end of the connection. A wrong answer, or
        # none at all, is a failure.
        busy = everyone[place]
        with suppress(Cut, ConnectionError, ssl.SSLError), Caller(port, busy.name) as client:
            client.excused = (ErrorCode.STOPPING,)
            busy.work(client)

    relay = Relay(config(folder))
    relay.start()
    port = relay.address.port
    with WireClient(port, "sink") as sink:
        keys = sink.register()
    talkers = Threads(TALKERS, work)
    wait_until(lambda: talkers.failed or sum(len(busy.submitted) for busy in everyone) >= enough)
    relay.stop()
    talkers.join()
    assert threading.active_count() == threads, f"left: {threading.enumerate()}"
    assert open_descriptors() == descriptors
    assert not relay.failure, relay.failure
    _look_at_all(folder, keys, everyone)
    return sum(len(busy.submitted) + len(busy.posted) for busy in everyone)


def _look_at_all(folder: Path, keys: IdentityKeys, everyone: list[_Busy]) -> None:
    """After a start, the sink gets what was acknowledged, each sender's in order."""
    got: dict[str, list[bytes]] = {busy.name: [] for busy in everyone}
    with Relay(config(folder)) as relay:
        with WireClient(relay.address.port, "sink") as sink:
            sink.log_in(keys)
            while any(len(got[busy.name]) < len(busy.submitted) for busy in everyone):
                text = sink.fetch()
                got[text.split()[0].decode()].append(text)
        for busy in everyone:
            said = busy.submitted
            assert got[busy.name][: len(said)] == said, "out of order, or lost"
            with WireClient(relay.address.port, busy.name) as client:
                busy.look_after_it(client)


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
