"""The first words on a connection."""

import hashlib

import pytest

from saltline.crypto.signatures import certificate_payload, verify
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.messages import encode_message
from saltline.protocol.to_client import Challenge, Error
from saltline.protocol.to_relay import (
    Acknowledge,
    CheckInvite,
    Claim,
    Hello,
    History,
    Join,
    ListRooms,
    Lookup,
    Ping,
    Post,
    Publish,
    Submit,
    Who,
)
from tests.server.person import HELLO, Person
from tests.server.relay_harness import MemoryRelay

SIGNATURE = bytes(64)


def test_a_hello_is_answered_with_a_challenge_that_the_log_key_vouches_for() -> None:
    relay = MemoryRelay()
    connection = relay.connect()
    connection.send(HELLO)
    challenge = connection.take_one(Challenge)
    assert challenge.version == 1
    assert challenge.features == ()
    assert hashlib.sha256(challenge.log_key).digest() == relay.log_key.relay_id
    vouched = certificate_payload(relay.certificate.spki_hash, challenge.certificate_not_after_ms)
    verify(challenge.log_key, vouched, challenge.certificate_signature)
    assert connection.is_open


def test_every_connection_gets_its_own_nonce() -> None:
    relay = MemoryRelay()
    nonces = set()
    for _ in range(20):
        connection = relay.connect()
        connection.send(HELLO)
        nonces.add(connection.take_one(Challenge).nonce)
    assert len(nonces) == 20


def test_another_version_is_refused_with_a_clear_error() -> None:
    relay = MemoryRelay()
    connection = relay.connect()
    connection.send(Hello(versions=(2, 3), features=(), agent="later"))
    error = connection.take_one(Error)
    assert error.code == ErrorCode.UNSUPPORTED_VERSION
    assert "version 1" in error.detail
    assert not connection.is_open


def test_one_of_several_versions_is_enough() -> None:
    connection = MemoryRelay().connect()
    connection.send(Hello(versions=(2, 1), features=(), agent="later"))
    assert connection.take_one(Challenge).version == 1


def test_an_unknown_feature_is_refused_and_not_guessed() -> None:
    connection = MemoryRelay().connect()
    connection.send(Hello(versions=(1,), features=("groups",), agent="later"))
    assert connection.take_one(Error).code == ErrorCode.UNSUPPORTED_VERSION
    assert not connection.is_open


def test_a_second_hello_ends_the_connection() -> None:
    connection = MemoryRelay().connect()
    connection.send(HELLO, HELLO)
    challenge, error = connection.take()
    assert isinstance(challenge, Challenge)
    assert isinstance(error, Error)
    assert error.code == ErrorCode.BAD_MESSAGE
    assert not connection.is_open


@pytest.mark.parametrize(
    "request_",
    [
        Ping(7),
        Publish(7, ()),
        Lookup(7, ()),
        Claim(7, "ada", 1),
        Submit(7, "ada", 1, b"x", b""),
        Join(7, "#lobby", b"", SIGNATURE),
        Post(7, "#lobby", b"", SIGNATURE),
        History(7, "#lobby", 0, 10),
        Who(7, "#lobby"),
        ListRooms(7),
    ],
    ids=lambda request: type(request).__name__,
)
@pytest.mark.parametrize("is_greeted", [False, True], ids=["before hello", "after hello"])
def test_requests_before_login_are_too_early(request_: Ping, is_greeted: bool) -> None:
    relay = MemoryRelay()
    connection = relay.connect()
    if is_greeted:
        connection.send(HELLO)
        connection.take()
    connection.send(request_)
    error = connection.take_one(Error)
    assert (error.id, error.code) == (7, ErrorCode.TOO_EARLY)
    assert not connection.is_open


def test_an_acknowledgement_before_login_is_too_early() -> None:
    connection = MemoryRelay().connect()
    connection.send(Acknowledge((1,), b""))
    error = connection.take_one(Error)
    assert (error.id, error.code) == (0, ErrorCode.TOO_EARLY)


def test_a_login_before_hello_is_too_early() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    request = ada.login_request()
    connection = relay.connect()
    connection.send(request)
    assert connection.take_one(Error).code == ErrorCode.TOO_EARLY
    assert not connection.is_open


def test_a_code_before_hello_is_too_early() -> None:
    connection = MemoryRelay().connect()
    connection.send(CheckInvite(3, "whatever"))
    error = connection.take_one(Error)
    assert (error.id, error.code) == (3, ErrorCode.TOO_EARLY)


@pytest.mark.parametrize(
    "body", [b"\x00", b"\xc1", b"\x91\xa5hello", b"\x93\xa5hello", b"\xff" * 9]
)
def test_bytes_that_are_no_message_end_the_connection(body: bytes) -> None:
    connection = MemoryRelay().connect()
    connection.send_bodies(body, encode_message(HELLO))
    error = connection.take_one(Error)
    assert (error.id, error.code) == (0, ErrorCode.BAD_MESSAGE)
    assert not connection.is_open


def test_messages_of_a_later_version_are_named_as_such() -> None:
    connection = MemoryRelay().connect()
    connection.send_bodies(b"\x92\xa6leaves\x01")
    assert connection.take_one(Error).code == ErrorCode.UNSUPPORTED_VERSION
    assert not connection.is_open


def test_a_broken_frame_is_answered_before_the_connection_is_closed() -> None:
    connection = MemoryRelay().connect()
    connection.send_broken(ProtocolError(ErrorCode.FRAME_TOO_LARGE, "Too large."))
    error = connection.take_one(Error)
    assert (error.id, error.code, error.detail) == (0, ErrorCode.FRAME_TOO_LARGE, "Too large.")
    assert not connection.is_open


def test_nothing_is_done_for_a_connection_that_is_gone() -> None:
    relay = MemoryRelay()
    connection = relay.connect()
    connection.cut()
    connection.send(HELLO)
    connection.congest(True)
    connection.cut()
    assert connection.take() == []


def test_each_connection_keeps_the_certificate_that_it_began_with() -> None:
    relay = MemoryRelay()
    older = Person(relay, "older")
    older.connect()
    began_with = relay.certificate
    relay.certificate = relay.new_certificate()
    relay.core.certificate_changed(relay.certificate)

    newer = Person(relay, "newer")
    assert newer.connect().certificate_signature == relay.certificate.signature
    newer.connection.send(newer.registration(newer.entry()))
    assert newer.connection.is_promoted

    relay.certificate = began_with
    older.connection.send(older.registration(older.entry()))
    assert older.connection.is_promoted


def test_a_connection_may_have_begun_under_a_certificate_given_with_it() -> None:
    relay = MemoryRelay()
    before = relay.new_certificate()
    relay.core.opened(99, "192.0.2.1", relay.now_ms, before)
    effects = relay.core.received(99, [encode_message(HELLO)], relay.now_ms)
    assert before.signature in effects[0].frame  # type: ignore[attr-defined]
