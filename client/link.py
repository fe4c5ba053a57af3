"""The link to the relay: one thread with the socket, and the way back when it breaks.

Nothing here knows what the frames say. The certificate is judged before the first byte of ours
leaves (docs/protocol.md §6).
"""

import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from saltline.client.certificates import (
    CertificateRefused,
    ShownCertificate,
    check_pin,
    not_vouched,
    shown_by,
    spki_hash_of,
)
from saltline.client.dialing import (
    DialFailed,
    NotVouched,
    SocketAddress,
    dial,
    resolve,
    trusting_context,
)
from saltline.client.link_events import (
    LinkDown,
    LinkEvent,
    LinkReceived,
    LinkRefused,
    LinkTrying,
    LinkUp,
    Target,
)
from saltline.client.traffic import HungUp, Traffic
from saltline.client.wakeful_selector import WakefulSelector
from saltline.protocol.errors import ProtocolError
from saltline.protocol.limits import RECONNECT_FIRST_S, RECONNECT_MAX_S
from saltline.protocol.names import RelayAddress

# What the engine has not yet taken in; above it, the relay waits.
_UNCONSUMED_MAX_BYTES: Final = 4 * 1024 * 1024
_OUTGOING_MAX_BYTES: Final = 4 * 1024 * 1024
_WRITE_BYTES: Final = 64 * 1024
# A relay that takes nothing for so long while the buffer is full is gone.
_STALLED_S: Final = 15.0
# A relay that is there hangs up as soon as it has what was sent.
_HANG_UP_S: Final = 1.0


class _Interrupted(Exception):
    """Something asked the thread to stop what it waits for."""


