"""One who sends as fast as it can is told to wait, and slows nobody else down."""

import json
import select
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Final

from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import Error, Submitted
from saltline.protocol.to_relay import Submit
from saltline.server.core import REFUSALS_PER_SECOND
from saltline.server.workers import HELPING
from tests.server.wire_client import WireClient
from tests.torture.measured import MeasuredRelay, Waits, close_all
from tests.torture.trial import Figures, Scale

_MEMORY_MAX_MIB: Final = 50.0 + 64.0  # the database's cache of pages fills, whatever is in it
_PROBES: Final = 60
_ENVELOPE: Final = b"x" * 3632  # the smallest that there is
_AT_ONCE: Final = 200


def be_greedy(port: int) -> None:
    """Send without regard for refusals until standard input ends; print what came of it."""
    with WireClient(port, "greedy") as client:
        client.register()
        print("ready", flush=True)
        accepted, waits_ms = 0, []
        began_s = monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            ids = [client.next_id() for _ in range(_AT_ONCE)]
            client.say(*(Submit(id, "victim", 1, _ENVELOPE, b"") for id in ids))
            for _ in range(_AT_ONCE):
                answer = decode_relay_message(client.receive())
                if isinstance(answer, Submitted):
                    accepted += 1
                else:
                    assert isinstance(answer, Error) and answer.code == ErrorCode.RATE_LIMITED
                    waits_ms.append(answer.retry_after_ms)
        seconds = monotonic() - began_s
    least_ms, most_ms = min(waits_ms, default=0), max(waits_ms, default=0)
    print(json.dumps([accepted, len(waits_ms), least_ms, most_ms, seconds]))


class _Greedy:
    """Somebody greedy in a process of its own, so that it takes nothing from who is measured."""

    def __init__(self, relay: MeasuredRelay) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.greedy_sender", str(relay.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> None:
        """Stop it, and take its account."""
        out, _ = self._process.communicate(timeout=60)
        told = json.loads(out)
        self.accepted, self.refused, self.least_ms, self.most_ms, self.seconds = told

    def __enter__(self) -> "_Greedy":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class _Pair:
    """Two who write to each other; how long a message takes from one to the other."""

    def __init__(self, relay: MeasuredRelay) -> None:
        self.ada, self.bob = (WireClient(relay.port, name) for name in ("ada", "bob"))
        for person in (self.ada, self.bob):
            person.register()

    def probe(self) -> None:
        self.ada.submit("bob", _ENVELOPE)
        assert self.bob.fetch() == _ENVELOPE


def run(scale: Scale, folder: Path) -> Figures:
    """Two write to each other, before and while a third takes all that it can get."""
    rate, burst = scale.of(200, 400), scale.of(400, 4_000)  # below what a busy machine can do
    limits = {
        "requests_per_second": rate,
        "requests_burst": burst,
        "silence_max_s": 3600.0,  # nobody here pings
        "mailbox_max_envelopes": 1_000_000,
        "mailbox_max_bytes": 10_000_000_000,
    }
    with MeasuredRelay(folder, limits=limits) as relay:
        relay.start()
        with WireClient(relay.port, "victim") as victim:
            victim.register()
        pair = _Pair(relay)
        usual = Waits.of(pair.probe, _PROBES)
        relay.begin_to_measure()
        with _Greedy(relay) as greedy:
            meanwhile = Waits.of(pair.probe, scale.of(_PROBES, 60 * _PROBES))  # within its own rate
            greedy.end()
        relay.is_well()
        meanwhile.are_usual(usual, scale)
        growth_mib = relay.peak_growth_mib
        assert growth_mib <= _MEMORY_MAX_MIB
        allowed = burst + rate * (greedy.seconds + 1)
        assert greedy.accepted <= allowed, (greedy.accepted, allowed)
        assert greedy.refused, "nobody told it to wait"
        told = (REFUSALS_PER_SECOND + HELPING) * (greedy.seconds + 2)
        assert greedy.refused <= told, "it was read on, at the cost of the others"
        assert 1 <= greedy.least_ms <= greedy.most_ms <= 1 + 1000
        pair.probe()
        close_all((pair.ada, pair.bob))
    return {
        "accepted": greedy.accepted,
        "refused with a time to wait": greedy.refused,
        "a second": round((greedy.accepted + greedy.refused) / greedy.seconds),
        "usual latency (median/p95)": usual.told(),
        "meanwhile": meanwhile.told(),
        "memory, MiB": growth_mib,
    }


if __name__ == "__main__":
    be_greedy(int(sys.argv[1]))
