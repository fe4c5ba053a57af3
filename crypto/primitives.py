"""Every call into libsodium and ML-KEM; nothing else here imports ``nacl`` or ``cryptography``.

Sources: NaCl's crypto_box, crypto_secretbox and libsodium's sealed boxes; Ed25519 (RFC 8032);
HKDF (RFC 5869); Argon2id (RFC 9106); ML-KEM (FIPS 203).
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import nacl.bindings as sodium
import nacl.exceptions
import nacl.pwhash
import nacl.utils
from cryptography.hazmat.primitives.asymmetric import mlkem

Random = Callable[[int], bytes]
"""``random(n)`` returns n bytes that nobody can predict."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64
HASH_BYTES = 32
NONCE_BYTES = 24
BOX_OVERHEAD_BYTES = NONCE_BYTES + 16
SEAL_OVERHEAD_BYTES = 48
KEM_SEED_BYTES = 64


class CryptoError(Exception):
    """Something could not be proved or opened, and was refused."""


class RefusedKey(CryptoError):
    """A public key is not one that an honest device makes."""


class BadSignature(CryptoError):
    """A signature does not belong to this key and these bytes."""


class CannotOpen(CryptoError):
    """A box was made for another key, or was changed on its way."""


def system_random(size: int) -> bytes:
    """``size`` bytes from the operating system."""
    return nacl.utils.random(size)


def label(name: str) -> bytes:
    """The domain separator written 'name' in docs/protocol.md: ASCII, ended by one 00."""
    return b"saltline/1 " + name.encode("ascii") + b"\x00"


# --- hashes ---------------------------------------------------------------------------------


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(data).digest()


