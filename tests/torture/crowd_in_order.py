"""Many senders, a few recipients, rooms between them, and connections that break at random."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from tests.client.programs import House
from tests.torture.ledger import Ledger
from tests.torture.trial import Figures, Scale
from tests.torture.visitors import TIMEOUT_S, Visitor
from tests.waiting import PATIENCE_S, wait_until

ROOMS = ("#dev", "#ops")
RECIPIENTS = ("bob", "carol", "dave")
# Of a sender's texts: one in so many goes to its room, and after one in so many its link is cut.
_POST_EVERY = 5
_CUT_EVERY = 20


@dataclass
class _Cuts:
    """Those that ended an open connection, of each recipient; enough once each had its number."""

    fewest_each: int
    pause_max_s: float
    of: Counter[str] = field(default_factory=Counter)
    are_enough: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)

    def interrupt(self, recipients: list[Visitor], rng: random.Random) -> None:
        """Cut one recipient after another until all is sent."""
        for chosen in cycle(recipients):
            if self.is_over.wait(rng.uniform(0.05, self.pause_max_s)):
                return
            self.of[chosen.name] += chosen.proxy.cut()
            if all(self.of[each.name] >= self.fewest_each for each in recipients):
                self.are_enough.set()


def talk(sender: Visitor, room: str, texts: int, rng: random.Random, cuts: _Cuts) -> int:
    """All texts of one sender, as fast as they go; how many times its link was cut.

    The last waits until the recipients were cut often enough: texts are queued faster than that.
    """
    times = 0
    for left in range(texts, 0, -1):
        if left == 1:
            assert cuts.are_enough.wait(PATIENCE_S), f"too few recipients were cut: {cuts.of}"
        if rng.randrange(_POST_EVERY) == 0:
            sender.say(room)
        else:
            sender.say(rng.choice(RECIPIENTS))
        if rng.randrange(_CUT_EVERY) == 0:
            wait_until(lambda: sender.is_online and sender.proxy.cut(), f"{sender.name} to cut")
            times += 1
    return times


def run(scale: Scale, folder: Path) -> Figures:
    """Each sender has one room of its own; the recipients read both."""
    senders, texts = scale.of(5, 20), scale.of(40, 500)
    ledger = Ledger()
    listeners = {room: RECIPIENTS for room in ROOMS}
    cuts = _Cuts(scale.of(2, 20), scale.of(2, 5) / 10)
    with ExitStack() as stack:
        house = stack.enter_context(House.running(folder))

        def enter(name: str) -> Visitor:
            return stack.enter_context(Visitor.at(house, name, ledger, listeners))

        recipients = [enter(name) for name in RECIPIENTS]
        for reader in recipients:
            for room in ROOMS:
                reader.client.join(room).result(TIMEOUT_S)
        talkers = [enter(f"sender{number}") for number in range(senders)]
        breaker = threading.Thread(target=cuts.interrupt, args=(recipients, random.Random(7)))
        breaker.start()
        try:
            with ThreadPoolExecutor(senders) as pool:
                done = [
                    pool.submit(talk, each, ROOMS[number % 2], texts, random.Random(number), cuts)
                    for number, each in enumerate(talkers)
                ]
                senders_cut = sum(each.result() for each in done)
            for person in talkers:
                wait_until(person.has_sent_all, f"{person.name} has sent all")
        finally:
            cuts.is_over.set()
            breaker.join()
        for person in recipients:
            wait_until(person.has_sent_all, f"{person.name} has sent all")
            person.settle()
            for conversation in (*ROOMS, *(f"@{each.name}" for each in talkers)):
                person.tell(conversation)
    expected = senders * texts / _CUT_EVERY
    assert senders_cut >= expected / 2, f"of senders, only {senders_cut} links were cut"
    return {
        "senders": senders,
        "texts": senders * texts,
        "senders cut": senders_cut,
        "recipients cut": cuts.of.total(),
        **ledger.hold(senders * texts),
    }
