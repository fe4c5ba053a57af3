"""Listening and accepting: a thread that does nothing else."""

import errno
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from saltline.protocol.names import RelayAddress
from saltline.server.buffers import narrow
from saltline.server.driver import log
from saltline.server.errors import UsageError, why
from saltline.server.handshakes import HandshakeThread
from saltline.server.limits import address_group
from saltline.server.threads import OnFailure, RelayThread
from saltline.server.wakeup import Wakeup

# The kernel takes what it allows of it. A SYN without a place costs its sender a second or three.
BACKLOG: Final = 4096
ACCEPTS_PER_TURN: Final = 64
# How often in a turn it is asked whether there is room: counting costs more than some to spare.
ACCEPTS_PER_LOOK: Final = 8
# While so many of a thread's wait to be looked at, an address gets no more than one in a while: a
# flood would else take all descriptors, and who is alone would find none.
ARRIVALS_MAX: Final = 512
ONE_EACH_S: Final = 1.0
# No descriptor or memory left: trying again at once would only burn the processor.
ACCEPT_PAUSE_S: Final = 0.25
SAY_FULL_EVERY_S: Final = 60.0
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def is_exhausted(error: OSError) -> bool:
    """Whether accept() fails until there are descriptors, or memory, again."""
    return error.errno in _EXHAUSTED


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
            # What is accepted inherits it (tcp(7)): without, small answers wait for 40 ms.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        self._wakeup = Wakeup()
        self._is_stopping = threading.Event()
        self._say_full_at_s = 0.0
        self._let_in: set[str] = set()  # addresses, in this while of a flood
        self._let_in_until_s = 0.0
        self._thread = RelayThread("acceptor", self._run, on_failure)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Listen no more; False if the thread did not end."""
        self._is_stopping.set()
        self._wakeup.wake()
        has_ended = self._thread.has_ended(timeout_s)
        self._stop_listening()  # who comes now is told at once, and not once all is done
        return has_ended

    def _stop_listening(self) -> None:
        for listener in self._listening:
            listener.close()

    def close(self) -> None:
        """Give the descriptors back, the listening ones too; after `stop`, or without `start`."""
        self._stop_listening()
        self._wakeup.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ, None)
            for listener in self._listening:
                selector.register(listener, selectors.EVENT_READ, listener)
            while not self._is_stopping.is_set():
                for key, _ in selector.select():
                    if key.data is not None:
                        self._accept_some(key.data)

    def _accept_some(self, listener: socket.socket) -> None:
        has_room = True
        for number in range(ACCEPTS_PER_TURN):
            if number % ACCEPTS_PER_LOOK == 0:
                has_room = self._has_room()
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if is_exhausted(error):
                    self._say_full(why(error))
                    self._is_stopping.wait(ACCEPT_PAUSE_S)
                    return
                continue  # the peer was gone before we looked (accept(2), "Error handling")
            if not has_room:
                self._say_full("as many connections are open as this process may have")
                sock.close()
                continue
            group = address_group(str(address[0]))
            owner = hash(group) % len(self._handshakes)  # one thread counts all of an address
            inbox = self._handshakes[owner].inbox
            if len(inbox) >= ARRIVALS_MAX and not self._is_first(group):
                sock.close()
                continue
            sock.setblocking(False)
            narrow(sock)
            inbox.post((sock, group))

    def _is_first(self, group: str) -> bool:
        """Whether nobody else of an address was let into this flood lately."""
        now_s = monotonic()
        if now_s >= self._let_in_until_s:
            self._let_in_until_s = now_s + ONE_EACH_S
            self._let_in.clear()
        if group in self._let_in:
            return False
        self._let_in.add(group)
        return True

    def _say_full(self, reason: str) -> None:
        now_s = monotonic()
        if now_s >= self._say_full_at_s:
            self._say_full_at_s = now_s + SAY_FULL_EVERY_S
            log.warning("New connections are refused: %s.", reason)
