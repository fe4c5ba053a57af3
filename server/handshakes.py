"""TLS handshakes that nobody can hold up.

A thread runs many at once, none of which blocks. Each has a total deadline, whatever its
peer sends meanwhile. Where too many are under way, of one address or in all, the oldest gives way
to the newest: it had the most time.

Under a flood the queue would be longer than anybody's patience. So nothing is spent on a connection
before its first byte, which has to be TLS's; what has begun comes first, then whose address cost
the least lately, of these the newest. And beyond a few for each address, beginnings get half of a
thread's time: the other half, and the processor, are for everyone else.
"""

import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import Final

from saltline.server.settings import CertificateStatement
from saltline.server.wakeup import Inbox
from saltline.server.work import Adopt

# In one thread, twice as many connections that said nothing yet, or said something and wait for
# their turn, of a descriptor each, so that everybody may come back at once; and handshakes that
# began, of some 50 KB each (190 with the longest ClientHello).
WAITING_MAX: Final = 8192
BEGUN_MAX: Final = 256
# So long is left to each, however many want to begin: two round trips and a slow computer.
BEGUN_PATIENCE_S: Final = 1.0
# And no more begin in so long than are answered and this many: where one slow computer or a narrow
# line serves a crowd that comes back, it would else owe all of them an answer at once.
UNANSWERED_MAX: Final = 64
UNANSWERED_S: Final = BEGUN_PATIENCE_S * UNANSWERED_MAX / BEGUN_MAX
# Of so many of the newest, those whose addresses cost least have their turn.
_NEWEST: Final = 2048
# While the relay has more logins on its hands than it can do, nobody is let in to wait for theirs.
SWAMPED_SLEEP_S: Final = 0.002
# A handshake's beginning costs 0.3 ms, its end next to nothing.
BEGINNINGS_PER_TURN: Final = 16
# What an address has cost lately: for each handshake that it began, less for one that it finished,
# since many people may share an address. Half of it is forgotten now and then.
COST_BEGUN: Final = 4
COST_FINISHED: Final = 1
COST_FREE_MAX: Final = 4 * COST_BEGUN  # above it, an address shares its half of the time
FORGET_EVERY_S: Final = 10.0
ADDRESSES_MAX: Final = 65_536
# Of so many of the oldest, the one whose address has cost most gives way.
_OLDEST: Final = 128
_CHECK_EVERY_S: Final = 0.25
_TLS_HANDSHAKE: Final = b"\x16"  # the first byte of a ClientHello's record (RFC 8446, section 5.1)

TlsState = tuple[ssl.SSLContext, CertificateStatement]
OnFailure = Callable[[str, BaseException], None]


class _Handshake:
    """One connection on its way to a worker; `tls` is set from its first byte on."""

    __slots__ = (
        "began_s",
        "deadline_s",
        "descriptor",
        "group",
        "mask",
        "sock",
        "statement",
        "tls",
    )

    def __init__(self, sock: socket.socket, group: str, deadline_s: float) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()  # stays when TLS takes the socket over
        self.group = group
        self.deadline_s = deadline_s
        self.began_s = 0.0
        self.mask = 0
        self.tls: ssl.SSLSocket | None = None
        self.statement: CertificateStatement


