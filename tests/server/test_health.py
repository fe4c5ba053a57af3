"""`saltline-server health`: a relay asked from outside, and whatever else may listen there."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from saltline.protocol.names import RelayAddress
from saltline.protocol.to_relay import Hello
from saltline.server import health
from saltline.server.cli import run_program
from saltline.server.errors import UsageError
from saltline.server.health import ask_health
from saltline.server.relay import Relay
from tests.server.edge import TIMEOUT_S, ScriptedRelay, config_in

IMPATIENT_S = 0.3
OTHER_PIN = "sha256:" + "0" * 64


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with Relay(config_in(tmp_path)) as relay:
        yield relay


@contextmanager
def somebody_else(answer: Callable[[socket.socket], None]) -> Iterator[RelayAddress]:
    """Something that listens and is no relay."""

    def live() -> None:
        peer, _ = listener.accept()
        with peer:
            answer(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=live)
        thread.start()
        yield RelayAddress("127.0.0.1", listener.getsockname()[1])
        thread.join(TIMEOUT_S)


def test_a_relay_that_serves_says_so(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["health", str(relay.address)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{relay.address} serves: version 1, pin {relay.pin}, certificate until")
    assert said.count("\n") == 1
    assert run_program(["health", str(relay.address), "--pin", relay.pin]) == 0


def test_another_key_than_the_pin_is_said(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["health", str(relay.address), "--pin", OTHER_PIN]) == 1
    sentence = f"{relay.address} serves under another key: its pin is {relay.pin}.\n"
    assert capsys.readouterr() == ("", sentence)


def test_nobody_there_is_said(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    address = relay.address
    relay.stop()
    assert run_program(["health", str(address)]) == 1
    assert capsys.readouterr() == ("", f"{address} does not serve: Connection refused.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["127.0.0.1:0"], "port"),
        (["127.0.0.1", "--pin", "sha256:abc"], "A pin is sha256: and 64"),
    ],
)
def test_a_wrong_word_is_said(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program(["health", *words]) == 1
    assert sentence in capsys.readouterr().err


def test_what_speaks_no_tls_is_no_relay() -> None:
    with somebody_else(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        with pytest.raises(UsageError, match="does not serve: it does not speak TLS 1.3"):
            ask_health(address)


def test_the_time_is_a_total() -> None:
    over = threading.Event()

    def drip(peer: socket.socket) -> None:
        try:
            for byte in b"\x16\x03\x03\x40\x00" + bytes(1000):
                peer.sendall(bytes((byte,)))
                if over.wait(0.02):
                    return
        except OSError:
            pass  # it had enough

    with somebody_else(drip) as address:
        with pytest.raises(UsageError, match="does not serve: no answer within 0.3 seconds"):
            ask_health(address, timeout_s=IMPATIENT_S)
        over.set()


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("127.0.0.1", relay.address.port)
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # nobody accepts them: whoever comes next is not heard
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", where)
            for where in (full.getsockname(), there)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert "serves: version 1" in ask_health(RelayAddress("two.example", 7443), timeout_s=4.0)


def test_one_that_answers_nothing_is_not_waited_for(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:  # its script knows no hello
        with pytest.raises(UsageError, match="no answer within 0.3 seconds"):
            ask_health(relay.address, timeout_s=IMPATIENT_S)


def test_a_certificate_that_the_log_key_did_not_sign_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltline.server.relay.certificate_payload", lambda *_: b"something else")
    with Relay(config_in(tmp_path)) as relay:
        with pytest.raises(UsageError, match="its log key did not sign its certificate"):
            ask_health(relay.address)


def test_an_answer_of_another_version_is_said(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_HELLO", Hello((2,), (), "from later"))
    with pytest.raises(UsageError, match="does not serve: it refuses with unsupported_version"):
        ask_health(relay.address)
