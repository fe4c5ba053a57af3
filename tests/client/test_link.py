"""The link: what it carries, and how it comes back."""

import os
import selectors
import socket
import ssl
import sys
import threading
import time
from concurrent import futures
from contextlib import ExitStack
from typing import Any

import pytest

from saltline.client import link as link_module
from saltline.client.dialing import dial
from saltline.client.link import Link
from saltline.client.link_events import (
    LinkDown,
    LinkReceived,
    LinkTrying,
    LinkUp,
    Target,
)
from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import FRAME_MAX_BYTES
from saltline.protocol.names import RelayAddress
from tests.client.tls_peer import QUICK_S, Events, Shown, StartLink, TlsServer, closed_port
from tests.platform import platform_lacks
from tests.waiting import wait_until

# --- frames ----------------------------------------------------------------------------------


def test_frames_go_both_ways_whole_and_in_order(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    events.wait_for(LinkUp)
    link.send(1, encode_frame(b"hello") + encode_frame(b"again"))
    relay = server.accept()

    assert [relay.next_body(), relay.next_body()] == [b"hello", b"again"]

    large = os.urandom(FRAME_MAX_BYTES)
    stream = encode_frame(b"one") + encode_frame(large) + encode_frame(b"three")
    relay.send(stream[:5])
    relay.send(stream[5:])
    wait_until(lambda: sum(len(event.bodies) for event in events.of(LinkReceived)) == 3)

    bodies = [body for event in events.of(LinkReceived) for body in event.bodies]
    assert bodies == [b"one", large, b"three"]


def test_a_part_of_a_frame_is_told_as_a_sign_of_life(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address, pin=shown.spki_hash))
    server.accept().send(encode_frame(bytes(1000))[:500])
    heard = events.wait_for(LinkReceived)
    assert (list(heard.bodies), heard.size_bytes) == ([], 500)


def test_what_is_sent_for_an_older_connection_does_not_reach_the_next(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    events.wait_for(LinkUp)
    server.accept(0).close()
    assert events.wait_for(LinkUp, 1).connection == 2

    link.send(1, encode_frame(b"for the first"))
    link.send(2, encode_frame(b"for the second"))

    assert server.accept(1).next_body() == b"for the second"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\0\0\0\0", "An empty frame"),
        ((FRAME_MAX_BYTES + 1).to_bytes(4, "big"), "A frame of "),
        (b"HTTP/1.1 400 Bad Request\r\n", "A frame of "),
    ],
)
def test_bytes_that_are_no_frames_end_the_connection_with_a_reason(
    server: TlsServer, shown: Shown, start_link: StartLink, data: bytes, sentence: str
) -> None:
    _, events = start_link(Target(server.address, pin=shown.spki_hash))
    server.accept().send(data)

    down = events.wait_for(LinkDown)

    assert down.connection == 1
    assert sentence in down.detail
    assert down.retry_in_s is not None