class Link:
    """Keeps one connection to the relay, in its own thread, until `stop`.

    `deliver` is called from that thread with every LinkEvent and must not block. All methods may be
    called from any thread and none waits for the network for ever.
    """

    def __init__(
        self,
        target: Target,
        deliver: Callable[[LinkEvent], None],
        *,
        first_retry_s: float = RECONNECT_FIRST_S,
    ) -> None:
        self._target = target
        self._deliver = deliver
        self._first_retry_s = first_retry_s
        # Guards what follows; tier 2: nothing is called and no other lock taken under it.
        self._lock = threading.Condition()
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self._unconsumed_bytes = 0
        self._connection = 0  # the number of the live one, or 0
        self._last_connection = 0
        self._failures = 0
        self._stopping = False
        self._flush_until = 0.0
        self._again = False  # asked to (re)connect at once
        self._drop: tuple[bool] | None = None  # asked to hang up; (retry,)
        self._selector = WakefulSelector()
        self._thread = threading.Thread(target=self._run, name="saltline-link", daemon=True)

    # --- for the engine ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def send(self, connection: int, data: bytes) -> None:
        """Put bytes on a connection; dropped if that is gone (the core repeats what matters).

        Waits for room while the buffer is full, and hangs up if the relay takes nothing.
        """
        with self._lock:
            if connection != self._connection:
                return
            self._outgoing.append(data)
            self._outgoing_bytes += len(data)
        self._wake()
        with self._lock:
            while self._outgoing_bytes > _OUTGOING_MAX_BYTES and connection == self._connection:
                before = self._outgoing_bytes
                if not self._lock.wait(_STALLED_S) and self._outgoing_bytes >= before:
                    self._drop = (True,)
                    break
            else:
                return
        self._wake()

    def consumed(self, size_bytes: int) -> None:
        """The engine has taken in so much of what was delivered."""
        with self._lock:
            paused = self._unconsumed_bytes > _UNCONSUMED_MAX_BYTES
            self._unconsumed_bytes -= size_bytes
        if paused:
            self._wake()

    def settled(self, connection: int) -> None:
        """Logged in: should this connection break, the first retry comes soon."""
        with self._lock:
            if connection == self._connection:
                self._failures = 0

    def drop(self, connection: int, *, retry: bool) -> None:
        """Hang up; without `retry` the link waits for `reconnect`."""
        with self._lock:
            if connection != self._connection:
                return
            self._drop = (retry,)
        self._wake()

    def reconnect(self) -> None:
        """Try now instead of when the waiting time is over. A live connection stays."""
        with self._lock:
            self._again = not self._connection
            self._failures = 0
        self._wake()

    def retarget(self, target: Target) -> None:
        """The relay is elsewhere, or has another key: hang up and go there."""
        with self._lock:
            self._target = target
            self._drop = (True,)
            self._again = True
            self._failures = 0
        self._wake()

    def stop(self, flush_s: float = 0.0) -> None:
        """Hang up, after at most `flush_s` for what was sent, and end the thread."""
        with self._lock:
            self._stopping = True
            self._flush_until = time.monotonic() + flush_s
            self._lock.notify_all()
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._selector.close()

    # --- the thread ----------------------------------------------------------------------------

    def _wake(self) -> None:
        with self._lock:  # not while it is closed
            self._selector.wake()

    def _run(self) -> None:
        with suppress(_Interrupted):  # stopping
            while not self._stopping:
                try:
                    self._once()
                except Exception as error:  # a defect must not look like a silent relay
                    self._fall(0, f"internal error in the link ({type(error).__name__})", True)

    def _once(self) -> None:
        with self._lock:
            target = self._target
            self._again = False
            self._drop = None
        self._deliver(LinkTrying())
        try:
            secure, spki_hash = self._connect(target)
        except CertificateRefused as error:
            self._deliver(LinkRefused(error.sentence))
            self._sleep(None)
        except DialFailed as error:
            self._fall(0, f"{target.address} cannot be reached: {error}", True)
        else:
            with secure:
                connection, detail, retry = self._serve(secure, spki_hash)
            self._fall(connection, f"{target.address}: {detail}", retry)

    def _fall(self, connection: int, detail: str, retry: bool) -> None:
        wait_s: float | None = None
        if retry:
            with self._lock:
                doubled = self._first_retry_s * 2 ** min(self._failures, 16)
                self._failures += 1
                again = self._again
            # Jitter, so that a relay that comes back is not met by everyone in one moment.
            wait_s = 0.0 if again else min(RECONNECT_MAX_S, doubled) * random.uniform(0.75, 1.0)
        self._deliver(LinkDown(connection, detail, wait_s))
        self._sleep(wait_s)

    def _sleep(self, duration_s: float | None) -> None:
        """Until the time is over, or somebody wants a connection now."""
        until = None if duration_s is None else time.monotonic() + duration_s
        while not self._again and not self._stopping:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            self._selector.select(left)

    # --- connecting ----------------------------------------------------------------------------

    def _connect(self, target: Target) -> tuple[ssl.SSLSocket, bytes]:
        found = self._resolve(target.address)

        def make_context() -> ssl.SSLContext:
            return trusting_context(pinned=bool(target.pin), ca_file=target.ca_file)

        try:
            secure = dial(target.address, found, make_context, self._wait)
        except NotVouched as error:
            raise not_vouched(target, self._shown(target, found), error) from None
        try:
            spki_hash = spki_hash_of(secure)
            check_pin(target, spki_hash)
        except BaseException:
            secure.close()
            raise
        return secure, spki_hash

    def _shown(self, target: Target, found: Sequence[SocketAddress]) -> ShownCertificate:
        """The certificate that was refused; TLS does not show it, so ask again."""

        def make_context() -> ssl.SSLContext:
            return trusting_context(pinned=True, ca_file="")

        try:
            with dial(target.address, found, make_context, self._wait) as secure:
                return shown_by(secure)
        except DialFailed:
            return ShownCertificate()

    def _resolve(self, address: RelayAddress) -> list[SocketAddress]:
        """In a thread of its own: the system's resolver cannot be interrupted, and we must be."""
        answers: deque[list[SocketAddress] | DialFailed] = deque()

        def ask() -> None:
            try:
                answers.append(resolve(address))
            except DialFailed as error:
                answers.append(error)
            self._wake()

        threading.Thread(target=ask, name="saltline-resolver", daemon=True).start()
        while not answers:
            self._check_interrupted()
            self._selector.select(None)
        answer = answers[0]
        if isinstance(answer, DialFailed):
            raise answer
        return answer

    def _wait(self, sock: socket.socket, events: int, deadline: float) -> None:
        self._selector.register(sock, events)
        try:
            is_ready = False
            while not is_ready:  # a wake-up is for us: the socket is no further for it
                left = deadline - time.monotonic()
                self._check_interrupted()
                if left <= 0:
                    raise TimeoutError
                is_ready = self._selector.select(left)
        finally:
            self._selector.unregister(sock)

    def _check_interrupted(self) -> None:
        if self._stopping:
            raise _Interrupted
        if self._drop is not None:
            raise DialFailed("the relay's address was changed")

    # --- connected -----------------------------------------------------------------------------

    def _serve(self, secure: ssl.SSLSocket, spki_hash: bytes) -> tuple[int, str, bool]:
        """Carry frames until the connection ends: (its number, why it ended, whether to retry)."""
        with self._lock:
            self._last_connection += 1
            connection = self._connection = self._last_connection
            if self._drop is None:
                self._again = False  # who asked while it was made has it; not the next one, too
            self._outgoing.clear()
            self._outgoing_bytes = 0
        self._deliver(LinkUp(connection, spki_hash))
        traffic = Traffic(secure)
        self._selector.register(secure, selectors.EVENT_READ)
        retry = True
        try:
            while True:
                with self._lock:
                    if self._drop is not None:
                        retry = self._drop[0]
                        return connection, "disconnected", retry
                    paused = self._unconsumed_bytes > _UNCONSUMED_MAX_BYTES
                    flushed = not (self._outgoing or traffic.chunk)
                    late = self._stopping and time.monotonic() >= self._flush_until
                if self._stopping and (flushed or late):
                    if flushed:
                        self._hang_up(traffic)
                    return connection, "closed", False
                self._turn(connection, traffic, paused=paused)
        except ProtocolError as error:
            return connection, f"the relay's data cannot be read: {error.detail}", retry
        except HungUp as error:
            return connection, str(error), retry
        finally:
            self._selector.unregister(secure)
            with self._lock:
                self._connection = 0
                self._lock.notify_all()

    def _hang_up(self, traffic: Traffic) -> None:
        """Let what was sent arrive: a kernel that is told to close while something is unread, or
        comes later, drops what it has not sent yet (RFC 1122, section 4.2.2.13)."""
        until = min(self._flush_until, time.monotonic() + _HANG_UP_S)
        with suppress(OSError):
            traffic.half_close()
            self._selector.modify(traffic.secure, selectors.EVENT_READ)
            while not traffic.has_ended() and (left := until - time.monotonic()) > 0:
                self._selector.select(left)

    def _turn(self, connection: int, traffic: Traffic, *, paused: bool) -> None:
        self._write(traffic)
        more = False
        if not paused:
            bodies, size, more = traffic.read()
            if size:  # of a long frame, or on a slow line, a part: that, too, is a sign of life
                with self._lock:
                    self._unconsumed_bytes += size
                self._deliver(LinkReceived(connection, bodies, size))
        if more:
            return
        events = traffic.wanted(reading=not paused)
        if events:
            self._selector.modify(traffic.secure, events)
            self._selector.select(None if not self._stopping else 0.05)
        else:  # paused, and nothing to write: only a wake-up matters
            self._selector.unregister(traffic.secure)
            try:
                self._selector.select(None if not self._stopping else 0.05)
            finally:
                self._selector.register(traffic.secure, selectors.EVENT_READ)

    def _write(self, traffic: Traffic) -> None:
        while True:
            if not traffic.chunk:
                with self._lock:
                    if not self._outgoing:
                        return
                    taken = [self._outgoing.popleft()]
                    size = len(taken[0])
                    while self._outgoing and size < _WRITE_BYTES:
                        taken.append(self._outgoing.popleft())
                        size += len(taken[-1])
                traffic.chunk = b"".join(taken)
            sent = traffic.write()
            if not sent:
                return
            with self._lock:
                self._outgoing_bytes -= sent
                self._lock.notify_all()
