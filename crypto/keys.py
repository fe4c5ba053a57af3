"""Private halves: a device's identity keys and its prekeys (docs/protocol.md §2).

Only the client imports this. Nothing secret shows in a repr.
"""

from dataclasses import dataclass, field
from typing import Self

from saltline.crypto.bundles import PREKEY_LIFE_MS, Prekey, PrekeyKind, prekey_payload
from saltline.crypto.encoding import Malformed, Reader, lp, u8
from saltline.crypto.primitives import (
    KEM_SEED_BYTES,
    KEY_BYTES,
    ML_KEM_1024,
    Random,
    ed25519_from_seed,
    ed25519_sign,
    hkdf,
    label,
    x25519_generate,
    x25519_public,
)
from saltline.crypto.signatures import MAX_IDENTITY_BYTES, Identity, identity_payload

_GENERATION = label("generation")
_VERSION = u8(1)
_MAX_PREKEY_BYTES = 2048


@dataclass(frozen=True, slots=True)
class IdentityKeys:
    """Both identity key halves of this device: Ed25519 and X25519, made apart, never converted."""

    identity: Identity
    identity_signature: bytes
    agreement_secret: bytes = field(repr=False)
    _seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, relay_id: bytes, username: str, device: int, random: Random) -> Self:
        """New keys for device number ``device`` of ``username``. Raises Malformed."""
        seed = random(KEY_BYTES)
        agreement_secret, agreement_key = x25519_generate(random)
        identity = Identity(relay_id, username, device, ed25519_from_seed(seed), agreement_key)
        signature = ed25519_sign(seed, identity_payload(identity))
        return cls(identity, signature, agreement_secret, seed)

    def sign(self, payload: bytes) -> bytes:
        """64 bytes. Payloads come from ``signatures``, ``bundles`` and ``keylog``, labelled."""
        return ed25519_sign(self._seed, payload)

    def generation_key(self) -> bytes:
        """The 32-byte key that authenticates this profile's generation counter (§5)."""
        return hkdf(b"", self._seed, _GENERATION, KEY_BYTES)

    def to_bytes(self) -> bytes:
        """u8 version ‖ lp(ID) ‖ seed (32) ‖ agreement secret (32). Secret."""
        return _VERSION + lp(self.identity.encode()) + self._seed + self.agreement_secret

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact; raises Malformed, also when the secrets are not those of the identity."""
        reader = Reader(data)
        reader.expect(_VERSION)
        identity = Identity.decode(reader.lp(MAX_IDENTITY_BYTES))
        seed = reader.take(KEY_BYTES)
        secret = reader.take(KEY_BYTES)
        reader.finish()
        if (ed25519_from_seed(seed), x25519_public(secret)) != (
            identity.signing_key,
            identity.agreement_key,
        ):
            raise Malformed("identity keys do not belong together")
        return cls(identity, ed25519_sign(seed, identity_payload(identity)), secret, seed)


@dataclass(frozen=True, slots=True)
class PrekeyPair:
    """A prekey with its private half: 32 bytes (X25519), or a 64-byte seed (ML-KEM-1024)."""

    public: Prekey
    secret: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """u8 version ‖ lp(public) ‖ lp(secret). Secret."""
        return _VERSION + lp(self.public.encode()) + lp(self.secret)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact. Raises Malformed, also when the secret is not that of the public half."""
        reader = Reader(data)
        reader.expect(_VERSION)
        public = Prekey.decode(reader.lp(_MAX_PREKEY_BYTES))
        is_kem = public.kind.is_kem
        secret = reader.lp_exactly(KEM_SEED_BYTES if is_kem else KEY_BYTES)
        reader.finish()
        if public.key != (ML_KEM_1024.public(secret) if is_kem else x25519_public(secret)):
            raise Malformed("prekey halves do not belong together")
        return cls(public, secret)


def generate_prekey(
    keys: IdentityKeys, kind: PrekeyKind, id: int, made_at_ms: int, random: Random
) -> PrekeyPair:
    """A new signed prekey of ``kind``, valid for 45 days from ``made_at_ms``.

    Ids go from 1 and only grow; commit the private half before the public one leaves.
    """
    secret, key = ML_KEM_1024.generate(random) if kind.is_kem else x25519_generate(random)
    not_after_ms = made_at_ms + PREKEY_LIFE_MS
    payload = prekey_payload(kind, id, not_after_ms, keys.identity.hash, key)
    return PrekeyPair(Prekey(kind, id, not_after_ms, key, keys.sign(payload)), secret)
