"""Who waits for a TLS handshake, and whose turn it is.

Nothing is spent on a connection before its first byte. Then that one comes first whose address cost
the relay least lately, of these the newest. Of those who are alone of an address that owes nothing
none is passed over, however many of a crowd come after.
"""

import socket
import ssl
from collections.abc import Sequence
from itertools import islice
from typing import Final

from saltline.server.settings import CertificateStatement

# Of so many of the newest, those whose addresses cost least have their turn.
_NEWEST: Final = 2048
# What an address has cost lately: for each handshake that it began, less for one that it finished,
# since many people may share an address. Half of it is forgotten now and then.
COST_BEGUN: Final = 4
COST_FINISHED: Final = 1
COST_FREE_MAX: Final = 4 * COST_BEGUN  # above it, an address shares its half of the time
# A step takes 0.3 ms. Each that takes so long costs as much as a beginning, as often as it does.
LONG_STEP_S: Final = 0.05
FORGET_EVERY_S: Final = 10.0
ADDRESSES_MAX: Final = 65_536
# Of so many of the oldest, the one whose address has cost most gives way.
_OLDEST: Final = 128


class Handshake:
    """One connection on its way to a worker; `tls` is set once it has begun."""

    __slots__ = (
        "began_s",
        "deadline_s",
        "descriptor",
        "extra_cost",
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
        self.extra_cost = 0  # for long steps, so far
        self.mask = 0
        self.tls: ssl.SSLSocket | None = None
        self.statement: CertificateStatement


class WaitingRoom:
    """Of one thread. Its tables are by descriptor, oldest first.

    An address has cost its handshakes also after they left; what it has under way counts until
    then.
    """

    def __init__(self) -> None:
        self.silent: dict[int, Handshake] = {}
        self.spoken: dict[int, Handshake] = {}
        self._lone: dict[int, Handshake] = {}  # have spoken, each alone of its address
        self._by_group: dict[str, list[Handshake]] = {}
        self._cost: dict[str, int] = {}
        self._forget_at_s = 0.0

    def __len__(self) -> int:
        """How many wait."""
        return len(self.silent) + len(self.spoken)

    def of_address(self, group: str) -> Sequence[Handshake]:
        """Those of an address that wait or are under way, oldest first."""
        return self._by_group.get(group, ())

    def enter(self, handshake: Handshake) -> None:
        """Another one of its address; it neither waits nor is under way yet."""
        self._by_group.setdefault(handshake.group, []).append(handshake)

    def hear(self, handshake: Handshake) -> None:
        """It has spoken: it waits for its turn."""
        self.silent.pop(handshake.descriptor, None)
        self.spoken[handshake.descriptor] = handshake
        if self.is_lone(handshake):
            self._lone[handshake.descriptor] = handshake

    def begin(self, handshake: Handshake) -> int:
        """It waits no more: its address owes a handshake. Returns what it had cost before."""
        self.spoken.pop(handshake.descriptor, None)
        self._lone.pop(handshake.descriptor, None)
        before = self.cost(handshake)
        self._cost[handshake.group] = before + COST_BEGUN
        return before

    def charge(self, handshake: Handshake, spent_s: float) -> None:
        """A step of it took so much of the processor's time."""
        extra = COST_BEGUN * int(spent_s / LONG_STEP_S)
        if extra:
            handshake.extra_cost += extra
            self._cost[handshake.group] = self.cost(handshake) + extra

    def cost(self, handshake: Handshake) -> int:
        """What its address has cost lately."""
        return self._cost.get(handshake.group, 0)

    def finish(self, handshake: Handshake) -> None:
        """Its handshake is done: most of what it cost is forgiven."""
        owed = self.cost(handshake) - COST_BEGUN - handshake.extra_cost
        self._cost[handshake.group] = max(0, owed + COST_FINISHED)

    def leave(self, handshake: Handshake) -> None:
        """It neither waits nor is under way any more."""
        for handshakes in (self.silent, self.spoken, self._lone):
            handshakes.pop(handshake.descriptor, None)
        siblings = self._by_group[handshake.group]
        siblings.remove(handshake)
        if not siblings:
            del self._by_group[handshake.group]

    def forget_costs(self, now_s: float) -> None:
        """By half, now and then, or when there are too many addresses."""
        if now_s >= self._forget_at_s or len(self._cost) > ADDRESSES_MAX:
            self._forget_at_s = now_s + FORGET_EVERY_S
            costs = self._cost.items()
            self._cost = {group: cost // 2 for group, cost in costs if cost > 1}

    def is_lone(self, handshake: Handshake) -> bool:
        """Whether it is the only one of an address that owes nothing."""
        group = handshake.group
        return len(self._by_group[group]) == 1 and self._cost.get(group, 0) < COST_BEGUN

    def is_of_a_crowd(self, handshake: Handshake) -> bool:
        """Whether its address has others too, or owes for more than this one."""
        group = handshake.group
        return len(self._by_group[group]) > 1 or self._cost.get(group, 0) > COST_BEGUN

    def next_to_begin(self, most: int, *, may_all: bool) -> list[Handshake]:
        """Whose turn it is, in order; `may_all`: those above COST_FREE_MAX too.

        Who finished a few handshakes, and owes none, is as good as a newcomer: of a crowd that all
        come back, the newest are taken without looking at the others.
        """
        cost = self._cost
        free = self._newest_lone(most)
        if len(free) == most:
            return free
        chosen = {each.descriptor for each in free}
        waiting: list[Handshake] = []
        for each in islice(reversed(self.spoken.values()), _NEWEST):
            if each.descriptor in chosen:
                continue
            spent = cost.get(each.group, 0)
            if spent < COST_BEGUN:
                free.append(each)
                if len(free) == most:
                    return free
            elif may_all or spent < COST_FREE_MAX:
                waiting.append(each)
        waiting.sort(key=lambda each: cost[each.group])
        return free + waiting[: most - len(free)]

    def _newest_lone(self, most: int) -> list[Handshake]:
        """Who is alone no more is forgotten."""
        found: list[Handshake] = []
        no_more: list[Handshake] = []
        for each in reversed(self._lone.values()):
            (found if self.is_lone(each) else no_more).append(each)
            if len(found) == most:
                break
        for each in no_more:
            del self._lone[each.descriptor]
        return found

    def first_to_go(self, handshakes: dict[int, Handshake]) -> Handshake:
        """Of the oldest, the one whose address has cost most, or has most of them."""
        oldest = islice(handshakes.values(), _OLDEST)
        cost, by_group = self._cost, self._by_group
        return max(oldest, key=lambda each: (cost.get(each.group, 0), len(by_group[each.group])))
