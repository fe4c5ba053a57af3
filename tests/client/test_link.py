"""The link: who it trusts, what it carries, and how it comes back."""

import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saltline.client import link as link_module
from saltline.client.certificates import format_pin, inspect_relay, parse_pin, read_target
from saltline.client.link import Link
from saltline.client.link_events import (
    LinkDown,
    LinkReceived,
    LinkRefused,
    LinkTrying,
    LinkUp,
    Target,
)
from saltline.client.model import ExitCode, Refused
from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import FRAME_MAX_BYTES
from saltline.protocol.names import RelayAddress
from tests.client.tls_peer import (
    Events,
    Shown,
    TlsServer,
    closed_port,
    make_certificate,
    wait_until,
)

QUICK_S = 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Shown:
    return make_certificate(folder, "authority", host="authority.example")


@pytest.fixture(scope="module")
def shown(folder: Path, authority: Shown) -> Shown:
    return make_certificate(folder, "relay", signed_by=authority)


@pytest.fixture
def server(shown: Shown) -> Iterator[TlsServer]:
    with TlsServer(shown) as running:
        yield running


StartLink = Callable[[Target], tuple[Link, Events]]


@pytest.fixture
def start_link() -> Iterator[StartLink]:
    links: list[Link] = []

    def start(target: Target) -> tuple[Link, Events]:
        events = Events()
        link = Link(target, events, first_retry_s=QUICK_S)
        links.append(link)
        link.start()
        return link, events

    yield start
    for link in links:
        link.stop()


# --- certificates ----------------------------------------------------------------------------


def test_a_pinned_relay_is_connected_to_over_tls_1_3(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address, pin=shown.spki_hash))

    up = events.wait_for(LinkUp)

    assert (up.connection, up.spki_hash) == (1, shown.spki_hash)
    assert server.accept().sock.version() == "TLSv1.3"


def test_another_key_than_the_pinned_one_gets_not_one_byte_and_no_second_try(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    wrong = bytes(32)
    _, events = start_link(Target(server.address, pin=wrong))

    refused = events.wait_for(LinkRefused)

    assert format_pin(wrong) in refused.sentence
    assert format_pin(shown.spki_hash) in refused.sentence
    assert "Nothing was sent" in refused.sentence
    assert server.accept().until_closed() == b""
    assert [type(event) for event in events.all] == [LinkTrying, LinkRefused]


def test_after_a_refusal_the_link_waits_until_it_is_asked(
    server: TlsServer, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=bytes(32)))
    events.wait_for(LinkRefused)

    link.reconnect()

    events.wait_for(LinkRefused, 1)
    wait_until(lambda: server.handshakes == 2, "a second handshake, and no third")


def test_a_certificate_of_the_given_authority_needs_no_pin(
    server: TlsServer, authority: Shown, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address, ca_file=str(authority.chain)))

    assert events.wait_for(LinkUp).spki_hash == shown.spki_hash


def test_the_systems_authorities_do_not_vouch_for_a_relay_of_our_own(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address))

    refused = events.wait_for(LinkRefused)

    assert format_pin(shown.spki_hash) in refused.sentence
    assert "not vouched for by the system's authorities" in refused.sentence


def test_an_authority_vouches_for_a_name_not_for_every_name(
    folder: Path, authority: Shown, start_link: StartLink
) -> None:
    elsewhere = make_certificate(folder, "other", host="other.example", signed_by=authority)
    with TlsServer(elsewhere) as server:
        _, events = start_link(Target(server.address, ca_file=str(authority.chain)))

        assert "127.0.0.1" in events.wait_for(LinkRefused).sentence


def test_a_pin_does_not_ask_for_the_name(folder: Path, start_link: StartLink) -> None:
    elsewhere = make_certificate(folder, "named", host="other.example")
    with TlsServer(elsewhere) as server:
        _, events = start_link(Target(server.address, pin=elsewhere.spki_hash))

        assert events.wait_for(LinkUp).spki_hash == elsewhere.spki_hash


def test_tls_1_2_is_not_spoken(shown: Shown, start_link: StartLink) -> None:
    with TlsServer(shown, newest=ssl.TLSVersion.TLSv1_2) as server:
        _, events = start_link(Target(server.address, pin=shown.spki_hash))

        assert "does not speak TLS 1.3" in events.wait_for(LinkDown).detail
        wait_until(lambda: server.failures, "a refused handshake")
        assert server.handshakes == 0


def test_a_relays_pin_can_be_fetched_before_anybody_logs_in(
    server: TlsServer, authority: Shown, shown: Shown
) -> None:
    seen = inspect_relay(server.address)
    vouched = inspect_relay(server.address, str(authority.chain))

    assert (seen.pin, seen.vouched) == (format_pin(shown.spki_hash), False)
    assert (vouched.spki_hash, vouched.vouched) == (shown.spki_hash, True)
    assert server.accept(0).until_closed() == b""


def test_a_relay_that_is_not_there_cannot_be_inspected() -> None:
    with closed_port() as port, pytest.raises(Refused, match="cannot be reached") as refused:
        inspect_relay(RelayAddress("127.0.0.1", port))

    assert refused.value.code is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "ab" * 32, "sha256:" + "AB" * 32, "sha256:" + "ab" * 31, "SHA256:" + "ab" * 32],
)
def test_a_pin_has_one_spelling(text: str) -> None:
    with pytest.raises(Refused, match="64 hexadecimal digits in lower case"):
        parse_pin(text)


def test_what_proves_a_relay_is_said_once(folder: Path, authority: Shown) -> None:
    pin = format_pin(b"\x01" * 32)
    pinned = read_target("relay.example", pin, None)
    moved = read_target("new.example:1", None, None, before=pinned)

    assert pinned == Target(RelayAddress("relay.example", 7443), b"\x01" * 32)
    assert moved == Target(RelayAddress("new.example", 1), b"\x01" * 32)
    assert read_target("x", None, str(authority.chain), before=moved).pin == b""
    with pytest.raises(Refused, match="not both"):
        read_target("relay.example", pin, "ca.pem")
    with pytest.raises(Refused, match="cannot be read"):
        read_target("relay.example", None, str(folder / "nowhere.pem"))
    with pytest.raises(Refused, match="Not a relay's address"):
        read_target("two words", pin, None)


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
    last = os.urandom(200_000)
    link.send(1, encode_frame(last))
    link.stop(flush_s=20)

    assert server.accept().next_body() == last


def test_a_link_that_never_started_can_be_stopped() -> None:
    link = Link(Target(RelayAddress("127.0.0.1", 1)), Events())

    link.stop()
    link.stop()
    link.reconnect()
