"""Deadlines are totals: a byte now and then moves none of them."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from saltline.protocol.errors import ErrorCode
from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.protocol.messages import RelayMessage, decode_relay_message, encode_message
from saltline.protocol.to_client import Challenge, Error, Pong
from saltline.protocol.to_relay import CheckInvite
from saltline.server.config import Deadlines
from saltline.server.relay import Relay
from saltline.server.settings import Settings
from tests.server.edge import TIMEOUT_S, config_in
from tests.server.wire_client import HELLO, WireClient

DEADLINE_S = 0.4
DRIP_S = 0.02


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    deadlines = Deadlines(handshake_s=TIMEOUT_S, frame_s=DEADLINE_S, check_every_s=0.02)
    with Relay(config_in(tmp_path, deadlines=deadlines)) as relay:
        yield relay


def drip(
    client: WireClient, data: Callable[[int], bytes], *, waits_for_answers: bool = False
) -> tuple[list[RelayMessage], Error, float]:
    """Send a little now and then until the relay ends it; or whenever the last was answered.

    Returns what it answered, its last word, and after how long, in seconds, that came.
    """
    began_s = monotonic()
    client.sock.settimeout(DRIP_S)
    decoder, bodies = FrameDecoder(), list[bytes]()
    position = 0
    with suppress(ConnectionError, ssl.SSLError):
        while monotonic() < began_s + TIMEOUT_S:
            if not waits_for_answers or len(bodies) >= position:
                client.sock.sendall(data(position))
                position += 1
            with suppress(TimeoutError):
                if not (received := client.sock.recv(4096)):
                    break
                bodies += decoder.feed(received)
    messages = [decode_relay_message(body) for body in bodies]
    *answers, error = messages
    assert isinstance(error, Error), messages
    return answers, error, monotonic() - began_s


def test_a_frame_before_login_has_one_deadline_for_all_its_bytes(relay: Relay) -> None:
    frame = encode_frame(HELLO + bytes(10_000))
    with WireClient(relay.address.port) as stranger:
        answers, error, took_s = drip(stranger, lambda position: frame[position : position + 1])
    assert answers == []
    assert error.code == ErrorCode.TOO_SLOW
    assert DEADLINE_S <= took_s < TIMEOUT_S


def test_a_frame_after_login_too(relay: Relay) -> None:
    frame = encode_frame(bytes(10_000))
    with WireClient(relay.address.port, "ada") as ada, WireClient(relay.address.port, "bob") as bob:
        ada.register()
        bob.register()
        answers, error, took_s = drip(ada, lambda position: frame[position : position + 1])
        assert answers == []
        assert error.code == ErrorCode.TOO_SLOW
        assert "0.4 seconds" in error.detail
        assert DEADLINE_S <= took_s < TIMEOUT_S
        bob.ping()
        bob.expect(Pong)


def test_whole_frames_do_not_move_the_deadline_to_log_in(tmp_path: Path) -> None:
    settings = Settings(login_deadline_s=DEADLINE_S, registrations_per_minute_and_address=1_000_000)
    with Relay(config_in(tmp_path, settings=settings)) as relay:
        hello, question = encode_frame(HELLO), encode_frame(encode_message(CheckInvite(1, "no")))
        with WireClient(relay.address.port) as stranger:
            # A question before the answer to the last would be too early.
            answers, error, took_s = drip(
                stranger, lambda turn: question if turn else hello, waits_for_answers=True
            )
    assert [type(answer) for answer in answers[:2]] == [Challenge, Error]
    assert error.code == ErrorCode.TOO_SLOW
    assert DEADLINE_S <= took_s < TIMEOUT_S


def test_nor_does_a_login_in_drips(tmp_path: Path) -> None:
    settings = Settings(login_deadline_s=DEADLINE_S)
    with Relay(config_in(tmp_path, settings=settings)) as relay:
        hello, login = encode_frame(HELLO), encode_frame(bytes(10_000))
        with WireClient(relay.address.port) as stranger:
            answers, error, took_s = drip(
                stranger, lambda turn: login[turn - 1 : turn] if turn else hello
            )
    assert [type(answer) for answer in answers] == [Challenge]
    assert error.code == ErrorCode.TOO_SLOW
    assert "Nobody logged in" in error.detail
    assert DEADLINE_S <= took_s < TIMEOUT_S


def test_half_a_frame_and_silence_ends_too(relay: Relay) -> None:
    with WireClient(relay.address.port, "ada") as ada:
        ada.register()
        ada.send_raw(encode_frame(HELLO)[:-1])
        assert ada.expect(Error).code == ErrorCode.TOO_SLOW
        assert ada.is_closed_by_relay()
