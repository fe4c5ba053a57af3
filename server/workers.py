"""I/O workers: each thread owns its connections, their sockets and TLS states, in one selector.

A turn: read what came, tell the core all of it under one lock take, carry out what the core asked
for, and write what each connection has to say in one go. A TLS write costs the same whatever it
carries, so batching is the speed.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final

from saltline.protocol.limits import FRAME_MAX_BYTES, OUTGOING_QUEUE_MAX_BYTES
from saltline.server import events
from saltline.server.buffers import widen
from saltline.server.config import Deadlines
from saltline.server.connection import (
    READ,
    WRITE,
    Connection,
    is_much_work,
)
from saltline.server.connection_table import ConnectionTable
from saltline.server.driver import CoreDriver, log
from saltline.server.effects import Broadcast, Close, Pause, Promote, Resume, Send
from saltline.server.events import Event
from saltline.server.pace import Pace
from saltline.server.reader import HELPING, Reader
from saltline.server.store.interface import Outcome, StoreError, TextsStored
from saltline.server.threads import OnFailure, RelayThread
from saltline.server.wakeup import Inbox
from saltline.server.work import Adopt, Finish, Stored, Work
from saltline.server.writer import Writer

# How much of what the store has done the core gets at once, texts counted one by one, long ones
# as several. Afterwards members of a busy room are written to, and the core hears who is too slow,
# before it pushes more.
RESULTS_PER_TURN: Final = 256
_TEXT_BYTES: Final = 4096


class Worker:
    """An I/O thread. Others only post to `inbox`; `on_failure` hears what ended it too early.

    Connection `n` belongs to worker `n % count`. Worker 0 also tells the core the time, and what
    the store has done: in one place, in the store's order, many outcomes at once.
    """

    def __init__(
        self,
        index: int,
        count: int,
        driver: CoreDriver,
        on_failure: OnFailure,
        *,
        deadlines: Deadlines,
        flush_interval_s: float,
        queue_max_bytes: int = OUTGOING_QUEUE_MAX_BYTES,
    ) -> None:
        self.inbox: Inbox[Work] = Inbox()
        self.adopted = 0  # connections, so far
        self._index = index
        self._count = count
        self._next_number = index + count  # 0 is nobody's number
        self._driver = driver
        self._deadlines = deadlines
        self.pace = Pace(flush_interval_s)
        self._table = ConnectionTable(self._on_closed, deadlines.close_s)
        self.reader = Reader(self._table, self.pace, deadlines.frame_s)
        self._writer = Writer(
            self._table,
            self.pace,
            queue_max_bytes,
            self._happened,
            self.reader.read_on,
            self.reader.say_goodbye,
        )
        self._events: list[Event] = []  # for the core, in this turn
        self._results: deque[tuple[int, Outcome | StoreError]] = deque()  # likewise, from the store
        self._check_at_s = 0.0
        self._arrived: dict[int, int] = {}  # at slow readers, when they were last looked at
        self._is_finishing = False
        self._thread = RelayThread(f"worker {index}", self._run, on_failure)

    def __len__(self) -> int:
        """How many descriptors its connections hold."""
        return len(self._table)

    def start(self) -> None:
        """Begin to work."""
        self._table.watch_wakeup(self.inbox.wakeup)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread, after `Finish`; False if it took too long."""
        return self._thread.has_ended(timeout_s)

    def close(self) -> None:
        """Give the descriptors back; after `join`, or without `start`."""
        self._table.close()
        self.inbox.wakeup.close()

    # --- the loop --------------------------------------------------------------------------------

    def _run(self) -> None:
        self.reader.watch.begin()
        try:
            while not (self._is_finishing and len(self) == 0):
                self._turn()
        finally:
            self._table.close_all()
            for item in self.inbox.take():
                if isinstance(item, Adopt):
                    item.sock.close()

    def _turn(self) -> None:
        inbox = self.inbox
        ready = self._wait(inbox.about_to_sleep() and not self._has_work())
        inbox.awake()
        self.reader.begin_turn(len(ready))
        now_s = monotonic()
        for connection, mask in ready:
            if connection is None:
                inbox.wakeup.clear()
            else:
                self._on_ready(connection, mask, now_s)
        self.reader.read_again(now_s)
        self._carry_out(inbox.take())
        self._tell_core(now_s)
        self._carry_out(inbox.take())
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + self._deadlines.check_every_s
            self.pace.wrote(0, now_s)  # who has nobody to write to any more is not busy
            self._check_deadlines(now_s)
        if self._writer.has_work:
            self._writer.write_all(now_s)

    def _wait(self, may_sleep: bool) -> list[tuple[Connection | None, int]]:
        """Sleep, if that is right; which connections are ready.

        A busy worker reads at intervals, and between them hears the inbox alone: what came
        meanwhile shares a wake-up, a commit and one write to each reader.
        """
        now_s = monotonic()
        sleep_s = max(0.0, self._check_at_s - now_s) if may_sleep else 0.0
        wait_s = 0.0 if self.reader.is_in_haste else self.pace.wait_s(now_s)
        if wait_s > 0.0:
            woken = self._table.woken(min(sleep_s, wait_s))
            if woken or sleep_s < wait_s:
                return woken
            sleep_s -= wait_s
        ready = self._table.ready(sleep_s)
        self.pace.reads(monotonic())
        return ready

    def _has_work(self) -> bool:
        return bool(self._events or self._results or self.reader.has_work or self._writer.has_work)

    # --- input -----------------------------------------------------------------------------------

    def _on_ready(self, connection: Connection, mask: int, now_s: float) -> None:
        if connection.is_lingering:
            self._table.hear_out(connection)
            return
        if (mask & WRITE and connection.write_wants_write) or (
            mask & READ and connection.write_wants_read
        ):
            self._writer.touch(connection)
        if mask & READ or connection.read_wants_write:
            self.reader.read(connection, now_s)

    def _tell_core(self, now_s: float) -> None:
        """Everything that happened since the last time, under one lock take."""
        if self._results:
            self._events.append(events.stored(self._next_results()))
        ended: list[Connection] = []
        worked: Connection | None = None  # for whom much was done: one in a turn
        for connection in self.reader.take_fed():
            if not connection.may_hand_over:
                connection.is_held_up = True
                continue  # comes back when the core or the output allows
            bodies = connection.take_waiting(HELPING, may_work=worked is None)
            if bodies:
                worked = connection if is_much_work(bodies[-1]) else worked
                self._events.append(events.received(connection.number, bodies))
            if connection.waiting:
                self.reader.feed(connection)
            elif connection.fault is not None:
                self._events.append(events.broken(connection.number, connection.fault))
            elif connection.has_ended:
                ended.append(connection)
            self._table.watch(connection)
        if worked is not None and worked.waiting:  # after those who waited for it
            self.reader.feed(worked)
        if self._events:
            happened, self._events = self._events, []
            self._driver.drive(happened)
        if ended:
            # What the core answered at once may still reach a peer that only stopped sending.
            self._carry_out(self.inbox.take())
            for connection in ended:
                self._let_go(connection, now_s)

    def _next_results(self) -> list[tuple[int, Outcome | StoreError]]:
        results, done = self._results, []
        left = RESULTS_PER_TURN
        while results and left > 0:
            result = results.popleft()
            done.append(result)
            outcome = result[1]
            if isinstance(outcome, TextsStored):
                left -= max(len(outcome.outcomes), outcome.size_bytes // _TEXT_BYTES)
            else:
                left -= 1
        return done

    # --- what the core asks for, and what other threads post -------------------------------------

    def _carry_out(self, items: Sequence[Work]) -> None:
        fanout = self._writer.fanout
        for item in items:
            if type(item) is Send:
                fanout.send(item.connection, item.frame)
            elif type(item) is Broadcast:
                fanout.broadcast(item.connections, item.frame)
            else:
                fanout.end()
                self._carry_out_rare(item)
        fanout.end()

    def _carry_out_rare(self, item: Work) -> None:
        match item:
            case Stored():
                self._results += item.results
            case Adopt():
                self._adopt(item)
            case Finish():
                self._is_finishing = True
                for connection in list(self._table.live.values()):
                    self._let_go(connection, monotonic())
            case Promote() | Pause() | Resume() | Close():
                connection_or_none = self._table.live.get(item.connection)
                if connection_or_none is not None:
                    self._carry_out_for(connection_or_none, item)
            case _:
                raise TypeError(f"a worker was asked for a {type(item).__name__}")

    def _carry_out_for(
        self, connection: Connection, item: Promote | Pause | Resume | Close
    ) -> None:
        match item:
            case Promote():
                connection.decoder.max_body_bytes = FRAME_MAX_BYTES
                widen(connection.sock)
            case Pause():
                connection.is_paused = True
                self._table.watch(connection)
            case Resume():
                connection.is_paused = False
                self.reader.read_on(connection)
            case Close():
                log.debug("Connection %d closes: %s", connection.number, item.reason)
                self._let_go(connection, monotonic())

    def _adopt(self, item: Adopt) -> None:
        self.adopted += 1
        if self._is_finishing or self.reader.watch.bars(item.address, monotonic()):
            item.sock.close()
            return
        number = self._next_number
        self._next_number += self._count
        connection = Connection(number, item.sock, item.address)
        self.reader.read_soon(connection)
        self._table.add(connection)
        self._events.append(events.opened(number, item.address, item.statement))

    # --- the end ---------------------------------------------------------------------------------

    def _check_deadlines(self, now_s: float) -> None:
        if self._index == 0:
            self._events.append(events.ticked)
        arrived_before, self._arrived = self._arrived, {}
        taking: list[int] = []
        for connection in self._table.live.values():
            if connection.is_kept_by_output:
                number = connection.number
                self._arrived[number] = arrived = connection.arrived_bytes
                if arrived > arrived_before.get(number, arrived):
                    taking.append(number)
            self.reader.check_frame(connection, now_s)
        if taking:
            self._events.append(events.taking(taking))
        self._table.drop_late(now_s)

    def _let_go(self, connection: Connection, now_s: float) -> None:
        if not self._table.has_room_to_leave(connection):
            self._writer.write_all(now_s)  # last words, before anybody is dropped
        self._table.let_go(connection, now_s)
        self._writer.touch(connection)

    def _on_closed(self, number: int) -> None:
        self._happened(events.closed(number))

    def _happened(self, event: Event) -> None:
        self._events.append(event)
