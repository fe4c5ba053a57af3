"""Invite and reset codes: what a person types, and what the relay remembers of it."""

import hashlib
from collections.abc import Callable
from typing import Final

# Crockford's base 32: no I, L, O, U; what looks alike reads alike.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_READS_AS: Final = str.maketrans({"o": "0", "i": "1", "l": "1", "-": None, " ": None})
_CODE_BYTES: Final = 15  # 120 bits: 24 characters, in 6 groups
_GROUP_CHARS: Final = 4


def new_code(random: Callable[[int], bytes]) -> str:
    """A code of 120 random bits, such as `k7q2-…`: 29 characters."""
    bits = int.from_bytes(random(_CODE_BYTES), "big")
    characters = [_ALPHABET[bits >> shift & 31] for shift in range(0, _CODE_BYTES * 8, 5)]
    text = "".join(characters)
    groups = (text[at : at + _GROUP_CHARS] for at in range(0, len(text), _GROUP_CHARS))
    return "-".join(groups)


def code_hash(code: str) -> bytes:
    """SHA-256 (32 bytes) of a code as typed, whatever its case and groups.

    A plain hash will do: 120 random bits are not guessed.
    """
    plain = code.lower().translate(_READS_AS)
    return hashlib.sha256(plain.encode("utf-8", "replace")).digest()
