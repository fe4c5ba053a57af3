"""The Merkle tree of the key log: RFC 6962 §2.1 over 64-byte leaves."""

from collections.abc import Iterable
from typing import Self

from saltline.crypto.encoding import Malformed
from saltline.crypto.primitives import HASH_BYTES, sha256

LEAF_BYTES = 2 * HASH_BYTES

_LEAF = b"\x00"
_NODE = b"\x01"


class TreeHasher:
    """The root of a growing tree, from the roots of its perfect subtrees alone.

    ``append`` takes 64-byte leaves; ``root()`` is the 32-byte root of all so far.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Raises Malformed unless the leaf has 64 bytes."""
        if len(leaf) != LEAF_BYTES:
            raise Malformed("a leaf has 64 bytes")
        node = sha256(_LEAF + leaf)
        # The set bits of the size are the perfect subtrees; a carry joins two of them.
        carry = self.size
        while carry & 1:
            node = sha256(_NODE + self._peaks.pop() + node)
            carry >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """32 bytes; of no leaves, H("")."""
        if not self._peaks:
            return sha256(b"")
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = sha256(_NODE + peak + node)
        return node

    def copy(self) -> Self:
        """An independent hasher at the same size, to look ahead with."""
        twin = type(self)()
        twin.size = self.size
        twin._peaks = list(self._peaks)
        return twin


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """The 32-byte root of 64-byte leaves, in order. Raises Malformed."""
    hasher = TreeHasher()
    for leaf in leaves:
        hasher.append(leaf)
    return hasher.root()
