"""Identities, and every payload that an identity key or the log key signs.

Source: docs/protocol.md §2 and §6. A relay may import this module.
"""

from dataclasses import dataclass
from typing import Self

from saltline.crypto.encoding import Malformed as Malformed
from saltline.crypto.encoding import Reader, lp, u8, u32, u64
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
MAX_ROOM_BYTES = 33
MAX_IDENTITY_BYTES = 4 + HASH_BYTES + 4 + MAX_USERNAME_BYTES + 4 + 2 * KEY_BYTES
MESSAGE_ID_BYTES = 16

_IDENTITY = label("identity")
_LOGIN = label("login")
_REGISTER = label("register")
_TLS = label("tls")
_ROOM = label("room")
_HISTORY = label("history")

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


@dataclass(frozen=True, slots=True)
class RoomStatement:
    """The bytes that an author signs for one room message (§6).

    ``relay_id``, ``author`` (H(ID)) and ``seen_hash`` have 32 bytes, ``message_id`` 16; ``seen`` is
    the last number in the room that the author holds, ``seen_hash`` the history hash there.
    """

    relay_id: bytes
    room: str
    author: bytes
    kind: int
    message_id: bytes
    time_ms: int
    seen: int
    seen_hash: bytes
    body: bytes

    def __post_init__(self) -> None:
        hashes = (self.relay_id, self.author, self.seen_hash)
        if any(len(each) != HASH_BYTES for each in hashes):
            raise Malformed("room statement has a hash of a wrong length")
        if len(self.message_id) != MESSAGE_ID_BYTES:
            raise Malformed("a message id has 16 bytes")
        check_name(self.room, MAX_ROOM_BYTES)

    def encode(self) -> bytes:
        """The signed bytes."""
        return b"".join(
            (
                _ROOM,
                lp(self.relay_id),
                lp(self.room.encode("ascii")),
                self.author,
                u8(self.kind),
                lp(self.message_id),
                u64(self.time_ms),
                u64(self.seen),
                self.seen_hash,
                lp(self.body),
            )
        )

    @classmethod
    def decode(cls, data: bytes, max_body_bytes: int) -> Self:
        """Exact. Raises Malformed."""
        reader = Reader(data)
        reader.expect(_ROOM)
        statement = cls(
            relay_id=reader.lp_exactly(HASH_BYTES),
            room=_read_name(reader, MAX_ROOM_BYTES),
            author=reader.take(HASH_BYTES),
            kind=reader.u8(),
            message_id=reader.lp_exactly(MESSAGE_ID_BYTES),
            time_ms=reader.u63(),
            seen=reader.u63(),
            seen_hash=reader.take(HASH_BYTES),
            body=reader.lp(max_body_bytes),
        )
        reader.finish()
        return statement


def next_history_hash(previous: bytes, signed: bytes) -> bytes:
    """c_n from c_(n-1), 32 bytes, and the signed bytes of message n (§6)."""
    return sha256(_HISTORY + previous + sha256(signed))
