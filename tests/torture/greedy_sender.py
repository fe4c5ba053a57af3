"""Two who send as fast as they can are told to wait, and slow nobody else down."""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from saltline.server.config import Deadlines
from saltline.server.core import REFUSALS_PER_SECOND
from saltline.server.reader import HELPING
from saltline.server.settings import Settings
from tests.server.wire_client import WireClient
from tests.torture.companions import Account, Bystanders, Culprit, Listeners
from tests.torture.measured import MeasuredRelay
from tests.torture.trial import Figures, Scale

_MEMORY_MAX_MIB: Final = 50.0
_CREDIT_S: Final = 0.015  # while each spends what it had saved up
_SECOND_S: Final = 0.008  # while each spends, every second, what it gets for one
_JOIN_TOKENS: Final = 20  # what one of them has paid for the room
_CLOCKS_S: Final = 0.05  # the relay counts in whole ms, on a clock of its own
_TICK_S: Final = Deadlines().check_every_s
_TICK_LATE: Final = 0.1  # one may be late by so much of that time, and the next is not


def run(scale: Scale, folder: Path) -> Figures:
    """Others talk, before, while and after one sends envelopes and one posts to a full room."""
    # Nobody here pings, and it is not to be a full mailbox that stops who writes.
    limits = {
        "silence_max_s": 3600.0,
        "mailbox_max_envelopes": 1_000_000,
        "mailbox_max_bytes": 10_000_000_000,
    }
    shipped = Settings()
    rate, burst = shipped.requests_per_second, shipped.requests_burst
    if scale is Scale.QUICK:  # below what a busy machine can do
        rate, burst = 200, 400
        limits |= {"requests_per_second": rate, "requests_burst": burst}
    with MeasuredRelay(folder, limits=limits) as relay, ExitStack() as stack:
        relay.start()
        with WireClient(relay.port, "victim") as victim:
            victim.register()
        others = stack.enter_context(Bystanders(relay))
        listeners = stack.enter_context(Listeners(relay, scale.of(3, 20)))
        culprits = [stack.enter_context(Culprit(relay, what)) for what in ("envelopes", "posts")]
        cache_mib = relay.fill_cache() if scale is Scale.LONG else 0.0
        before = others.watch(scale.of(1, 20) / 4)
        relay.begin_to_measure()
        with others.watching() as at_first:
            for culprit in culprits:
                culprit.nudge()
            for culprit in culprits:
                culprit.is_told()
        meanwhile = others.watch(scale.of(1, 40) / 2)
        writer, poster = (culprit.account() for culprit in culprits)
        texts, jumps = listeners.account()
        growth_mib = relay.peak_growth_mib
        usual = before + others.watch(scale.of(1, 20) / 4)
        relay.is_well()
        others.end()
    for account in (writer, poster):
        _is_right(account, rate, burst)
    assert (texts, jumps) == (poster.accepted, 0), "members of that room missed something"
    assert growth_mib <= _MEMORY_MAX_MIB, f"{growth_mib} MiB"
    # Half of all waits are as usual. Who comes while a credit is spent waits for a few more turns.
    at_first.are_usual(usual, scale, p95_more_s=_CREDIT_S)
    meanwhile.are_usual(usual, scale, p95_more_s=_SECOND_S)
    return {
        "envelopes accepted": writer.accepted,
        "refused with a time to wait": writer.refused,
        "texts accepted": poster.accepted,
        "refused": poster.refused,
        "requests a second": round(sum(each.answered / each.seconds for each in (writer, poster))),
        "usual latency of others, letters and texts (median/p95)": usual.told(),
        "until the culprits' credit was used up": at_first.told(),
        "while they were told to wait": meanwhile.told(),
        "memory, MiB": growth_mib,
        "the database's cache before, MiB": cache_mib,
    }


def _is_right(account: Account, rate: int, burst: int) -> None:
    """It got its credit and its rate, no more, was told to wait, no more often than is cheap."""
    allowed = burst + rate * (account.seconds + _CLOCKS_S)
    assert burst - _JOIN_TOKENS <= account.accepted <= allowed, (account, allowed)
    assert account.refused, "nobody told it to wait"
    # The relay counts from one of its ticks to the next. Between the first and the last refusal
    # there are at most so many ticks, and one more such time than ticks; and what was taken in
    # with the 256th is answered too.
    ticks = int(account.refused_s / _TICK_S + _TICK_LATE) + 1
    told = (REFUSALS_PER_SECOND + HELPING - 1) * (ticks + 1)
    assert account.refused <= told, f"read on, at the cost of the others: {account}, {told}"
    assert 1 <= account.least_ms <= account.most_ms <= 1 + 1000
