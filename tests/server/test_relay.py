"""A whole relay in this process: real core, real store, real TLS."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import FRAME_MAX_BEFORE_LOGIN_BYTES
from saltline.protocol.names import RelayAddress
from saltline.protocol.to_client import CaughtUp, Challenge, Error, Pong
from saltline.protocol.to_relay import Ping
from saltline.server.config import Config, Deadlines
from saltline.server.errors import UsageError
from saltline.server.listener import Acceptor
from saltline.server.process import _reload
from saltline.server.relay import Relay
from saltline.server.settings import Registration, Settings
from saltline.server.store.interface import Operation, Outcome, StoreError
from tests.server.edge import TIMEOUT_S, MemoryStore, ScriptedRelay, config_in, open_descriptors
from tests.server.test_certificates import write_pair
from tests.server.wire_client import WireClient
from tests.waiting import wait_until


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with Relay(config_in(tmp_path)) as relay:
        yield relay


def connect(relay: Relay, name: str = "", **options: Any) -> WireClient:
    return WireClient(relay.address.port, name, **options)


def test_hello_is_answered_before_login(relay: Relay) -> None:
    with connect(relay) as stranger:
        assert isinstance(stranger.greet(), Challenge)
        assert f"sha256:{stranger.spki_hash.hex()}" == relay.pin


def test_register_publish_submit_deliver(relay: Relay) -> None:
    with connect(relay, "ada") as ada, connect(relay, "bob") as bob:
        ada.register()
        bob_keys = bob.register()
        assert bob.publish(bob_keys).one_time_left == 1
        ada.submit("bob", b"sealed for bob")
        assert bob.fetch() == b"sealed for bob"


def test_a_room_hears_what_is_posted(relay: Relay) -> None:
    with connect(relay, "ada") as ada, connect(relay, "bob") as bob:
        ada_keys, bob_keys = ada.register(), bob.register()
        ada.join(ada_keys)
        bob.join(bob_keys)
        for number in range(50):
            ada.post(ada_keys, b"%d" % number)
        for member in (ada, bob):
            assert [member.hear() for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_who_comes_while_it_stops_is_not_left_hanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(config_in(tmp_path))
    relay.start()
    stop = Acceptor.stop
    with socket.socket() as late:
        late.settimeout(TIMEOUT_S)

        def stop_late(acceptor: Acceptor, timeout_s: float) -> bool:
            # Whoever was told to end before the acceptor has ended by now.
            assert not [each for each in relay._handshakes if each.join(0.1)]
            late.connect(("127.0.0.1", relay.address.port))
            return stop(acceptor, timeout_s)

        monkeypatch.setattr(Acceptor, "stop", stop_late)
        relay.stop()
        with suppress(ConnectionResetError):
            assert late.recv(1) == b""


def test_what_was_acknowledged_waits_through_a_restart(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with Relay(config) as relay:
        pin = relay.pin
        with connect(relay, "ada") as ada, connect(relay, "bob") as bob:
            ada.register()
            bob_keys = bob.register()
            bob.sock.close()
            ada.submit("bob", b"before the restart")
    with Relay(config) as relay, connect(relay, "bob") as bob:
        assert relay.pin == pin
        bob.log_in(bob_keys)
        assert bob.fetch() == b"before the restart"
        bob.expect(CaughtUp)


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"\0\0\0\0", ErrorCode.BAD_FRAME),
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.FRAME_TOO_LARGE),
        ((FRAME_MAX_BEFORE_LOGIN_BYTES + 1).to_bytes(4, "big"), ErrorCode.FRAME_TOO_LARGE),
        (b"\0\0\0\3abc", ErrorCode.BAD_MESSAGE),
    ],
)
def test_garbage_is_answered_by_name_and_closed(
    relay: Relay, garbage: bytes, code: ErrorCode
) -> None:
    with connect(relay) as stranger:
        stranger.send_raw(garbage)
        error = stranger.expect(Error)
        assert (error.id, error.code) == (0, code)
        assert error.detail
        assert stranger.is_closed_by_relay()


def test_a_stranger_has_a_deadline_and_a_user_none(tmp_path: Path) -> None:
    settings = Settings(login_deadline_s=0.3)
    with Relay(config_in(tmp_path, settings=settings)) as relay:
        with connect(relay, "ada") as ada, connect(relay) as stranger:
            ada.register()
            stranger.greet()
            assert stranger.expect(Error).code == ErrorCode.TOO_SLOW
            assert stranger.is_closed_by_relay()
            ada.ping()
            ada.expect(Pong)


def test_a_dead_peer_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saltline.server.core._SILENCE_CHECK_MS", 50)
    settings = Settings(silence_max_s=0.3)
    with Relay(config_in(tmp_path, settings=settings)) as relay, connect(relay, "ada") as ada:
        ada.register()
        ada.expect(Error)
        assert ada.is_closed_by_relay()


def test_the_newest_connection_of_a_device_stays(relay: Relay) -> None:
    with connect(relay, "ada") as old, connect(relay, "ada") as new:
        keys = old.register()
        new.log_in(keys)
        assert old.expect(Error).code == ErrorCode.REPLACED
        assert old.is_closed_by_relay()
        new.ping()
        new.expect(Pong)


def test_pings_while_the_disk_is_slow(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        relay.store.may_run.clear()
        with relay.connect() as ada, relay.connect() as bob:
            ada.send(b"store")
            assert bob.ask(b"echo quick") == b"quick"
            relay.store.may_run.set()
            assert ada.receive() == b"stored 1"


# --- reload ---------------------------------------------------------------------------------------


def test_reload_changes_the_certificate_and_drops_nobody(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), now - day, now + day)
    config = config_in(tmp_path, certificate=chain, key=key)
    with Relay(config) as relay, connect(relay, "ada") as ada, connect(relay, "bob") as bob:
        ada_keys = ada.register()
        bob.greet()
        old_pin = relay.pin
        write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), now - day, now + day)
        relay.reload(config)
        assert relay.pin != old_pin
        ada.ping()
        ada.expect(Pong)
        with connect(relay, "ada") as again:
            assert f"sha256:{again.spki_hash.hex()}" == relay.pin
            again.log_in(ada_keys)
        bob.register()  # signs the certificate that its connection began with


def test_a_certificate_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with Relay(config) as relay:
        pin = relay.pin
        broken = config_in(tmp_path, certificate=tmp_path / "none.pem", key=tmp_path / "none.key")
        with pytest.raises(UsageError, match="cannot be read"):
            relay.reload(broken)
        assert relay.pin == pin
        with connect(relay) as stranger:
            stranger.greet()


def test_whatever_is_wrong_with_a_new_file_the_relay_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Config:
        raise ZeroDivisionError("a secret")

    with Relay(config_in(tmp_path)) as relay:
        _reload(relay, broken)
        assert not relay.failure
    assert "Nothing was reloaded: it failed (ZeroDivisionError at test_relay.py:" in caplog.text
    assert "secret" not in caplog.text


def test_reload_takes_the_limits_and_names_what_it_cannot_take(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with Relay(config) as relay:
        closed = config_in(tmp_path, settings=Settings(registration=Registration.INVITE), workers=2)
        relay.reload(closed)
        assert relay.needs_restart(closed) == ["workers"]
        with connect(relay, "ada") as ada:
            ada.ask_to_register()
            assert ada.expect(Error).code == ErrorCode.INVITE_NEEDED
        assert relay.register_line.endswith(" --invite")


def test_a_handshake_under_the_old_certificate_keeps_it(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with ScriptedRelay(config) as relay, relay.connect() as early:
        old = relay._tls[1]
        wait_until(lambda: relay.core.open)
        relay.reload(config)
        assert relay._tls[1] is not old
        with relay.connect() as late:
            assert late.ask(b"echo x") == b"x"
            early_number, late_number = sorted(relay.core.open)
            assert relay.core.open[early_number] is old
            assert relay.core.open[late_number] is relay._tls[1]
        assert early.ask(b"echo y") == b"y"


# --- the end --------------------------------------------------------------------------------------


def test_stop_leaves_neither_thread_nor_descriptor_nor_socket(tmp_path: Path) -> None:
    with Relay(config_in(tmp_path)):
        pass  # what Python loads at first stays
    threads, descriptors = threading.active_count(), open_descriptors()
    relay = Relay(config_in(tmp_path, workers=2))
    relay.start()
    client = connect(relay, "ada")
    client.greet()
    relay.stop()
    relay.stop()
    assert client.expect(Error).code == ErrorCode.STOPPING
    assert client.is_closed_by_relay()
    client.sock.close()
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors
    assert not (tmp_path / "data" / "admin.sock").exists()


def test_stop_answers_what_was_begun(tmp_path: Path) -> None:
    relay = ScriptedRelay(config_in(tmp_path))
    relay.start()
    with relay.connect() as ada:
        relay.store.may_run.clear()
        ada.send(b"store")
        wait_until(lambda: relay.core.tokens)
        stopping = threading.Thread(target=relay.stop)
        stopping.start()
        wait_until(lambda: relay.core.is_stopping)
        with pytest.raises(ConnectionRefusedError):  # and does not wait for the end
            socket.create_connection(("127.0.0.1", relay.address.port), TIMEOUT_S)
        relay.store.may_run.set()
        assert ada.receive() == b"stored 1"
        assert ada.is_closed_by_relay()
        ada.sock.close()
        stopping.join(TIMEOUT_S)
        assert not stopping.is_alive()
        assert relay.store.is_closed


def test_a_disk_that_never_answers_does_not_hold_up_the_end(tmp_path: Path) -> None:
    deadlines = Deadlines(close_s=0.1, stop_s=0.1)
    relay = ScriptedRelay(config_in(tmp_path, deadlines=deadlines))
    relay.start()
    with relay.connect() as ada:
        relay.store.may_run.clear()
        ada.send(b"store")
        wait_until(lambda: relay.core.tokens)
        releasing = threading.Timer(1.0, relay.store.may_run.set)
        releasing.start()
        relay.stop()
        releasing.join()
        assert not relay._workers[0]._thread.is_alive()


class FailingStore(MemoryStore):
    """Fails as the test says."""

    def __init__(self, failure: StoreError | None) -> None:
        super().__init__()
        self.failure = failure

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        if self.failure is None:
            raise KeyError("a secret")
        return [self.failure] * len(operations)


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (StoreError(ErrorCode.STORAGE_FAILED, "The disk failed.", fatal=True), "The disk failed."),
        (None, "The relay has a fault and stops (storage: KeyError at test_relay.py:"),
    ],
)
def test_a_failed_store_stops_the_relay(
    tmp_path: Path, failure: StoreError | None, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    relay = ScriptedRelay(config_in(tmp_path))
    relay.store = FailingStore(failure)
    with relay, relay.connect() as ada:
        ada.send(b"store")
        assert relay.wait(TIMEOUT_S)
        assert relay.failure.startswith(sentence)
        assert "secret" not in caplog.text


def test_a_fault_in_the_core_stops_the_relay_without_its_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay, relay.connect() as ada:
        ada.send(b"raise")
        assert relay.wait(TIMEOUT_S)
        assert "worker 0: KeyError at edge.py:" in relay.failure
        assert "secret" not in caplog.text


# --- what users are told --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "host"), [("0.0.0.0", None), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")]
)
def test_the_line_that_users_type(tmp_path: Path, listen: str, host: str | None) -> None:
    config = Config(listen=RelayAddress(listen, 0), data=tmp_path / "data")
    with Relay(config) as relay:
        port = relay.address.port
        shown = relay.public_address.host
        assert port > 0 and shown == (host or shown) and shown != "0.0.0.0"
        assert relay.register_line == (
            f"saltline register --relay {shown}:{port} --user NAME --pin {relay.pin}"
        )


def test_a_ping_before_login_is_too_early(relay: Relay) -> None:
    with connect(relay) as stranger:
        stranger.say(Ping(1))
        assert stranger.expect(Error).code == ErrorCode.TOO_EARLY
