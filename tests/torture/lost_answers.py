"""A proxy cuts between a commit and the word of it: after the relay's, and after the client's.

Four ways to lose an answer: to a private message (`Submitted`), to a post (`Posted`), a delivery
on its way to the client (`Deliver`), and the client's word that it has it (`Acknowledge`).
"""

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from saltline.client.model import LineKind
from saltline.client.vault.views import own_keys
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import RoomStatement
from saltline.protocol.content import RoomKind
from saltline.protocol.limits import PAGE_MAX_ENTRIES
from saltline.protocol.to_client import HistoryPage
from saltline.protocol.to_relay import History
from saltline.server.admin import ask
from saltline.server.administration import ReadStats, Stats
from tests.client.programs import House
from tests.server.wire_client import WireClient
from tests.torture.ledger import Ledger
from tests.torture.proxy import Way
from tests.torture.repeats import Again, Repeats
from tests.torture.trial import Figures, Scale
from tests.torture.visitors import Visitor
from tests.waiting import wait_until

LOBBY = "#lobby"
_BURST_MAX = 4


def stats(house: House) -> Stats:
    """What the relay counts."""
    answer = ask(house.folder / "relay", ReadStats())
    assert isinstance(answer, Stats)
    return answer


def lose(talker: Visitor, listener: Visitor, way: Way, conversation: str, burst: int) -> None:
    """One cut of the listener's connection, by a few texts of the talker's; both are back."""
    proxy = listener.proxy
    before, connections = proxy.cuts, proxy.connections
    proxy.cut_at_next(way)
    lines = [talker.say(conversation) for _ in range(burst)]
    wait_until(lambda: proxy.cuts > before, f"a cut {way.value}")
    wait_until(lambda: proxy.connections > connections, "a new connection")
    wait_until(lambda: all(map(talker.has_relayed, lines)), "all texts on the relay")
    talker.settle()
    listener.settle()


@dataclass(frozen=True)
class Loss:
    """Something that can be lost, and what comes again if it was."""

    name: str
    way: Way
    conversation: str
    comes_again: Callable[[Again], bool]


MESSAGES: Final = Loss(
    "answers to messages", Way.TO_CLIENT, "bob", lambda again: again.submitted > 0
)
POSTS: Final = Loss("answers to posts", Way.TO_CLIENT, LOBBY, lambda again: again.posted > 0)
# The relay has pushed, and it does not come: the listener takes it in only the second time.
DELIVERIES: Final = Loss(
    "deliveries", Way.TO_CLIENT, "bob", lambda again: again.pushed > 0 and not again.known
)
# The client has committed, and the relay does not hear of it.
ACKNOWLEDGEMENTS: Final = Loss(
    "acknowledgements", Way.TO_RELAY, "bob", lambda again: again.known > 0
)


@dataclass(frozen=True)
class Losses:
    """Loses so many of each kind, and counts those that were lost indeed."""

    repeats: Repeats
    times: int
    fewest: int
    rng: random.Random

    def lose(self, loss: Loss, talker: Visitor, listener: Visitor) -> int:
        """Cut the listener's connection. Raises AssertionError if too many hit other things."""
        hits = 0
        for _ in range(self.times):
            before = self.repeats.again
            burst = self.rng.randint(1, _BURST_MAX)
            lose(talker, listener, loss.way, loss.conversation, burst)
            hits += loss.comes_again(self.repeats.again.since(before))
        assert hits >= self.fewest, f"of {self.times} cuts only {hits} lost {loss.name}"
        return hits


def history(house: House, name: str, keys: IdentityKeys) -> dict[bytes, list[int]]:
    """The numbers that each message id of a text has in the lobby, as the relay tells a member."""
    found: dict[bytes, list[int]] = {}
    with WireClient(house.address.port, name) as wire:
        wire.log_in(keys)
        after, last = 0, 1
        while after < last:
            wire.say(History(wire.next_id(), LOBBY, after, PAGE_MAX_ENTRIES))
            page = wire.expect(HistoryPage)
            assert page.entries, f"{page.last} entries, and none after {after}"
            for entry in page.entries:
                statement = RoomStatement.decode(entry.statement, len(entry.statement))
                if statement.kind == RoomKind.TEXT:
                    found.setdefault(statement.message_id, []).append(entry.number)
            after, last = page.entries[-1].number, page.last
    return found


def look_once(posted: Iterable[bytes], there: dict[bytes, list[int]], who: str) -> None:
    """Each of these posts is there, once. Raises AssertionError."""
    for message_id in posted:
        numbers = there.get(message_id, [])
        assert len(numbers) == 1, f"{who} has {message_id.hex()} {len(numbers)} times: {numbers}"


def run(scale: Scale, folder: Path) -> Figures:
    """A quarter of the cuts in each way."""
    times = scale.of(8, 500)
    ledger = Ledger()
    hits: dict[str, int] = {}
    with ExitStack() as stack:
        repeats = stack.enter_context(Repeats.watched())
        losses = Losses(repeats, times, scale.of(4, 400), random.Random(3))
        house = stack.enter_context(House.running(folder))
        listeners = {LOBBY: ("bob",)}
        alice = stack.enter_context(Visitor.at(house, "alice", ledger, listeners))
        with Visitor.at(house, "bob", ledger, listeners) as bob:
            bob.say("alice")
            alice.say("bob")
            bob.settle()
        alice.settle()
        for loss in (MESSAGES, POSTS):
            hits[loss.name] = losses.lose(loss, alice, alice)
        with Visitor.again(house, "bob", ledger, listeners) as bob:
            for loss in (DELIVERIES, ACKNOWLEDGEMENTS):
                hits[loss.name] = losses.lose(loss, alice, bob)
            bob.settle()
            alice.settle()
            for reader, conversation in ((bob, "@alice"), (bob, LOBBY), (alice, "@bob")):
                reader.tell(conversation)
            _posts_are_there_once(house, repeats, (alice, bob))
        cuts = alice.proxy.cuts + bob.proxy.cuts
    again = repeats.again
    return {
        "cuts": cuts,
        **ledger.hold(4 * times),
        **{f"lost {name}": count for name, count in hits.items()},
        "submitted twice": again.submitted,
        "pushed twice": again.pushed,
    }


def _posts_are_there_once(house: House, repeats: Repeats, members: Sequence[Visitor]) -> None:
    """Those whose answer was lost, and the others: in the history, and on each member's screen."""
    shown: dict[str, dict[bytes, list[int]]] = {}
    for member in members:
        on_screen = shown[member.name] = {}
        for line in member.lines(LOBBY):
            if line.kind is LineKind.TEXT:
                on_screen.setdefault(line.id, []).append(line.number)
        look_once(repeats.posted_again, on_screen, member.name)
    keys = members[-1].client._read(own_keys)
    assert keys is not None
    kept = history(house, members[-1].name, keys)
    look_once(repeats.posted_again, kept, "the relay")
    assert all(on_screen == kept for on_screen in shown.values()), "a number twice, or another's"
