"""Byte layouts: one exact reader and writer (docs/protocol.md, conventions).

Integers are big-endian; ``lp(x)`` is u32 length ‖ x. A reader refuses what is too short, too long,
above its bound, or left over: two byte strings never decode to the same value.
"""

import struct

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class Malformed(ValueError):
    """These bytes do not follow the layout. The sender's program may be newer, or broken."""


def u8(number: int) -> bytes:
    """One byte. Raises Malformed outside 0..255."""
    if not 0 <= number <= 0xFF:
        raise Malformed("number does not fit into one byte")
    return bytes((number,))


def u32(number: int) -> bytes:
    """Four bytes. Raises Malformed outside 0..2^32-1."""
    if not 0 <= number <= 0xFFFF_FFFF:
        raise Malformed("number does not fit into four bytes")
    return _U32.pack(number)


def u64(number: int) -> bytes:
    """Eight bytes. Raises Malformed outside 0..2^64-1."""
    if not 0 <= number <= 0xFFFF_FFFF_FFFF_FFFF:
        raise Malformed("number does not fit into eight bytes")
    return _U64.pack(number)


def lp(data: bytes) -> bytes:
    """u32 length ‖ data."""
    return u32(len(data)) + data


class Reader:
    """Takes fields off ``data`` from the left. Every method raises Malformed, nothing else."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self._at + size
        chunk = self._data[self._at : end]
        if len(chunk) != size:
            raise Malformed("too short")
        self._at = end
        return chunk

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def u63(self) -> int:
        """A u64 below 2^63: databases hold it, and ``+ 1`` cannot leave the u64 range."""
        number = self.u64()
        if number >> 63:
            raise Malformed("number is not below 2^63")
        return number

    def lp(self, max_bytes: int) -> bytes:
        """A length-prefixed field of at most ``max_bytes``."""
        size = self.u32()
        if size > max_bytes:
            raise Malformed("field is longer than its bound")
        return self.take(size)

    def lp_exactly(self, size: int) -> bytes:
        """A length-prefixed field of exactly ``size`` bytes."""
        if self.u32() != size:
            raise Malformed("field has a wrong length")
        return self.take(size)

    def expect(self, constant: bytes) -> None:
        """The next bytes are ``constant``: a version, a label, a flag that must be 0."""
        if self.take(len(constant)) != constant:
            raise Malformed("unknown version or kind")

    def rest(self) -> bytes:
        """Everything that is left."""
        chunk = self._data[self._at :]
        self._at = len(self._data)
        return chunk

    def finish(self) -> None:
        """No byte is left over."""
        if self._at != len(self._data):
            raise Malformed("bytes left over")
