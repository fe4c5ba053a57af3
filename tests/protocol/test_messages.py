"""The wire's messages: exact arrays, every field bounded, every refusal a ProtocolError (§6)."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import ENVELOPE_MAX_BYTES, FRAME_MAX_BYTES
from saltline.protocol.messages import (
    RESERVED_TAGS,
    ClientMessage,
    RelayMessage,
    decode_client_message,
    decode_relay_message,
    encode_framed,
    encode_message,
)
from tests.protocol.wire_values import (
    CLIENT_STRUCTS,
    RELAY_STRUCTS,
    elements,
    good,
    instances,
    refused,
    struct_type,
)

pack = msgspec.msgpack.encode
EVERY_STRUCT = CLIENT_STRUCTS + RELAY_STRUCTS
DECODERS = (decode_client_message, decode_relay_message)


def decode(struct: type[msgspec.Struct], body: bytes) -> ClientMessage | RelayMessage:
    """Decode as the side that this struct is sent to."""
    return (decode_client_message if struct in CLIENT_STRUCTS else decode_relay_message)(body)


def assert_bad_message(struct: type[msgspec.Struct], array: Any) -> None:
    with pytest.raises(ProtocolError) as refusal:
        decode(struct, pack(array))
    assert refusal.value.code is ErrorCode.BAD_MESSAGE, array


def test_a_conversation_byte_by_byte() -> None:
    assert encode_message(to_relay.Hello((1,), ("rooms",), "t")) == (
        b"\x94\xa5hello\x91\x01\x91\xa5rooms\xa1t"
    )
    assert encode_message(to_relay.Ping(7)) == b"\x92\xa4ping\x07"
    assert encode_message(to_client.Pong(7)) == b"\x92\xa4pong\x07"
    assert decode_client_message(b"\x92\xa4ping\x07") == to_relay.Ping(7)
    assert decode_relay_message(b"\x92\xa4pong\x07") == to_client.Pong(7)


def test_neither_side_takes_its_own_messages() -> None:
    with pytest.raises(ProtocolError):
        decode_client_message(encode_message(to_client.Pong(1)))
    with pytest.raises(ProtocolError):
        decode_relay_message(encode_message(to_relay.Ping(1)))


def test_every_struct_is_in_one_union_under_its_own_tag() -> None:
    defined = {
        each
        for module in (to_relay, to_client)
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, msgspec.Struct)
        and each.__struct_config__.tag is not None
    }

    assert defined == set(EVERY_STRUCT)
    tags = [struct.__struct_config__.tag for struct in EVERY_STRUCT]
    assert len(set(tags)) == len(tags)
    assert not RESERVED_TAGS.intersection(map(str, tags))


def test_every_field_is_bounded() -> None:
    def check(kind: inspect.Type, path: str) -> None:
        if isinstance(kind, inspect.StrType | inspect.BytesType | inspect.VarTupleType):
            assert kind.max_length is not None, path
        if isinstance(kind, inspect.VarTupleType):
            check(kind.item_type, path + "[]")
        if isinstance(kind, inspect.StructType):
            assert kind.array_like and kind.forbid_unknown_fields, path
            for field in kind.fields:
                assert field.required, path
                check(field.type, f"{path}.{field.name}")

    for struct in EVERY_STRUCT:
        check(struct_type(struct), struct.__name__)


@pytest.mark.parametrize("struct", EVERY_STRUCT)
@given(data=st.data())
def test_round_trip(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    message = data.draw(instances(struct))

    assert decode(struct, encode_message(message)) == message


@pytest.mark.parametrize("struct", EVERY_STRUCT)
def test_a_missing_or_further_field_is_refused(struct: type[msgspec.Struct]) -> None:
    array = good(struct_type(struct))
    assert isinstance(decode(struct, pack(array)), struct)

    for length in range(len(array)):
        assert_bad_message(struct, array[:length])
    extras: list[Any] = [None, 0, "", b"", [], {}]
    for extra in extras:
        assert_bad_message(struct, [*array, extra])


@pytest.mark.parametrize("struct", EVERY_STRUCT)
def test_a_field_of_another_type_or_size_is_refused(struct: type[msgspec.Struct]) -> None:
    kind = struct_type(struct)
    fields = [good(field.type) for field in kind.fields]
    tried = 0

    for index, field in enumerate(kind.fields):
        for bad in refused(field.type):
            assert_bad_message(struct, elements(kind, [*fields[:index], bad, *fields[index + 1 :]]))
            tried += 1

    assert tried >= 7 * len(kind.fields)


@pytest.mark.parametrize("struct", EVERY_STRUCT)
def test_a_truncated_or_continued_message_is_refused(struct: type[msgspec.Struct]) -> None:
    body = pack(good(struct_type(struct)))

    for end in range(len(body)):
        with pytest.raises(ProtocolError) as refusal:
            decode(struct, body[:end])
        assert refusal.value.code is ErrorCode.BAD_MESSAGE
    with pytest.raises(ProtocolError):
        decode(struct, body + b"\x00")
    with pytest.raises(ProtocolError):
        decode(struct, body + body)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("tag", sorted(RESERVED_TAGS))
def test_a_reserved_tag_belongs_to_a_later_version(decoder: Any, tag: str) -> None:
    longer: list[list[Any]] = [[], [1, [2]], [0] * 20, [b"x" * 70_000], [{}] * 70_000]
    for more in longer:
        with pytest.raises(ProtocolError) as refusal:
            decoder(pack([tag, *more]))
        assert refusal.value.code is ErrorCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("array", [["heads"], ["hea"], ["Head"], [["head"]], [1, "head"], ["new"]])
def test_an_unknown_tag_is_a_bad_message(decoder: Any, array: list[Any]) -> None:
    with pytest.raises(ProtocolError) as refusal:
        decoder(pack(array))
    assert refusal.value.code is ErrorCode.BAD_MESSAGE


HOSTILE = {
    "nothing": b"",
    "an array of 2^32": b"\xdd\xff\xff\xff\xff",
    "hello in an array of 2^32": b"\xdd\xff\xff\xff\xff\xa5hello",
    "versions of 2^32": b"\x94\xa5hello\xdd\xff\xff\xff\xff\x01",
    "a string of 2^32": b"\x94\xa5hello\x91\x01\x90\xdb\xff\xff\xff\xff",
    "prekeys of 2^32": b"\x93\xa7publish\x01\xdd\xff\xff\xff\xff",
    "members of 2^32": b"\x95\xa7members\x01\xa1#\x00\xdd\xff\xff\xff\xff",
    "bytes of 2^32": b"\x94\xa4join\x01\xc6\xff\xff\xff\xff",
    "a map of 2^32": b"\xdf\xff\xff\xff\xff",
    "an extension of 2^32": b"\x92\xa4ping\xc9\xff\xff\xff\xff\x01",
    "a reserved tag in an array of 2^32": b"\xdd\xff\xff\xff\xff\xa4head",
    "the byte that means nothing": b"\xc1",
    "a tag that is not UTF-8": b"\x91\xa2\xff\xfe",
    "a name that is not UTF-8": b"\x93\xa3who\x01\xa2\xff\xfe",
    "a lone surrogate": b"\x93\xa3who\x01\xa3\xed\xa0\x80",
    "arrays, deep": b"\x91" * FRAME_MAX_BYTES,
    "maps, deep": b"\x81\x01" * (FRAME_MAX_BYTES // 2),
    "arrays, deep, in a field": b"\x94\xa5hello" + b"\x91" * (FRAME_MAX_BYTES - 7),
    "reserved and deep": b"\x92\xa4head" + b"\x91" * (FRAME_MAX_BYTES - 6),
    "wide": b"\xdd\x00\x04\x00\x00" + b"\x01" * 2**18,
    "reserved and wide": b"\xdd\x00\x04\x00\x00\xa4head" + b"\x01" * (2**18 - 1),
    "many empty strings": b"\x94\xa5hello\x91\x01\xdd\x00\x04\x00\x00" + b"\xa0" * 2**18,
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_refused_and_allocates_nothing(decoder: Any, body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as refusal:
            decoder(body)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert refusal.value.code in (ErrorCode.BAD_MESSAGE, ErrorCode.UNSUPPORTED_VERSION)
    assert peak_bytes < 16 * 1024


@pytest.mark.parametrize("decoder", DECODERS)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(decoder: Any, body: bytes) -> None:
    try:
        message = decoder(body)
    except ProtocolError as refusal:
        assert refusal.code in (ErrorCode.BAD_MESSAGE, ErrorCode.UNSUPPORTED_VERSION)
    else:
        assert decoder(encode_message(message)) == message


@pytest.mark.parametrize("struct", EVERY_STRUCT)
@given(data=st.data())
def test_a_changed_byte_is_a_message_or_a_protocol_error(
    struct: type[msgspec.Struct], data: st.DataObject
) -> None:
    body = bytearray(pack(good(struct_type(struct))))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    try:
        message = decode(struct, bytes(body))
    except ProtocolError as refusal:
        assert refusal.code is ErrorCode.BAD_MESSAGE
    else:
        assert decode(type(message), encode_message(message)) == message


def test_a_frame_in_one_step_is_the_frame_in_two() -> None:
    short, longest = to_relay.Ping(7), to_relay.Submit(1, "bob", 1, bytes(ENVELOPE_MAX_BYTES), b"")
    for message in (short, longest):
        assert encode_framed(message) == encode_frame(encode_message(message))
    with pytest.raises(ValueError, match="at most"):
        encode_framed(to_relay.Submit(1, "bob", 1, bytes(FRAME_MAX_BYTES), b""))
