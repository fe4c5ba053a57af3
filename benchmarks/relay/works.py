"""What is measured: who is asked to do what, how, and for how long."""

from dataclasses import dataclass
from typing import Final

from benchmarks.relay.setups import ENVELOPE_BYTES, Idle, Offline, Pairs, Room, Setup, Waiting
from saltline.protocol.limits import PING_INTERVAL_S

US: Final = "saltline"
FULL: Final = "saltline (full)"
COMMIT: Final = "one commit"
BLAST: Final = "only writing"
BARE: Final = "bare loop"
RAW: Final = "raw relay in C"
_IN_ROOMS: Final = (US, "inspircd", "nats", "redis", "mosquitto", "asyncio")
_DRAINED: Final = 50_000
# By then every client has pinged once, for which the relay keeps some bytes of each account.
_ALL_PINGED_S: Final = PING_INTERVAL_S + 1


@dataclass(frozen=True, slots=True)
class Work:
    """A setup, the generator's options, and who takes part, in turns."""

    name: str
    title: str
    setup: Setup
    options: tuple[object, ...]
    peers: tuple[str, ...]
    measure_s: float = 5.0
    commits_per_s: float = 0.0  # of `one commit`; 0: one after the other
    drain_s: float = 10.0


def _window(flow: str, size: int, *more: object) -> tuple[object, ...]:
    return ("--mode", "window", "--flow", flow, "--window", size, "--warm", 1.5, *more)


def _rate(per_s: int, warm_s: float = 1.5) -> tuple[object, ...]:
    return ("--mode", "rate", "--flow", "group", "--rate", per_s, "--warm", warm_s)


_TOGETHER: Final = ("--coalesce", 1)  # what may be sent goes in one record, as from an outbox

WORKS: Final = (
    Work(
        "room-256",
        "Room of 100 and 4 senders, 256 messages outstanding",
        Room(),
        _window("group", 256),
        (*_IN_ROOMS, RAW, BLAST),
    ),
    Work(
        "room-1024",
        "The same room, 1,024 outstanding",
        Room(),
        _window("group", 1024),
        (*_IN_ROOMS, RAW),
    ),
    Work(
        "room-1000-s",
        "The same room at 1,000 messages/s",
        Room(),
        _rate(1000),
        (*_IN_ROOMS, BARE),
        10,
    ),
    Work(
        "room-100-s",
        "The same room at 100 messages/s",
        Room(),
        _rate(100),
        (*_IN_ROOMS, BARE, COMMIT),
        20,
        commits_per_s=100,
    ),
    Work(
        "online",
        "Envelopes to people online, 50 pairs, 32 outstanding, acknowledged on both sides",
        Pairs(),
        _window("both", 32),
        (US, "mosquitto"),
    ),
    Work(
        "offline",
        "Envelopes to people offline, 50 senders, 32 outstanding, acknowledged when kept",
        Offline(),
        _window("ack", 32, *_TOGETHER),
        (US, "nats", "redis"),
    ),
    Work(
        "online-real",
        f"To people online, envelopes of {ENVELOPE_BYTES:,} bytes, as of a short text",
        Pairs(body_bytes=ENVELOPE_BYTES),
        _window("both", 32),
        (US, "mosquitto"),
    ),
    Work(
        "offline-real",
        f"To people offline, envelopes of {ENVELOPE_BYTES:,} bytes",
        Offline(body_bytes=ENVELOPE_BYTES),
        _window("ack", 32, *_TOGETHER),
        (US, "nats", "redis"),
    ),
    Work(
        "one-at-a-time",
        "One envelope at a time, acknowledged when kept",
        Offline(senders=1),
        _window("ack", 1),
        (US, COMMIT, BARE, "nats", "redis"),
        10,
    ),
    Work(
        "idle",
        "5,000 idle connections; then all of them log in again at once",
        Idle(5_000),
        ("--mode", "storm", "--inflight", 500),
        (US, "inspircd", "nats", "mosquitto", "asyncio"),
    ),
    Work(
        "crowd",
        "10,000 connections, 100 rooms of 100, 10,000 deliveries/s",
        Room(members=99, senders=1, rooms=100),
        (*_rate(100, _ALL_PINGED_S), "--inflight", 200),
        (US,),
        60,
    ),
    Work(
        "full-send",
        "As offline, to some of 100,000 accounts and a mailbox where 1,000,000 envelopes wait",
        Offline(),
        _window("ack", 32, *_TOGETHER),
        (US, FULL),
    ),
    Work(
        "full-online",
        "As online, on the full relay",
        Pairs(),
        _window("both", 32),
        (US, FULL),
    ),
    Work(
        "full-drain",
        f"{_DRAINED:,} waiting envelopes pushed and acknowledged, of 1,000,000 on the full relay",
        Waiting(_DRAINED),
        ("--mode", "drain", "--flow", "group", "--target", _DRAINED),
        (US, FULL),
        60,
    ),
)
