"""Reads a fuzzer's bytes as a small script: which honest part to take, and how to spoil it."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Script:
    """Numbers off `data` from the left, and zeros once it has run out: every script is valid."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Whether all of it was read."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """0 to 255."""
        return self.take(1)[0]

    def number(self) -> int:
        """Two bytes: 0 to 65,535."""
        return int.from_bytes(self.take(2), "big")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.ljust(size, b"\0")

    def rest(self) -> bytes:
        """Everything that is left."""
        taken = self._data[self._at :]
        self._at = len(self._data)
        return taken

    def choose(self, items: Sequence[Item]) -> Item:
        """One of them."""
        return items[self.byte() % len(items)]

    def spoil(self, honest: bytes, others: Sequence[bytes] = ()) -> bytes:
        """`honest`, or something near it: one change of five kinds."""
        way = self.byte() % (6 if others else 5)
        if way == 0:
            return honest
        at = self.number() % (len(honest) + 1)
        match way:
            case 1:  # another byte
                flipped = (honest[at : at + 1] or b"\0")[0] ^ (self.byte() or 1)
                return honest[:at] + bytes((flipped,)) + honest[at + 1 :]
            case 2:  # cut
                return honest[:at]
            case 3:  # longer
                return honest[:at] + self.take(self.byte() % 9) + honest[at:]
            case 4:  # other bytes over it
                new = self.take(self.byte() % 9)
                return honest[:at] + new + honest[at + len(new) :]
            case _:
                return self.choose(others)
