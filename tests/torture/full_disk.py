"""A disk of 1 MiB that mail fills: refused with a sentence, and what is fetched makes room again.

In the suite the disk is one in memory, under a whole relay in this process; at length it is a tmpfs
under the real program, which is also killed and started again while it is full.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from saltline.crypto.keys import IdentityKeys
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import CaughtUp, Deliver, Error, Pong, Submitted
from saltline.protocol.to_relay import Acknowledge, Submit
from tests.pushes import Heard
from tests.server.wire_client import WireClient
from tests.torture.crowd import AnyRelay, envelope_of, read_envelope
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MortalRelay
from tests.torture.mounts import small_disk
from tests.torture.trial import Figures, Scale
from tests.torture.volatile_relay import VolatileRelay, heard

DISK_BYTES: Final = 1024 * 1024
LANE: Final = "ada>bob"
_AT_ONCE: Final = 20


def run(scale: Scale, folder: Path) -> Figures:
    """Fill it and empty it, several times; 0 lost of what was acknowledged while it was full."""
    rounds = scale.of(2, 30)
    ledger = Ledger()
    with ExitStack() as stack:
        if scale is Scale.QUICK:
            said = stack.enter_context(heard())
            relay = stack.enter_context(VolatileRelay(folder, room_bytes=DISK_BYTES))
            relay.start()
            refused = _Letters(relay, ledger).rounds(rounds)
            warnings, starts = sum("disk is full" in line for line in said), 1
        else:
            disk = stack.enter_context(small_disk(folder / "small", DISK_BYTES))
            mortal = stack.enter_context(MortalRelay(folder / "relay", data=disk / "data"))
            mortal.start()
            refused = _Letters(mortal, ledger).rounds(rounds, mortal)
            assert mortal.stop() == 0
            mortal.check()
            assert "Traceback" not in mortal.log_text
            warnings, starts = mortal.log_text.count("disk is full"), 1 + rounds // 2
    assert 1 <= warnings <= starts, f"{warnings} warnings for {refused} refusals"
    return {
        "filled and emptied": rounds,
        **ledger.hold(50 * rounds),
        "refused": refused,
        "warnings in the log": warnings,
    }


class _Letters:
    """Ada writes until the disk is full; then Bob fetches."""

    def __init__(self, relay: AnyRelay, ledger: Ledger) -> None:
        self.relay = relay
        self.ledger = ledger
        self.last = 0
        self.refused = 0
        self.ada, self.bob = self._register("ada"), self._register("bob")

    def _register(self, name: str) -> IdentityKeys:
        with WireClient(self.relay.port, name) as wire:
            return wire.register()

    def rounds(self, count: int, mortal: MortalRelay | None = None) -> int:
        """How many letters were refused; a mortal relay is killed in every second round."""
        for number in range(count):
            self._fill()
            if mortal is not None and number % 2:
                mortal.kill()
                mortal.start()
            self._fetch()
            assert self.ledger.outstanding == 0, self.ledger.verdict()
        return self.refused

    def _fill(self) -> None:
        taken = 0
        with WireClient(self.relay.port, "ada") as wire:
            wire.log_in(self.ada)
            wire.expect(CaughtUp)
            while True:
                numbers = range(self.last + 1, self.last + _AT_ONCE + 1)
                answers = self._send(wire, numbers)
                taken += len(answers)
                if not answers:
                    break
            wire.ping()
            wire.expect(Pong)
        assert taken >= 50, f"only {taken} letters fit"

    def _send(self, wire: WireClient, numbers: range) -> list[int]:
        """Which of these were taken; the others were refused, in words that say why."""
        self.last = numbers[-1]
        for number in numbers:
            self.ledger.sent(LANE, number)
        wire.say(*(Submit(each, "bob", 1, envelope_of(LANE, each), b"") for each in numbers))
        taken = []
        for _ in numbers:
            answer = _answer(wire)
            if isinstance(answer, Submitted):
                self.ledger.acknowledged(LANE, answer.id)
                taken.append(answer.id)
            else:
                assert isinstance(answer, Error) and answer.id in numbers, answer
                assert answer.code == ErrorCode.STORAGE_FAILED, answer
                assert "disk is full" in answer.detail, answer
                self.refused += 1
        return taken

    def _fetch(self) -> None:
        with WireClient(self.relay.port, "bob") as wire:
            wire.log_in(self.bob)
            while not isinstance(message := _answer(wire), CaughtUp):
                assert isinstance(message, Deliver), message
                self.ledger.shown(*read_envelope(message.envelope))
                wire.say(Acknowledge((message.number,), b""))
            wire.ping()
            wire.expect(Pong)


def _answer(wire: WireClient) -> Heard:
    return wire.aside.pop(0) if wire.aside else decode_relay_message(wire.receive())
