"""What the relay has to reach, as ratios to its peers of the same run where that makes sense."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.relay.table import Table
from benchmarks.relay.works import COMMIT, FULL, US

Value = Callable[[Table, str], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure made of medians, and the bound that it keeps."""

    work: str
    says: str
    value: Value
    at_least: float | None = None
    at_most: float | None = None

    def found(self, table: Table) -> float | None:
        """None where a peer is missing."""
        return self.value(table, self.work)

    def is_met(self, table: Table) -> bool | None:
        """None where it could not be measured."""
        value = self.found(table)
        if value is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


def _of(key: str, other: str) -> Value:
    """Ours, as a multiple of a peer's."""
    return lambda table, work: table.ratio(work, key, US, other)


def _own(key: str, scale: float = 1.0) -> Value:
    def value(table: Table, work: str) -> float | None:
        ours = table.median(work, US, key)
        return None if ours is None else ours * scale

    return value


def _ms_above(key: str, other: str) -> Value:
    """Ours less a peer's, from µs."""

    def value(table: Table, work: str) -> float | None:
        ours, theirs = table.median(work, US, key), table.median(work, other, key)
        return None if ours is None or theirs is None else (ours - theirs) / 1000

    return value


def _inverse(key: str, other: str) -> Value:
    """How many times as long as a peer's, of figures per second."""
    return lambda table, work: table.ratio(work, key, other, US)


def _growth(table: Table, work: str) -> float | None:
    begin, end = (table.median(work, US, f"rss_{at}_kib") for at in ("begin", "end"))
    return None if end is None or not begin else end / begin


def _when_full(table: Table, work: str) -> float | None:
    return table.ratio(work, "cpu_us", FULL, US)


def _not_served(table: Table, work: str) -> float | None:
    """Connections that were lost, or turned away and came back, and requests that were refused."""
    counts = [table.median(work, US, key) for key in ("dead", "storm_lost", "errors")]
    return None if counts[0] is None else sum(count or 0 for count in counts)


def _of_a_room(work: str) -> tuple[Target, ...]:
    return (
        Target(work, "deliveries a second, of inspircd's", _of("per_s", "inspircd"), 2.7),
        Target(work, "deliveries a second, of asyncio's", _of("per_s", "asyncio"), 15),
        Target(work, "CPU µs a delivery", _own("cpu_us"), at_most=0.40),
    )


_CPU: Final = "server_share"

TARGETS: Final = (
    *_of_a_room("room-256"),
    *_of_a_room("room-1024"),
    Target("room-1000-s", "CPU, of inspircd's", _of(_CPU, "inspircd"), at_most=0.65),
    Target("room-1000-s", "p99, ms", _own("p99_us", 1e-3), at_most=5),
    Target("room-100-s", "p50, ms above one commit's", _ms_above("p50_us", COMMIT), at_most=0.7),
    Target("room-100-s", "p99, ms above one commit's", _ms_above("p99_us", COMMIT), at_most=1.6),
    Target("room-100-s", "CPU, of NATS's", _of(_CPU, "nats"), at_most=1),
    Target("online", "messages a second, of mosquitto's", _of("per_s", "mosquitto"), 0.8),
    Target("offline", "messages a second, of JetStream's", _of("per_s", "nats"), 12),
    Target("one-at-a-time", "time, of one commit's", _inverse("per_s", COMMIT), at_most=1.5),
    Target("idle", "KiB a connection", _own("kib_each"), at_most=20),
    Target("idle", "CPU ms a login", _own("storm_cpu_ms_each"), at_most=0.6),
    Target("idle", "not served", _not_served, at_most=0),
    Target("crowd", "memory at the end, of the beginning's", _growth, at_most=1.02),
    Target("crowd", "p99, ms", _own("p99_us", 1e-3), at_most=50),
    Target("crowd", "not served", _not_served, at_most=0),
    Target("full-send", "CPU, of the empty relay's", _when_full, at_most=1.2),
    Target("full-online", "CPU, of the empty relay's", _when_full, at_most=1.2),
    Target("full-drain", "CPU, of the empty relay's", _when_full, at_most=1.2),
)
