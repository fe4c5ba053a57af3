"""Safety numbers: what two people compare to know that nobody sits between them.

Source: docs/protocol.md §7, after Signal's numeric fingerprints (60 digits, 5,200 hashes a side).
"""

from functools import lru_cache

from saltline.crypto.encoding import lp
from saltline.crypto.primitives import equal, label, sha512
from saltline.crypto.signatures import Identity

_SAFETY = label("safety")
_FURTHER_HASHES = 5199
_GROUPS = 6
_GROUP_BYTES = 5
_GROUP_DIGITS = 5
_QR_BYTES = 32


def safety_number(mine: Identity, theirs: Identity) -> str:
    """60 digits in 12 groups of five, the same for both people.

    Each is the account's identity at its create (or last reset) entry.
    """
    sides = sorted((_digits(_side_hash(mine)), _digits(_side_hash(theirs))))
    digits = "".join(sides)
    return " ".join(digits[at : at + _GROUP_DIGITS] for at in range(0, len(digits), _GROUP_DIGITS))


def safety_qr(mine: Identity, theirs: Identity) -> bytes:
    """64 bytes for a QR code: 32 of either side's hash, the lower first."""
    return b"".join(sorted((_side_hash(mine)[:_QR_BYTES], _side_hash(theirs)[:_QR_BYTES])))


def same_number(left: str, right: str) -> bool:
    """Are these the same 60 digits, whatever the blanks between? In constant time."""
    digits = ["".join(each.split()) for each in (left, right)]
    if any(len(each) != 60 or not each.isascii() or not each.isdigit() for each in digits):
        return False
    return equal(digits[0].encode("ascii"), digits[1].encode("ascii"))


@lru_cache(maxsize=1024)  # public, and slow on purpose: a list of contacts asks again and again
def _side_hash(identity: Identity) -> bytes:
    x = lp(identity.encode())
    hashed = sha512(_SAFETY + x)
    for _ in range(_FURTHER_HASHES):
        hashed = sha512(hashed + x)
    return hashed


def _digits(hashed: bytes) -> str:
    groups = (
        hashed[at : at + _GROUP_BYTES] for at in range(0, _GROUPS * _GROUP_BYTES, _GROUP_BYTES)
    )
    return "".join(f"{int.from_bytes(group, 'big') % 100_000:05d}" for group in groups)
