"""Accepting connections, and TLS handshakes that nobody can hold up.

The acceptor only accepts. Handshake threads run many handshakes each, none of which blocks; every
one has a total deadline, whatever its peer sends meanwhile. Where too many are under way, of one
address or in all, the oldest gives way to the newest: it had the most time.
"""

import errno
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from saltline.protocol.names import RelayAddress
from saltline.server.driver import log
from saltline.server.errors import UsageError, why
from saltline.server.limits import address_group
from saltline.server.settings import CertificateStatement
from saltline.server.wakeup import Inbox, Wakeup
from saltline.server.work import Adopt

BACKLOG: Final = 1024
HANDSHAKES_MAX: Final = 1024  # a thread
ACCEPTS_PER_TURN: Final = 64
# No descriptor or memory left: trying again at once would only burn the processor.
ACCEPT_PAUSE_S: Final = 0.25
SAY_FULL_EVERY_S: Final = 60.0
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

TlsState = tuple[ssl.SSLContext, CertificateStatement]
OnFailure = Callable[[str, BaseException], None]


def listen(address: RelayAddress) -> list[socket.socket]:
    """Sockets that listen on every address of the host. Raises UsageError.

    Port 0 takes any free port, the same for all.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        raise UsageError(f"{address.host} is not an address of this computer.") from None
    listening: list[socket.socket] = []
    port = address.port
    try:
        for family, *_, where in dict.fromkeys(found):
            is_any_ipv6 = where[0] == "::" and socket.has_dualstack_ipv6()
            listener = socket.create_server(
                (str(where[0]), port), family=family, backlog=BACKLOG, dualstack_ipv6=is_any_ipv6
            )
            listener.setblocking(False)
            listening.append(listener)
            port = port or int(listener.getsockname()[1])
    except OSError as error:
        for listener in listening:
            listener.close()
        raise UsageError(_why_not_listening(RelayAddress(address.host, port), error)) from None
    return listening


def _why_not_listening(address: RelayAddress, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is in use by another program, perhaps another relay. Stop it, or choose"
            " another port with --listen."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address.host} is not an address of this computer."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not listen on {address}. Choose a port above 1023 with --listen."
    return f"The relay cannot listen on {address}: {why(error)}."


class _Handshake:
    """One under way."""

    __slots__ = ("deadline_s", "group", "is_over", "mask", "sock", "statement")

    def __init__(
        self,
        sock: ssl.SSLSocket,
        group: str,
        statement: CertificateStatement,
        deadline_s: float,
    ) -> None:
        self.sock = sock
        self.group = group
        self.statement = statement
        self.deadline_s = deadline_s
        self.mask = 0
        self.is_over = False


class HandshakeThread:
    """Runs handshakes; `hand_over` gets those that succeed, with their certificate's statement."""

    def __init__(
        self,
        index: int,
        tls: Callable[[], TlsState],
        hand_over: Callable[[Adopt], None],
        on_failure: OnFailure,
        *,
        deadline_s: float,
        per_address_max: Callable[[], int],
    ) -> None:
        self.inbox: Inbox[tuple[socket.socket, str] | None] = Inbox()  # None: end
        self._tls = tls
        self._hand_over = hand_over
        self._on_failure = on_failure
        self._deadline_s = deadline_s
        self._per_address_max = per_address_max
        self._selector = selectors.DefaultSelector()
        # All have the same time, so that the oldest is the first to be due.
        self._under_way: dict[_Handshake, None] = {}
        self._by_group: dict[str, deque[_Handshake]] = {}
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"handshakes {index}", daemon=True)

    def __len__(self) -> int:
        """How many handshakes are under way."""
        return len(self._under_way) + len(self.inbox)

    def start(self) -> None:
        """Begin to work."""
        self._selector.register(self.inbox.wakeup, selectors.EVENT_READ, None)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread, after None was posted; False if it took too long."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Give the descriptors back; after `join`, or without `start`."""
        self._selector.close()
        self.inbox.wakeup.close()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        except BaseException as error:
            self._on_failure(self._thread.name, error)
        finally:
            for handshake in list(self._under_way):
                self._give_up(handshake)
            for item in self.inbox.take():
                if item is not None:
                    item[0].close()

    def _turn(self) -> None:
        oldest = next(iter(self._under_way), None)
        sleep_s = max(0.0, oldest.deadline_s - monotonic()) if oldest else None
        ready = self._selector.select(sleep_s if self.inbox.about_to_sleep() else 0)
        self.inbox.awake()
        for key, _ in ready:
            if key.data is None:
                self.inbox.wakeup.clear()
            elif not key.data.is_over:
                self._go_on(key.data)
        for item in self.inbox.take():
            if item is None:
                self._is_stopping = True
            else:
                self._begin(*item)
        now_s = monotonic()
        while (oldest := next(iter(self._under_way), None)) and oldest.deadline_s <= now_s:
            self._give_up(oldest)

    def _begin(self, sock: socket.socket, group: str) -> None:
        context, statement = self._tls()
        try:
            tls_sock = context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except (OSError, ValueError):  # it is gone already
            sock.close()
            return
        handshake = _Handshake(tls_sock, group, statement, monotonic() + self._deadline_s)
        siblings = self._by_group.get(group)
        if siblings and len(siblings) >= self._per_address_max():
            self._give_up(siblings[0])
        if len(self._under_way) >= HANDSHAKES_MAX:
            self._give_up(next(iter(self._under_way)))
        self._by_group.setdefault(group, deque()).append(handshake)
        self._under_way[handshake] = None
        self._go_on(handshake)

    def _go_on(self, handshake: _Handshake) -> None:
        try:
            handshake.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(handshake, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(handshake, selectors.EVENT_WRITE)
        except (OSError, ValueError):  # not TLS 1.3, or gone; ssl.SSLError is an OSError
            self._give_up(handshake)
        else:
            self._forget(handshake)
            self._hand_over(Adopt(handshake.sock, handshake.group, handshake.statement))

    def _watch(self, handshake: _Handshake, mask: int) -> None:
        if handshake.mask == mask:
            return
        if handshake.mask:
            self._selector.modify(handshake.sock, mask, handshake)
        else:
            self._selector.register(handshake.sock, mask, handshake)
        handshake.mask = mask

    def _forget(self, handshake: _Handshake) -> None:
        handshake.is_over = True
        del self._under_way[handshake]
        siblings = self._by_group[handshake.group]
        siblings.remove(handshake)
        if not siblings:
            del self._by_group[handshake.group]
        if handshake.mask:
            self._selector.unregister(handshake.sock)

    def _give_up(self, handshake: _Handshake) -> None:
        self._forget(handshake)
        handshake.sock.close()


class Acceptor:
    """The thread that accepts. `has_room` says whether another descriptor can be afforded."""

    def __init__(
        self,
        listening: Sequence[socket.socket],
        handshakes: Sequence[HandshakeThread],
        has_room: Callable[[], bool],
        on_failure: OnFailure,
    ) -> None:
        self._listening = listening
        self._handshakes = handshakes
        self._has_room = has_room
        self._on_failure = on_failure
        self._wakeup = Wakeup()
        self._is_stopping = threading.Event()
        self._say_full_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name="acceptor", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Accept nothing more; False if the thread did not end."""
        self._is_stopping.set()
        self._wakeup.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Give the descriptors back, the listening ones too; after `stop`, or without `start`."""
        for listener in self._listening:
            listener.close()
        self._wakeup.close()

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup, selectors.EVENT_READ, None)
                for listener in self._listening:
                    selector.register(listener, selectors.EVENT_READ, listener)
                while not self._is_stopping.is_set():
                    for key, _ in selector.select():
                        if key.data is not None:
                            self._accept_some(key.data)
        except BaseException as error:
            self._on_failure(self._thread.name, error)

    def _accept_some(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._say_full(why(error))
                    self._is_stopping.wait(ACCEPT_PAUSE_S)
                    return
                continue  # the peer was gone before we looked (accept(2), "Error handling")
            if not self._has_room():
                self._say_full("as many connections are open as this process may have")
                sock.close()
                continue
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                sock.close()
                continue
            group = address_group(str(address[0]))
            owner = hash(group) % len(self._handshakes)  # one thread counts all of an address
            self._handshakes[owner].inbox.post((sock, group))

    def _say_full(self, reason: str) -> None:
        now_s = monotonic()
        if now_s >= self._say_full_at_s:
            self._say_full_at_s = now_s + SAY_FULL_EVERY_S
            log.warning("New connections are refused: %s.", reason)
