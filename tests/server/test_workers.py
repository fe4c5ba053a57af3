"""The worker threads: what reaches the core, what leaves for clients, and what is bounded."""

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import (
    FRAME_MAX_BEFORE_LOGIN_BYTES,
    FRAME_MAX_BYTES,
    OUTGOING_QUEUE_MAX_BYTES,
)
from saltline.protocol.messages import encode_message
from saltline.protocol.to_relay import History
from saltline.server.config import Deadlines
from saltline.server.connection import RECORD_BYTES, UNREAD_MAX_BYTES, Connection
from saltline.server.reader import HELPING
from saltline.server.store.interface import EntryStored, TextsStored
from saltline.server.workers import RESULTS_PER_TURN, Worker
from tests.server.edge import RawClient, ScriptedRelay, config_in
from tests.waiting import wait_until


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[ScriptedRelay]:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        yield relay


def number_of(relay: ScriptedRelay, client: RawClient) -> int:
    """The number of a client's connection."""
    assert client.ask(b"echo who am I") == b"who am I"
    number = [event[1] for event in relay.core.happened if event[0] == "received"][-1]
    assert isinstance(number, int)
    return number


def received_of(relay: ScriptedRelay, number: int) -> int:
    """How many requests of a connection the core has had."""
    events = list(relay.core.happened)
    return sum(event[2] for event in events if event[:2] == ("received", number))


def test_a_request_is_answered(relay: ScriptedRelay) -> None:
    with relay.connect() as ada:
        assert ada.ask(b"echo hello") == b"hello"
    number = relay.core.happened[0][1]
    assert relay.core.happened[0] == ("opened", number, "127.0.0.1")
    wait_until(lambda: relay.core.saw("closed", number))


def test_answers_keep_their_order_however_requests_are_cut(relay: ScriptedRelay) -> None:
    stream = b"".join(
        struct.pack(">I", len(body)) + body for body in (b"echo %d" % n for n in range(300))
    )
    with relay.connect() as ada:
        for position in range(0, len(stream), 7):
            ada.send_raw(stream[position : position + 7])
        assert [ada.receive() for _ in range(300)] == [b"%d" % n for n in range(300)]


def test_a_broadcast_reaches_everyone_once(relay: ScriptedRelay) -> None:
    with relay.connect() as ada, relay.connect() as bob, relay.connect() as carol:
        wait_until(lambda: len(relay.core.open) == 3)
        ada.send(b"all one", b"all two", b"echo own")
        assert [ada.receive() for _ in range(3)] == [b"one", b"two", b"own"]
        for other in (bob, carol):
            assert [other.receive(), other.receive()] == [b"one", b"two"]
            assert other.ask(b"echo next") == b"next"


def test_several_workers_share_the_connections(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path, workers=3)) as relay:
        clients = [relay.connect() for _ in range(9)]
        wait_until(lambda: len(relay.core.open) == 9)
        assert {number % 3 for number in relay.core.open} == {0, 1, 2}
        clients[0].send(b"all hello")
        for client in clients:
            assert client.receive() == b"hello"
            assert client.ask(b"echo mine") == b"mine"
            assert client.ask(b"store").startswith(b"stored")
            client.sock.close()
        wait_until(lambda: relay.core.ticks > 10)
        assert relay.core.tickers == {"worker 0"}


def test_a_large_frame_is_for_those_who_logged_in(relay: ScriptedRelay) -> None:
    large = b"echo " + b"x" * (FRAME_MAX_BYTES - 5)
    with relay.connect() as ada:
        assert ada.ask(b"promote") == b"promoted"
        assert ada.ask(large) == large[5:]
    with relay.connect() as stranger:
        stranger.send_raw(struct.pack(">I", FRAME_MAX_BEFORE_LOGIN_BYTES + 1))
        assert stranger.receive().startswith(b"frame_too_large ")
        assert stranger.is_closed_by_relay()


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"\0\0\0\0", b"bad_frame"),
        (b"\xff\xff\xff\xff", b"frame_too_large"),
        (b"GET / HTTP/1.1\r\n\r\n", b"frame_too_large"),
    ],
)
def test_what_is_no_frame_is_answered_by_name_and_closed(
    relay: ScriptedRelay, garbage: bytes, code: bytes
) -> None:
    with relay.connect() as ada:
        ada.send(b"echo before")
        assert ada.receive() == b"before"
        ada.send_raw(garbage)
        assert ada.receive().split()[0] == code
        assert ada.is_closed_by_relay()


