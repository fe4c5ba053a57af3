"""SIGKILL at random moments: while it serves, while it starts, while it stops."""

import random
from pathlib import Path
from time import sleep

from tests.torture.crowd import Crowd
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MortalRelay
from tests.torture.pair import Pair
from tests.torture.trial import Figures, Scale

# Every so many starts the relay is killed before it serves, or told to stop instead.
KILLED_IN_ITS_START_EVERY = 5
STOPPED_EVERY = 8
START_TAKES_ABOUT_S = 0.3
SERVES_AT_MOST_S = 0.25


def run(scale: Scale, folder: Path) -> Figures:
    """Kill the relay under a crowd of wire clients and a pair of real ones."""
    kills, lines = scale.of(10, 200), scale.of(300, 6_000)
    ledger = Ledger()
    rng = random.Random(11)
    with MortalRelay(folder / "relay") as relay:
        relay.start()
        crowd = Crowd(relay, ledger, senders=scale.of(8, 50), recipients=scale.of(3, 10))
        with Pair(relay, ledger, folder) as pair, crowd:
            deaths = stops = 0
            while deaths < kills:
                pair.say(lines // kills)
                if deaths % KILLED_IN_ITS_START_EVERY != 0:
                    crowd.await_acknowledged(ledger.acknowledged_count + rng.randrange(60))
                sleep(rng.random() * SERVES_AT_MOST_S)  # the moment is what is tried
                if stops * STOPPED_EVERY < deaths:
                    stops += 1
                    assert relay.stop() == 0
                else:
                    relay.kill()
                    deaths += 1
                if deaths % KILLED_IN_ITS_START_EVERY == 0:
                    relay.launch()
                    sleep(rng.random() * START_TAKES_ABOUT_S)
                    relay.kill()
                    deaths += 1
                relay.start()
                pair.reconnect()
                crowd.sound()
            crowd.finish()
            pair.finish()
        assert relay.stop() == 0
        relay.check()
        assert "Traceback" not in relay.log_text
    least = scale.of(1_000, 10_000)
    assert 2 * crowd.surely_deleted > least, "too little that may not come again"
    return {
        "kills": deaths,
        "orderly stops under load": stops,
        **ledger.hold(least),
        "of real clients": len(pair.rows),
        "handed over again and dropped": crowd.handed_over_again,
        "deleted for sure": crowd.surely_deleted,
    }
