"""Prekeys and prekey bundles as others see them: docs/protocol.md §2. A relay may import this."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from saltline.crypto.encoding import Malformed, Reader, lp, u8, u32, u64
from saltline.crypto.primitives import (
    KEY_BYTES,
    ML_KEM_1024,
    SIGNATURE_BYTES,
    BadSignature,
    CryptoError,
    RefusedKey,
    check_agreement_key,
    label,
)
from saltline.crypto.signatures import Identity, identity_payload, verify

DAY_MS = 24 * 60 * 60 * 1000
PREKEY_LIFE_MS = 45 * DAY_MS
# One day of a wrong clock is forgiven, on top of a prekey's whole life.
MAX_AHEAD_MS = PREKEY_LIFE_MS + DAY_MS

_PREKEY = label("prekey")


class BadBundle(CryptoError):
    """The other device's prekeys are expired, incomplete or not signed by it. Try again later."""


class PrekeyKind(IntEnum):
    """The u8 kind in the signed payload."""

    SIGNED = 1
    ONE_TIME = 2
    LAST_RESORT_KEM = 3
    ONE_TIME_KEM = 4

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        """One byte. Raises Malformed."""
        number = reader.u8()
        if number not in cls._value2member_map_:
            raise Malformed("unknown kind of prekey")
        return cls(number)

    @property
    def is_kem(self) -> bool:
        return self in _KEM_KINDS

    @property
    def is_one_time(self) -> bool:
        return self in _ONE_TIME_KINDS

    @property
    def key_bytes(self) -> int:
        """32 (X25519) or 1,568 (ML-KEM-1024)."""
        return ML_KEM_1024.public_bytes if self.is_kem else KEY_BYTES


_KEM_KINDS = frozenset((PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME_KEM))
_ONE_TIME_KINDS = frozenset((PrekeyKind.ONE_TIME, PrekeyKind.ONE_TIME_KEM))


@dataclass(frozen=True, slots=True)
class Prekey:
    """The public half of one prekey, with its 64-byte signature. Ids go from 1."""

    kind: PrekeyKind
    id: int
    not_after_ms: int
    key: bytes
    signature: bytes

    def payload(self, identity_hash: bytes) -> bytes:
        """What the signature covers; ``identity_hash`` is H(ID), 32 bytes."""
        return prekey_payload(self.kind, self.id, self.not_after_ms, identity_hash, self.key)

    def verify(self, identity: Identity, now_ms: int) -> None:
        """Raise BadBundle unless ``identity`` signed this usable prekey, and it is in date."""
        if len(self.key) != self.kind.key_bytes:
            raise BadBundle("a prekey has a wrong size")
        if not 1 <= self.id <= 0xFFFF_FFFF:
            raise BadBundle("a prekey has no id")
        if self.not_after_ms <= now_ms:
            raise BadBundle("a prekey has expired")
        if self.not_after_ms > now_ms + MAX_AHEAD_MS:
            raise BadBundle("a prekey claims to be valid for too long")
        try:
            verify(identity.signing_key, self.payload(identity.hash), self.signature)
            if self.kind.is_kem:
                ML_KEM_1024.check(self.key)
            else:
                check_agreement_key(self.key)
        except (BadSignature, RefusedKey) as refused:
            raise BadBundle(f"a prekey is refused: {refused}") from None

    def encode(self) -> bytes:
        """u8 kind ‖ u32 id ‖ u64 not_after ‖ lp(key) ‖ signature."""
        fields = u8(self.kind) + u32(self.id) + u64(self.not_after_ms)
        return fields + lp(self.key) + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Exact. Raises Malformed."""
        reader = Reader(data)
        kind = PrekeyKind.decode(reader)
        prekey = cls(
            kind=kind,
            id=reader.u32(),
            not_after_ms=reader.u63(),
            key=reader.lp_exactly(kind.key_bytes),
            signature=reader.take(SIGNATURE_BYTES),
        )
        reader.finish()
        return prekey


def prekey_payload(
    kind: PrekeyKind, id: int, not_after_ms: int, identity_hash: bytes, key: bytes
) -> bytes:
    """What a prekey's signature covers."""
    return _PREKEY + u8(kind) + u32(id) + u64(not_after_ms) + identity_hash + lp(key)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What an initiator needs to start a session with a device that may be offline."""

    identity: Identity
    identity_signature: bytes
    signed_prekey: Prekey
    kem_prekey: Prekey
    one_time_prekey: Prekey | None = None

    def verify(self, now_ms: int) -> None:
        """Raise BadBundle unless every part is of its kind, in date and signed by the identity.

        That the identity is live in the key log is for the caller to check (§7).
        """
        if self.signed_prekey.kind is not PrekeyKind.SIGNED or not self.kem_prekey.kind.is_kem:
            raise BadBundle("a prekey is of the wrong kind")
        one_time = self.one_time_prekey
        if one_time is not None and one_time.kind is not PrekeyKind.ONE_TIME:
            raise BadBundle("a prekey is of the wrong kind")
        try:
            payload = identity_payload(self.identity)
            verify(self.identity.signing_key, payload, self.identity_signature)
        except BadSignature:
            raise BadBundle("the identity is not signed by its own key") from None
        for prekey in (self.signed_prekey, self.kem_prekey, one_time):
            if prekey is not None:
                prekey.verify(self.identity, now_ms)