def test_a_frame_that_does_not_get_whole_ends_the_connection(tmp_path: Path) -> None:
    deadlines = Deadlines(frame_s=0.1, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay:
        with relay.connect() as slow, relay.connect() as quiet:
            slow.send_raw(b"\0\0\1\0begin")
            assert slow.receive().startswith(b"too_slow A frame did not arrive whole within 0.1 ")
            assert slow.is_closed_by_relay()
            assert quiet.ask(b"echo silence is allowed") == b"silence is allowed"


def test_the_deadline_is_for_the_whole_frame_not_for_each_byte(tmp_path: Path) -> None:
    deadlines = Deadlines(frame_s=0.3, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay, relay.connect() as slow:
        slow.send_raw(struct.pack(">I", 10_000))
        slow.sock.settimeout(0.02)
        for _ in range(1000):
            try:
                slow.send_raw(b"x")
                answer = slow.sock.recv(1000)
                break
            except TimeoutError:
                continue
        assert b"too_slow" in answer


def test_a_slow_reader_is_reported_read_no_more_and_bounded(relay: ScriptedRelay) -> None:
    with relay.connect(receive_buffer=4096) as slow, relay.connect() as other:
        number = number_of(relay, slow)
        slow.send(*[b"flood 100 16000"] * 7)  # 11 MB: of that, the kernel holds a few
        wait_until(lambda: relay.core.saw("congested", number, True))
        received = received_of(relay, number)
        slow.send(b"echo after")
        assert other.ask(b"echo unharmed") == b"unharmed"
        assert received_of(relay, number) == received

        frames = [slow.receive() for _ in range(7 * 101 + 1)]
        assert frames.count(b"end") == 7 and frames[-1] == b"after"
        assert relay.core.saw("congested", number, False)


def test_one_that_never_reads_is_cut_off(relay: ScriptedRelay) -> None:
    with relay.connect(receive_buffer=4096) as never, relay.connect() as other:
        number = number_of(relay, never)
        assert never.ask(b"promote") == b"promoted"
        never.send(b"flood 1600 16000")  # 25 MB at once, of which the kernel takes a few
        wait_until(lambda: relay.core.saw("closed", number))
        assert other.ask(b"echo unharmed") == b"unharmed"


def test_a_paused_connection_is_not_read_until_resumed(relay: ScriptedRelay) -> None:
    with relay.connect() as ada, relay.connect() as bob:
        number = number_of(relay, ada)
        ada.send(b"pause")
        wait_until(lambda: received_of(relay, number) == 2)
        ada.send(*(b"echo %d" % n for n in range(100)))
        assert bob.ask(b"echo not paused") == b"not paused"
        assert received_of(relay, number) == 2
        bob.send(b"resume %d" % number)
        assert [ada.receive() for _ in range(100)] == [b"%d" % n for n in range(100)]


def test_what_was_read_before_a_pause_waits_for_its_end(relay: ScriptedRelay) -> None:
    with relay.connect() as ada, relay.connect() as bob:
        number = number_of(relay, ada)
        ada.send(b"pause", *(b"echo %d" % n for n in range(2 * HELPING)))
        assert [ada.receive() for _ in range(HELPING - 1)] == [
            b"%d" % n for n in range(HELPING - 1)
        ]
        bob.send(b"resume %d" % number)
        rest = range(HELPING - 1, 2 * HELPING)
        assert [ada.receive() for _ in rest] == [b"%d" % n for n in rest]


def test_a_pause_holds_up_the_frame_deadline(tmp_path: Path) -> None:
    deadlines = Deadlines(frame_s=0.5, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay:
        with relay.connect() as ada, relay.connect() as bob:
            number = number_of(relay, ada)
            ada.send_raw(b"\0\0\0\5pause\0\0\0\x0cecho ")
            wait_until(lambda: received_of(relay, number) == 2)
            (connection,) = (c for c in relay._workers[0]._table.live.values() if c.is_paused)
            wait_until(lambda: time.monotonic() > connection.frame_by_s)
            bob.send(b"resume %d" % number)
            bob.ask(b"echo done")
            ticks = relay.core.ticks
            wait_until(lambda: relay.core.ticks > ticks + 2)
            ada.send_raw(b"patient")
            assert ada.receive() == b"patient"


def test_after_a_request_with_a_long_answer_nothing_is_taken_until_it_came(
    relay: ScriptedRelay,
) -> None:
    with relay.connect() as ada, relay.connect() as bob:
        number = number_of(relay, ada)
        before = received_of(relay, number)
        history = encode_message(History(1, "#lobby", 0, 200))  # the script has no answer to it
        ada.send(history, history, b"echo after")
        wait_until(lambda: received_of(relay, number) > before)
        assert bob.ask(b"echo unharmed") == b"unharmed"
        assert received_of(relay, number) == before + 1
        bob.send(b"all one")
        assert ada.receive() == b"one"
        wait_until(lambda: received_of(relay, number) == before + 2)
        bob.send(b"all two")
        assert [ada.receive(), ada.receive()] == [b"two", b"after"]


def test_who_has_enough_to_read_is_asked_nothing_more(relay: ScriptedRelay) -> None:
    with relay.connect(receive_buffer=4096) as ada, relay.connect() as bob:
        number = number_of(relay, ada)
        (connection,) = (c for c in relay._workers[0]._table.live.values() if c.number == number)
        floods = 0
        while connection.queued_bytes <= UNREAD_MAX_BYTES:  # the kernel holds some
            floods += 1
            ada.send(b"flood 10 16000")
            wait_until(lambda: received_of(relay, number) == 1 + floods)  # noqa: B023
            assert bob.ask(b"echo written") == b"written"
        ada.send(b"echo after")
        assert bob.ask(b"echo unharmed") == b"unharmed"
        assert received_of(relay, number) == 1 + floods
        assert not relay.core.saw("congested")
        frames = [ada.receive() for _ in range(floods * 11 + 1)]
        assert frames.count(b"end") == floods and frames[-1] == b"after"


def test_requests_come_in_helpings(relay: ScriptedRelay) -> None:
    with relay.connect() as ada:
        ada.send(*[b"echo x"] * 1000)
        assert [ada.receive() for _ in range(1000)] == [b"x"] * 1000
    assert max(e[2] for e in relay.core.happened if e[0] == "received") <= HELPING


def test_no_more_is_taken_apart_than_one_helping_and_a_record(
    relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = [0]
    take = Connection.take_waiting

    def note(connection: Connection, count: int, *, may_work: bool = True) -> list[bytes]:
        most[0] = max(most[0], len(connection.waiting))
        return take(connection, count, may_work=may_work)

    monkeypatch.setattr(Connection, "take_waiting", note)
    with relay.connect() as ada:
        assert ada.ask(b"promote") == b"promoted"
        with relay._driver._lock:  # so that much is there at once
            ada.send(*[b"x"] * 20_000)
        assert ada.ask(b"echo end") == b"end"
    assert most[0] < HELPING + RECORD_BYTES // len(encode_frame(b"x"))


def test_in_a_turn_one_request_is_done_that_is_much_work(
    relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = relay._workers[0]
    turns: list[list[bytes]] = []
    take = Connection.take_waiting

    def note(connection: Connection, most: int, *, may_work: bool = True) -> list[bytes]:
        bodies = take(connection, most, may_work=may_work)
        turns[-1] += bodies
        return bodies

    tell = worker._tell_core

    def tell_core(now_s: float) -> None:
        turns.append([])
        tell(now_s)

    monkeypatch.setattr(worker, "_tell_core", tell_core)
    monkeypatch.setattr(Connection, "take_waiting", note)
    with ExitStack() as stack:
        clients = [stack.enter_context(relay.connect()) for _ in range(5)]
        works = [b"\x97\xa7publish%d" % place for place in range(5)]
        with relay._driver._lock:  # so that all is there at once
            for client, work in zip(clients, works, strict=True):
                client.send(work, b"echo x", work, b"echo y")
            time.sleep(0.2)
        assert [[each.receive(), each.receive()] for each in clients] == [[b"x", b"y"]] * 5
    done = [body for turn in turns for body in turn if body.startswith(b"\x97")]
    assert all(sum(body in works for body in turn) <= 1 for turn in turns)
    assert set(done[:6]) == set(works), "one came first, and each had a turn before its next"


def test_what_was_stored_meanwhile_reaches_the_core_at_once(relay: ScriptedRelay) -> None:
    relay.store.may_run.clear()
    with relay.connect() as ada:
        ada.send(*[b"store"] * 50)
        wait_until(lambda: len(relay.core.tokens) == 50)
        relay.store.may_run.set()
        assert [ada.receive() for _ in range(50)] == [b"stored %d" % n for n in range(1, 51)]
    stored = [e[1] for e in relay.core.happened if e[0] == "stored"]
    assert [len(tokens) for tokens in stored] == relay.store.groups
    assert max(map(len, stored)) > 10


def test_what_was_stored_comes_to_the_core_in_helpings(relay: ScriptedRelay) -> None:
    relay.store.may_run.clear()
    count = 3 * RESULTS_PER_TURN
    with relay.connect() as ada:
        ada.send(*[b"store"] * count)
        wait_until(lambda: len(relay.core.tokens) == count)
        relay.store.may_run.set()
        assert [ada.receive() for _ in range(count)] == [
            b"stored %d" % n for n in range(1, count + 1)
        ]
    assert max(relay.store.groups) > RESULTS_PER_TURN
    assert max(len(e[1]) for e in relay.core.happened if e[0] == "stored") == RESULTS_PER_TURN


def test_texts_that_were_stored_together_count_one_by_one(relay: ScriptedRelay) -> None:
    worker = Worker(
        0, 1, relay._driver, lambda *_: None, deadlines=Deadlines(), flush_interval_s=0.0
    )
    short = TextsStored((EntryStored(1, True, 1),) * HELPING, HELPING * 200)
    long = TextsStored((EntryStored(1, True, 1),), 65_000)
    worker._results += [(token, short) for token in range(5)]
    worker._results += [(token, long) for token in range(40)]
    helpings = [len(worker._next_results()) for _ in range(4)]
    assert helpings == [RESULTS_PER_TURN // HELPING, 1 + 13, 18, 9]
    assert 18 * 65_000 < OUTGOING_QUEUE_MAX_BYTES // 2
    worker.close()


def test_a_burst_for_one_who_reads_is_no_congestion(relay: ScriptedRelay) -> None:
    relay._workers[0]._writer._queue_max_bytes = 20_000
    with relay.connect() as ada:
        ada.send(b"flood 4 16000")
        assert [len(ada.receive()) for _ in range(5)] == [16000] * 4 + [3]
    assert not relay.core.saw("congested")


def test_a_sleeping_worker_is_woken_by_another(tmp_path: Path) -> None:
    deadlines = Deadlines(check_every_s=1000)
    with ScriptedRelay(config_in(tmp_path, workers=2, deadlines=deadlines)) as relay:
        with relay.connect() as ada, relay.connect() as bob:
            wait_until(lambda: {number % 2 for number in relay.core.open} == {0, 1})
            for _ in range(50):
                ada.send(b"all hello")
                assert [ada.receive(), bob.receive()] == [b"hello", b"hello"]
