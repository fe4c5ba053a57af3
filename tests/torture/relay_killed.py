"""SIGKILL at random moments: while it serves, before it does, and after it was told to stop."""

import random
import signal
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import monotonic, sleep

from saltline.server.process import EXIT_DONE
from tests.torture.crowd import Crowd
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MortalRelay
from tests.torture.pair import Pair
from tests.torture.trial import Figures, Scale

SERVING, STARTING, STOPPING = "while it served", "before it served", "after it was told to stop"
SERVES_AT_MOST_S = 0.25
# After so many ends the relay is killed once more before it serves.
KILLED_IN_ITS_START_EVERY = 3
# So much of a load is acknowledged before most ends.
ACKNOWLEDGED_AT_MOST = 60
_HEARD = "The relay stops."


class Deaths:
    """Ends the relay at moments drawn by chance; counts what it was at when it was killed."""

    def __init__(self, relay: MortalRelay, rng: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self.stops = 0
        self._relay = relay
        self._rng = rng
        self._stop_takes_s = 0.0  # as long as the last one that was left alone
        self._ends = cycle(
            (
                self._while_it_serves,
                self._not_at_all,
                self._while_it_stops,
                self._while_it_serves,
                self._while_it_serves,
                self._while_it_stops,
                self._while_it_serves,
                self._while_it_serves,
            )
        )

    def next(self) -> None:
        """The relay is gone, in the way whose turn it is."""
        sleep(self._rng.random() * SERVES_AT_MOST_S)  # the moment is what is tried
        end: Callable[[], None] = next(self._ends)
        end()

    def while_it_starts(self) -> None:
        """Started, and gone again: from some way into its start, as that took the last time."""
        takes_s = self._relay.seconds_to_serve
        had_served = self._relay.kill_after_launch(self._rng.uniform(0.4, 1.1) * takes_s)
        self.kills[SERVING if had_served else STARTING] += 1

    def _while_it_serves(self) -> None:
        self._relay.kill()
        self.kills[SERVING] += 1

    def _while_it_stops(self) -> None:
        heard = self._relay.log_text.count(_HEARD)
        code = self._relay.stop_and_kill(self._rng.uniform(0, 0.8) * self._stop_takes_s)
        if code == EXIT_DONE:
            self.stops += 1
            return
        assert code == -signal.SIGKILL, code
        had_heard = self._relay.log_text.count(_HEARD) > heard
        self.kills[STOPPING if had_heard else SERVING] += 1

    def _not_at_all(self) -> None:
        told_s = monotonic()
        assert self._relay.stop() == EXIT_DONE
        self._stop_takes_s = monotonic() - told_s
        self.stops += 1


def run(scale: Scale, folder: Path) -> Figures:
    """Kill the relay under a crowd of wire clients and a pair of real ones."""
    kills, lines = scale.of(10, 200), scale.of(300, 6_000)
    least = {SERVING: scale.of(1, 80), STARTING: scale.of(1, 30), STOPPING: scale.of(1, 20)}
    ledger = Ledger()
    rng = random.Random(11)
    with MortalRelay(folder / "relay") as relay:
        relay.start()
        crowd = Crowd(relay, ledger, senders=scale.of(8, 50), recipients=scale.of(3, 10))
        deaths = Deaths(relay, rng)
        with Pair(relay, ledger, folder) as pair, crowd:
            ends = 0
            # Moments are drawn: a few more, where by chance too few were of one kind.
            while deaths.kills.total() < kills or not _enough(deaths.kills, least):
                assert ends < 2 * kills, f"too few of one kind: {deaths.kills}"
                pair.say(lines // kills)
                if rng.random() < 0.8:
                    acknowledged = ledger.acknowledged_count + rng.randrange(ACKNOWLEDGED_AT_MOST)
                    crowd.await_acknowledged(acknowledged)
                deaths.next()
                ends += 1
                if ends % KILLED_IN_ITS_START_EVERY == 0:
                    deaths.while_it_starts()
                relay.start()
                pair.reconnect()
                crowd.sound()
            crowd.finish()
            pair.finish()
        assert relay.stop() == EXIT_DONE
        relay.check()
        assert "Traceback" not in relay.log_text
    least_acknowledged = scale.of(1_000, 10_000)
    assert 2 * crowd.surely_deleted > least_acknowledged, "too little that may not come again"
    return {
        "kills": deaths.kills.total(),
        **deaths.kills,
        "orderly stops under load": deaths.stops,
        **ledger.hold(least_acknowledged),
        "of real clients": len(pair.rows),
        "handed over again and dropped": crowd.handed_over_again,
        "deleted for sure": crowd.surely_deleted,
    }


def _enough(kills: Counter[str], least: dict[str, int]) -> bool:
    return all(kills[kind] >= count for kind, count in least.items())
