"""Frames: u32 length ‖ body, big-endian (docs/protocol.md §6). Bounded and linear."""

from struct import Struct

from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import FRAME_MAX_BYTES

_LENGTH = Struct(">I")
HEADER_BYTES = _LENGTH.size


def encode_frame(body: bytes) -> bytes:
    """Put the length in front. `body` has 1 to FRAME_MAX_BYTES bytes, else ValueError."""
    if not 0 < len(body) <= FRAME_MAX_BYTES:
        raise ValueError(f"a frame's body has 1 to {FRAME_MAX_BYTES} bytes, not {len(body)}")
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Cuts a stream of bytes into frames' bodies.

    Holds at most one unfinished frame: `max_body_bytes` and a header. The bound may be raised when
    a stranger has become a user.
    """

    __slots__ = ("_buffer", "_wanted", "max_body_bytes")

    def __init__(self, max_body_bytes: int = FRAME_MAX_BYTES) -> None:
        self.max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._wanted = HEADER_BYTES  # so many bytes in the buffer finish its header, or its frame

    @property
    def unfinished_bytes(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; return the bodies that it completes.

        Raises ProtocolError (BAD_FRAME for an empty frame, FRAME_TOO_LARGE) as soon as a length
        shows it; the connection cannot be read on after that.
        """
        if self._buffer:
            # What is left of an unfinished frame stays in one growing buffer until it is whole.
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data, self._buffer = bytes(self._buffer), bytearray()
        bodies: list[bytes] = []
        offset, size = 0, len(data)
        while size - offset >= HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(data, offset)
            if not 0 < length <= self.max_body_bytes:
                self._buffer += data[offset : offset + HEADER_BYTES]  # refused for ever
                raise self._refusal(length)
            end = offset + HEADER_BYTES + length
            if end > size:
                self._wanted = end - offset
                break
            bodies.append(data[offset + HEADER_BYTES : end])
            offset = end
        else:
            self._wanted = HEADER_BYTES
        if offset < size:
            self._buffer += data[offset:]
        return bodies

    def _refusal(self, length: int) -> ProtocolError:
        if length == 0:
            return ProtocolError(ErrorCode.BAD_FRAME, "An empty frame came.")
        return ProtocolError(
            ErrorCode.FRAME_TOO_LARGE,
            f"A frame of {length} bytes came; at most {self.max_body_bytes} are taken.",
        )
