"""Frames: a length, a body; bounded and linear however the bytes arrive (docs/protocol.md §6)."""

from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltline.protocol import frames
from saltline.protocol.errors import ErrorCode, Fault, ProtocolError
from saltline.protocol.frames import HEADER_BYTES, FrameDecoder, encode_frame
from saltline.protocol.limits import FRAME_MAX_BEFORE_LOGIN_BYTES, FRAME_MAX_BYTES

bodies_of_some_frames = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def stream_of(bodies: list[bytes]) -> bytes:
    return b"".join(encode_frame(body) for body in bodies)


def test_a_frame_is_a_big_endian_length_and_the_body() -> None:
    assert encode_frame(b"salt") == b"\x00\x00\x00\x04salt"


@pytest.mark.parametrize("size", [0, FRAME_MAX_BYTES + 1])
def test_what_no_decoder_takes_is_not_encoded(size: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {FRAME_MAX_BYTES} bytes, not {size}"):
        encode_frame(bytes(size))


def test_a_conversation_in_awkward_pieces() -> None:
    decoder = FrameDecoder()

    assert decoder.feed(b"") == []
    assert decoder.feed(b"\x00\x00") == []
    assert decoder.feed(b"\x00\x02h") == []
    assert decoder.unfinished_bytes == 5
    assert decoder.feed(b"i\x00\x00\x00\x01!\x00") == [b"hi", b"!"]
    assert decoder.unfinished_bytes == 1
    assert decoder.feed(b"\x00\x00\x01.") == [b"."]
    assert decoder.unfinished_bytes == 0


@given(bodies_of_some_frames, st.lists(st.integers(0, 2600)))
def test_any_chunking_gives_the_same_bodies(bodies: list[bytes], cuts: list[int]) -> None:
    stream = stream_of(bodies)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    decoder = FrameDecoder()

    received = [
        body
        for start, end in zip(edges, edges[1:], strict=False)
        for body in decoder.feed(stream[start:end])
    ]

    assert received == bodies
    assert decoder.unfinished_bytes == 0


@given(bodies_of_some_frames.filter(bool), st.data())
def test_a_truncated_stream_gives_what_is_whole_and_waits(
    bodies: list[bytes], data: st.DataObject
) -> None:
    last = HEADER_BYTES + len(bodies[-1])
    missing = data.draw(st.integers(1, last))
    decoder = FrameDecoder()

    assert decoder.feed(stream_of(bodies)[:-missing]) == bodies[:-1]
    assert decoder.unfinished_bytes == last - missing
    assert decoder.feed(stream_of(bodies)[-missing:]) == bodies[-1:]


def test_the_largest_frame_passes() -> None:
    body = bytes(FRAME_MAX_BYTES)

    assert FrameDecoder().feed(encode_frame(body)) == [body]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"\x00\x00\x00\x00", ErrorCode.BAD_FRAME),
        (b"\xff\xff\xff\xff", ErrorCode.FRAME_TOO_LARGE),
        ((FRAME_MAX_BYTES + 1).to_bytes(4), ErrorCode.FRAME_TOO_LARGE),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_any_of_the_body(
    header: bytes, code: ErrorCode
) -> None:
    decoder = FrameDecoder()
    assert decoder.feed(header[:3]) == []

    with pytest.raises(ProtocolError) as refusal:
        decoder.feed(header[3:])

    assert refusal.value.code is code
    assert refusal.value.fault is Fault.CLIENT


def test_nothing_is_read_after_a_refusal() -> None:
    decoder = FrameDecoder()
    with pytest.raises(ProtocolError):
        decoder.feed(b"\x00\x00\x00\x00")

    with pytest.raises(ProtocolError):
        decoder.feed(encode_frame(b"and now something valid"))


def test_a_stranger_may_say_less_than_a_user() -> None:
    frame = encode_frame(bytes(FRAME_MAX_BEFORE_LOGIN_BYTES + 1))
    stranger = FrameDecoder(FRAME_MAX_BEFORE_LOGIN_BYTES)
    with pytest.raises(ProtocolError) as refusal:
        stranger.feed(frame)
    assert refusal.value.code is ErrorCode.FRAME_TOO_LARGE
    assert str(FRAME_MAX_BEFORE_LOGIN_BYTES) in refusal.value.detail

    user = FrameDecoder(FRAME_MAX_BEFORE_LOGIN_BYTES)
    user.max_body_bytes = FRAME_MAX_BYTES
    assert user.feed(frame) == [frame[HEADER_BYTES:]]


class CountingBuffer(bytearray):
    """A bytearray that counts the bytes that are copied into, within and out of it."""

    moved_bytes = 0

    def __iadd__(self, data: Any) -> "CountingBuffer":
        CountingBuffer.moved_bytes += len(data)
        super().__iadd__(data)
        return self

    def __add__(self, data: Any) -> "CountingBuffer":
        CountingBuffer.moved_bytes += len(self) + len(data)
        return CountingBuffer(super().__add__(data))

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        CountingBuffer.moved_bytes += 1 if isinstance(part, int) else len(part)
        return part

    def __delitem__(self, key: SupportsIndex | slice) -> None:
        before = len(self)
        super().__delitem__(key)
        CountingBuffer.moved_bytes += len(self) if len(self) < before else 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountingBuffer]:
    """Decoders that are made in this test count what they copy."""
    monkeypatch.setattr(frames, "bytearray", CountingBuffer, raising=False)
    monkeypatch.setattr(CountingBuffer, "moved_bytes", 0)
    return CountingBuffer


def test_one_byte_at_a_time_is_linear(counted: type[CountingBuffer]) -> None:
    frame = encode_frame(bytes(256 * 1024))
    decoder = FrameDecoder()

    received = [body for byte in frame for body in decoder.feed(bytes((byte,)))]

    assert received == [frame[HEADER_BYTES:]]
    assert len(frame) <= counted.moved_bytes <= 3 * len(frame)


def test_many_frames_at_once_are_linear(counted: type[CountingBuffer]) -> None:
    stream = stream_of([b"ping"] * 20_000)

    assert len(FrameDecoder().feed(stream)) == 20_000
    assert counted.moved_bytes <= 3 * len(stream)