def test_a_relay_that_reads_nothing_holds_the_writer_up_for_a_bounded_time(
    server: TlsServer, shown: Shown, start_link: StartLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_STALLED_S", 0.2)
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    events.wait_for(LinkUp)
    server.accept()

    def write_for_ever() -> None:
        while not events.of(LinkDown):
            link.send(1, encode_frame(bytes(FRAME_MAX_BYTES)))

    writer = threading.Thread(target=write_for_ever)
    writer.start()

    assert events.wait_for(LinkDown).connection == 1
    writer.join(20)
    assert not writer.is_alive()


def test_what_nobody_consumes_is_left_on_the_relays_side(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    relay = server.accept()
    relay.sock.setblocking(False)
    frames = memoryview(encode_frame(bytes(100_000)) * 400)

    sent = 0
    with selectors.DefaultSelector() as writable:
        writable.register(relay.sock, selectors.EVENT_WRITE)
        while sent < len(frames) and writable.select(0.5):
            try:
                sent += relay.sock.send(frames[sent : sent + 65536])
            except ssl.SSLWantWriteError:
                if not writable.select(0.5):
                    break
    taken = sum(event.size_bytes for event in events.of(LinkReceived))

    assert sent < len(frames)
    assert taken < 6 * 1024 * 1024
    # Once it is taken in, more comes.
    link.consumed(taken)
    wait_until(lambda: sum(each.size_bytes for each in events.of(LinkReceived)) > taken)


# --- coming back -----------------------------------------------------------------------------


def test_a_relay_that_is_away_is_tried_again_after_growing_times(start_link: StartLink) -> None:
    with closed_port() as port:
        _, events = start_link(Target(RelayAddress("127.0.0.1", port), pin=bytes(32)))
        waits = [events.wait_for(LinkDown, number).retry_in_s for number in range(5)]

    for number, wait in enumerate(waits):
        assert wait is not None
        assert 0.74 * QUICK_S * 2**number < wait <= QUICK_S * 2**number
    assert "nobody listens there" in events.of(LinkDown)[0].detail


def test_waiting_is_cut_short_when_somebody_asks(shown: Shown) -> None:
    events = Events()
    with closed_port() as port:
        link = Link(Target(RelayAddress("127.0.0.1", port), pin=bytes(32)), events)
        link.start()
        assert events.wait_for(LinkDown).retry_in_s is not None
        link.reconnect()
        events.wait_for(LinkDown, 1)
        link.stop()

    assert len(events.of(LinkTrying)) >= 2


def test_who_asks_for_a_connection_does_not_break_the_one_that_is_being_made(
    start_link: StartLink,
) -> None:
    if sys.platform != "linux":
        platform_lacks("a full backlog that leaves connections waiting")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy, ExitStack() as others:
        address = RelayAddress("127.0.0.1", busy.getsockname()[1])
        for _ in range(4):  # more than wait to be accepted
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex((address.host, address.port))
        link, events = start_link(Target(address, pin=bytes(32)))
        events.wait_for(LinkTrying)
        for _ in range(20):
            time.sleep(0.02)
            link.reconnect()

        assert events.of(LinkDown) == []


def test_who_asked_for_the_connection_that_is_made_does_not_ask_for_the_next(
    server: TlsServer, shown: Shown, start_link: StartLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def dial_later(*args: Any) -> ssl.SSLSocket:
        asked.wait(QUICK_S)
        return dial(*args)

    monkeypatch.setattr("saltline.client.link.dial", dial_later)
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    events.wait_for(LinkTrying)
    link.reconnect()
    asked.set()
    events.wait_for(LinkUp)
    link.drop(1, retry=False)
    events.wait_for(LinkDown)
    time.sleep(0.2)

    assert len(events.of(LinkTrying)) == 1


def test_a_login_makes_the_next_waiting_time_short_again(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    for number in range(3):
        events.wait_for(LinkUp, number)
        server.accept(number).close()
    events.wait_for(LinkUp, 3)
    link.settled(4)
    server.accept(3).close()

    assert (events.wait_for(LinkDown, 2).retry_in_s or 0) > QUICK_S
    assert (events.wait_for(LinkDown, 3).retry_in_s or 0) <= QUICK_S


def test_a_dropped_link_stays_down_unless_it_is_to_come_back(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    events.wait_for(LinkUp)
    link.drop(1, retry=True)
    events.wait_for(LinkUp, 1)
    link.drop(1, retry=False)  # of the past: does nothing
    link.drop(2, retry=False)

    assert events.wait_for(LinkDown, 1) == LinkDown(
        2, f"{server.address}: disconnected", retry_in_s=None
    )
    link.reconnect()
    assert events.wait_for(LinkUp, 2).connection == 3


def test_a_relay_that_moved_is_followed(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    with closed_port() as port:
        link, events = start_link(Target(RelayAddress("127.0.0.1", port), pin=shown.spki_hash))
        events.wait_for(LinkDown)
        link.retarget(Target(server.address, pin=shown.spki_hash))

        events.wait_for(LinkUp)


def test_stopping_does_not_wait_for_a_silent_handshake(shown: Shown) -> None:
    events = Events()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = RelayAddress("127.0.0.1", silent.getsockname()[1])
        link = Link(Target(address, pin=shown.spki_hash), events)
        link.start()
        silent.settimeout(20)
        connection, _ = silent.accept()
        stopper = threading.Thread(target=link.stop)
        stopper.start()
        stopper.join(10)
        connection.close()

    assert not stopper.is_alive()
    assert events.of(LinkUp) == []


def test_stopping_flushes_what_was_sent(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=shown.spki_hash))
    events.wait_for(LinkUp)
    peer = server.accept()
    last = os.urandom(200_000)
    link.send(1, encode_frame(last))
    with futures.ThreadPoolExecutor() as pool:
        stopping = pool.submit(link.stop, flush_s=20)
        futures.wait([stopping], timeout=0.2)  # half of it is still in our kernel
        peer.send(encode_frame(b"to somebody who reads no more"))
        assert peer.next_body() == last
        assert peer.until_closed()
        peer.close()
        stopping.result(timeout=5)


def test_a_link_that_never_started_can_be_stopped() -> None:
    link = Link(Target(RelayAddress("127.0.0.1", 1)), Events())

    link.stop()
    link.stop()
    link.reconnect()
