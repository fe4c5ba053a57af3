"""Accepting connections, and handshakes that nobody can hold up."""

import errno
import os
import resource
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from saltline.protocol.names import RelayAddress
from saltline.server.config import Deadlines
from saltline.server.errors import UsageError
from saltline.server.handshakes import HandshakeThread
from saltline.server.listener import Acceptor, listen
from saltline.server.settings import Settings
from tests.server.edge import (
    TIMEOUT_S,
    RawClient,
    ScriptedRelay,
    client_context,
    config_in,
    open_descriptors,
)
from tests.waiting import wait_until


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[ScriptedRelay]:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        yield relay


def tcp(relay: ScriptedRelay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.address.port), TIMEOUT_S)


def ends(sock: socket.socket) -> bool:
    """Whether the relay closes; what it may still say, a TLS alert, is passed over."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def handshakes_under_way(relay: ScriptedRelay) -> int:
    return sum(map(len, relay._handshakes))


def test_tls_1_3_without_tickets_under_the_pinned_key(relay: ScriptedRelay) -> None:
    with relay.connect() as client:
        assert client.sock.version() == "TLSv1.3"
        assert client.ask(b"echo x") == b"x"
        session = client.sock.session
        assert session is not None and not session.has_ticket
        assert client.ask(b"spki") == relay._certificate.spki_hash
        (connection,) = relay._workers[0]._table.live.values()
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_tls_1_2_is_refused(relay: ScriptedRelay) -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        RawClient(relay.address.port, context=context)
    assert relay.core.happened == []


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 99]
)
def test_what_is_not_tls_is_closed(relay: ScriptedRelay, garbage: bytes) -> None:
    with tcp(relay) as sock:
        sock.sendall(garbage)
        assert ends(sock)
    assert relay.core.happened == []


def test_silent_clients_are_closed_at_their_deadline_and_hold_nobody_up(tmp_path: Path) -> None:
    config = config_in(tmp_path, deadlines=Deadlines(handshake_s=0.3), handshake_threads=1)
    with ScriptedRelay(config) as relay, ExitStack() as stack:
        silent = [stack.enter_context(tcp(relay)) for _ in range(10)]
        with relay.connect() as honest:
            assert honest.ask(b"echo at once") == b"at once"
        assert all(ends(sock) for sock in silent)
        wait_until(lambda: handshakes_under_way(relay) == 0)


def test_the_handshake_deadline_is_a_total(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path, deadlines=Deadlines(handshake_s=0.2))) as relay:
        began_s = monotonic()
        with tcp(relay) as sock:
            sock.settimeout(0.02)
            sent = b"\x16\x03\x01\x40\x00\x01"  # the beginning of a long ClientHello
            for _ in range(200):  # a byte every 0.02 s
                try:
                    sock.sendall(sent[:1] or b"\0")
                    sent = sent[1:]
                    if not sock.recv(100):
                        break
                except TimeoutError:
                    continue
                except (ConnectionResetError, BrokenPipeError):
                    break
            else:
                pytest.fail("the relay waited on and on")
        assert monotonic() >= began_s + 0.2, "it was not the deadline that ended it"


def test_of_too_many_silent_ones_the_oldest_gives_way(tmp_path: Path) -> None:
    settings = Settings(unauthenticated_per_address=3)
    with ScriptedRelay(config_in(tmp_path, settings=settings)) as relay, ExitStack() as stack:
        silent = [stack.enter_context(tcp(relay)) for _ in range(5)]
        assert ends(silent[0]) and ends(silent[1])
        wait_until(lambda: handshakes_under_way(relay) == 3)
        with relay.connect() as honest:
            assert honest.ask(b"echo in") == b"in"
        assert ends(silent[2])


def test_who_has_said_nothing_gives_way_before_who_has(tmp_path: Path) -> None:
    settings = Settings(unauthenticated_per_address=2)
    with ScriptedRelay(config_in(tmp_path, settings=settings)) as relay, ExitStack() as stack:
        begun = [stack.enter_context(tcp(relay)) for _ in range(2)]
        for sock in begun:
            sock.sendall(b"\x16")
        wait_until(lambda: sum(len(each._begun) for each in relay._handshakes) == 2)
        silent = stack.enter_context(tcp(relay))  # takes the place of the oldest
        assert ends(begun[0])
        last = stack.enter_context(tcp(relay))
        assert ends(silent)
        last.sendall(b"no TLS")
        assert ends(last)
        wait_until(lambda: handshakes_under_way(relay) == 1)  # the other that began


def test_a_silent_one_gives_way_wherever_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.relay.WAITING_MAX", 2)
    config = config_in(tmp_path, handshake_threads=1)
    with ScriptedRelay(config) as relay, ExitStack() as stack:
        silent = [stack.enter_context(tcp(relay)) for _ in range(5)]
        assert ends(silent[0])
        wait_until(lambda: handshakes_under_way(relay) == 4)


def test_connections_that_come_and_go_leave_nothing(relay: ScriptedRelay) -> None:
    with relay.connect() as client:
        assert client.ask(b"echo warm") == b"warm"
    wait_until(lambda: not relay.core.open)
    wait_until(lambda: sum(map(len, relay._workers)) == 0)
    before, threads = open_descriptors(), threading.active_count()
    for turn in range(200):
        if turn % 3 == 0:
            tcp(relay).close()
            continue
        with relay.connect() as client:
            if turn % 3 == 1:
                assert client.ask(b"echo %d" % turn) == b"%d" % turn
    wait_until(lambda: not relay.core.open and handshakes_under_way(relay) == 0)
    wait_until(lambda: sum(map(len, relay._workers)) == 0)
    wait_until(lambda: open_descriptors() == before, "the descriptors came back")
    assert threading.active_count() == threads
    assert not any(handshakes._room._by_group for handshakes in relay._handshakes)


def test_without_descriptors_the_relay_goes_on_and_says_so(
    relay: ScriptedRelay, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with relay.connect() as before, socket.socket() as waiting:
        assert before.ask(b"echo x") == b"x"
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            waiting.settimeout(TIMEOUT_S)
            waiting.connect(("127.0.0.1", relay.address.port))
            wait_until(lambda: "New connections are refused" in caplog.text)
            assert before.ask(b"echo still") == b"still"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with relay.connect() as after:
            assert after.ask(b"echo again") == b"again"


def test_above_what_the_process_may_open_connections_are_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        with relay.connect() as first:
            assert first.ask(b"echo x") == b"x"
            relay._descriptors_max = 65  # one connection, and the 64 that are kept
            for _ in range(3):
                with tcp(relay) as further:
                    assert ends(further)
            assert first.ask(b"echo still") == b"still"
    assert caplog.text.count("New connections are refused") == 1, "once a minute"


def test_localhost_is_listened_on_in_all_its_addresses() -> None:
    listening = listen(RelayAddress("localhost", 0))
    ports = {listener.getsockname()[1] for listener in listening}
    for listener in listening:
        listener.close()
    assert len(ports) == 1


def refused(address: RelayAddress) -> str:
    with pytest.raises(UsageError) as refusal:
        listen(address)
    return str(refusal.value)


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(RelayAddress("127.0.0.1", port)).startswith(
            f"127.0.0.1:{port} is in use by another program"
        )


def test_an_address_of_somebody_else_is_said() -> None:
    sentence = "192.0.2.7 is not an address of this computer."
    assert refused(RelayAddress("192.0.2.7", 0)) == sentence


def test_a_port_that_takes_rights_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "create_server", forbidden)
    sentence = "This user may not listen on 127.0.0.1:443. Choose a port above 1023 with --listen."
    assert refused(RelayAddress("127.0.0.1", 443)) == sentence


def test_an_acceptor_that_dies_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Acceptor, "_accept_some", fail)
    with ScriptedRelay(config_in(tmp_path)) as relay, tcp(relay):
        assert relay.wait(TIMEOUT_S)
        assert "acceptor: ZeroDivisionError at test_listener.py:" in relay.failure
        assert "secret" not in relay.failure


def test_a_handshake_thread_that_dies_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(HandshakeThread, "_begin", fail)
    with ScriptedRelay(config_in(tmp_path)) as relay, tcp(relay) as sock:
        sock.sendall(b"\x16")
        assert relay.wait(TIMEOUT_S)
        assert "ZeroDivisionError at test_listener.py:" in relay.failure
        assert "handshakes" in relay.failure and "secret" not in relay.failure


class _Flooded:
    """A handshake thread that has not come to look at its inbox for a while."""

    class Inbox(list[tuple[socket.socket, str]]):
        post = list.append

    def __init__(self) -> None:
        self.inbox = self.Inbox()


def test_in_a_flood_an_address_gets_one_in_a_while_and_who_is_alone_gets_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saltline.server.listener.ARRIVALS_MAX", 2)
    inbox = (thread := _Flooded()).inbox
    (door,) = listen(RelayAddress("127.0.0.1", 0))
    acceptor = Acceptor([door], [thread], lambda: True, print)  # type: ignore[list-item]
    peers: list[socket.socket] = []

    def come(group: str) -> None:
        monkeypatch.setattr("saltline.server.listener.address_group", lambda _address: group)
        peers.append(socket.create_connection(door.getsockname(), TIMEOUT_S))
        wait_until(lambda: select.select([door], [], [], 0)[0])
        acceptor._accept_some(door)

    def let_in() -> list[str]:
        """Whom the thread has to look at; it does now."""
        groups = [group for _, group in inbox]
        for sock, _ in inbox:
            sock.close()
        return groups

    for group in ["flood"] * 5 + ["lone", "flood"]:
        come(group)
    assert peers[3].recv(1) == b"", "closed at once, so that it may come again"
    acceptor._let_in_until_s = 0.0
    come("flood")
    assert let_in() == ["flood"] * 3 + ["lone", "flood"]
    inbox.clear()
    come("flood")
    assert let_in() == ["flood"], "they are over"
    for peer in peers:
        peer.close()
    acceptor.close()


class _Door:
    """A listening socket on which each call has the outcome that is next."""

    def __init__(self, *outcomes: OSError | tuple[socket.socket, tuple[str, int]]) -> None:
        self._outcomes = list(outcomes)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


def test_a_peer_that_is_gone_before_it_is_looked_at_harms_nobody() -> None:
    inbox = (thread := _Flooded()).inbox
    (door,) = listen(RelayAddress("127.0.0.1", 0))
    acceptor = Acceptor([door], [thread], lambda: True, print)  # type: ignore[list-item]
    ours, theirs = socket.socketpair()
    gone = ConnectionAbortedError(errno.ECONNABORTED, "reset before accept()")
    with theirs, ours:
        acceptor._accept_some(_Door(gone, (ours, ("192.0.2.1", 1)), BlockingIOError()))  # type: ignore[arg-type]
        assert inbox == [(ours, "192.0.2.1")]
    acceptor.close()
