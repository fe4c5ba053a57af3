"""TLS handshakes that nobody can hold up.

A thread runs many at once, none of which blocks. Each has a total deadline, whatever its
peer sends meanwhile. Where too many are under way, of one address or in all, the oldest gives way
to the newest: it had the most time.

Under a flood the queue would be longer than anybody's patience. So what is nearly done comes first,
then the newest; and nothing is spent on a connection before its first byte, which has to be TLS's.
"""

import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from saltline.server.settings import CertificateStatement
from saltline.server.wakeup import Inbox
from saltline.server.work import Adopt

# Of each kind in one thread: connections that said nothing yet, and handshakes that began.
SILENT_MAX: Final = 1024
BEGUN_MAX: Final = 1024
# A handshake's beginning costs 0.3 ms, its end next to nothing.
BEGINNINGS_PER_TURN: Final = 16
_CHECK_EVERY_S: Final = 0.25
_TLS_HANDSHAKE: Final = b"\x16"  # the first byte of a ClientHello's record (RFC 8446, section 5.1)

TlsState = tuple[ssl.SSLContext, CertificateStatement]
OnFailure = Callable[[str, BaseException], None]


class _Handshake:
    """One connection on its way to a worker; `tls` is set from its first byte on."""

    __slots__ = ("deadline_s", "descriptor", "group", "mask", "sock", "statement", "tls")

    def __init__(self, sock: socket.socket, group: str, deadline_s: float) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()  # stays when TLS takes the socket over
        self.group = group
        self.deadline_s = deadline_s
        self.mask = 0
        self.tls: ssl.SSLSocket | None = None
        self.statement: CertificateStatement


def _has_spoken(handshake: _Handshake) -> bool:
    """Whether the first byte of TLS is there; while nothing was read."""
    try:
        return handshake.sock.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE
    except OSError:
        return False


class HandshakeThread:
    """`hand_over` gets those that succeed, with the statement of the certificate they began under.

    `inbox` takes sockets with their address group; None ends the thread.
    """

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
        self.inbox: Inbox[tuple[socket.socket, str] | None] = Inbox()
        self._tls = tls
        self._hand_over = hand_over
        self._on_failure = on_failure
        self._deadline_s = deadline_s
        self._per_address_max = per_address_max
        self._selector = selectors.DefaultSelector()
        # By descriptor, oldest first.
        self._silent: dict[int, _Handshake] = {}
        self._begun: dict[int, _Handshake] = {}
        self._by_group: dict[str, deque[_Handshake]] = {}
        self._check_every_s = min(_CHECK_EVERY_S, deadline_s / 4)
        self._check_at_s = 0.0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"handshakes {index}", daemon=True)

    def __len__(self) -> int:
        """How many descriptors it holds."""
        return len(self._silent) + len(self._begun) + len(self.inbox)

    def start(self) -> None:
        """Begin to work."""
        self._selector.register(self.inbox.wakeup, selectors.EVENT_READ)
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
            for handshake in [*self._silent.values(), *self._begun.values()]:
                self._give_up(handshake)
            for item in self.inbox.take():
                if item is not None:
                    item[0].close()

    def _turn(self) -> None:
        sleep_s = self._check_every_s if self._silent or self._begun else None
        ready = self._selector.select(sleep_s if self.inbox.about_to_sleep() else 0)
        self.inbox.awake()
        descriptors = [key.fd for key, _ in ready]
        if self.inbox.wakeup.fileno() in descriptors:
            self.inbox.wakeup.clear()
        for descriptor in descriptors:
            if (begun := self._begun.get(descriptor)) is not None:
                self._go_on(begun)
        silent = [self._silent[each] for each in descriptors if each in self._silent]
        silent.sort(key=lambda each: each.deadline_s, reverse=True)
        for handshake in silent[:BEGINNINGS_PER_TURN]:
            self._begin(handshake)
        for item in self.inbox.take():
            if item is None:
                self._is_stopping = True
            else:
                self._wait_for_first_byte(*item)
        now_s = monotonic()
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + self._check_every_s
            for handshake in [*self._silent.values(), *self._begun.values()]:
                if handshake.deadline_s <= now_s:
                    self._give_up(handshake)

    def _wait_for_first_byte(self, sock: socket.socket, group: str) -> None:
        siblings = self._by_group.get(group)
        if siblings and len(siblings) >= self._per_address_max():
            quiet = (each for each in siblings if each.tls is None and not _has_spoken(each))
            self._give_up(next(quiet, siblings[0]))
        if len(self._silent) >= SILENT_MAX:
            oldest = next(iter(self._silent.values()))
            self._begin(oldest) if _has_spoken(oldest) else self._give_up(oldest)
        handshake = _Handshake(sock, group, monotonic() + self._deadline_s)
        self._by_group.setdefault(group, deque()).append(handshake)
        self._silent[handshake.descriptor] = handshake
        self._watch(handshake, selectors.EVENT_READ)

    def _begin(self, handshake: _Handshake) -> None:
        context, statement = self._tls()
        if not _has_spoken(handshake):  # it was readable: not TLS, or gone
            self._give_up(handshake)
            return
        try:
            handshake.tls = context.wrap_socket(
                handshake.sock,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except (OSError, ValueError):  # gone already
            self._give_up(handshake)
            return
        handshake.statement = statement
        del self._silent[handshake.descriptor]
        if len(self._begun) >= BEGUN_MAX:
            self._give_up(next(iter(self._begun.values())))
        self._begun[handshake.descriptor] = handshake
        self._go_on(handshake)

    def _go_on(self, handshake: _Handshake) -> None:
        tls = handshake.tls
        assert tls is not None
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(handshake, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(handshake, selectors.EVENT_WRITE)
        except (OSError, ValueError):  # not TLS 1.3, or gone; ssl.SSLError is an OSError
            self._give_up(handshake)
        else:
            self._forget(handshake)
            self._hand_over(Adopt(tls, handshake.group, handshake.statement))

    def _watch(self, handshake: _Handshake, mask: int) -> None:
        if handshake.mask == mask:
            return
        if handshake.mask:
            self._selector.modify(handshake.descriptor, mask)
        else:
            self._selector.register(handshake.descriptor, mask)
        handshake.mask = mask

    def _forget(self, handshake: _Handshake) -> None:
        self._silent.pop(handshake.descriptor, None)
        self._begun.pop(handshake.descriptor, None)
        siblings = self._by_group[handshake.group]
        siblings.remove(handshake)
        if not siblings:
            del self._by_group[handshake.group]
        self._selector.unregister(handshake.descriptor)

    def _give_up(self, handshake: _Handshake) -> None:
        self._forget(handshake)
        handshake.sock.close()  # nothing, if TLS has taken the socket over
        if handshake.tls is not None:
            handshake.tls.close()
