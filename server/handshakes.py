"""TLS handshakes that nobody can hold up.

A thread runs many at once, none of which blocks. Each has a total deadline, whatever its
peer sends meanwhile. Where too many are under way, of one address or in all, the oldest gives way
to the newest: it had the most time.

Under a flood the queue would be longer than anybody's patience. So nothing is spent on a connection
before its first byte, which has to be TLS's; what has begun comes first, then whose address cost
the least lately, of these the newest. And beyond a few for each address, beginnings get half of a
thread's time: the other half, and the processor, are for everyone else.

A ClientHello of 128 KiB may come in records of a byte each: some 0.2 s of OpenSSL's time in one
call, which nothing ends. After a long step others have their turn, and its address pays for it.
"""

import selectors
import socket
import ssl
from collections.abc import Callable
from itertools import islice
from time import monotonic, thread_time
from typing import Final

from saltline.server.settings import CertificateStatement
from saltline.server.threads import OnFailure, RelayThread
from saltline.server.waiting_room import COST_FREE_MAX, Handshake, WaitingRoom
from saltline.server.wakeup import Inbox
from saltline.server.work import Adopt

# In one thread, twice as many connections that said nothing yet, or said something and wait for
# their turn, of a descriptor each, so that everybody may come back at once; and handshakes that
# began, of some 50 KB each (190 with the longest ClientHello).
WAITING_MAX: Final = 8192
BEGUN_MAX: Final = 256
# So long is left to each, however many want to begin: two round trips and a slow computer.
BEGUN_PATIENCE_S: Final = 1.0
# To one of a crowd, when who is alone of an address that owes nothing would have to wait for it.
CROWD_PATIENCE_S: Final = 0.5
# And no more begin in so long than are answered and this many: where one slow computer or a narrow
# line serves a crowd that comes back, it would else owe all of them an answer at once.
UNANSWERED_MAX: Final = 64
UNANSWERED_S: Final = BEGUN_PATIENCE_S * UNANSWERED_MAX / BEGUN_MAX
# While the relay has more logins on its hands than it can do, nobody is let in to wait for theirs.
SWAMPED_SLEEP_S: Final = 0.002
# A handshake's beginning costs 0.3 ms, its end next to nothing.
BEGINNINGS_PER_TURN: Final = 16
# Of the processor's time, in one turn, for beginnings, and again for those that go on.
STEPS_MAX_S: Final = 0.02
_CHECK_EVERY_S: Final = 0.25
_TLS_HANDSHAKE: Final = b"\x16"  # the first byte of a ClientHello's record (RFC 8446, section 5.1)

TlsState = tuple[ssl.SSLContext, CertificateStatement]


