"""A proxy cuts between a commit and the word of it: after the relay's, and after the client's.

Four ways to lose an answer: to a private message (`Submitted`), to a post (`Posted`), a delivery
on its way to the client (`Deliver`), and the client's word that it has it (`Acknowledge`).
"""

import random
from contextlib import ExitStack
from pathlib import Path

from saltline.server.admin import ask
from saltline.server.administration import ReadStats, Stats
from tests.client.programs import House
from tests.torture.ledger import Ledger
from tests.torture.proxy import Way
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
    """One cut of the listener's connection, by a few texts of the talker's."""
    before = listener.proxy.cuts
    talker.settle()
    listener.settle()
    listener.proxy.cut_at_next(way)
    lines = [talker.say(conversation) for _ in range(burst)]
    wait_until(lambda: listener.proxy.cuts > before, f"a cut {way.value}")
    wait_until(lambda: all(map(talker.has_relayed, lines)), "all texts on the relay")


def lose_answers_to(alice: Visitor, conversation: str, times: int, rng: random.Random) -> None:
    """The relay has committed, and its answer does not come."""
    for _ in range(times):
        lose(alice, alice, Way.TO_CLIENT, conversation, rng.randint(1, _BURST_MAX))


def lose_deliveries(alice: Visitor, bob: Visitor, times: int, rng: random.Random) -> None:
    """The relay has pushed, and it does not come."""
    for _ in range(times):
        lose(alice, bob, Way.TO_CLIENT, "bob", rng.randint(1, _BURST_MAX))


def lose_acknowledgements(alice: Visitor, bob: Visitor, times: int, rng: random.Random) -> None:
    """The client has committed, and the relay does not hear of it."""
    for _ in range(times):
        lose(alice, bob, Way.TO_RELAY, "bob", rng.randint(1, _BURST_MAX))


def run(scale: Scale, folder: Path) -> Figures:
    """A quarter of the cuts in each way."""
    times = scale.of(8, 500)
    rng = random.Random(3)
    ledger = Ledger()
    with ExitStack() as stack:
        house = stack.enter_context(House.running(folder))
        listeners = {LOBBY: ("bob",)}
        alice = stack.enter_context(Visitor.at(house, "alice", ledger, listeners))
        with Visitor.at(house, "bob", ledger, listeners) as bob:
            bob.say("alice")
            alice.say("bob")
            bob.settle()
        lose_answers_to(alice, "bob", times, rng)
        waiting = stats(house).waiting
        submitted = alice.numbers
        lose_answers_to(alice, LOBBY, times, rng)
        assert waiting > submitted, "no answer was lost: nothing was submitted again"
        bob = stack.enter_context(Visitor.again(house, "bob", ledger, listeners))
        pushed, private = stats(house).delivered, alice.numbers
        lose_deliveries(alice, bob, times, rng)
        lose_acknowledgements(alice, bob, times, rng)
        bob.settle()
        alice.settle()
        redelivered = stats(house).delivered - pushed - (alice.numbers - private)
        for reader, conversation in ((bob, "@alice"), (bob, LOBBY), (alice, "@bob")):
            reader.tell(conversation)
        numbers = [line.number for line in bob.lines(LOBBY) if line.number]
        assert numbers == sorted(set(numbers)), "a number twice"
        cuts = alice.proxy.cuts + bob.proxy.cuts
    assert redelivered > 0, "no acknowledgement was lost: nothing was pushed again"
    figures = ledger.hold(4 * times)
    return {
        "cuts": cuts,
        **figures,
        "submitted twice": waiting - submitted,
        "pushed twice": redelivered,
    }
