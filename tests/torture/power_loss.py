"""The power goes: what was written and not synced is lost, in part or whole, and torn.

In memory, on a disk that forgets at any of its operations; and, at length, on an ext4 file system
in a file, which is copied as it lies on the disk below while what the kernel holds still waits.
Each is tried again with a relay whose commits do not wait for the disk: that one has to be seen to
lose messages, or the trial would prove nothing.
"""

import random
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from tests.torture.crowd import Crowd
from tests.torture.ledger import Ledger, Verdict
from tests.torture.mortal_relay import PROGRAM, MortalRelay
from tests.torture.mounts import Ext4
from tests.torture.trial import LEFT_OUT, Figures, Lacking, Scale
from tests.torture.unsynced import unsynced_stores
from tests.torture.volatile_relay import VolatileRelay, heard

ROOT = Path(__file__).parents[2]
UNSYNCED = (sys.executable, "-m", "tests.torture.unsynced")
# A group of envelopes takes some ten operations of the disk.
OPERATIONS_BETWEEN_CUTS = 400


def run(scale: Scale, folder: Path) -> Figures:
    """Cut the power under a crowd; then under the same crowd, with commits that do not wait."""
    cuts, careless = scale.of(6, 100), scale.of(2, 5)
    ledger = _cut_in_memory(folder / "synced", cuts, nullcontext())
    verdict = _cut_in_memory(folder / "unsynced", careless, unsynced_stores()).verdict()
    in_memory = {
        "cuts in memory": cuts,
        **ledger.hold(scale.of(300, 5_000)),
        "lost in memory without waiting for the disk": _must_have_lost(verdict),
    }
    if scale is Scale.QUICK:
        return in_memory
    cuts = 50
    try:
        ledger = _cut_ext4(folder / "ext4", cuts, PROGRAM)
    except Lacking as lacking:
        return {**in_memory, "ext4": f"{LEFT_OUT}, this machine lacks {lacking}"}
    verdict = _cut_ext4(folder / "unsynced-ext4", careless, UNSYNCED).verdict()
    return {
        "in memory": " ".join(f"{name} {value}" for name, value in in_memory.items()),
        "cuts of ext4": cuts,
        **ledger.hold(10_000),
        "lost on ext4 without waiting for the disk": _must_have_lost(verdict),
    }


def _must_have_lost(verdict: Verdict) -> str:
    assert verdict.lost > 0, f"the trial sees no loss where there is one: {verdict}"
    return f"{verdict.lost} of {verdict.acknowledged}"


def _cut_in_memory(folder: Path, cuts: int, store: AbstractContextManager[None]) -> Ledger:
    ledger, rng = Ledger(), random.Random(5)
    with ExitStack() as stack:
        stack.enter_context(heard())
        relay = stack.enter_context(VolatileRelay(folder))
        relay.start()
        crowd = Crowd(
            relay, ledger, senders=6, recipients=3, absent=1, excused=("stopping", "storage_failed")
        )
        crowd.register()
        relay.stop()
        stack.enter_context(store)
        relay.start()
        with crowd:
            for _ in range(cuts):
                crowd.await_acknowledged(ledger.acknowledged_count + 50)
                relay.lose_power(rng, OPERATIONS_BETWEEN_CUTS)
            crowd.finish()
    return ledger


def _cut_ext4(folder: Path, cuts: int, program: Sequence[str]) -> Ledger:
    ledger, rng = Ledger(), random.Random(5)
    with Ext4(folder) as disk, MortalRelay(folder, data=disk.path / "data") as relay:
        relay.start()
        crowd = Crowd(relay, ledger, senders=12, recipients=6, absent=2)
        crowd.register()
        assert relay.stop() == 0
        relay.start(program=program, cwd=ROOT)
        with crowd:
            for _ in range(cuts):
                crowd.await_acknowledged(ledger.acknowledged_count + rng.randrange(1, 400))
                relay.kill()
                disk.lose_power()
                relay.start(program=program, cwd=ROOT)
            crowd.finish()
        assert relay.stop() == 0
        relay.check()
    return ledger
