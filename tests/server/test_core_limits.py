"""Every limit, with the error that names it; and deadlines."""

import pytest

from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import ACKNOWLEDGE_MAX, ENVELOPE_MAX_BYTES
from saltline.protocol.to_client import Error, Pong, Posted, Published, Submitted, Welcome
from saltline.protocol.to_relay import Acknowledge, CheckInvite, Ping, Publish
from saltline.server.settings import Settings
from tests.server.person import HELLO, Person
from tests.server.relay_harness import MemoryConnection, MemoryRelay


def greeted(relay: MemoryRelay, address: str = "192.0.2.1") -> MemoryConnection:
    connection = relay.connect(address)
    connection.send(HELLO)
    connection.take()
    return connection


# --- strangers -----------------------------------------------------------------------------------


def test_the_oldest_stranger_of_an_address_gives_way_to_the_newest() -> None:
    relay = MemoryRelay(settings=Settings(unauthenticated_per_address=3))
    first, second, third = (greeted(relay) for _ in range(3))
    elsewhere = greeted(relay, "192.0.2.2")
    fourth = greeted(relay)
    error = first.take_one(Error)
    assert (error.id, error.code) == (0, ErrorCode.TOO_MANY_CONNECTIONS)
    assert [each.is_open for each in (first, second, third, fourth)] == [False, True, True, True]
    assert elsewhere.is_open


def test_who_logged_in_is_no_stranger_and_makes_room() -> None:
    relay = MemoryRelay(settings=Settings(unauthenticated_per_address=2))
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    strangers = [greeted(relay) for _ in range(2)]
    strangers[0].cut()
    strangers.append(greeted(relay))
    assert [each.is_open for each in strangers] == [False, True, True]
    assert ada.connection.is_open
    assert bob.connection.is_open


@pytest.mark.parametrize(
    "addresses",
    [
        ("2001:db8::1", "2001:db8::ffff:1"),
        ("2001:db8:0:0:1::", "2001:db8::2%eth0"),
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8::/64", "2001:db8::/64"),
    ],
)
def test_addresses_of_one_network_count_as_one(addresses: tuple[str, str]) -> None:
    relay = MemoryRelay(settings=Settings(unauthenticated_per_address=1))
    first, second = (greeted(relay, address) for address in addresses)
    assert not first.is_open
    assert second.is_open


def test_addresses_of_two_networks_do_not() -> None:
    relay = MemoryRelay(settings=Settings(unauthenticated_per_address=1))
    both = [greeted(relay, address) for address in ("2001:db8:0:1::1", "2001:db8:0:2::1")]
    assert all(each.is_open for each in both)


def test_strangers_of_all_addresses_together_are_bounded() -> None:
    relay = MemoryRelay(settings=Settings(unauthenticated_max=5))
    strangers = [greeted(relay, f"192.0.2.{number}") for number in range(8)]
    assert [each.is_open for each in strangers] == [False] * 3 + [True] * 5
    assert strangers[0].take_one(Error).code == ErrorCode.TOO_MANY_CONNECTIONS


def test_registrations_of_an_address_are_limited() -> None:
    relay = MemoryRelay(settings=Settings(registrations_per_minute_and_address=2))
    Person(relay, "ada").register()
    Person(relay, "bob").register()
    eve = Person(relay, "eve")
    eve.connect()
    eve.connection.send(eve.registration(eve.entry()))
    error = eve.connection.take_one(Error)
    assert error.code == ErrorCode.RATE_LIMITED
    assert 29_000 <= error.retry_after_ms <= 30_001
    assert not eve.connection.is_open

    Person(relay, "zoe").register(address="192.0.2.2")
    relay.now_ms += error.retry_after_ms
    eve.register()


def test_guessing_codes_is_limited_like_registering() -> None:
    relay = MemoryRelay(settings=Settings(registrations_per_minute_and_address=3))
    connection = greeted(relay)
    codes = []
    for number in range(1, 5):
        connection.send(CheckInvite(number, f"guess {number}"))
        codes.append(connection.take_one(Error).code)
    assert codes == [ErrorCode.BAD_INVITE] * 3 + [ErrorCode.RATE_LIMITED]
    assert not connection.is_open


def test_who_does_not_log_in_in_time_is_told_so() -> None:
    relay = MemoryRelay(settings=Settings(login_deadline_s=20))
    silent, greeting = relay.connect(), greeted(relay)
    relay.advance(19_999)
    later = greeted(relay)
    assert silent.take() == []
    relay.advance(1)
    for late in (silent, greeting):
        assert late.take_one(Error).code == ErrorCode.TOO_SLOW
        assert not late.is_open
    assert later.is_open


def test_talking_does_not_move_the_deadline() -> None:
    relay = MemoryRelay(settings=Settings(login_deadline_s=20))
    connection = greeted(relay)
    for _ in range(4):
        relay.advance(4_000)
        connection.send(CheckInvite(1, "guess"))
    relay.advance(4_000)
    assert connection.take_all(Error)[-1].code == ErrorCode.TOO_SLOW
    assert not connection.is_open


# --- users ---------------------------------------------------------------------------------------


def test_requests_of_a_user_are_limited_and_what_is_refused_is_not_done() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=10, requests_burst=5))
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    ada.take()
    bob.take()
    for _ in range(6):
        ada.submit(bob, b"x")
    *submitted, error = ada.take()
    assert [type(message) for message in submitted] == [Submitted] * 5
    assert isinstance(error, Error)
    assert (error.id, error.code) == (6, ErrorCode.RATE_LIMITED)
    assert 100 <= error.retry_after_ms <= 101
    assert len(bob.take()) == 5
    assert ada.connection.is_open

    relay.now_ms += error.retry_after_ms
    ada.submit(bob, b"x")
    assert [type(message) for message in ada.take()] == [Submitted]
    # Others are not held up.
    bob.connection.send(Ping(1))
    assert bob.take()[-1] == Pong(1)


