"""Logging in: the key decides, and the newest connection of a device is the one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saltline.crypto.keys import IdentityKeys
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import CaughtUp, Deliver, Error, RoomMark, Submitted, Welcome
from saltline.protocol.to_relay import Acknowledge, Login, Ping
from saltline.server.administration import RemoveUser
from saltline.server.effects import Promote
from saltline.server.peers import Newcomer
from saltline.server.settings import Settings
from tests.server.person import HELLO, Person
from tests.server.relay_harness import MemoryRelay


def registered(relay: MemoryRelay, username: str = "ada") -> Person:
    """Someone with an account, connected to nothing."""
    person = Person(relay, username)
    person.register()
    person.connection.cut()
    return person


def test_a_device_logs_in_with_its_key() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    relay.now_ms += 5_000
    welcome = ada.login()
    assert welcome.time_ms == relay.now_ms
    assert ada.connection.is_promoted
    assert ada.take() == [CaughtUp(0)]


def test_nobody_is_promoted_before_the_welcome() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.connect()
    assert not ada.connection.is_promoted
    ada.connection.send(ada.login_request())
    promoted = [effect for effect in relay.effects if isinstance(effect, Promote)]
    assert promoted[-1].connection == ada.connection.number


def unknown_user(ada: Person) -> Login:
    request = ada.login_request()
    return Login("nobody-here", 1, request.signature, (), ())


def unknown_device(ada: Person) -> Login:
    return Login("ada", 2, ada.login_request().signature, (), ())


def name_that_is_none(ada: Person) -> Login:
    return Login("ada\n", 1, ada.login_request().signature, (), ())


def wrong_signature(ada: Person) -> Login:
    signature = bytearray(ada.login_request().signature)
    signature[0] ^= 1
    return Login("ada", 1, bytes(signature), (), ())


def signature_of_another_key(ada: Person) -> Login:
    ada.keys = IdentityKeys.generate(ada.relay.log_key.relay_id, "ada", 1, ada.relay.random)
    return ada.login_request()


def replayed_from_another_connection(ada: Person) -> Login:
    request = ada.login_request()
    ada.connect()
    return request


def relayed_through_another_certificate(ada: Person) -> Login:
    # Who stands between sees the challenge, but the client signs the key that it sees.
    own, ada.relay.certificate = ada.relay.certificate, ada.relay.new_certificate()
    request = ada.login_request()
    ada.relay.certificate = own
    return request


def another_hello(ada: Person) -> Login:
    # The relay got another hello than the one that the client signed.
    challenge = ada.connection.bodies[0]
    ada.connection = ada.relay.connect()
    ada.connection.send(type(HELLO)(versions=(1, 2), features=(), agent="test"))
    ada.connection.take()
    ada.connection.bodies[0] = challenge
    return ada.login_request()


@pytest.mark.parametrize(
    "forge",
    [
        unknown_user,
        unknown_device,
        name_that_is_none,
        wrong_signature,
        signature_of_another_key,
        replayed_from_another_connection,
        relayed_through_another_certificate,
        another_hello,
    ],
)
def test_every_wrong_login_gets_the_same_answer(forge: Callable[[Person], Login]) -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.connect()
    request = forge(ada)
    ada.connection.send(request)
    assert ada.connection.take_one(Error) == Error(
        0,
        ErrorCode.BAD_LOGIN,
        "This name, device and key do not belong together on this relay.",
        0,
    )
    assert not ada.connection.is_open
    assert not ada.connection.is_promoted


def test_a_signature_for_registering_does_not_log_in() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.connect()
    signature = ada.registration(ada.entry()).signature
    ada.connection.send(Login("ada", 1, signature, (), ()))
    assert ada.connection.take_one(Error).code == ErrorCode.BAD_LOGIN


def test_the_newest_connection_of_a_device_replaces_the_older() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.login()
    ada.take()
    older = ada.connection
    ada.login()
    assert older.take_one(Error).code == ErrorCode.REPLACED
    assert not older.is_open
    assert ada.connection.is_open
    ada.take()
    ada.connection.send(Ping(1))
    assert len(ada.take()) == 1


def test_two_logins_of_a_device_in_one_group_leave_one_connection() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.connect()
    first = ada.connection
    relay.hold()
    first.send(ada.login_request())
    ada.connect()
    ada.connection.send(ada.login_request())
    relay.release()
    assert not first.is_open
    assert isinstance(first.received[-1], Error)
    ada.expect(Welcome)


def test_a_second_login_on_the_same_connection_is_refused() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.login()
    ada.take()
    ada.connection.send(ada.login_request())
    assert ada.connection.take_one(Error).code == ErrorCode.BAD_MESSAGE
    assert not ada.connection.is_open


def test_nothing_is_taken_while_the_login_is_not_answered() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.connect()
    relay.hold()
    ada.connection.send(ada.login_request(), ada.login_request())
    assert ada.connection.take_one(Error).code == ErrorCode.TOO_EARLY
    relay.release()
    assert ada.take() == []
    assert not ada.connection.is_promoted


def test_who_hangs_up_during_the_login_is_not_logged_in() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay), registered(relay, "bob")
    ada.connect()
    relay.hold()
    ada.connection.send(ada.login_request())
    ada.connection.cut()
    relay.release()
    bob.login()
    bob.take()
    bob.submit(ada, b"later")
    assert bob.take() == [Submitted(1)]
    ada.login()
    assert [type(message) for message in ada.take()] == [Deliver, CaughtUp]


def test_after_a_removal_a_device_is_told_so() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    relay.admin(RemoveUser("ada"))
    ada.connect()
    ada.connection.send(ada.login_request())
    assert ada.connection.take_one(Error).code == ErrorCode.REMOVED
    assert not ada.connection.is_open


def test_a_stranger_does_not_learn_that_a_device_was_removed() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    relay.admin(RemoveUser("ada"))
    ada.connect()
    ada.connection.send(wrong_signature(ada))
    assert ada.connection.take_one(Error).code == ErrorCode.BAD_LOGIN


def test_a_device_that_is_ended_during_its_login_is_not_let_in() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.connect()
    relay.hold()
    relay.ask(RemoveUser("ada"))
    ada.connection.send(ada.login_request())
    # One group finds the account and the device, the next ends the device and begins its session.
    relay.release()
    assert ada.connection.take_one(Error).code == ErrorCode.REMOVED
    assert not ada.connection.is_promoted


def test_the_welcome_names_rooms_with_their_last_numbers() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    ada.join("#lobby")
    ada.post("#lobby", "hello")
    ada.join("#garden")
    ada.connection.cut()
    assert ada.login().rooms == (RoomMark("#garden", 1), RoomMark("#lobby", 2))


def test_no_more_log_in_than_are_served() -> None:
    relay = MemoryRelay(settings=Settings(connections_max=1))
    ada, bob = registered(relay), registered(relay, "bob")
    ada.login()
    bob.connect()
    bob.connection.send(bob.login_request())
    assert bob.connection.take_one(Error).code == ErrorCode.TOO_MANY_CONNECTIONS
    assert not bob.connection.is_open
    # Who replaces itself needs no further place.
    ada.login()
    ada.connection.cut()
    bob.login()


def generation(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes([number]) * 32


def test_the_greatest_generation_comes_back_at_login(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada = registered(relay)
    assert ada.login().generation == b""
    ada.submit(ada, b"to myself", generation(3))
    ada.submit(ada, b"an older state", generation(2))
    # It is told before the disk has it, ...
    assert ada.login().generation == generation(3)
    ada.connection.send(Acknowledge((), generation(5)))
    relay.advance(1_000)
    relay.restart()
    # ... and after.
    assert ada.login().generation == generation(5)


def test_a_generation_of_another_size_is_not_kept() -> None:
    relay = MemoryRelay()
    ada = registered(relay)
    ada.login()
    ada.submit(ada, b"x", b"\xff" * 39)
    assert ada.login().generation == b""


def test_the_key_that_signs_is_found_in_an_id_without_reading_all_of_it() -> None:
    for name in ("a", "b" * 32):
        identity = IdentityKeys.generate(bytes(32), name, 1, os.urandom).identity
        assert Newcomer.of(identity).signing_key == identity.signing_key
