"""What makes a run repeatable, and what watches the primitives while it lasts.

Two libraries draw their own randomness: here it comes from the seed. ML-KEM cannot be asked for
that, so that encapsulation is an ideal one: whoever has the private key, and the very ciphertext,
learns the secret; every other ciphertext goes to the real ML-KEM. Keys are real.
"""

import hashlib
import logging
import random as randomness
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

import nacl.bindings as sodium

from saltline.client import outgoing
from saltline.crypto import primitives
from saltline.crypto.primitives import Kem
from saltline.protocol import limits

# What a town can do without: scaled down so that a short run meets every bound.
SCALED: Final = (
    (limits, "ONE_TIME_PREKEYS", 4),
    (limits, "ONE_TIME_PREKEYS_REFILL_BELOW", 2),
    (limits, "ONE_TIME_KEM_PREKEYS", 3),
    (limits, "ONE_TIME_KEM_PREKEYS_REFILL_BELOW", 2),
    (outgoing, "ENCRYPT_AHEAD", 4),
)


class Broken(AssertionError):
    """A promise is broken. The text says which, and by what."""


def require(holds: bool, promise: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(promise)


@dataclass
class Laboratory(logging.Handler):
    """Randomness from a seed; the pairs of key and nonce that were used; and what was logged."""

    random: randomness.Random
    logged: list[str] = field(default_factory=list)
    boxes: int = 0

    def __post_init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._pairs: set[bytes] = set()
        self._secrets: dict[bytes, tuple[bytes, bytes]] = {}  # ciphertext -> (public key, secret)
        self._publics: dict[tuple[str, bytes], bytes] = {}

    def __hash__(self) -> int:
        return id(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.logged.append(record.getMessage())

    # --- what the primitives call ----------------------------------------------------------------

    def encapsulate(self, kem: Kem, public: bytes) -> tuple[bytes, bytes]:
        kem.check(public)
        ciphertext = self.random.randbytes(kem.ciphertext_bytes)
        secret = hashlib.sha256(b"secret" + public + ciphertext).digest()
        self._secrets[ciphertext] = (public, secret)
        return secret, ciphertext

    def seal(self, public: bytes, plaintext: bytes) -> bytes:
        """A SealedBox, as libsodium makes it, with an ephemeral key of ours."""
        ephemeral = self.random.randbytes(32)
        own = sodium.crypto_scalarmult_base(ephemeral)
        nonce = hashlib.blake2b(own + public, digest_size=24).digest()
        sealed: bytes = own + sodium.crypto_box(plaintext, nonce, public, ephemeral)
        return sealed

    def _public(self, kem: Kem, seed: bytes) -> bytes:
        known = self._publics.get((kem.name, seed))
        if known is None:
            known = self._publics[kem.name, seed] = _PUBLIC(kem, seed)
        return known

    def _decapsulate(self, kem: Kem, seed: bytes, ciphertext: bytes) -> bytes:
        public, secret = self._secrets.get(ciphertext, (b"", b""))
        if public and public == self._public(kem, seed):
            return secret
        real: bytes = _DECAPSULATE(kem, seed, ciphertext)
        return real

    def _box(self, message: bytes, nonce: bytes, key: bytes) -> bytes:
        pair = hashlib.sha256(key).digest() + nonce
        require(pair not in self._pairs, "no nonce is used twice with one key")
        self._pairs.add(pair)
        self.boxes += 1
        boxed: bytes = _BOX(message, nonce, key)
        return boxed

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Stand in for the primitives' own randomness, watch the boxes, and hear the logs."""
        log = logging.getLogger("saltline")
        with ExitStack() as stack:
            stack.enter_context(
                primitives.substituted(encapsulate=self.encapsulate, seal=self.seal)
            )
            for owner, name, value in (
                (Kem, "public", lambda kem, seed: self._public(kem, seed)),
                (Kem, "decapsulate", lambda kem, seed, text: self._decapsulate(kem, seed, text)),
                (sodium, "crypto_secretbox_easy", self._box),
                *SCALED,
            ):
                stack.enter_context(mock.patch.object(owner, name, value))
            before = log.level, log.propagate
            log.setLevel(logging.DEBUG)
            log.propagate = False
            log.addHandler(self)
            try:
                yield
            finally:
                log.removeHandler(self)
                log.setLevel(before[0])
                log.propagate = before[1]


_PUBLIC: Final[Any] = Kem.public
_DECAPSULATE: Final[Any] = Kem.decapsulate
_BOX: Final[Any] = sodium.crypto_secretbox_easy
