"""The two directions of a TLS connection, cut into frames."""

import selectors
import socket
import ssl
from typing import Final

from saltline.protocol.frames import FrameDecoder

_READ_BYTES: Final = 64 * 1024
# One hand-over to the engine is one transaction of the vault: enough to share it, soon enough done.
_BATCH_BYTES: Final = 1024 * 1024


class HungUp(Exception):
    """The connection is over; the text says why."""


class Traffic:
    """The socket's two directions. TLS may have to write in order to read, and the reverse."""

    def __init__(self, secure: ssl.SSLSocket) -> None:
        self.secure = secure
        self.chunk = b""  # taken from the buffer and not yet written: offered again unchanged
        self._decoder = FrameDecoder()
        self._read_wants_write = False
        self._write_wants_read = False

    def wanted(self, *, reading: bool) -> int:
        """What to wait for."""
        events = selectors.EVENT_READ if reading or self._write_wants_read else 0
        if self._read_wants_write or (self.chunk and not self._write_wants_read):
            events |= selectors.EVENT_WRITE
        return events

    def read(self) -> tuple[list[bytes], int, bool]:
        """(bodies, their bytes on the wire, whether more may be readable). Bounded.

        Raises HungUp once all that came before was handed over, and ProtocolError at once.
        """
        bodies: list[bytes] = []
        size = 0
        self._read_wants_write = False
        while size < _BATCH_BYTES:
            try:
                data = self.secure.recv(_READ_BYTES)
            except ssl.SSLWantReadError:
                return bodies, size, False
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                return bodies, size, False
            except OSError as error:
                return self._end(bodies, size, f"the connection broke ({_word(error)})")
            if not data:
                return self._end(bodies, size, "the relay hung up")
            bodies += self._decoder.feed(data)
            size += len(data)
        return bodies, size, True

    def _end(self, bodies: list[bytes], size: int, reason: str) -> tuple[list[bytes], int, bool]:
        if bodies:
            return bodies, size, True  # the next read meets the end again
        raise HungUp(reason)

    def write(self) -> int:
        """Write from the chunk; how many bytes went. Raises HungUp."""
        self._write_wants_read = False
        try:
            sent = self.secure.send(self.chunk)
        except ssl.SSLWantReadError:
            self._write_wants_read = True
            return 0
        except ssl.SSLWantWriteError:
            return 0
        except OSError as error:
            raise HungUp(f"the connection broke ({_word(error)})") from None
        self.chunk = self.chunk[sent:]
        return sent

    def half_close(self) -> None:
        """Send no more; what still comes is not read as TLS any more. Raises OSError."""
        self.secure.shutdown(socket.SHUT_WR)

    def has_ended(self) -> bool:
        """After `half_close`: throw away what came; whether the peer has ended, too."""
        try:
            while self.secure.recv(_READ_BYTES):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


def _word(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "TLS"
    return error.strerror or type(error).__name__