def _first_byte(handshake: Handshake) -> bytes | None:
    """While nothing was read: the first byte; None if it is still to come, b"" if none will."""
    try:
        return handshake.sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


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
        waiting_max: int = WAITING_MAX,
        is_swamped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.inbox: Inbox[tuple[socket.socket, str] | None] = Inbox()
        self._tls = tls
        self._hand_over = hand_over
        self._deadline_s = deadline_s
        self._per_address_max = per_address_max
        self._waiting_max = waiting_max
        self._is_swamped = is_swamped
        self._selector = selectors.DefaultSelector()
        self._room = WaitingRoom()
        self._begun: dict[int, Handshake] = {}  # by descriptor, oldest first
        self._arriving = 0  # taken from the inbox, and in neither of these yet
        self._more_at_s = 0.0  # when those above COST_FREE_MAX may begin
        self._room_at_s = 0.0  # when anybody may, unless a handshake ends before
        self._check_every_s = min(_CHECK_EVERY_S, deadline_s / 4)
        self._check_at_s = 0.0
        self._is_stopping = False
        self._thread = RelayThread(f"handshakes {index}", self._run, on_failure)

    def __len__(self) -> int:
        """How many descriptors it holds."""
        return len(self._room) + len(self._begun) + self._arriving + len(self.inbox)

    def start(self) -> None:
        """Begin to work."""
        self._selector.register(self.inbox.wakeup, selectors.EVENT_READ)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread, after None was posted; False if it took too long."""
        return self._thread.has_ended(timeout_s)

    def close(self) -> None:
        """Give the descriptors back; after `join`, or without `start`."""
        self._selector.close()
        self.inbox.wakeup.close()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            for handshake in self._all():
                self._give_up(handshake)
            for item in self.inbox.take():
                if item is not None:
                    item[0].close()

    def _all(self) -> list[Handshake]:
        room = self._room
        return [*room.silent.values(), *room.spoken.values(), *self._begun.values()]

    def _turn(self) -> None:
        ready = self._selector.select(self._sleep_s() if self.inbox.about_to_sleep() else 0)
        self.inbox.awake()
        go_on: list[Handshake] = []
        for key, _ in ready:
            if key.fileobj is self.inbox.wakeup:
                self.inbox.wakeup.clear()
            elif (begun := self._begun.get(key.fd)) is not None:
                go_on.append(begun)
            elif (silent := self._room.silent.get(key.fd)) is not None:
                self._listen_to(silent)
        self._go_on_with_some(go_on)
        if self._room.spoken and not self._is_swamped():
            self._begin_some()
        self._take_in(self.inbox.take())
        now_s = monotonic()
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + self._check_every_s
            for handshake in self._all():
                if handshake.deadline_s <= now_s:
                    self._give_up(handshake)
        self._room.forget_costs(now_s)

    def _sleep_s(self) -> float | None:
        if self._room.spoken and self._is_swamped():
            return SWAMPED_SLEEP_S
        if self._room.spoken:
            next_s = max(self._more_at_s, self._room_at_s)
            return min(self._check_every_s, max(0.0, next_s - monotonic()))
        return self._check_every_s if self._room.silent or self._begun else None

    def _take_in(self, items: list[tuple[socket.socket, str] | None]) -> None:
        self._arriving = len(items)
        for item in items:
            if item is None:
                self._is_stopping = True
            elif self._arriving > 2 * self._waiting_max:
                item[0].close()  # newer ones would push it out before its turn
            else:
                self._wait_for_first_byte(*item)
            self._arriving -= 1

    def _wait_for_first_byte(self, sock: socket.socket, group: str) -> None:
        room = self._room
        siblings = room.of_address(group)
        if siblings and len(siblings) >= self._per_address_max():
            quiet = (each for each in siblings if each.descriptor in room.silent)
            self._give_up(next(quiet, siblings[0]))
        self._make_room_to_wait()
        handshake = Handshake(sock, group, monotonic() + self._deadline_s)
        room.enter(handshake)
        first = _first_byte(handshake)
        if first == _TLS_HANDSHAKE:  # most have spoken when we come to look: no need to watch
            room.hear(handshake)
            return
        if first is not None:  # not TLS, or gone
            self._give_up(handshake)
            return
        room.silent[handshake.descriptor] = handshake
        self._watch(handshake, selectors.EVENT_READ)

    def _listen_to(self, handshake: Handshake) -> None:
        """It is readable, or has to make room: let it wait for its turn, or give it up."""
        if _first_byte(handshake) != _TLS_HANDSHAKE:
            self._give_up(handshake)
            return
        self._watch(handshake, 0)
        self._room.hear(handshake)

    def _make_room_to_wait(self) -> None:
        """Both kinds share their room: a crowd is all silent first, and has all spoken later."""
        room = self._room
        if len(room) < 2 * self._waiting_max:
            return
        if room.silent:
            self._listen_to(next(iter(room.silent.values())))
        if len(room) >= 2 * self._waiting_max:
            self._give_up(room.first_to_go(room.spoken))

    def _go_on_with_some(self, handshakes: list[Handshake]) -> None:
        """Those of the cheapest addresses first; who has no turn now is as ready in the next."""
        if len(handshakes) > 1:
            handshakes.sort(key=self._room.cost)
        until_s = thread_time() + STEPS_MAX_S
        for handshake in handshakes:
            self._go_on(handshake)
            if thread_time() >= until_s:
                break

    def _begin_some(self) -> None:
        until_s = thread_time() + STEPS_MAX_S
        may_all = monotonic() >= self._more_at_s
        self._room_at_s = spent_s = 0.0
        for handshake in self._room.next_to_begin(BEGINNINGS_PER_TURN, may_all=may_all):
            began_s = handshake.began_s = monotonic()
            if not self._has_room(handshake, began_s):
                break
            cost_before = self._room.begin(handshake)
            self._begun[handshake.descriptor] = handshake
            self._begin(handshake)
            if cost_before >= COST_FREE_MAX:
                spent_s += monotonic() - began_s
            if thread_time() >= until_s:
                break  # who came meanwhile may be cheaper
        if spent_s:
            self._more_at_s = monotonic() + spent_s

    def _has_room(self, handshake: Handshake, now_s: float) -> bool:
        """Whether it may begin; one that takes its time may have to go for that."""
        begun, room = self._begun, self._room
        if len(begun) >= UNANSWERED_MAX:
            latest = next(islice(reversed(begun.values()), UNANSWERED_MAX - 1, None))
            self._room_at_s = latest.began_s + UNANSWERED_S
            if self._room_at_s > now_s:
                return False
        if len(begun) < BEGUN_MAX:
            return True
        first = room.first_to_go(begun)
        makes_way = room.is_lone(handshake) and room.is_of_a_crowd(first)
        patience_s = CROWD_PATIENCE_S if makes_way else BEGUN_PATIENCE_S
        self._room_at_s = first.began_s + patience_s
        if self._room_at_s > now_s:
            return False
        self._give_up(first)
        return True

    def _begin(self, handshake: Handshake) -> None:
        context, statement = self._tls()
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
        self._go_on(handshake)

    def _go_on(self, handshake: Handshake) -> None:
        tls = handshake.tls
        assert tls is not None
        before_s = thread_time()
        try:
            try:
                tls.do_handshake()
            finally:
                self._room.charge(handshake, thread_time() - before_s)
        except ssl.SSLWantReadError:
            self._watch(handshake, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(handshake, selectors.EVENT_WRITE)
        except (OSError, ValueError):  # not TLS 1.3, or gone; ssl.SSLError is an OSError
            self._give_up(handshake)
        else:
            self._room.finish(handshake)
            self._forget(handshake)
            self._hand_over(Adopt(tls, handshake.group, handshake.statement))

    def _watch(self, handshake: Handshake, mask: int) -> None:
        if handshake.mask == mask:
            return
        if not mask:
            self._selector.unregister(handshake.descriptor)
        elif handshake.mask:
            self._selector.modify(handshake.descriptor, mask)
        else:
            self._selector.register(handshake.descriptor, mask)
        handshake.mask = mask

    def _forget(self, handshake: Handshake) -> None:
        self._begun.pop(handshake.descriptor, None)
        self._room.leave(handshake)
        self._watch(handshake, 0)

    def _give_up(self, handshake: Handshake) -> None:
        self._forget(handshake)
        handshake.sock.close()  # nothing, if TLS has taken the socket over
        if handshake.tls is not None:
            handshake.tls.close()
