"""Much waits on the relay's disk, and it is killed under load: how soon does it serve again?"""

import os
import time
from pathlib import Path
from typing import Final

from saltline.crypto.keylog import LogKey
from saltline.protocol.to_client import Deliver
from saltline.protocol.to_relay import Acknowledge
from saltline.server.data_folder import DataFolder
from saltline.server.store import operations as ask
from saltline.server.store.interface import EnvelopeStored
from saltline.server.store.sqlite import SqliteStore
from tests.server.wire_client import WireClient
from tests.torture.crowd import Crowd, envelope_of, read_envelope
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MortalRelay
from tests.torture.trial import Figures, Scale

SERVES_WITHIN_S: Final = 5.0
MAILBOXES: Final = 10
LANE: Final = "past>waiting{}"
_GROUP: Final = 1_000


def run(scale: Scale, folder: Path) -> Figures:
    """Queue a lot, kill it while more comes in, and look at the clock."""
    queued = scale.of(5_000, 100_000)
    ledger, slowest_s = Ledger(), 0.0
    with MortalRelay(folder / "relay") as relay:
        relay.start()
        people = [f"waiting{number}" for number in range(MAILBOXES)]
        keys = []
        for name in people:
            with relay.connect(name) as wire:
                keys.append(wire.register())
        crowd = Crowd(relay, ledger, senders=4, recipients=2)
        crowd.register()
        assert relay.stop() == 0
        size_bytes = _queue(relay.data, people, queued)
        relay.start()
        with crowd:
            for _ in range(scale.of(2, 5)):
                crowd.await_acknowledged(ledger.acknowledged_count + 100)
                relay.kill()
                relay.start()
                slowest_s = max(slowest_s, relay.seconds_to_serve)
                with relay.connect(people[0]) as wire:
                    wire.log_in(keys[0])
                    assert read_envelope(wire.expect(Deliver).envelope) == (LANE.format(0), 1)
            crowd.finish()
        # The suite shares its machine with whatever else runs there.
        assert slowest_s < scale.of(4, 1) * SERVES_WITHIN_S, f"it served after {slowest_s:.1f} s"
        assert relay.stop() == 0
        relay.check()
        relay.start()
        with relay.connect(people[-1]) as wire:
            wire.log_in(keys[-1])
            _fetch_all(wire, queued // MAILBOXES)
    return {
        "waiting": queued,
        "database MB": size_bytes // 1_000_000,
        "slowest start ms": round(slowest_s * 1000),
        **ledger.hold(200),
    }


def _queue(data: Path, people: list[str], count: int) -> int:
    """Put `count` envelopes into the mailboxes, as the relay would; the database's size, bytes."""
    folder = DataFolder.open(data, create=False)
    folder.lock()
    store = SqliteStore(folder.database, LogKey.from_seed(folder.log_key_seed(None)).relay_id)
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, count, _GROUP):
        work = [
            ask.StoreEnvelope(
                people[number % MAILBOXES],
                1,
                envelope_of(LANE.format(number % MAILBOXES), number // MAILBOXES + 1),
                count,
                10**12,
                now_ms,
            )
            for number in range(first, first + _GROUP)
        ]
        assert all(isinstance(done, EnvelopeStored) for done in store.run(work))
        assert store.maintain() is None
    store.close()
    folder.close()
    return os.stat(folder.database).st_size


def _fetch_all(wire: WireClient, count: int) -> None:
    for number in range(1, count + 1):
        delivered = wire.expect(Deliver)
        assert read_envelope(delivered.envelope) == (LANE.format(MAILBOXES - 1), number)
        wire.say(Acknowledge((delivered.number,), b""))
