"""A mailbox at its quota: its senders are told, nobody else notices, and its owner empties it."""

from pathlib import Path
from typing import Final

from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import CaughtUp, Deliver, Error, Submitted
from saltline.protocol.to_relay import Acknowledge, Submit
from tests.server.wire_client import WireClient
from tests.torture.honest import Visitors
from tests.torture.measured import MeasuredRelay, Waits, close_all
from tests.torture.trial import Figures, Scale

_MEMORY_MAX_MIB: Final = 50.0 + 64.0  # the database's cache of pages fills, whatever is in it
_ENVELOPE_BYTES: Final = 100_000
_PROBES: Final = 60
_REFUSED: Final = 200


def run(scale: Scale, folder: Path) -> Figures:
    """Fill it, go on sending, talk beside it, empty it, send again."""
    quota = scale.of(3_000_000, 100_000_000)
    fits = quota // _ENVELOPE_BYTES
    limits = {"mailbox_max_bytes": quota, "silence_max_s": 3600.0}  # nobody here pings
    with MeasuredRelay(folder, limits=limits) as relay:
        relay.start()
        with WireClient(relay.port, "keeper") as owner:
            keys = owner.register()
        ada, bob, sender = (WireClient(relay.port, name) for name in ("ada", "bob", "sender"))
        for person in (ada, bob, sender):
            person.register()

        def talk() -> None:
            ada.submit("bob", b"x" * 3632)
            assert bob.fetch() == b"x" * 3632

        usual = Waits.of(talk, _PROBES)
        visitors = Visitors(relay)
        relay.begin_to_measure()
        with visitors.throughout():
            for number in range(fits):
                sender.submit("keeper", _envelope(number))
        meanwhile = Waits()
        for number in range(_REFUSED):
            sender.say(Submit(sender.next_id(), "keeper", 1, _envelope(fits + number), b""))
            meanwhile.add(talk)
            refusal = decode_relay_message(sender.receive())
            assert isinstance(refusal, Error), refusal
            assert refusal.code == ErrorCode.MAILBOX_FULL and refusal.id == sender.request, refusal
            assert refusal.detail
        meanwhile.are_usual(usual, scale)
        sender.submit("bob", b"still welcome elsewhere")
        assert bob.fetch() == b"still welcome elsewhere"

        with visitors.throughout(), WireClient(relay.port, "keeper") as owner:
            owner.log_in(keys)
            for number in range(fits):
                delivered = owner.expect(Deliver)
                assert delivered.envelope == _envelope(number)
                owner.say(Acknowledge((delivered.number,), b""))
            owner.expect(CaughtUp)
            owner.ping()  # behind the last acknowledgement: there is room now
            owner.receive()
            sender.say(Submit(sender.next_id(), "keeper", 1, b"after the flood", b""))
            sender.expect(Submitted)
            assert owner.fetch() == b"after the flood"
        growth_mib = relay.peak_growth_mib
        assert growth_mib <= _MEMORY_MAX_MIB, f"{growth_mib} MiB"
        visitors.were_served(scale)
        relay.is_well()
        close_all((ada, bob, sender))
    return {
        "envelopes that fit": fits,
        "refused with mailbox_full": _REFUSED,
        "usual latency of others (median/p95)": usual.told(),
        "meanwhile": meanwhile.told(),
        "visits while it was filled and fetched": visitors.told(),
        "memory, MiB": growth_mib,
    }


def _envelope(number: int) -> bytes:
    name = b"%d " % number
    return name + bytes(_ENVELOPE_BYTES - len(name))
