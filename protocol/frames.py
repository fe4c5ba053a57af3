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

    __slots__ = ("_buffer", "max_body_bytes")

    def __init__(self, max_body_bytes: int = FRAME_MAX_BYTES) -> None:
        self.max_body_bytes = max_body_bytes
        self._buffer = bytearray()

    @property
    def unfinished_bytes(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; return the bodies that it completes.

        Raises ProtocolError (BAD_FRAME for an empty frame, FRAME_TOO_LARGE) as soon as a length
        shows it; the connection cannot be read on after that.
        """
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        offset, size = 0, len(buffer)
        while size - offset >= HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if length == 0:
                raise ProtocolError(ErrorCode.BAD_FRAME, "An empty frame came.")
            if length > self.max_body_bytes:
                raise ProtocolError(
                    ErrorCode.FRAME_TOO_LARGE,
                    f"A frame of {length} bytes came; at most {self.max_body_bytes} are taken.",
                )
            end = offset + HEADER_BYTES + length
            if end > size:
                break
            bodies.append(bytes(buffer[offset + HEADER_BYTES : end]))
            offset = end
        del buffer[:offset]
        return bodies