def sha512(data: bytes) -> bytes:
    """64 bytes."""
    return hashlib.sha512(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """32 bytes."""
    return hmac.digest(key, data, "sha256")


def hkdf(salt: bytes, ikm: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869): ``size`` bytes, at most 8,160."""
    key = hmac.digest(salt, ikm, "sha256")
    block = hmac.digest(key, info + b"\x01", "sha256")
    out = block
    counter = 1
    while len(out) < size:
        counter += 1
        block = hmac.digest(key, block + info + bytes((counter,)), "sha256")
        out += block
    return out[:size]


def argon2id(secret: bytes, salt: bytes, size: int) -> bytes:
    """``size`` bytes from a secret and a 16-byte salt (RFC 9106), at libsodium's MODERATE cost.

    3 passes over 256 MiB, about a second. Raises MemoryError when they are not to be had.
    """
    try:
        return nacl.pwhash.argon2id.kdf(
            size,
            secret,
            salt,
            opslimit=nacl.pwhash.argon2id.OPSLIMIT_MODERATE,
            memlimit=nacl.pwhash.argon2id.MEMLIMIT_MODERATE,
        )
    except nacl.exceptions.RuntimeError:
        raise MemoryError("Argon2id needs 256 MiB of free memory") from None


def equal(left: bytes, right: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(left, right)


# --- key agreement --------------------------------------------------------------------------

_FIELD_PRIME = 2**255 - 19
# The canonical encodings of points of order 1, 2, 4 and 8, on the curve and its twist: libsodium's
# list (x25519_ref10.c), from https://cr.yp.to/ecdh.html#validate.
_LOW_ORDER = frozenset(
    (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _FIELD_PRIME - 1,
    )
)


def check_agreement_key(public: bytes) -> None:
    """Raise RefusedKey unless ``public`` is a 32-byte X25519 key that an honest device can make.

    Refused: the high bit set or u >= p (a second encoding of some key), and low order (the shared
    secret would not depend on ours).
    """
    if len(public) != KEY_BYTES:
        raise RefusedKey("an agreement key has 32 bytes")
    u = int.from_bytes(public, "little")
    if u >= _FIELD_PRIME:
        raise RefusedKey("agreement key is not canonical")
    if u in _LOW_ORDER:
        raise RefusedKey("agreement key has a low order")


def x25519_generate(random: Random) -> tuple[bytes, bytes]:
    """A new key pair (secret, public), 32 bytes each."""
    secret = random(KEY_BYTES)
    return secret, x25519_public(secret)


def x25519_public(secret: bytes) -> bytes:
    """The 32-byte public key of a 32-byte secret."""
    return sodium.crypto_scalarmult_base(secret)


def agree(public: bytes, secret: bytes) -> bytes:
    """crypto_box_beforenm: HSalsa20 over X25519, 32 bytes. Raises RefusedKey."""
    check_agreement_key(public)
    try:
        return sodium.crypto_box_beforenm(public, secret)
    except nacl.exceptions.CryptoError:
        raise RefusedKey("agreement key has a low order") from None


# --- signatures -----------------------------------------------------------------------------


def ed25519_from_seed(seed: bytes) -> bytes:
    """The 32-byte public key of a 32-byte seed."""
    public, _ = sodium.crypto_sign_seed_keypair(seed)
    return public


def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    """64 bytes."""
    _, secret = sodium.crypto_sign_seed_keypair(seed)
    return sodium.crypto_sign(message, secret)[:SIGNATURE_BYTES]


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Raise BadSignature unless the 64-byte signature is good.

    libsodium also refuses keys and R of small order, keys that are not canonical and S >= L.
    """
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise BadSignature("signature or key has a wrong length")
    try:
        sodium.crypto_sign_open(signature + message, public)
    except nacl.exceptions.CryptoError:
        raise BadSignature("signature does not match") from None


# --- boxes ----------------------------------------------------------------------------------


def box(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """crypto_box_afternm, that is nacl.secret.SecretBox: nonce (24) ‖ tag (16) ‖ ciphertext."""
    return nonce + sodium.crypto_secretbox_easy(plaintext, nonce, key)


def open_box(key: bytes, boxed: bytes) -> bytes:
    """Open what ``box`` made with this 32-byte key. Raises CannotOpen."""
    if len(boxed) < BOX_OVERHEAD_BYTES:
        raise CannotOpen("box is too short")
    try:
        return sodium.crypto_secretbox_open_easy(boxed[NONCE_BYTES:], boxed[:NONCE_BYTES], key)
    except nacl.exceptions.CryptoError:
        raise CannotOpen("box does not open") from None


def seal(public: bytes, plaintext: bytes) -> bytes:
    """nacl.public.SealedBox: 48 bytes longer than ``plaintext``. Raises RefusedKey."""
    check_agreement_key(public)
    return _drawing.get().seal(public, plaintext)


def open_sealed(public: bytes, secret: bytes, sealed: bytes) -> bytes:
    """Open a nacl.public.SealedBox made for this key pair. Raises CannotOpen."""
    if len(sealed) < SEAL_OVERHEAD_BYTES:
        raise CannotOpen("sealed box is too short")
    try:
        return sodium.crypto_box_seal_open(sealed, public, secret)
    except nacl.exceptions.CryptoError:
        raise CannotOpen("sealed box does not open") from None


# --- key encapsulation ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kem:
    """One parameter set of ML-KEM (FIPS 203). A private key is its 64-byte seed."""

    name: str
    public_bytes: int
    ciphertext_bytes: int
    _private: type[mlkem.MLKEM768PrivateKey] | type[mlkem.MLKEM1024PrivateKey] = field(repr=False)
    _public: type[mlkem.MLKEM768PublicKey] | type[mlkem.MLKEM1024PublicKey] = field(repr=False)

    def generate(self, random: Random) -> tuple[bytes, bytes]:
        """A new key pair (64-byte seed, public key)."""
        seed = random(KEM_SEED_BYTES)
        return seed, self.public(seed)

    def public(self, seed: bytes) -> bytes:
        """The public key of a 64-byte seed."""
        return self._private.from_seed_bytes(seed).public_key().public_bytes_raw()

    def check(self, public: bytes) -> None:
        """Raise RefusedKey for a wrong length or a coefficient above the modulus."""
        self._load(public)

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """(32-byte shared secret, ciphertext). Raises RefusedKey."""
        return _drawing.get().encapsulate(self, public)

    def decapsulate(self, seed: bytes, ciphertext: bytes) -> bytes:
        """The 32-byte shared secret. A changed ciphertext gives another secret, no error.

        Raises CannotOpen for a wrong length.
        """
        if len(ciphertext) != self.ciphertext_bytes:
            raise CannotOpen(f"{self.name} ciphertext has a wrong length")
        return self._private.from_seed_bytes(seed).decapsulate(ciphertext)

    def _load(self, public: bytes) -> mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey:
        try:
            return self._public.from_public_bytes(public)
        except ValueError:
            raise RefusedKey(f"not an {self.name} key") from None


ML_KEM_768 = Kem("ML-KEM-768", 1184, 1088, mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey)
ML_KEM_1024 = Kem("ML-KEM-1024", 1568, 1568, mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey)


# --- the two operations whose libraries draw their own randomness ---------------------------

Encapsulate = Callable[[Kem, bytes], tuple[bytes, bytes]]
Seal = Callable[[bytes, bytes], bytes]


def _encapsulate(kem: Kem, public: bytes) -> tuple[bytes, bytes]:
    return kem._load(public).encapsulate()


def _seal(public: bytes, plaintext: bytes) -> bytes:
    return sodium.crypto_box_seal(plaintext, public)


@dataclass(frozen=True, slots=True)
class _Drawing:
    encapsulate: Encapsulate = _encapsulate
    seal: Seal = _seal


_drawing: ContextVar[_Drawing] = ContextVar("drawing", default=_Drawing())  # noqa: B039 (frozen)


@contextmanager
def substituted(*, encapsulate: Encapsulate = _encapsulate, seal: Seal = _seal) -> Iterator[None]:
    """For tests: within the block, in this thread, encapsulate and seal with these instead.

    Everything else takes its randomness as an argument; these two libraries do not let us.
    """
    token = _drawing.set(_Drawing(encapsulate, seal))
    try:
        yield
    finally:
        _drawing.reset(token)