def _first_byte(handshake: _Handshake) -> bytes | None:
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
        self._on_failure = on_failure
        self._deadline_s = deadline_s
        self._per_address_max = per_address_max
        self._waiting_max = waiting_max
        self._is_swamped = is_swamped
        self._selector = selectors.DefaultSelector()
        # By descriptor, oldest first.
        self._silent: dict[int, _Handshake] = {}
        self._spoken: dict[int, _Handshake] = {}
        self._begun: dict[int, _Handshake] = {}
        self._lone: dict[int, _Handshake] = {}  # have spoken, each alone of its address
        self._by_group: dict[str, list[_Handshake]] = {}
        self._arriving = 0  # taken from the inbox, and in none of these yet
        self._cost: dict[str, int] = {}  # lately, by group
        self._forget_at_s = 0.0
        self._more_at_s = 0.0  # when those above COST_FREE_MAX may begin
        self._room_at_s = 0.0  # when anybody may, unless a handshake ends before
        self._check_every_s = min(_CHECK_EVERY_S, deadline_s / 4)
        self._check_at_s = 0.0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"handshakes {index}", daemon=True)

    def __len__(self) -> int:
        """How many descriptors it holds."""
        waiting = len(self._silent) + len(self._spoken) + len(self._begun)
        return waiting + self._arriving + len(self.inbox)

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
            for handshake in self._all():
                self._give_up(handshake)
            for item in self.inbox.take():
                if item is not None:
                    item[0].close()

    def _all(self) -> list[_Handshake]:
        return [*self._silent.values(), *self._spoken.values(), *self._begun.values()]

    def _turn(self) -> None:
        ready = self._selector.select(self._sleep_s() if self.inbox.about_to_sleep() else 0)
        self.inbox.awake()
        for key, _ in ready:
            if key.fileobj is self.inbox.wakeup:
                self.inbox.wakeup.clear()
            elif (begun := self._begun.get(key.fd)) is not None:
                self._go_on(begun)
            elif (silent := self._silent.get(key.fd)) is not None:
                self._listen_to(silent)
        if self._spoken and not self._is_swamped():
            self._begin_some()
        self._take_in(self.inbox.take())
        now_s = monotonic()
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + self._check_every_s
            for handshake in self._all():
                if handshake.deadline_s <= now_s:
                    self._give_up(handshake)
        if now_s >= self._forget_at_s or len(self._cost) > ADDRESSES_MAX:
            self._forget_at_s = now_s + FORGET_EVERY_S
            costs = self._cost.items()
            self._cost = {group: cost // 2 for group, cost in costs if cost > 1}

    def _sleep_s(self) -> float | None:
        if self._spoken and self._is_swamped():
            return SWAMPED_SLEEP_S
        if self._spoken:
            next_s = max(self._more_at_s, self._room_at_s)
            return min(self._check_every_s, max(0.0, next_s - monotonic()))
        return self._check_every_s if self._silent or self._begun else None

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
        siblings = self._by_group.get(group)
        if siblings and len(siblings) >= self._per_address_max():
            quiet = (each for each in siblings if each.descriptor in self._silent)
            self._give_up(next(quiet, siblings[0]))
        self._make_room_to_wait()
        handshake = _Handshake(sock, group, monotonic() + self._deadline_s)
        # Asked anew: who gave way may have been the last of this address, and its list is gone.
        self._by_group.setdefault(group, []).append(handshake)
        first = _first_byte(handshake)
        if first == _TLS_HANDSHAKE:  # most have spoken when we come to look: no need to watch
            self._queue(handshake)
            return
        if first is not None:  # not TLS, or gone
            self._give_up(handshake)
            return
        self._silent[handshake.descriptor] = handshake
        self._watch(handshake, selectors.EVENT_READ)

    def _listen_to(self, handshake: _Handshake) -> None:
        """It is readable, or has to make room: let it wait for its turn, or give it up."""
        if _first_byte(handshake) != _TLS_HANDSHAKE:
            self._give_up(handshake)
            return
        del self._silent[handshake.descriptor]
        self._watch(handshake, 0)
        self._queue(handshake)

    def _make_room_to_wait(self) -> None:
        """Both kinds share their room: a crowd is all silent first, and has all spoken later."""
        if len(self._silent) + len(self._spoken) < 2 * self._waiting_max:
            return
        if self._silent:
            self._listen_to(next(iter(self._silent.values())))
        if len(self._silent) + len(self._spoken) >= 2 * self._waiting_max:
            self._give_up(self._first_to_go(self._spoken))

    def _queue(self, handshake: _Handshake) -> None:
        """It has spoken: let it wait for its turn."""
        self._spoken[handshake.descriptor] = handshake
        if self._is_lone(handshake):
            self._lone[handshake.descriptor] = handshake

    def _is_lone(self, handshake: _Handshake) -> bool:
        group = handshake.group
        return len(self._by_group[group]) == 1 and self._cost.get(group, 0) < COST_BEGUN

    def _begin_some(self) -> None:
        cost = self._cost
        may_all = monotonic() >= self._more_at_s
        self._room_at_s = spent_s = 0.0
        for handshake in self._next_to_begin(may_all):
            began_s = handshake.began_s = monotonic()
            if not self._has_room(began_s):
                break
            before = cost.get(handshake.group, 0)
            cost[handshake.group] = before + COST_BEGUN
            self._begin(handshake)
            if before >= COST_FREE_MAX:
                spent_s += monotonic() - began_s
        if spent_s:
            self._more_at_s = monotonic() + spent_s

    def _next_to_begin(self, may_all: bool) -> list[_Handshake]:
        """Whose turn it is, in order; `may_all`: those above COST_FREE_MAX too.

        Who finished a few handshakes, and owes none, is as good as a newcomer: of a crowd that all
        come back, the newest are taken without looking at the others. Of who is alone none is
        passed over, however many of a crowd come after: its addresses too owe nothing at first.
        """
        cost = self._cost
        free = self._newest_lone()
        if len(free) == BEGINNINGS_PER_TURN:
            return free
        chosen = {each.descriptor for each in free}
        waiting: list[_Handshake] = []
        for each in islice(reversed(self._spoken.values()), _NEWEST):
            if each.descriptor in chosen:
                continue
            spent = cost.get(each.group, 0)
            if spent < COST_BEGUN:
                free.append(each)
                if len(free) == BEGINNINGS_PER_TURN:
                    return free
            elif may_all or spent < COST_FREE_MAX:
                waiting.append(each)
        waiting.sort(key=lambda each: cost[each.group])
        return free + waiting[: BEGINNINGS_PER_TURN - len(free)]

    def _newest_lone(self) -> list[_Handshake]:
        """As many as may begin at once; who is alone no more is forgotten."""
        found: list[_Handshake] = []
        no_more: list[_Handshake] = []
        for each in reversed(self._lone.values()):
            (found if self._is_lone(each) else no_more).append(each)
            if len(found) == BEGINNINGS_PER_TURN:
                break
        for each in no_more:
            del self._lone[each.descriptor]
        return found

    def _has_room(self, now_s: float) -> bool:
        """Whether another may begin; one that takes its time may have to go for that."""
        begun = self._begun
        if len(begun) >= UNANSWERED_MAX:
            latest = next(islice(reversed(begun.values()), UNANSWERED_MAX - 1, None))
            self._room_at_s = latest.began_s + UNANSWERED_S
            if self._room_at_s > now_s:
                return False
        if len(begun) < BEGUN_MAX:
            return True
        first = self._first_to_go(begun)
        self._room_at_s = first.began_s + BEGUN_PATIENCE_S
        if self._room_at_s > now_s:
            return False
        self._give_up(first)
        return True

    def _first_to_go(self, handshakes: dict[int, _Handshake]) -> _Handshake:
        oldest = islice(handshakes.values(), _OLDEST)
        cost, by_group = self._cost, self._by_group
        return max(oldest, key=lambda each: (cost.get(each.group, 0), len(by_group[each.group])))

    def _begin(self, handshake: _Handshake) -> None:
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
        del self._spoken[handshake.descriptor]
        self._lone.pop(handshake.descriptor, None)
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
            forgiven = COST_BEGUN - COST_FINISHED
            self._cost[handshake.group] = max(0, self._cost.get(handshake.group, 0) - forgiven)
            self._forget(handshake)
            self._hand_over(Adopt(tls, handshake.group, handshake.statement))

    def _watch(self, handshake: _Handshake, mask: int) -> None:
        if handshake.mask == mask:
            return
        if not mask:
            self._selector.unregister(handshake.descriptor)
        elif handshake.mask:
            self._selector.modify(handshake.descriptor, mask)
        else:
            self._selector.register(handshake.descriptor, mask)
        handshake.mask = mask

    def _forget(self, handshake: _Handshake) -> None:
        for handshakes in (self._silent, self._spoken, self._lone, self._begun):
            handshakes.pop(handshake.descriptor, None)
        siblings = self._by_group[handshake.group]
        siblings.remove(handshake)
        if not siblings:
            del self._by_group[handshake.group]
        self._watch(handshake, 0)

    def _give_up(self, handshake: _Handshake) -> None:
        self._forget(handshake)
        handshake.sock.close()  # nothing, if TLS has taken the socket over
        if handshake.tls is not None:
            handshake.tls.close()
