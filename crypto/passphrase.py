"""From a passphrase to the vault's key (docs/protocol.md §8): Argon2id (RFC 9106), MODERATE."""

import unicodedata

from saltline.crypto import primitives

SALT_BYTES = 16
KEY_BYTES = 32


def derive_key(passphrase: str, salt: bytes) -> bytes:
    """The 32-byte key of a passphrase and its 16-byte salt; takes 256 MiB and about a second.

    One text gives one key, however a keyboard composes its accents (Unicode NFC). Raises ValueError
    for an empty passphrase or another salt's size, MemoryError when 256 MiB are not to be had.
    """
    if not passphrase:
        raise ValueError("a passphrase has at least one character")
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes")
    secret = unicodedata.normalize("NFC", passphrase).encode("utf-8")
    return primitives.argon2id(secret, salt, KEY_BYTES)
