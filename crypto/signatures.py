"""Identities, and every payload that an identity key or the log key signs.

Source: docs/protocol.md §2 and §6. A relay may import this module.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple, Self

from saltline.crypto.encoding import Malformed as Malformed
from saltline.crypto.encoding import Reader, lp, u32, u64
from saltline.crypto.primitives import (
    HASH_BYTES,
    KEY_BYTES,
    check_agreement_key,
    ed25519_verify,
    label,
    sha256,
)
from saltline.crypto.primitives import BadSignature as BadSignature
from saltline.crypto.primitives import RefusedKey as RefusedKey

MAX_USERNAME_BYTES = 32
MAX_IDENTITY_BYTES = 4 + HASH_BYTES + 4 + MAX_USERNAME_BYTES + 4 + 2 * KEY_BYTES
MESSAGE_ID_BYTES = 16

_IDENTITY = label("identity")
_LOGIN = label("login")
_REGISTER = label("register")
_TLS = label("tls")
_ROOM = label("room")
_HISTORY = label("history")

_STATEMENT = struct.Struct(">B16sQQ32s")
STATEMENT_HEAD_BYTES = _STATEMENT.size
"""What stands before a room statement's body."""
_SHORT_HEAD_BYTES = STATEMENT_HEAD_BYTES - HASH_BYTES
_CHAINED = struct.Struct(">32s64sII")
_CHAIN_AUTHOR = struct.Struct(">II")

EMPTY_HISTORY = bytes(HASH_BYTES)
"""c_0: the history hash of a room without messages."""


def verify(public_key: bytes, payload: bytes, signature: bytes) -> None:
    """Raise BadSignature unless the 64-byte ``signature`` over ``payload`` is by ``public_key``."""
    ed25519_verify(public_key, payload, signature)


def check_name(name: str, max_bytes: int) -> None:
    """Raise Malformed unless ``name`` is 1 to ``max_bytes`` characters of visible ASCII.

    Which of these names the relay gives out is its own, narrower rule; this one keeps control
    characters off every screen.
    """
    if not 1 <= len(name) <= max_bytes or not all("!" <= letter <= "~" for letter in name):
        raise Malformed("a name is visible ASCII, and bounded")


def _read_name(reader: Reader, max_bytes: int) -> str:
    # latin-1 maps every byte, so that a wrong one is refused by check_name and not by a codec.
    return reader.lp(max_bytes).decode("latin-1")


