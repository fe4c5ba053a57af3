"""A mailbox at its quota: its senders are told, nobody else notices, and its owner empties it."""

from pathlib import Path
from typing import Final

from saltline.crypto.keys import IdentityKeys
from saltline.protocol.errors import FAULT, ErrorCode, Fault
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import CaughtUp, Deliver, Error, Pong, Submitted
from saltline.protocol.to_relay import Acknowledge, Submit
from tests.server.wire_client import WireClient
from tests.torture.companions import Bystanders, Seen
from tests.torture.measured import MeasuredRelay
from tests.torture.trial import Figures, Scale

_MEMORY_MAX_MIB: Final = 50.0
_LONG_S: Final = 0.003  # to take in some of these envelopes, while others come
_DELETES_S: Final = 0.008  # to delete and overwrite some of them in one commit
_STALL_S: Final = 0.05  # a few in a hundred, of the short time in which it is emptied
_ENVELOPE_BYTES: Final = 100_000
_AT_ONCE: Final = 10
_ROUNDS_MAX: Final = 50  # until enough is seen of each: a small mailbox is empty in no time


def run(scale: Scale, folder: Path) -> Figures:
    """Fill it, go on sending, while others talk; empty it, send again."""
    quota = scale.of(3_000_000, 100_000_000)
    fits, refused = quota // _ENVELOPE_BYTES, scale.of(200, 5_000)
    limits = {
        "mailbox_max_bytes": quota,
        "silence_max_s": 3600.0,  # nobody here pings
        "requests_burst": 1_000_000,  # it is to be a full mailbox that refuses
    }
    with MeasuredRelay(folder, limits=limits) as relay:
        relay.start()
        with Bystanders(relay) as others:
            cache_mib = relay.fill_cache() if scale is Scale.LONG else 0.0
            with WireClient(relay.port, "keeper") as owner:
                keys = owner.register()
            sender = WireClient(relay.port, "sender")
            sender.register()

            usual = others.watch(scale.of(1, 20) / 2)
            relay.begin_to_measure()
            phases: tuple[Seen, ...] = (Seen(), Seen(), Seen())
            for _ in range(_ROUNDS_MAX):
                now = _round(relay.port, others, sender, keys, (fits, refused))
                phases = tuple(before + seen for before, seen in zip(phases, now, strict=True))
                if all(seen.is_enough for seen in phases):
                    break
            growth_mib = relay.peak_growth_mib
            relay.is_well()
            others.end()
            sender.sock.close()
    assert growth_mib <= _MEMORY_MAX_MIB, f"{growth_mib} MiB"
    filling, meanwhile, emptying = phases
    for seen in (filling, meanwhile):
        seen.are_usual(usual, scale, p95_more_s=_LONG_S)
    emptying.are_usual(usual, scale, median_more_s=_DELETES_S, p95_more_s=_STALL_S)
    return {
        "envelopes that fit": fits,
        "refused with mailbox_full": refused,
        "usual latency of others (median/p95)": usual.told(),
        "while it fills": filling.told(),
        "while it is full": meanwhile.told(),
        "while it is emptied": emptying.told(),
        "memory, MiB": growth_mib,
        "the database's cache before, MiB": cache_mib,
    }


def _round(
    port: int, others: Bystanders, sender: WireClient, keys: IdentityKeys, counts: tuple[int, int]
) -> tuple[Seen, ...]:
    """What others see while it fills, while so many more are refused, and while it is emptied."""
    fits, refused = counts
    with others.watching() as filling:
        for number in range(fits):
            sender.submit("keeper", _envelope(number))
    with others.watching() as meanwhile:
        for first in range(fits, fits + refused, _AT_ONCE):
            _is_refused(sender, range(first, first + _AT_ONCE))
    with WireClient(port, "keeper") as owner:
        owner.log_in(keys)
        with others.watching() as emptying:
            _empties(owner, fits)
        # What was refused fits now, sent again as it is.
        sender.say(Submit(sender.next_id(), "keeper", 1, _envelope(fits), b""))
        sender.expect(Submitted)
        assert owner.fetch() == _envelope(fits)
        _is_heard(owner)
    return filling, meanwhile, emptying


def _is_refused(sender: WireClient, numbers: range) -> None:
    """Each is, by itself, with what its sender can do about it: wait for the owner."""
    first = sender.request + 1
    for number in numbers:
        sender.say(Submit(sender.next_id(), "keeper", 1, _envelope(number), b""))
    for id in range(first, first + len(numbers)):
        refusal = decode_relay_message(sender.receive())
        assert isinstance(refusal, Error), refusal
        assert (refusal.id, refusal.code) == (id, ErrorCode.MAILBOX_FULL), refusal
        assert "full until its owner comes" in refusal.detail, refusal
        # No time is known; so a client asks again after its own (docs/protocol.md §6, Errors).
        assert refusal.retry_after_ms == 0
    assert FAULT[ErrorCode.MAILBOX_FULL] is Fault.NOBODY


def _empties(owner: WireClient, count: int) -> None:
    """Everything that waited, once and in order."""
    for number in range(count):
        delivered = owner.expect(Deliver)
        assert delivered.envelope == _envelope(number)
        owner.say(Acknowledge((delivered.number,), b""))
    owner.expect(CaughtUp)
    _is_heard(owner)


def _is_heard(owner: WireClient) -> None:
    """Its last acknowledgement too, behind which a ping is answered: there is room now."""
    owner.ping()
    owner.expect(Pong)


def _envelope(number: int) -> bytes:
    name = b"%d " % number
    return name + bytes(_ENVELOPE_BYTES - len(name))
