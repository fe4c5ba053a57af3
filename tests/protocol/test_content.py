"""What is inside the encryption: exact, bounded, and open for kinds of a later version (§4)."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltline.protocol.content import (
    BadContent,
    Content,
    Kind,
    Receipt,
    decode_content,
    decode_receipt,
    decode_text,
    encode_content,
    encode_receipt,
)
from saltline.protocol.limits import RECEIPT_MAX_IDS, TEXT_MAX_BYTES
from tests.protocol.wire_values import CONTENT_STRUCTS, good, instances, refused, struct_type

pack = msgspec.msgpack.encode
ID = bytes(range(16))


def decoder_of(struct: type[msgspec.Struct]) -> Callable[[bytes], msgspec.Struct]:
    return decode_content if struct is Content else decode_receipt


def test_a_text_and_its_receipt() -> None:
    text = Content(Kind.TEXT, ID, "bob", 1, 1_700_000_000_000, b"", "grüße".encode())

    received = decode_content(encode_content(text))
    assert received == text
    assert decode_text(received.body) == "grüße"

    receipt = Receipt((received.id,), read=False)
    answer = Content(Kind.RECEIPT, bytes(16), "ada", 0, 1, b"", encode_receipt(receipt))
    assert decode_receipt(decode_content(encode_content(answer)).body) == receipt


def test_the_layout() -> None:
    text = Content(Kind.TEXT, ID, "bob", 1, 2, b"", b"hi")

    assert encode_content(text) == b"\x97\x01\xc4\x10" + ID + b"\xa3bob\x01\x02\xc4\x00\xc4\x02hi"
    assert encode_receipt(Receipt((ID,), read=True)) == b"\x92\x91\xc4\x10" + ID + b"\xc3"


def test_a_kind_of_a_later_version_is_kept_as_it_is() -> None:
    later = Content(200, ID, "bob", 1, 2, b"", b"\xff\x00 not ours to read")

    assert decode_content(encode_content(later)) == later


@pytest.mark.parametrize("struct", CONTENT_STRUCTS)
@given(data=st.data())
def test_round_trip(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(instances(struct))

    assert decoder_of(struct)(pack(value)) == value


@pytest.mark.parametrize("struct", CONTENT_STRUCTS)
def test_a_field_missing_added_or_of_another_type_or_size_is_refused(
    struct: type[msgspec.Struct],
) -> None:
    kind = struct_type(struct)
    fields: list[Any] = good(kind)
    decode = decoder_of(struct)
    wrong = [[*fields, 0], *(fields[:length] for length in range(len(fields)))]
    for index, field in enumerate(kind.fields):
        wrong += [[*fields[:index], bad, *fields[index + 1 :]] for bad in refused(field.type)]

    assert isinstance(decode(pack(fields)), struct)
    for array in wrong:
        with pytest.raises(BadContent):
            decode(pack(array))


def test_a_receipt_names_one_message_at_least() -> None:
    with pytest.raises(BadContent):
        decode_receipt(pack([[], True]))
    with pytest.raises(BadContent):
        decode_receipt(pack([[ID] * (RECEIPT_MAX_IDS + 1), True]))
    assert len(decode_receipt(pack([[ID] * RECEIPT_MAX_IDS, True])).ids) == RECEIPT_MAX_IDS


HOSTILE = {
    "nothing": b"",
    "an array of 2^32": b"\xdd\xff\xff\xff\xff",
    "ids of 2^32": b"\x92\xdd\xff\xff\xff\xff\xc4\x10" + ID,
    "a body of 2^32": b"\x97\x01\xc4\x10" + ID + b"\xa3bob\x01\x02\xc4\x00\xc6\xff\xff\xff\xff",
    "a name that is not UTF-8": b"\x97\x01\xc4\x10" + ID + b"\xa2\xff\xfe\x01\x02\xc4\x00\xc4\x00",
    "deep": b"\x91" * 2**18,
    "deep in a field": b"\x97\x01" + b"\x91" * 2**18,
    "wide": b"\xdd\x00\x04\x00\x00" + b"\x01" * 2**18,
}


@pytest.mark.parametrize("decode", [decode_content, decode_receipt])
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused_and_allocate_nothing(
    decode: Callable[[bytes], msgspec.Struct], data: bytes
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadContent):
            decode(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 16 * 1024


@given(st.binary(max_size=100))
def test_any_bytes_are_content_or_bad_content(data: bytes) -> None:
    for decode in (decode_content, decode_receipt, decode_text):
        try:
            value = decode(data)
        except BadContent as refusal:
            assert str(refusal).isascii()
            assert refusal.__suppress_context__ or refusal.__context__ is None
        else:
            assert value == decode(value.encode() if isinstance(value, str) else pack(value))


def test_a_text_is_utf8_of_at_most_64_kib() -> None:
    longest = "é" * (TEXT_MAX_BYTES // 2)
    assert decode_text(longest.encode()) == longest

    with pytest.raises(BadContent, match="too long"):
        decode_text(longest.encode() + b"a")
    for body in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", "é".encode()[:1]):
        with pytest.raises(BadContent, match="not UTF-8"):
            decode_text(body)


def test_a_text_is_not_altered() -> None:
    body = b"\x1b[31m\x00\r\n\xe2\x80\xae"

    assert decode_text(body).encode() == body