@dataclass(frozen=True, slots=True)
class Identity:
    """The public ID of one device: docs/protocol.md §2.

    ``relay_id`` 32 bytes, ``username`` at most 32, ``device`` from 1, ``signing_key`` (Ed25519) and
    ``agreement_key`` (X25519) 32 bytes each. Raises Malformed, or RefusedKey for the agreement key.
    """

    relay_id: bytes
    username: str
    device: int
    signing_key: bytes
    agreement_key: bytes

    def __post_init__(self) -> None:
        if len(self.relay_id) != HASH_BYTES or len(self.signing_key) != KEY_BYTES:
            raise Malformed("identity field has a wrong length")
        if not 1 <= self.device <= 0xFFFF_FFFF:
            raise Malformed("device numbers go from 1 to 2^32-1")
        check_name(self.username, MAX_USERNAME_BYTES)
        check_agreement_key(self.agreement_key)
        if self.agreement_key == self.signing_key:
            raise RefusedKey("the two halves of an identity key are made apart")

    def encode(self) -> bytes:
        """ID: at most 140 bytes."""
        return b"".join(
            (
                lp(self.relay_id),
                lp(self.username.encode("ascii")),
                u32(self.device),
                self.signing_key,
                self.agreement_key,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Exact. Raises Malformed or RefusedKey."""
        reader = Reader(data)
        identity = cls(
            relay_id=reader.lp_exactly(HASH_BYTES),
            username=_read_name(reader, MAX_USERNAME_BYTES),
            device=reader.u32(),
            signing_key=reader.take(KEY_BYTES),
            agreement_key=reader.take(KEY_BYTES),
        )
        reader.finish()
        return identity

    @property
    def hash(self) -> bytes:
        """H(ID), 32 bytes."""
        return sha256(self.encode())

    @property
    def fingerprint(self) -> str:
        """For people to tell devices apart; too short to compare instead of a safety number."""
        digits = self.hash.hex()[:16]
        return " ".join(digits[at : at + 4] for at in range(0, 16, 4))


def identity_payload(identity: Identity) -> bytes:
    """What sigID signs."""
    return _IDENTITY + lp(identity.encode())


def login_payload(
    relay_id: bytes, username: str, device: int, hello: bytes, challenge: bytes, spki_hash: bytes
) -> bytes:
    """What a device signs to log in; ``hello`` and ``challenge`` are the bodies as sent (§6)."""
    return _LOGIN + _login_fields(relay_id, username, device, hello, challenge, spki_hash)


def register_payload(
    relay_id: bytes,
    username: str,
    device: int,
    hello: bytes,
    challenge: bytes,
    spki_hash: bytes,
    entry_hash: bytes,
) -> bytes:
    """What a new device signs; ``entry_hash`` is H(its create entry), 32 bytes (§6, §7)."""
    fields = _login_fields(relay_id, username, device, hello, challenge, spki_hash)
    return _REGISTER + fields + entry_hash


def _login_fields(
    relay_id: bytes, username: str, device: int, hello: bytes, challenge: bytes, spki_hash: bytes
) -> bytes:
    check_name(username, MAX_USERNAME_BYTES)
    conversation = sha256(lp(hello) + lp(challenge))
    return lp(relay_id) + lp(username.encode("ascii")) + u32(device) + conversation + spki_hash


def certificate_payload(spki_hash: bytes, not_after_ms: int) -> bytes:
    """What the log key signs to vouch for a TLS key; ``spki_hash`` has 32 bytes (§6)."""
    return _TLS + spki_hash + u64(not_after_ms)


class RoomStatement(NamedTuple):
    """What an author says in a room (§6); ``room_payload`` is what the author signs.

    ``message_id`` has 16 bytes and ``seen_hash`` 32; ``seen`` is the last number in the room that
    the author holds, ``seen_hash`` the history hash there.
    """

    kind: int
    message_id: bytes
    time_ms: int
    seen: int
    seen_hash: bytes
    body: bytes

    def encode(self) -> bytes:
        """65 bytes and the body. Raises Malformed for a field of a wrong size."""
        if len(self.message_id) != MESSAGE_ID_BYTES or len(self.seen_hash) != HASH_BYTES:
            raise Malformed("room statement has an id or a hash of a wrong length")
        try:
            return _STATEMENT.pack(*self[:5]) + self.body
        except struct.error:
            raise Malformed("room statement has a number out of its range") from None

    @classmethod
    def decode(cls, data: bytes, max_body_bytes: int) -> Self:
        """Exact. Raises Malformed."""
        return cls(*read_head(data, max_body_bytes), data[STATEMENT_HEAD_BYTES:])


def read_head(data: bytes, max_body_bytes: int) -> tuple[int, bytes, int, int, bytes]:
    """All of a `RoomStatement` but its body, for who only passes that on. Raises Malformed."""
    if not 0 <= len(data) - STATEMENT_HEAD_BYTES <= max_body_bytes:
        raise Malformed("room statement of a wrong size")
    head: tuple[int, bytes, int, int, bytes] = _STATEMENT.unpack_from(data)
    if head[2] >> 63 or head[3] >> 63:
        raise Malformed("number is not below 2^63")
    return head


def shorten(statement: bytes) -> bytes:
    """A statement without its ``seen_hash``, for readers who hold that hash themselves (§6)."""
    return statement[:_SHORT_HEAD_BYTES] + statement[STATEMENT_HEAD_BYTES:]


def seen_of(short: bytes) -> int:
    """The number that a shortened statement claims to have seen. Raises Malformed."""
    if len(short) < _SHORT_HEAD_BYTES:
        raise Malformed("too short")
    seen = int.from_bytes(short[_SHORT_HEAD_BYTES - 8 : _SHORT_HEAD_BYTES], "big")
    if seen >> 63:
        raise Malformed("number is not below 2^63")
    return seen


def lengthen(short: bytes, seen_hash: bytes) -> bytes:
    """The statement of which this is the short form. What it says is for `decode` to check."""
    return short[:_SHORT_HEAD_BYTES] + seen_hash + short[_SHORT_HEAD_BYTES:]


def room_payload(relay_id: bytes, room: str, author: bytes, statement: bytes) -> bytes:
    """What an author signs: where it is said, by whom (H(ID), 32 bytes), and the statement."""
    return _ROOM + lp(relay_id) + lp(room.encode("ascii")) + author + statement


def next_history_hash(
    previous: bytes, username: str, device: int, statement: bytes, signature: bytes
) -> bytes:
    """c_n from c_(n-1), both of 32 bytes, and all of entry n but its number (§6)."""
    author = username.encode("utf-8")
    place = _CHAINED.pack(previous, signature, device, len(author))
    return sha256(_HISTORY + place + author + statement)


def chain_author(username: str, device: int) -> bytes:
    """What is the same in all of an author's links of the history, for `chain_entry`."""
    author = username.encode("utf-8")
    return _CHAIN_AUTHOR.pack(device, len(author)) + author


def chain_entry(previous: bytes, signature: bytes, author: bytes, statement: bytes) -> bytes:
    """`next_history_hash` of many entries of one author, whose signatures have 64 bytes each."""
    return sha256(b"".join((_HISTORY, previous, signature, author, statement)))
