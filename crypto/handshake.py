"""Session set-up: PQXDH (Signal, revision 3) over NaCl's key agreement, docs/protocol.md §3.

An initiator creates a setup from a bundle, a responder consumes it with the private prekeys that it
names. Both get the same secret, or a different session id: everything is bound by the transcript.
"""

from dataclasses import dataclass, field
from typing import Self

from saltline.crypto.bundles import BadBundle, Bundle, PrekeyKind
from saltline.crypto.encoding import Malformed, Reader, lp, u8, u32, u64
from saltline.crypto.keys import IdentityKeys, PrekeyPair
from saltline.crypto.primitives import (
    KEY_BYTES,
    ML_KEM_1024,
    CryptoError,
    Random,
    agree,
    check_agreement_key,
    equal,
    hkdf,
    label,
    sha256,
    x25519_generate,
)
from saltline.crypto.signatures import MAX_IDENTITY_BYTES, Identity

SESSION_ID_BYTES = 16
MAX_SETUP_BYTES = 1770
MAX_STARTED_MS = 2**53
"""Far beyond any clock, and far below where no session could be started after this one."""

_VERSION = u8(1)
_AD = label("ad")
_TRANSCRIPT = label("transcript")
_SESSION_ID = label("sid")
_PQXDH = label("pqxdh X25519 ML-KEM-1024 SHA-256")
_SALT = bytes(32)
# PQXDH's F: no X25519 output or signature input begins with 32 bytes of FF.
_PREFIX = b"\xff" * 32


