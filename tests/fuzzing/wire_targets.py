"""Frames, messages and contents, as a stranger's bytes."""

from collections.abc import Callable
from typing import get_args

import msgspec

from saltline.protocol.content import (
    BadContent,
    Kind,
    decode_content,
    decode_receipt,
    decode_text,
    encode_content,
    encode_receipt,
)
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.frames import HEADER_BYTES, FrameDecoder, encode_frame
from saltline.protocol.messages import (
    ClientMessage,
    RelayMessage,
    decode_client_message,
    decode_relay_message,
    encode_message,
)
from tests.fuzzing.script import Script

_REFUSALS = (ErrorCode.BAD_MESSAGE, ErrorCode.UNSUPPORTED_VERSION)
_DETAIL_MAX_CHARS = 100
_KINDS = (*get_args(ClientMessage), *get_args(RelayMessage))


def _frames_of(stream: bytes, bound: int) -> tuple[list[bytes], ErrorCode | None, int]:
    """The bodies, what is wrong after them, and how much is unfinished: by slicing, all at once."""
    bodies: list[bytes] = []
    while len(stream) >= HEADER_BYTES:
        size = int.from_bytes(stream[:HEADER_BYTES], "big")
        if size == 0:
            return bodies, ErrorCode.BAD_FRAME, 0
        if size > bound:
            return bodies, ErrorCode.FRAME_TOO_LARGE, 0
        if len(stream) < HEADER_BYTES + size:
            break
        bodies.append(stream[HEADER_BYTES : HEADER_BYTES + size])
        stream = stream[HEADER_BYTES + size :]
    return bodies, None, len(stream)


def frames(data: bytes) -> None:
    """u16 bound, then the sizes of four helpings, again and again, then the stream."""
    script = Script(data)
    bound = 1 + script.number()
    helpings = [1 + size for size in script.take(4)]
    stream = script.rest()
    expected, fault, unfinished = _frames_of(stream, bound)
    decoder = FrameDecoder(bound)
    bodies: list[bytes] = []
    found: ErrorCode | None = None
    at = turn = 0
    while at < len(stream) and found is None:
        size = helpings[turn % len(helpings)]
        try:
            bodies += decoder.feed(stream[at : at + size])
        except ProtocolError as error:
            found = error.code
        else:
            assert decoder.unfinished_bytes < bound + HEADER_BYTES, "more than one frame is kept"
        at, turn = at + size, turn + 1
    assert found == fault
    if fault is None:
        assert bodies == expected
        assert decoder.unfinished_bytes == unfinished
        again = b"".join(map(encode_frame, bodies))
        assert again == stream[: len(stream) - unfinished]
    else:
        assert bodies == expected[: len(bodies)]


def _nodes(value: object) -> int:
    """How many objects were made of it."""
    if isinstance(value, msgspec.Struct):
        return 1 + sum(_nodes(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, tuple):
        return 1 + sum(map(_nodes, value))
    return 1


def _note(kind: int) -> int:
    """Branches that show the fuzzer which message it was: decoding itself is C, unseen by it."""
    seen = 0
    if kind & 1:
        seen += 1
    if kind & 2:
        seen += 1
    if kind & 4:
        seen += 1
    if kind & 8:
        seen += 1
    for _ in range(kind):
        seen += 1
    return seen


def _message(data: bytes, decode: Callable[[bytes], ClientMessage | RelayMessage]) -> None:
    try:
        message = decode(data)
    except ProtocolError as error:
        assert error.code in _REFUSALS
        assert len(error.detail) < _DETAIL_MAX_CHARS and error.detail.isascii()
        return
    _note(_KINDS.index(type(message)))
    again = encode_message(message)
    assert len(again) <= len(data), "what was decoded is larger than what came"
    assert _nodes(message) <= len(data) + 1
    assert decode(again) == message
    assert encode_message(decode(again)) == again


def client_messages(data: bytes) -> None:
    """A body, as a relay reads it."""
    _message(data, decode_client_message)


def relay_messages(data: bytes) -> None:
    """A body, as a client reads it."""
    _message(data, decode_relay_message)


def contents(data: bytes) -> None:
    """What a contact encrypted, down to its text or receipt."""
    try:
        content = decode_content(data)
    except BadContent:
        return
    again = encode_content(content)
    assert len(again) <= len(data)
    assert decode_content(again) == content
    try:
        if content.kind == Kind.TEXT:
            assert decode_text(content.body).encode() == content.body
        elif content.kind == Kind.RECEIPT:
            receipt = decode_receipt(content.body)
            assert decode_receipt(encode_receipt(receipt)) == receipt
    except BadContent:
        pass
