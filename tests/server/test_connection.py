"""What a connection does with each answer that TLS may give, on a socket that gives them all."""

import socket
import ssl

import pytest

from saltline.protocol.messages import encode_message
from saltline.protocol.to_relay import (
    Acknowledge,
    History,
    ListRooms,
    Lookup,
    LookupName,
    Ping,
    Who,
)
from saltline.server.connection import (
    READ,
    RECORD_BYTES,
    UNREAD_MAX_BYTES,
    WRITE,
    WRITE_BYTES,
    PeerGone,
)
from tests.server.scripted_tls import Tls, connection_on


def test_all_that_waits_leaves_in_one_write() -> None:
    tls = Tls()
    connection = connection_on(tls, b"one", b"two", b"three")
    assert connection.write() == 1
    assert tls.offered == [b"onetwothree"]
    assert connection.queued_bytes == 0 and not connection.is_blocked


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux corks sockets")
def test_records_that_leave_together_are_corked_together() -> None:
    tls = Tls()
    connection_on(tls, bytes(RECORD_BYTES)).write()
    assert tls.corks == []
    connection_on(tls, bytes(WRITE_BYTES)).write()
    assert tls.corks == [1, 0]
    with pytest.raises(PeerGone):
        connection_on(Tls(BrokenPipeError()), bytes(WRITE_BYTES)).write()


def test_of_a_part_the_rest_is_sent_before_anything_else() -> None:
    tls = Tls(2, 1)
    connection = connection_on(tls, b"abcdef")
    connection.output.append(b"gh")
    connection.queued_bytes += 2
    connection.write()
    assert tls.sent == b"abcdefgh"
    assert connection.queued_bytes == 0


def test_what_tls_refused_is_offered_again_unchanged() -> None:
    """OpenSSL wants the same bytes again (SSL_write(3), "bad write retry")."""
    tls = Tls(ssl.SSLWantWriteError(), ssl.SSLWantReadError())
    connection = connection_on(tls, b"abc")
    connection.write()
    assert connection.is_blocked and connection.wanted_mask == READ | WRITE
    connection.output.append(b"def")
    connection.queued_bytes += 3
    connection.write()
    assert connection.is_blocked and connection.wanted_mask == READ
    connection.write()
    assert tls.offered == [b"abc", b"abc", b"abc", b"def"]
    assert connection.queued_bytes == 0 and not connection.is_blocked


def test_a_wish_to_read_is_watched_for_even_when_nothing_is_to_be_read() -> None:
    connection = connection_on(Tls(ssl.SSLWantReadError()), b"abc")
    connection.is_paused = True
    assert connection.wanted_mask == 0
    connection.write()
    assert connection.wanted_mask == READ


def test_reading_that_wants_to_write_waits_for_that() -> None:
    connection = connection_on(Tls(ssl.SSLWantWriteError(), b"data"))
    assert connection.read() is None
    assert connection.wanted_mask == READ | WRITE
    connection.is_paused = True
    assert connection.wanted_mask == 0, "it could be written to for ever, and nobody reads"
    connection.is_paused = False
    assert connection.wanted_mask == READ | WRITE
    assert connection.read() == b"data"
    assert connection.wanted_mask == READ


def test_a_long_queue_is_shared_out_over_turns() -> None:
    tls = Tls()
    connection = connection_on(tls, *[bytes(WRITE_BYTES)] * 100)
    assert connection.write() == 16
    assert connection.queued_bytes == 84 * WRITE_BYTES and not connection.is_blocked


@pytest.mark.parametrize("end", [b"", ConnectionResetError(), ssl.SSLEOFError(), ssl.SSLError()])
def test_each_end_is_an_end(end: bytes | Exception) -> None:
    with pytest.raises(PeerGone):
        connection_on(Tls(end)).read()


@pytest.mark.parametrize("end", [BrokenPipeError(), ssl.SSLError()])
def test_each_failed_write_is_an_end(end: Exception) -> None:
    with pytest.raises(PeerGone):
        connection_on(Tls(end), b"abc").write()


@pytest.mark.parametrize(
    "body",
    [
        encode_message(History(1, "#lobby", 0, 200)),
        encode_message(Lookup(1, (LookupName("ada", 0),))),
        encode_message(Who(1, "#lobby")),
        encode_message(ListRooms(1)),
        b"\xdc\x00\x05\xd9\x07history",  # the same array and tag, in longer forms
        b"\xdd\x00\x00\x00\x05\xdb\x00\x00\x00\x07history",
    ],
)
def test_what_follows_a_request_with_a_long_answer_waits_for_that(body: bytes) -> None:
    connection = connection_on(Tls())
    ping = encode_message(Ping(2))
    connection.waiting.extend([ping, body, ping])
    assert connection.take_waiting(64) == [ping, body]
    assert not connection.may_hand_over and list(connection.waiting) == [ping]


def test_others_come_between_two_requests_that_are_much_work() -> None:
    connection = connection_on(Tls())
    ping, publish = encode_message(Ping(2)), b"\x97\xa7publish"
    connection.waiting.extend([ping, publish, publish, ping])
    helpings = [connection.take_waiting(64) for _ in range(3)]
    assert helpings == [[ping, publish], [publish], [ping]]
    assert connection.may_hand_over, "nothing waits for their answers"


def test_what_is_much_work_waits_while_somebody_elses_is_done() -> None:
    connection = connection_on(Tls())
    ping, publish = encode_message(Ping(2)), b"\x97\xa7publish"
    connection.waiting.extend([ping, publish, ping])
    helpings = [connection.take_waiting(64, may_work=False) for _ in range(2)]
    assert helpings == [[ping], []]
    assert connection.take_waiting(64) == [publish]


def test_numbers_that_spell_a_word_are_only_numbers() -> None:
    connection = connection_on(Tls())
    body = encode_message(Acknowledge((int.from_bytes(b"\0who", "big"),), b""))
    assert b"who" in body
    connection.waiting.extend([body, body])
    assert connection.take_waiting(64) == [body, body]
    assert connection.may_hand_over


def test_nothing_is_taken_from_who_has_enough_to_read() -> None:
    connection = connection_on(Tls())
    connection.queued_bytes = UNREAD_MAX_BYTES
    assert connection.may_read
    connection.queued_bytes += 1
    assert not connection.may_read
