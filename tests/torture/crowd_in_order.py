"""Many senders, a few recipients, rooms between them, and connections that break at random."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.client.programs import House
from tests.torture.ledger import Ledger
from tests.torture.trial import Figures, Scale
from tests.torture.visitors import TIMEOUT_S, Visitor
from tests.waiting import wait_until

ROOMS = ("#dev", "#ops")
RECIPIENTS = ("bob", "carol", "dave")
# Of a sender's texts: one in so many goes to its room, and after one in so many its link is cut.
_POST_EVERY = 5
_CUT_EVERY = 20


def talk(sender: Visitor, room: str, texts: int, rng: random.Random) -> None:
    """All texts of one sender, as fast as they go."""
    for _ in range(texts):
        if rng.randrange(_POST_EVERY) == 0:
            sender.say(room)
        else:
            sender.say(rng.choice(RECIPIENTS))
        if rng.randrange(_CUT_EVERY) == 0:
            sender.proxy.cut()


def interrupt(
    recipients: list[Visitor], is_over: threading.Event, rng: random.Random, cuts: list[str]
) -> None:
    """Cut one recipient after another until all is sent."""
    while not is_over.wait(rng.uniform(0.05, 0.5)):
        chosen = rng.choice(recipients)
        chosen.proxy.cut()
        cuts.append(chosen.name)


def run(scale: Scale, folder: Path) -> Figures:
    """Each sender has one room of its own; the recipients read both."""
    senders, texts = scale.of(5, 20), scale.of(40, 500)
    rng = random.Random(7)
    ledger = Ledger()
    listeners = {room: RECIPIENTS for room in ROOMS}
    with ExitStack() as stack:
        house = stack.enter_context(House.running(folder))

        def enter(name: str) -> Visitor:
            return stack.enter_context(Visitor.at(house, name, ledger, listeners))

        recipients = [enter(name) for name in RECIPIENTS]
        for reader in recipients:
            for room in ROOMS:
                reader.client.join(room).result(TIMEOUT_S)
        talkers = [enter(f"sender{number}") for number in range(senders)]
        broken: list[str] = []
        is_over = threading.Event()
        breaker = threading.Thread(target=interrupt, args=(recipients, is_over, rng, broken))
        breaker.start()
        try:
            with ThreadPoolExecutor(senders) as pool:
                done = [
                    pool.submit(talk, each, ROOMS[number % 2], texts, random.Random(number))
                    for number, each in enumerate(talkers)
                ]
                for each in done:
                    each.result()
        finally:
            is_over.set()
            breaker.join()
        for person in (*talkers, *recipients):
            wait_until(person.has_sent_all, f"{person.name} has sent all")
        for person in recipients:
            person.settle()
            for conversation in (*ROOMS, *(f"@{each.name}" for each in talkers)):
                person.tell(conversation)
        reconnects = len(broken)
    return {
        "senders": senders,
        "texts": senders * texts,
        "recipients cut": reconnects,
        **ledger.hold(senders * texts),
    }
