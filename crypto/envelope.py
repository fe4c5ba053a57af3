"""Envelopes: padding, the message box inside, the sealed box outside (docs/protocol.md §4).

Padding: PADMÉ (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication
with PURBs", PETS 2019, algorithm 1) above fixed steps.
"""

from dataclasses import dataclass, field
from functools import cached_property

from saltline.crypto.chains import MAX_HEADER_BYTES, Header, MessageKey
from saltline.crypto.encoding import Malformed, Reader, lp, u8
from saltline.crypto.handshake import MAX_SETUP_BYTES, Setup
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.primitives import (
    BOX_OVERHEAD_BYTES,
    HASH_BYTES,
    KEY_BYTES,
    CryptoError,
    hkdf,
    label,
    open_sealed,
    seal,
    sha256,
)
from saltline.crypto.signatures import Identity

MAX_ENVELOPE_BYTES = 256 * 1024
MAX_CONTENT_BYTES = 240 * 1024
"""What fits with the longest set-up and header, after padding, into the largest envelope."""

_VERSION = u8(1)
_MESSAGE = label("message")
_BOX = label("box")
_END_OF_CONTENT = b"\x80"
_SMALLEST_BYTES = 3584
_STEP_BYTES = 512
_STEPS_UP_TO_BYTES = 8192
# version ‖ lp(setup) ‖ lp(header) ‖ com ‖ inner, without setup, header and padded content
_FIXED_BYTES = 1 + 4 + 4 + HASH_BYTES + BOX_OVERHEAD_BYTES


class ContentTooLong(CryptoError):
    """This is too long for one message (240 KiB). Send it in parts."""


def padded_size(size: int) -> int:
    """The size of a SealedBox plaintext that holds ``size`` bytes, both in bytes."""
    if size <= _SMALLEST_BYTES:
        return _SMALLEST_BYTES
    step = _STEP_BYTES
    if size > _STEPS_UP_TO_BYTES:
        exponent = size.bit_length() - 1
        step = 1 << (exponent - exponent.bit_length())
    return (size + step - 1) // step * step


def pad(content: bytes, around_bytes: int) -> bytes:
    """content ‖ 80 ‖ 00…, so that ``around_bytes`` and this together have a padded size."""
    size = padded_size(around_bytes + len(content) + 1) - around_bytes
    return (content + _END_OF_CONTENT).ljust(size, b"\x00")


def unpad(padded: bytes) -> bytes:
    """The content. Raises Malformed."""
    end = len(padded.rstrip(b"\x00")) - 1
    if end < 0 or padded[end : end + 1] != _END_OF_CONTENT:
        raise Malformed("padding does not end the content")
    return padded[:end]


def pad_message(content: bytes, setup: bytes, header: bytes) -> bytes:
    """``pad`` for an envelope with this setup and header. Raises ContentTooLong."""
    if len(content) > MAX_CONTENT_BYTES:
        raise ContentTooLong("a message holds at most 240 KiB")
    return pad(content, _FIXED_BYTES + len(setup) + len(header))


def box_keys(key: MessageKey, associated_data: bytes, header: bytes) -> tuple[bytes, bytes]:
    """(box key k, commitment com), 32 bytes each.

    XSalsa20-Poly1305 neither binds other data nor commits to its key, so both follow from all.
    """
    bound = sha256(lp(associated_data) + lp(header))
    keys = hkdf(_MESSAGE, key, _BOX + bound, 2 * KEY_BYTES)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]


def seal_envelope(
    recipient: Identity, setup: bytes, header: bytes, commitment: bytes, inner: bytes
) -> bytes:
    """A SealedBox to the recipient's agreement key; ``setup`` is empty once confirmed."""
    plaintext = b"".join((_VERSION, lp(setup), lp(header), commitment, inner))
    return seal(recipient.agreement_key, plaintext)


@dataclass(frozen=True)
class Opened:
    """An envelope without its outer box. ``digest`` is H(envelope); nothing is proved yet."""

    setup: bytes = field(repr=False)
    header: Header
    header_bytes: bytes = field(repr=False)
    commitment: bytes = field(repr=False)
    inner: bytes = field(repr=False)
    digest: bytes

    @property
    def session_id(self) -> bytes:
        """16 bytes, from the header."""
        return self.header.session_id

    @cached_property
    def setup_info(self) -> Setup | None:
        """The setup's fields, or None without one. Raises Malformed or RefusedKey.

        Read only for an unknown session: in a known one the setup means nothing.
        """
        return Setup.decode(self.setup) if self.setup else None


def open_envelope(keys: IdentityKeys, envelope: bytes) -> Opened:
    """Open the outer box. Raises CannotOpen (not for us, or changed) or Malformed."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise Malformed("envelope is too long")
    public = keys.identity.agreement_key
    reader = Reader(open_sealed(public, keys.agreement_secret, envelope))
    reader.expect(_VERSION)
    setup = reader.lp(MAX_SETUP_BYTES)
    header_bytes = reader.lp(MAX_HEADER_BYTES)
    commitment = reader.take(HASH_BYTES)
    inner = reader.rest()
    if len(inner) < BOX_OVERHEAD_BYTES:
        raise Malformed("too short")
    header = Header.decode(header_bytes)
    return Opened(setup, header, header_bytes, commitment, inner, sha256(envelope))
