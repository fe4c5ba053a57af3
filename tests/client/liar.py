"""A relay between a person and the real one: in bad weather, or lying."""

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from saltline.protocol import to_client
from tests.client.test_attacks import one_of_each
from tests.pushes import Heard

PUSHED = to_client.Deliver | to_client.RoomEntry | to_client.Presence | to_client.CaughtUp


TRUE = to_client.Submitted | to_client.Posted | to_client.Deliver


class Liar:
    """Between a person and the relay: drops, repeats, holds back, mixes up, corrupts, invents.

    But it does not say that it has what it has not, nor take one envelope for another: against a
    relay that destroys messages nothing helps but the missing receipt.
    """

    def __init__(self, rng: random.Random, *, is_honest: bool) -> None:
        self._rng = rng
        self.is_honest = is_honest
        self.rate = 0.0
        self.seen: list[Heard] = []
        self.held: list[Heard] = []

    def __call__(self, message: Heard) -> Iterable[Heard]:
        rng = self._rng
        if self.is_honest:
            yield from self.in_bad_weather(message)
            return
        if rng.random() < 0.2 and not isinstance(message, TRUE):
            self.seen = [*self.seen[-30:], message]
        if rng.random() >= self.rate:
            yield message
            return
        match rng.randrange(9):
            case 0:
                return  # dropped
            case 1:
                yield message
                yield message
            case 2:
                self.held.append(message)
            case 3:
                yield message
                yield from self.held
                self.held = []
            case 4:
                yield self.corrupted(message)
            case 5:
                yield self.answer_of_another_kind(message)
            case 6:
                yield self.refusal(message)
            case 7:
                yield message
                if self.seen:
                    yield rng.choice(self.seen)
            case _:
                yield message
                yield self.invented()

    def in_bad_weather(self, message: Heard) -> Iterable[Heard]:
        """An honest relay, overloaded: answers are refused, late or never come."""
        rng = self._rng
        is_answer = getattr(message, "id", 0) and not isinstance(message, TRUE | to_client.Error)
        if not is_answer or rng.random() >= self.rate:
            yield message
            yield from self.held
            self.held = []
        elif rng.random() < 0.3:
            self.held.append(message)
        elif rng.random() < 0.8:
            yield self.refusal(message)

    def corrupted(self, message: Heard) -> Heard:
        """One field of another value, of the right type."""
        if isinstance(message, TRUE):
            return message
        field = self._rng.choice(type(message).__struct_fields__)
        value = getattr(message, field)
        spoilt: Heard = msgspec.structs.replace(message, **{field: self.spoilt(value)})
        return spoilt

    def spoilt(self, value: Any) -> Any:
        rng = self._rng
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return rng.choice([0, 1, value + 1, max(0, value - 1), 2**31])
        if isinstance(value, bytes) and value:
            at = rng.randrange(len(value))
            return value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
        if isinstance(value, str):
            return rng.choice(["", "bob", "@bob", "#lobby", "#other", "x\x1b[2J", value])
        if isinstance(value, tuple):
            return rng.choice([(), value[:1], value[1:], value[::-1], value + value])
        return value

    def answer_of_another_kind(self, message: Heard) -> Heard:
        """But never a lie that something was stored."""
        number = getattr(message, "id", 0)
        if not number:
            return message
        if isinstance(message, TRUE):
            return self.refusal(message)
        others = [each for each in one_of_each(number) if not isinstance(each, TRUE)]
        other: Heard = self._rng.choice(others)
        return other

    def refusal(self, message: Heard) -> Heard:
        number = getattr(message, "id", 0)
        codes = ("rate_limited", "storage_failed", "mailbox_full", "internal", "link_lost")
        code = self._rng.choice(codes)
        if isinstance(message, PUSHED):
            return message
        return to_client.Error(number, code, "Not now.", self._rng.choice([0, 1000, 2**60]))

    def invented(self) -> Heard:
        rng = self._rng
        choices: list[Heard] = [
            to_client.Deliver(10**6 + rng.randrange(9), 1, rng.randbytes(4000)),
            to_client.Presence(rng.choice(["bob", "", "x\x1b"]), True),
            to_client.Pong(rng.randrange(1, 50)),
            to_client.CaughtUp(rng.randrange(100)),
            to_client.Error(rng.randrange(50), "rate_limited", "No.", 0),
            to_client.RoomEntry("#lobby", rng.randrange(60), "bob", 1, b"", bytes(64)),
        ]
        return rng.choice(choices)
