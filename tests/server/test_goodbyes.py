"""How connections end: in which order, with which last words, and who is not waited for."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.server import connection_table
from saltline.server.config import Deadlines
from saltline.server.fanout import GATHERED_MIN_READERS
from saltline.server.reader import HELPING
from tests.server.edge import CONTEXT, TIMEOUT_S, ScriptedRelay, config_in, reset
from tests.waiting import wait_until


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[ScriptedRelay]:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        yield relay


def test_the_last_words_arrive_although_input_is_left_unread(
    relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may need longer than a peer's moment for a megabyte in small pieces.
    monkeypatch.setattr(connection_table, "LINGER_MAX_S", TIMEOUT_S)
    with relay.connect() as ada:
        ada.send_raw(b"\0\0\0\0" + b"y" * 1_000_000)
        assert ada.receive().startswith(b"bad_frame ")
        assert ada.sock.recv(1) == b""  # an end, not a reset


def test_closing_waits_for_what_was_sent_before(relay: ScriptedRelay) -> None:
    with relay.connect() as ada:
        ada.send(b"flood 500 4000", b"close", b"echo never")
        for _ in range(500):
            assert len(ada.receive()) == 4000
        assert [ada.receive(), ada.receive()] == [b"end", b"bye"]
        assert ada.is_closed_by_relay()


def test_one_that_only_stops_sending_gets_its_answers(relay: ScriptedRelay) -> None:
    requests = [b"echo %d" % n for n in range(3 * HELPING)]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = CONTEXT.wrap_bio(incoming, outgoing)
    decoder, answers = FrameDecoder(), list[bytes]()

    with socket.create_connection(("127.0.0.1", relay.address.port), TIMEOUT_S) as sock:

        def step(operation: Callable[[], object]) -> bool:
            """Do it, or exchange what it waits for."""
            try:
                operation()
                done = True
            except ssl.SSLWantReadError:
                done = False
            sock.sendall(outgoing.read())
            if not done:
                incoming.write(sock.recv(65536))
            return done

        while not step(tls.do_handshake):
            pass
        tls.write(b"".join(map(encode_frame, requests)))
        step(tls.unwrap)  # sends close_notify, and meets the first answers
        while len(answers) < len(requests):
            step(lambda: answers.extend(decoder.feed(tls.read(65536))))
    assert answers == [body[5:] for body in requests]


def test_one_who_is_closed_gets_what_was_for_all_before(relay: ScriptedRelay) -> None:
    with ExitStack() as stack:
        everyone = [stack.enter_context(relay.connect()) for _ in range(GATHERED_MIN_READERS)]
        wait_until(lambda: len(relay.core.open) == len(everyone))
        everyone[0].send(b"all one", b"all two", b"leave")
        for client in everyone:
            assert [client.receive(), client.receive()] == [b"one", b"two"]
        assert everyone[0].is_closed_by_relay()


def test_a_reset_connection_is_gone(relay: ScriptedRelay) -> None:
    ada = relay.connect()
    assert ada.ask(b"echo x") == b"x"
    reset(ada.sock)
    number = relay.core.happened[0][1]
    wait_until(lambda: relay.core.saw("closed", number))


def test_those_who_do_not_leave_are_not_kept_for_long(tmp_path: Path) -> None:
    deadlines = Deadlines(close_s=0.1, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay:
        stubborn = relay.connect(receive_buffer=4096)
        stubborn.send(b"flood 200 16000", b"close")
        wait_until(lambda: relay.core.saw("closed"))
        wait_until(lambda: sum(map(len, relay._workers)) == 0)
        stubborn.sock.close()


def test_a_peer_that_does_not_close_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LINGER_MAX_S", 0.05)
    deadlines = Deadlines(close_s=1000, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay:
        with relay.connect() as polite:
            assert polite.ask(b"close") == b"bye"
            wait_until(lambda: len(relay._workers[0]) == 0)


def test_of_many_who_leave_at_once_each_gets_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LEAVING_MAX", 2)
    with ScriptedRelay(config_in(tmp_path)) as relay, ExitStack() as stack:
        everyone = [stack.enter_context(relay.connect()) for _ in range(6)]
        wait_until(lambda: len(relay.core.open) == len(everyone))
        everyone[0].send(b"dismiss")
        assert [client.receive() for client in everyone] == [b"bye"] * len(everyone)


def test_of_much_that_leaves_at_once_all_arrives_where_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LEAVING_MAX_BYTES", 20)
    with ScriptedRelay(config_in(tmp_path)) as relay, ExitStack() as stack:
        everyone = [stack.enter_context(relay.connect()) for _ in range(6)]
        wait_until(lambda: len(relay.core.open) == len(everyone))
        everyone[0].send(b"dismiss")
        assert [client.receive() for client in everyone] == [b"bye"] * len(everyone)


def test_of_too_many_that_do_not_leave_the_oldest_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LEAVING_MAX", 2)
    deadlines = Deadlines(close_s=1000, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay, ExitStack() as stack:
        for _ in range(4):
            stubborn = stack.enter_context(relay.connect(receive_buffer=4096))
            stubborn.send(b"flood 200 16000", b"close")
        wait_until(lambda: sum(e[0] == "closed" for e in relay.core.happened) == 4)
        assert len(relay._workers[0]) == 2


def test_what_nobody_takes_is_not_left_to_the_kernel(tmp_path: Path) -> None:
    deadlines = Deadlines(close_s=0.1, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay:
        with relay.connect(receive_buffer=4096) as stubborn:
            stubborn.send(b"flood 50 16000", b"close")
            wait_until(lambda: relay.core.saw("closed"))
            wait_until(lambda: len(relay._workers[0]) == 0)
            with pytest.raises(ConnectionResetError):  # TLS would not tell it from an end
                while socket.socket.recv(stubborn.sock, 65536):
                    pass


@pytest.mark.parametrize("only_stops_sending", [False, True])
def test_what_the_kernel_holds_has_its_time_to_arrive(
    only_stops_sending: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LINGER_MAX_S", 0.01)
    with ScriptedRelay(config_in(tmp_path)) as relay:
        with relay.connect(receive_buffer=4096) as slow:
            slow.send(b"flood 50 16000", b"close")
            if only_stops_sending:
                socket.socket.shutdown(slow.sock, socket.SHUT_WR)  # below TLS
            wait_until(lambda: relay.core.saw("closed"))
            time.sleep(0.2)  # several looks at who is late
            for _ in range(50):
                assert len(slow.receive()) == 16000
            assert [slow.receive(), slow.receive()] == [b"end", b"bye"]


def test_those_who_leave_hold_only_so_much_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LEAVING_MAX_BYTES", 1_500_000)
    deadlines = Deadlines(close_s=1000, check_every_s=0.02)
    with ScriptedRelay(config_in(tmp_path, deadlines=deadlines)) as relay, ExitStack() as stack:
        for _ in range(4):
            stubborn = stack.enter_context(relay.connect(receive_buffer=4096))
            stubborn.send(b"flood 50 16000", b"close")
        wait_until(lambda: sum(e[0] == "closed" for e in relay.core.happened) == 4)
        assert len(relay._workers[0]) == 1


def test_what_those_who_leave_have_taken_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.connection_table.LEAVING_MAX_BYTES", 1_500_000)
    monkeypatch.setattr("saltline.server.connection_table.LINGER_MAX_S", TIMEOUT_S)
    with ScriptedRelay(config_in(tmp_path)) as relay, ExitStack() as stack:
        for count in range(1, 5):
            client = stack.enter_context(relay.connect(receive_buffer=4096))
            client.send(b"flood 50 16000", b"close")
            wait_until(partial(relay.core.saw, "closed", count))
            for _ in range(50):
                assert len(client.receive()) == 16000
            assert [client.receive(), client.receive()] == [b"end", b"bye"]
            assert len(relay._workers[0]) == count