class CannotAccept(CryptoError):
    """A new session was offered that does not fit this device's keys. It was refused."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an initiator sends until it is answered; the names are those of docs/protocol.md §3.

    ``ephemeral`` (EK) has 32 bytes, ``kem_ciphertext`` 1,568; ``one_time_prekey_id`` is 0 if none
    was given out.
    """

    started_ms: int
    initiator: Identity
    ephemeral: bytes
    signed_prekey_id: int
    one_time_prekey_id: int
    kem_kind: PrekeyKind
    kem_id: int
    kem_ciphertext: bytes = field(repr=False)

    def encode(self) -> bytes:
        """At most 1,770 bytes."""
        return b"".join(
            (
                _VERSION,
                u64(self.started_ms),
                lp(self.initiator.encode()),
                self.ephemeral,
                u32(self.signed_prekey_id),
                u32(self.one_time_prekey_id),
                u8(self.kem_kind),
                u32(self.kem_id),
                lp(self.kem_ciphertext),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Exact. Raises Malformed or RefusedKey."""
        reader = Reader(data)
        reader.expect(_VERSION)
        setup = cls(
            started_ms=reader.u63(),
            initiator=Identity.decode(reader.lp(MAX_IDENTITY_BYTES)),
            ephemeral=reader.take(KEY_BYTES),
            signed_prekey_id=reader.u32(),
            one_time_prekey_id=reader.u32(),
            kem_kind=PrekeyKind.decode(reader),
            kem_id=reader.u32(),
            kem_ciphertext=reader.lp_exactly(ML_KEM_1024.ciphertext_bytes),
        )
        reader.finish()
        if not setup.kem_kind.is_kem or not setup.signed_prekey_id or not setup.kem_id:
            raise Malformed("a setup names a signed and a KEM prekey")
        if setup.started_ms >= MAX_STARTED_MS:
            raise Malformed("a setup from no calendar")
        check_agreement_key(setup.ephemeral)
        return setup


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides hold after the handshake.

    ``secret`` (SK) and ``associated_data`` (AD) have 32 bytes, ``session_id`` 16.
    """

    secret: bytes = field(repr=False)
    associated_data: bytes
    session_id: bytes
    setup: bytes = field(repr=False)


def create_setup(
    keys: IdentityKeys, bundle: Bundle, started_ms: int, now_ms: int, random: Random
) -> Agreement:
    """The initiator's half. Raises BadBundle.

    That ``bundle.identity`` is live in the key log is for the caller to check first (§7).
    """
    bundle.verify(now_ms)
    peer = bundle.identity
    if peer == keys.identity or peer.relay_id != keys.identity.relay_id:
        raise BadBundle("the prekeys belong to this very device, or to another relay")
    signed, kem, one_time = bundle.signed_prekey, bundle.kem_prekey, bundle.one_time_prekey
    ephemeral_secret, ephemeral = x25519_generate(random)
    kem_secret, kem_ciphertext = ML_KEM_1024.encapsulate(kem.key)
    setup = Setup(
        started_ms=started_ms,
        initiator=keys.identity,
        ephemeral=ephemeral,
        signed_prekey_id=signed.id,
        one_time_prekey_id=one_time.id if one_time else 0,
        kem_kind=kem.kind,
        kem_id=kem.id,
        kem_ciphertext=kem_ciphertext,
    ).encode()
    one_time_key = one_time.key if one_time else b""
    ad = associated_data(keys.identity, peer)
    th = _transcript(ad, setup, signed.key, one_time_key, kem.key)
    shared = [
        agree(signed.key, keys.agreement_secret),
        agree(peer.agreement_key, ephemeral_secret),
        agree(signed.key, ephemeral_secret),
    ]
    if one_time:
        shared.append(agree(one_time.key, ephemeral_secret))
    return Agreement(_secret(shared, kem_secret, th), ad, _session_id(th), setup)


def consume_setup(
    keys: IdentityKeys,
    setup: Setup,
    setup_bytes: bytes,
    session_id: bytes,
    signed_prekey: PrekeyPair,
    kem_prekey: PrekeyPair,
    one_time_prekey: PrekeyPair | None,
) -> Agreement:
    """The responder's half, cheapest checks first. Raises CannotAccept or RefusedKey.

    ``setup_bytes`` are those that ``setup`` was decoded from, as received; ``session_id`` is the
    one in the message's header, and the transcript must give the same.
    """
    peer = setup.initiator
    if peer == keys.identity or peer.relay_id != keys.identity.relay_id:
        raise CannotAccept("the initiator is this very device, or of another relay")
    _check_prekeys(setup, signed_prekey, kem_prekey, one_time_prekey)
    one_time_key = one_time_prekey.public.key if one_time_prekey else b""
    ad = associated_data(peer, keys.identity)
    signed_key, kem_key = signed_prekey.public.key, kem_prekey.public.key
    th = _transcript(ad, setup_bytes, signed_key, one_time_key, kem_key)
    if not equal(_session_id(th), session_id):
        raise CannotAccept("the session id does not follow from the setup")
    shared = [
        agree(peer.agreement_key, signed_prekey.secret),
        agree(setup.ephemeral, keys.agreement_secret),
        agree(setup.ephemeral, signed_prekey.secret),
    ]
    if one_time_prekey:
        shared.append(agree(setup.ephemeral, one_time_prekey.secret))
    kem_secret = ML_KEM_1024.decapsulate(kem_prekey.secret, setup.kem_ciphertext)
    return Agreement(_secret(shared, kem_secret, th), ad, session_id, setup_bytes)


def associated_data(initiator: Identity, responder: Identity) -> bytes:
    """AD, 32 bytes: initiator first, in both directions."""
    return sha256(_AD + lp(initiator.encode()) + lp(responder.encode()))


def _check_prekeys(
    setup: Setup, signed: PrekeyPair, kem: PrekeyPair, one_time: PrekeyPair | None
) -> None:
    named = (
        (PrekeyKind.SIGNED, setup.signed_prekey_id),
        (setup.kem_kind, setup.kem_id),
        (PrekeyKind.ONE_TIME, setup.one_time_prekey_id),
    )
    given = (
        (signed.public.kind, signed.public.id),
        (kem.public.kind, kem.public.id),
        (one_time.public.kind, one_time.public.id) if one_time else (PrekeyKind.ONE_TIME, 0),
    )
    if named != given:
        raise CannotAccept("the setup names other prekeys")


def _transcript(
    ad: bytes, setup: bytes, signed_key: bytes, one_time_key: bytes, kem_key: bytes
) -> bytes:
    fields = lp(ad) + lp(setup) + lp(signed_key) + lp(one_time_key) + lp(kem_key)
    return sha256(_TRANSCRIPT + fields)


def _session_id(transcript: bytes) -> bytes:
    return sha256(_SESSION_ID + transcript)[:SESSION_ID_BYTES]


def _secret(shared: list[bytes], kem_secret: bytes, transcript: bytes) -> bytes:
    ikm = _PREFIX + b"".join(shared) + kem_secret
    return hkdf(_SALT, ikm, _PQXDH + transcript, KEY_BYTES)