def test_a_reconnect_does_not_fill_the_bucket() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=10, requests_burst=5))
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    ada.connection.send(*(Ping(number) for number in range(1, 6)))
    ada.login()
    ada.take()
    ada.connection.send(Ping(6))
    assert ada.connection.take_one(Error).code == ErrorCode.RATE_LIMITED


def test_what_costs_the_relay_more_costs_more() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=150))
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    ada.connection.send(Publish(1, ()), Publish(2, ()))
    refused, published = ada.take()  # what is refused does not wait for the disk
    assert isinstance(published, Published)
    assert isinstance(refused, Error)
    assert (refused.id, refused.code) == (2, ErrorCode.RATE_LIMITED)


def test_what_costs_more_than_the_burst_waits_for_a_full_bucket() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=5))
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    ada.connection.send(Publish(1, ()))
    assert ada.take() == [Published(1, 0, 0)]


def test_acknowledgements_of_nothing_cost_by_how_much_they_name() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=100))
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    bob.take()
    for number in range(1, 51):  # what was delivered costs nothing
        ada.submit(bob, b"sealed")
        bob.connection.send(Acknowledge((number,), b""))
    for _ in range(5):  # 17 of 100 each
        bob.connection.send(Acknowledge(tuple(range(1, ACKNOWLEDGE_MAX + 1)), b""))
    assert bob.connection.take_all(Error) == []
    bob.connection.send(Acknowledge(tuple(range(1, ACKNOWLEDGE_MAX + 1)), b""))
    assert bob.connection.take_one(Error).code == ErrorCode.RATE_LIMITED
    assert not bob.connection.is_open


def test_who_has_all_credit_again_takes_no_memory() -> None:
    settings = Settings(
        requests_per_second=1, requests_burst=10, registrations_per_minute_and_address=2
    )
    relay = MemoryRelay(settings=settings)
    ada = Person(relay, "ada")
    ada.register()
    ada.connection.send(*(Ping(number) for number in range(1, 11)))
    assert len(relay.core._requests) == len(relay.core._registration.attempts) == 1
    relay.advance(60_000)
    assert len(relay.core._requests) == len(relay.core._registration.attempts) == 0


def test_settings_may_change_while_serving() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=5))
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    relay.core.settings_changed(Settings())
    relay.now_ms += 1_000
    ada.connection.send(*(Ping(number) for number in range(1, 100)))
    assert ada.take() == [Pong(number) for number in range(1, 100)]


def test_who_says_nothing_for_long_is_gone() -> None:
    relay = MemoryRelay(settings=Settings(silence_max_s=90))
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    ada.take()
    bob.take()
    for _ in range(10):
        relay.advance(10_000)
        bob.connection.send(Ping(1))
    assert ada.connection.take_one(Error).code == ErrorCode.TOO_SLOW
    assert not ada.connection.is_open
    assert bob.connection.is_open


def test_a_welcome_comes_after_everything_of_a_full_address() -> None:
    # Strangers that hold an address's places cost its honest user a retry at most.
    relay = MemoryRelay(settings=Settings(unauthenticated_per_address=2))
    ada = Person(relay, "ada")
    for _ in range(5):
        greeted(relay)
    ada.connect()
    ada.connection.send(ada.registration(ada.entry()))
    ada.expect(Welcome)


def test_a_long_post_costs_what_many_short_ones_do() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=100))
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    ada.join("#lobby")  # 20 of the 100
    for _ in range(10):
        ada.post("#lobby", "short")
    long = ada.statement(RoomKind.TEXT, b"x" * 60_000)  # 1 and 58 of the 70 left
    ada.connection.send(ada.post_request("#lobby", long))
    assert ada.connection.take_all(Posted)
    ada.connection.send(ada.post_request("#lobby", ada.statement(RoomKind.TEXT, b"y" * 60_000)))
    (error,) = ada.connection.take_all(Error)
    assert error.code == ErrorCode.RATE_LIMITED
    assert error.retry_after_ms > 0


def test_a_large_envelope_costs_by_what_there_is_to_write() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=20))
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    ada.take()
    ada.submit(bob, bytes(ENVELOPE_MAX_BYTES))  # 1 and 16
    ada.submit(bob, bytes(16 * 1024 - 1))
    ada.submit(bob, bytes(16 * 1024))
    assert [type(each) for each in ada.take()] == [Submitted, Submitted, Submitted]
    ada.submit(bob, b"x")
    assert ada.connection.take_one(Error).code == ErrorCode.RATE_LIMITED


def test_nobody_whose_login_is_being_worked_on_gives_way() -> None:
    """Else a crowd that all come back at once would push each other out for ever."""
    relay = MemoryRelay(settings=Settings(unauthenticated_max=2, unauthenticated_per_address=99))
    people = [Person(relay, name) for name in ("ada", "bob", "eve")]
    for person in people:
        person.register()
        person.connection.cut()
    ada, bob, eve = people
    ada.connect()
    bob.connect()
    relay.hold()
    bob.connection.send(bob.login_request())
    eve.connect()  # ada came first, but bob only waits for us
    assert not ada.connection.is_open and bob.connection.is_open
    eve.connection.send(eve.login_request())
    assert relay.core.logins == 2
    late = relay.connect("192.0.2.9")
    assert not late.is_open and late.take_one(Error).code == ErrorCode.TOO_MANY_CONNECTIONS
    relay.release()
    assert relay.core.logins == 0
    assert bob.connection.is_open and eve.connection.is_open
    assert bob.expect(Welcome) and eve.expect(Welcome)
