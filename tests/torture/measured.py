"""A relay of which is known what it takes: memory, descriptors; and how long others wait."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import Final

from saltline.protocol.limits import ENVELOPE_MAX_BYTES
from tests.torture.mortal_relay import MortalRelay
from tests.torture.trial import Lacking, Scale

MIB: Final = 1024 * 1024
WAITS_MIN: Final = 20  # of fewer, the longest stands for the 95th of 100
_CACHE_BYTES: Final = 64 * MIB  # of pages of the database, in the relay
_MANY: Final = {"registrations_per_minute_and_address": 100_000}
# What is not taken for a relay's delay: that of a machine with other work, and of one without.
_BUSY_NOISE_MS: Final = 50
_QUIET_NOISE_MS: Final = 2


class MeasuredRelay(MortalRelay):
    """A relay in a process of its own. Raises Lacking where there is no /proc."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: Mapping[str, float] | None = None,
        deadlines: Mapping[str, float] | None = None,
    ) -> None:
        if not os.path.exists("/proc/self/clear_refs"):
            raise Lacking("/proc")
        super().__init__(folder, config=_config(_MANY | dict(limits or {}), dict(deadlines or {})))
        self._usual_bytes = 0

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def processor_s(self) -> float:
        """What it has used so far, in seconds of one processor."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def begin_to_measure(self) -> None:
        """From now on, growth and peak count (proc(5), clear_refs and VmHWM)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self._usual_bytes = self._status("VmRSS")

    @property
    def peak_growth_mib(self) -> float:
        """How far its memory rose at most, in MiB."""
        return round((self._status("VmHWM") - self._usual_bytes) / MIB, 1)

    def fill_cache(self) -> float:
        """Write so much that the database's cache holds all that it may; by how many MiB it grew.

        A cache that fills, whatever is in it, is no growth of what is measured afterwards.
        """
        self.begin_to_measure()
        with self.connect("hoard") as hoard:
            hoard.register()
        with self.connect("hoarder") as hoarder:
            hoarder.register()
            for _ in range(_CACHE_BYTES * 5 // 4 // ENVELOPE_MAX_BYTES):
                hoarder.submit("hoard", bytes(ENVELOPE_MAX_BYTES))
        grown_mib = self.peak_growth_mib
        assert grown_mib * MIB >= _CACHE_BYTES * 7 / 8, f"{grown_mib} MiB fill no cache"
        return grown_mib

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024

    def is_well(self) -> None:
        """It runs, and complained of nothing that is its own fault."""
        assert self._process is not None and self._process.poll() is None, self.log_text
        assert "Traceback" not in self.log_text, self.log_text
        assert "CRITICAL" not in self.log_text, self.log_text
        assert "ERROR" not in self.log_text, self.log_text


def _config(limits: Mapping[str, float], deadlines: Mapping[str, float]) -> str:
    lines = ["[limits]", *(f"{name} = {value}" for name, value in limits.items())]
    lines += ["[deadlines]", *(f"{name} = {value}" for name, value in deadlines.items())]
    return "\n".join(lines) + "\n"


@dataclass
class Waits:
    """How long things took, in seconds."""

    each_s: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, act: Callable[[], object], times: int) -> "Waits":
        """Do something so many times, one after the other."""
        waits = cls()
        for _ in range(times):
            waits.add(act)
        return waits

    def add(self, act: Callable[[], object]) -> None:
        """Do it once."""
        began_s = monotonic()
        act()
        self.each_s.append(monotonic() - began_s)

    @property
    def median_s(self) -> float:
        return median(self.each_s)

    @property
    def p95_s(self) -> float:
        if len(self.each_s) < WAITS_MIN:
            return self.longest_s
        return quantiles(self.each_s, n=20)[-1]

    @property
    def longest_s(self) -> float:
        return max(self.each_s)

    def told(self) -> str:
        """For the figures."""
        return f"{self.median_s * 1000:.1f}/{self.p95_s * 1000:.1f} ms"

    def are_usual(
        self,
        usual: "Waits",
        scale: Scale,
        *,
        median_more_s: float = 0.0,
        p95_more_s: float = 0.0,
        busy_stall_ms: int = _BUSY_NOISE_MS,
    ) -> None:
        """Raises AssertionError if the median or the 95th of 100 is above twice the usual.

        Either may be so many seconds more. In the quick form, beside other tests, six times the
        usual; and there the 95th may be `busy_stall_ms` more.
        """
        assert self.each_s and usual.each_s, "nothing was measured"
        noise_s = scale.of(_BUSY_NOISE_MS, _QUIET_NOISE_MS) / 1000
        _hold("median", self.median_s, usual.median_s, scale, median_more_s + noise_s)
        noise_s = scale.of(busy_stall_ms, _QUIET_NOISE_MS) / 1000
        _hold("95th of 100", self.p95_s, usual.p95_s, scale, p95_more_s + noise_s)


def _hold(what: str, now_s: float, usual_s: float, scale: Scale, more_s: float) -> None:
    allowed_s = scale.of(6, 2) * usual_s + more_s
    assert now_s <= allowed_s, f"{what}: {now_s:.4f} s, {usual_s:.4f} s before"


def close_all(clients: Iterable[object]) -> None:
    """End connections, of whatever client has a `sock`."""
    for client in clients:
        client.sock.close()  # type: ignore[attr-defined]
