"""One client's TLS connection, as its worker sees it. Only that worker touches it."""

import fcntl
import re
import selectors
import socket
import ssl
import struct
import sys
import termios
from typing import Final

from saltline.protocol.errors import ProtocolError
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.limits import FRAME_MAX_BEFORE_LOGIN_BYTES
from saltline.server.overseer import Suspicion

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE

# The most that a TLS record carries (RFC 8446, section 5.1). Reading so much takes a record whole,
# so that nothing stays in OpenSSL where the selector cannot see it.
RECORD_BYTES: Final = 16 * 1024
# What one call gives to OpenSSL, unless a single frame is larger.
WRITE_BYTES: Final = 4 * RECORD_BYTES
# Linux sends what is written while a socket is corked in as few packets as it can. OpenSSL writes
# every record by itself; together four of them cost a fifth less.
_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)
# Turns are shared: no connection reads or writes more often than this in one.
READS_PER_TURN: Final = 64
WRITES_PER_TURN: Final = 16
# Of who is closed without having taken more than this, the kernel forgets it too: it would keep
# megabytes for minutes, for a peer that reads nothing and has gone on to the next connection.
KEPT_BY_KERNEL_BYTES: Final = RECORD_BYTES
# What is less may still arrive, but not for longer (tcp(7), in ms).
_KEPT_BY_KERNEL_MS: Final = 10_000
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # struct linger
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
# No more is taken from who has so much still to read. Entries of a room are pushed far beyond it:
# its members share their bytes.
UNREAD_MAX_BYTES: Final = 128 * 1024
# Nothing comes after these in a helping, however msgpack writes the array and the tag. A request of
# 20 bytes has an answer of up to 200 KB: what follows waits for that. A full `publish` takes the
# core some 10 ms: others have a turn before the next one, whoever sends that.
_SLOW: Final = re.compile(
    rb"(?:[\x90-\x9f]|\xdc..|\xdd....)(?:[\xa0-\xbf]|\xd9.|\xda..|\xdb....)"
    rb"(history|lookup|list_rooms|who|publish)",
    re.DOTALL,
)


def is_much_work(body: bytes) -> bool:
    """Whether a request is much work for the core: of those one is done in a turn."""
    matched = _SLOW.match(body)
    return matched is not None and matched[1] == b"publish"


class PeerGone(Exception):
    """The connection ended or broke."""


