"""Who takes little at a time is there; who takes nothing is gone."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.protocol.messages import RelayMessage, decode_relay_message
from saltline.protocol.to_client import Deliver, Error
from saltline.protocol.to_relay import Acknowledge
from saltline.server.config import Deadlines
from saltline.server.relay import Relay
from saltline.server.settings import Settings
from tests.server.edge import ScriptedRelay, config_in
from tests.server.wire_client import WireClient
from tests.waiting import wait_until

ENVELOPES = 6
ENVELOPE_BYTES = 250_000
SILENCE_MAX_S = 0.6
# What a slow line brings at a time, and how often: a window of a MiB takes four times the silence.
SIP_BYTES = 4096
SIP_EVERY_S = 0.01
SEND_BUFFER = 65_536


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setattr("saltline.server.core._SILENCE_CHECK_MS", 50)
    settings = Settings(silence_max_s=SILENCE_MAX_S)
    deadlines = Deadlines(check_every_s=0.05)
    with Relay(config_in(tmp_path, settings=settings, deadlines=deadlines)) as relay:
        yield relay


def with_mail(relay: Relay) -> WireClient:
    """Somebody who has just logged in to a full mailbox, on a connection that buffers little."""
    port = relay.address.port
    with WireClient(port, "ada") as ada, WireClient(port, "bob") as bob:
        keys = ada.register()
        bob.register()
        for _ in range(ENVELOPES):
            bob.submit("ada", bytes(ENVELOPE_BYTES))
    connections = relay._workers[0]._table.live
    wait_until(lambda: not connections)
    slow = WireClient(port, "ada", receive_buffer=4096)
    wait_until(lambda: connections)
    for connection in list(connections.values()):  # as it is towards a slow line
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    slow.log_in(keys)
    return slow


def sip(slow: WireClient) -> list[RelayMessage]:
    """What a slow line brings next."""
    time.sleep(SIP_EVERY_S)
    data = slow.sock.recv(SIP_BYTES)
    assert data, "the relay closed the connection"
    slow._bodies += slow._decoder.feed(data)
    bodies, slow._bodies = slow._bodies, []
    return [decode_relay_message(body) for body in bodies]


def test_a_slow_line_empties_its_mailbox(relay: Relay) -> None:
    with with_mail(relay) as slow:
        delivered: set[int] = set()
        began_s = said_s = time.monotonic()
        while len(delivered) < ENVELOPES:
            for message in sip(slow):
                assert not isinstance(message, Error), message
                if isinstance(message, Deliver):
                    assert message.number not in delivered
                    delivered.add(message.number)
                    slow.say(Acknowledge((message.number,), b""))
            if time.monotonic() - said_s > SILENCE_MAX_S / 4:
                said_s = time.monotonic()
                slow.ping()
        assert time.monotonic() - began_s > 3 * SILENCE_MAX_S, "that was no slow line"


def test_one_that_takes_nothing_is_ended_all_the_same(relay: Relay) -> None:
    with with_mail(relay):
        began_s = time.monotonic()
        wait_until(lambda: not relay._driver._core._desk.connections)
        assert time.monotonic() - began_s < 10 * SILENCE_MAX_S


def test_only_what_left_the_computer_counts_as_taken(tmp_path: Path) -> None:
    """The kernel's buffer takes some at once, whoever is at the other end."""
    with ScriptedRelay(config_in(tmp_path)) as relay, relay.connect(receive_buffer=4096) as slow:
        slow.send(*[b"flood 100 16000"] * 7)
        wait_until(lambda: any(each[0] == "congested" for each in list(relay.core.happened)))

        def nothing_is_taken() -> bool:
            relay.core.happened.clear()
            ticks = relay.core.ticks + 20
            wait_until(lambda: relay.core.ticks >= ticks)
            return not relay.core.saw("taking")

        wait_until(nothing_is_taken)  # the last of what the kernels had agreed on may still go over
        slow.receive()
        wait_until(lambda: slow.receive() and relay.core.saw("taking"))
