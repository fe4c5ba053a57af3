"""What is inside the encryption: the contract between two clients (docs/protocol.md §4).

The relay never sees any of this. A kind that this version does not know is kept as it is and shown
as "needs a newer version"; edits, deletes, reactions, typing and files come later.
"""

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from saltline.protocol import limits

MessageId = Annotated[
    bytes, Meta(min_length=limits.MESSAGE_ID_BYTES, max_length=limits.MESSAGE_ID_BYTES)
]


class Kind(IntEnum):
    """Kinds of private content."""

    TEXT = 1
    RECEIPT = 2
    RESYNC = 3  # reserved: answers a session that no longer opens


class RoomKind(IntEnum):
    """Kinds of room entries."""

    TEXT = 1
    JOIN = 2
    LEAVE = 3


class BadContent(ValueError):
    """What was decrypted is not of the agreed form."""


class Content(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The plaintext of a private message."""

    kind: Annotated[int, Meta(ge=0, lt=256)]
    id: MessageId
    to: Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS)]
    seq: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # from 1 in each conversation; 0: not counted
    sent_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    head: Annotated[bytes, Meta(max_length=128)]  # reserved: the sender's signed tree head
    body: Annotated[bytes, Meta(max_length=limits.ENVELOPE_MAX_BYTES)]


class Receipt(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of a RECEIPT: ids of messages that this device has stored, or its person has read."""

    ids: Annotated[tuple[MessageId, ...], Meta(min_length=1, max_length=limits.RECEIPT_MAX_IDS)]
    read: bool


_encoder = msgspec.msgpack.Encoder()
_content_decoder = msgspec.msgpack.Decoder(Content)
_receipt_decoder = msgspec.msgpack.Decoder(Receipt)
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode_content(content: Content) -> bytes:
    """The plaintext that a session encrypts."""
    return _encoder.encode(content)


def decode_content(data: bytes) -> Content:
    """Read a plaintext. Raises BadContent."""
    try:
        return _content_decoder.decode(data)
    except _DECODE_ERRORS:
        raise BadContent("a decrypted message is not of the agreed form") from None


def encode_receipt(receipt: Receipt) -> bytes:
    """The body of a RECEIPT."""
    return _encoder.encode(receipt)


def decode_receipt(body: bytes) -> Receipt:
    """Read the body of a RECEIPT. Raises BadContent."""
    try:
        return _receipt_decoder.decode(body)
    except _DECODE_ERRORS:
        raise BadContent("a receipt is not of the agreed form") from None


def decode_text(body: bytes) -> str:
    """Read the body of a TEXT: UTF-8, at most TEXT_MAX_BYTES. Raises BadContent."""
    if len(body) > limits.TEXT_MAX_BYTES:
        raise BadContent("a text is too long")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadContent("a text is not UTF-8") from None