class Connection:
    """A socket, its TLS state, its unfinished frame and its output queue.

    TLS may want to read in order to write, and the reverse; both wishes are remembered until the
    socket is ready (docs of `ssl`, "Notes on non-blocking sockets").
    """

    __slots__ = (
        "address",
        "awaits_answer",
        "close_by_s",
        "decoder",
        "fault",
        "frame_by_s",
        "has_closed",
        "has_ended",
        "is_closed",
        "is_congested",
        "is_held_up",
        "is_leaving",
        "is_lingering",
        "is_paused",
        "mask",
        "number",
        "output",
        "queued_bytes",
        "read_in_turn",
        "read_wants_write",
        "send",
        "sock",
        "suspicion",
        "talks",
        "unsent",
        "waiting",
        "write_wants_read",
        "write_wants_write",
        "written_bytes",
    )

    def __init__(self, number: int, sock: ssl.SSLSocket, address: str = "") -> None:
        self.number = number
        self.address = address
        self.sock = sock
        self.send = sock.send  # looked up once: a busy room calls it 30,000 times a second
        self.mask = 0  # what the selector watches
        self.suspicion: Suspicion | None = None  # for the overseer
        self.decoder = FrameDecoder(FRAME_MAX_BEFORE_LOGIN_BYTES)
        # Lists, since an empty deque takes 600 bytes of the 16,000 of a connection.
        self.waiting: list[bytes] = []  # bodies read, and not yet given to the core
        self.read_in_turn = 0  # the worker's last turn in which something was read
        self.talks = False  # there was more than one record then
        self.frame_by_s = 0.0  # when the unfinished frame must be whole; 0: none is begun
        self.fault: ProtocolError | None = None  # nothing can be read after this
        self.has_ended = False  # the peer sends nothing more
        self.is_paused = False  # by the core
        self.is_congested = False  # the output queue is over its bound
        self.awaits_answer = False  # a long one; it takes nothing else meanwhile
        self.is_held_up = False  # something waits for the core until more has been read
        self.is_leaving = False  # the core has let go of it; its output may still leave
        self.is_lingering = False  # its output has left; waiting for the peer to close
        self.has_closed = False  # so has the peer; what the kernel holds may still arrive
        self.is_closed = False  # its descriptor is given back
        self.close_by_s = 0.0
        self.output: list[bytes] = []
        self.queued_bytes = 0  # of `output` and what TLS holds of it
        self.written_bytes = 0  # out of that queue, so far
        self.unsent: bytes | memoryview | None = None  # OpenSSL wants these very bytes again
        self.read_wants_write = False
        self.write_wants_read = False
        self.write_wants_write = False

    def __repr__(self) -> str:
        return f"Connection({self.number})"

    @property
    def is_stranger(self) -> bool:
        """Whether nobody has logged in on it."""
        return self.decoder.max_body_bytes == FRAME_MAX_BEFORE_LOGIN_BYTES

    @property
    def may_hand_over(self) -> bool:
        """Whether the core may get more of this connection's requests."""
        return not (
            self.is_paused
            or self.is_congested
            or self.is_leaving
            or self.awaits_answer
            or self.queued_bytes > UNREAD_MAX_BYTES
        )

    @property
    def may_read(self) -> bool:
        """Whether more is to be read: what was read before has been handed over."""
        return self.may_hand_over and not self.waiting and not self.has_ended and self.fault is None

    @property
    def wanted_mask(self) -> int:
        """What the selector should watch; 0 for nothing."""
        if self.is_closed:
            return 0
        if self.is_lingering:
            return 0 if self.has_closed else READ
        mask = READ if self.write_wants_read or self.may_read else 0
        reading_waits = self.read_wants_write and self.may_read  # else nobody would go on with it
        return mask | WRITE if self.write_wants_write or reading_waits else mask

    def take_waiting(self, most: int, *, may_work: bool = True) -> list[bytes]:
        """The oldest bodies for the core, up to one that is much work, or has a long answer.

        Without `may_work` it stops before one that is much work.
        """
        bodies = self.waiting[:most]
        for count, body in enumerate(bodies):
            if _SLOW.match(body):
                is_work = is_much_work(body)
                self.awaits_answer = not is_work
                bodies = bodies[: count + (may_work or not is_work)]
                break
        del self.waiting[: len(bodies)]
        return bodies

    def read(self) -> bytes | None:
        """What one TLS record brought, at most RECORD_BYTES; None if nothing is there now.

        Raises PeerGone.
        """
        self.read_wants_write = False
        try:
            data = self.sock.recv(RECORD_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self.read_wants_write = True
            return None
        except OSError:  # ssl.SSLError is one
            raise PeerGone from None
        if not data:
            raise PeerGone
        return data

    def send_large(self, data: bytes) -> int:
        """As `send`, for more than a record."""
        if _CORK is None:
            return self.send(data)
        self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
        try:
            return self.send(data)
        finally:
            self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, 0)

    def keep(self, data: bytes, sent: int) -> None:
        """Of a buffer that went around the queue not all has left."""
        # What OpenSSL could not write at all it wants again as these very bytes.
        self.unsent = memoryview(data)[sent:] if sent else data
        self.queued_bytes = len(data) - sent

    def write(self) -> int:
        """Send from the output what the socket takes; returns how many TLS writes were made.

        Raises PeerGone.
        """
        self.write_wants_read = self.write_wants_write = False
        if _CORK is None or self.queued_bytes <= RECORD_BYTES:
            return self._write()
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
            try:
                return self._write()
            finally:
                self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, 0)
        except OSError:
            raise PeerGone from None

    def _write(self) -> int:
        for writes in range(WRITES_PER_TURN):
            if self.unsent is None:
                if not self.output:
                    return writes
                self.unsent = self._next_chunk()
            try:
                sent = self.send(self.unsent)
            except ssl.SSLWantWriteError:
                self.write_wants_write = True
                return writes + 1
            except ssl.SSLWantReadError:
                self.write_wants_read = True
                return writes + 1
            except OSError:
                raise PeerGone from None
            self.queued_bytes -= sent
            self.written_bytes += sent
            is_whole = sent == len(self.unsent)
            self.unsent = None if is_whole else memoryview(self.unsent)[sent:]
        return WRITES_PER_TURN

    @property
    def is_kept_by_output(self) -> bool:
        """Whether nothing is read from it, and something is queued for it."""
        return self.queued_bytes > 0 and not self.may_hand_over

    @property
    def arrived_bytes(self) -> int:
        """It grows while the peer takes what is queued; for `is_kept_by_output` only.

        The kernel's buffer counts as not arrived: a dead peer's fills up as well, and a slow one's
        takes more only once a third of it is free, which may be a minute.
        """
        return self.written_bytes - self._in_kernel_bytes

    @property
    def left_bytes(self) -> int:
        """What is queued here, or in the kernel, and has not arrived."""
        return self.queued_bytes + self._in_kernel_bytes

    @property
    def is_awaited(self) -> bool:
        """Whether to close it now would take from the peer what is still on its way."""
        return self._in_kernel_bytes > KEPT_BY_KERNEL_BYTES

    @property
    def _in_kernel_bytes(self) -> int:
        """What was written and has not arrived; 0 where nobody says so."""
        if sys.platform != "linux":
            return 0
        try:
            unsent = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # it is closed
            return 0
        return int(struct.unpack("i", unsent)[0])

    @property
    def is_blocked(self) -> bool:
        """Whether writing has to wait for the socket."""
        return self.write_wants_write or self.write_wants_read

    def _next_chunk(self) -> bytes:
        output = self.output
        if len(output) == 1:
            return output.pop()
        if self.queued_bytes <= WRITE_BYTES:
            chunk = b"".join(output)
            output.clear()
            return chunk
        count = size = 0
        while size < WRITE_BYTES:
            size += len(output[count])
            count += 1
        chunk = b"".join(output[:count])
        del output[:count]
        return chunk

    def say_goodbye(self) -> None:
        """Send TLS close_notify and end our direction, so that what was sent before arrives.

        Closing at once, with unread input, would reset the connection, and a reset destroys what
        the peer has not read yet (RFC 1122, section 4.2.2.13).
        """
        self.is_lingering = True
        try:
            self.sock.unwrap()
        except (OSError, ValueError):
            pass  # the peer's own close_notify is not awaited
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def discard_input(self) -> bool:
        """While lingering: throw away what came; False when the peer has closed.

        Raises PeerGone.
        """
        try:
            for _ in range(READS_PER_TURN):
                # Below TLS: nobody will read these bytes.
                if not socket.socket.recv(self.sock, RECORD_BYTES):
                    return False
        except BlockingIOError:
            return True
        except OSError:
            raise PeerGone from None
        return True

    def abandon(self) -> None:
        """Give the descriptor back, and do not leave to the kernel what nobody takes."""
        try:
            if self.is_awaited:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            elif _USER_TIMEOUT is not None:
                self.sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, _KEPT_BY_KERNEL_MS)
        except OSError:
            pass  # there is nothing left to wait for
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self.is_closed = True
        self.sock.close()
