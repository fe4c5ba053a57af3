"""From the mailbox to its device: in order, a window at a time, until acknowledged."""

from pathlib import Path

from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import CaughtUp, Deliver, Error
from saltline.server.settings import Settings
from tests.server.relay_harness import MemoryRelay
from tests.server.scenes import acknowledge, delivered, registered, waiting

# --- out -----------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_deleted() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    for text in (b"one", b"two", b"three"):
        ada.submit(bob, text)
    assert waiting(relay) == 3
    acknowledge(bob, 1, 3)
    assert bob.connection.take_all(Error) == [], "an acknowledgement is not answered"
    assert waiting(relay) == 1
    bob.login()
    assert delivered(bob) == [(2, b"two")]
    acknowledge(bob, 2)
    assert waiting(relay) == 0


def test_what_is_not_acknowledged_comes_again() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    ada.submit(bob, b"one")
    ada.submit(bob, b"two")
    assert delivered(bob) == [(1, b"one"), (2, b"two")]
    bob.connection.cut()
    bob.login()
    assert delivered(bob) == [(1, b"one"), (2, b"two")]
    bob.login()
    assert delivered(bob) == [(1, b"one"), (2, b"two")]


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = registered(relay, "ada", "bob")
    ada.submit(bob, b"one")
    acknowledge(bob, 1)
    relay.restart()
    ada.login()
    bob.login()
    bob.take()
    ada.submit(bob, b"two")
    assert delivered(bob) == [(2, b"two")]


def test_only_the_own_mailbox_can_be_emptied() -> None:
    relay = MemoryRelay()
    ada, bob, eve = registered(relay, "ada", "bob", "eve")
    ada.submit(bob, b"for bob")
    ada.submit(eve, b"for eve")
    acknowledge(ada, 1, 2**36 + 1, 2**37 + 1)
    assert waiting(relay) == 2
    acknowledge(eve, 1, 2, 3, 2**36 + 1, 2**63 - 1, 2**63 - 2**36 + 1)
    bob.login()
    assert delivered(bob) == [(1, b"for bob")]
    assert waiting(relay) == 1


def test_an_acknowledgement_of_what_is_not_there_is_ignored() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    acknowledge(bob, 1, 2, 3)
    acknowledge(bob)
    ada.submit(bob, b"one")
    assert delivered(bob) == [(1, b"one")]
    acknowledge(bob, 1, 1, 1)
    acknowledge(bob, 1)
    assert waiting(relay) == 0
    assert bob.connection.is_open


def test_only_what_was_pushed_on_this_connection_can_be_acknowledged() -> None:
    relay = MemoryRelay(settings=Settings(delivery_window_envelopes=1))
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"one")
    ada.submit(bob, b"two")
    bob.login()
    acknowledge(bob, 2)
    assert waiting(relay) == 2
    acknowledge(bob, 1)
    assert delivered(bob) == [(1, b"one"), (2, b"two")]
    acknowledge(bob, 2)
    assert waiting(relay) == 0


def test_acknowledging_what_was_never_delivered_is_limited() -> None:
    relay = MemoryRelay(settings=Settings(requests_burst=10, requests_per_second=1))
    (bob,) = registered(relay, "bob")
    for _ in range(11):
        acknowledge(bob, *range(1, 51))
    error = bob.connection.take_one(Error)
    assert (error.id, error.code) == (0, ErrorCode.RATE_LIMITED)
    assert not bob.connection.is_open


def test_acknowledging_what_was_delivered_is_not() -> None:
    settings = Settings(requests_burst=10, requests_per_second=1)
    relay = MemoryRelay(settings=settings)
    ada, bob = registered(relay, "ada", "bob")
    for _ in range(50):
        relay.now_ms += 1_000
        ada.submit(bob, b"x")
    relay.now_ms += 1
    for number, _ in delivered(bob):
        acknowledge(bob, number)
    assert waiting(relay) == 0
    assert bob.connection.is_open


# --- the window ----------------------------------------------------------------------------------


def test_a_window_is_pushed_and_the_rest_waits_on_the_disk() -> None:
    relay = MemoryRelay(settings=Settings(delivery_window_envelopes=4))
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    for number in range(1, 11):
        ada.submit(bob, b"%d" % number)
    bob.login()
    assert delivered(bob) == [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4")]
    acknowledge(bob, 1)
    assert bob.take() == [], "half a window has to be free first"
    acknowledge(bob, 2)
    assert delivered(bob) == [(5, b"5"), (6, b"6")]
    acknowledge(bob, 3, 4, 5, 6)
    *pushed, caught_up = bob.take()
    assert [each.number for each in pushed if isinstance(each, Deliver)] == [7, 8, 9, 10]
    assert caught_up == CaughtUp(10)


def test_what_comes_while_the_window_is_full_waits_its_turn() -> None:
    relay = MemoryRelay(settings=Settings(delivery_window_envelopes=2))
    ada, bob = registered(relay, "ada", "bob")
    for number in range(1, 6):
        ada.submit(bob, b"%d" % number)
    assert delivered(bob) == [(1, b"1"), (2, b"2")]
    acknowledge(bob, 1, 2)
    assert delivered(bob) == [(3, b"3"), (4, b"4")]
    ada.submit(bob, b"6")
    assert bob.take() == []
    acknowledge(bob, 4, 3)
    assert delivered(bob) == [(5, b"5"), (6, b"6")]
    acknowledge(bob, 5, 6)
    ada.submit(bob, b"7")
    assert delivered(bob) == [(7, b"7")]


def test_the_window_is_bounded_in_bytes_but_one_always_fits() -> None:
    relay = MemoryRelay(settings=Settings(delivery_window_bytes=100))
    ada, bob = registered(relay, "ada", "bob")
    for size in (150, 30, 60, 20):
        ada.submit(bob, b"x" * size)
    assert [number for number, _ in delivered(bob)] == [1]
    acknowledge(bob, 1)
    assert [number for number, _ in delivered(bob)] == [2, 3]
    acknowledge(bob, 2)
    assert delivered(bob) == []
    acknowledge(bob, 3)
    assert [number for number, _ in delivered(bob)] == [4]


def test_everything_comes_once_whatever_the_order_of_groups() -> None:
    # Messages are stored before, with and after the read that the login asks for.
    relay = MemoryRelay(settings=Settings(delivery_window_envelopes=8))
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"1")
    bob.connect()
    relay.hold()
    ada.submit(bob, b"2")
    bob.connection.send(bob.login_request())
    ada.submit(bob, b"3")
    relay.release()
    ada.submit(bob, b"4")
    assert delivered(bob) == [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4")]


def test_what_is_stored_just_before_a_read_comes_with_the_read_alone() -> None:
    relay = MemoryRelay(settings=Settings(delivery_window_envelopes=4))
    ada, bob = registered(relay, "ada", "bob")
    for number in range(1, 6):
        ada.submit(bob, b"%d" % number)
    assert [number for number, _ in delivered(bob)] == [1, 2, 3, 4]
    relay.hold()
    ada.submit(bob, b"6")
    acknowledge(bob, 1, 2, 3, 4)  # asks for the read
    ada.submit(bob, b"7")
    relay.release()
    assert [number for number, _ in delivered(bob)] == [5, 6, 7]


def test_caught_up_is_said_once() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    ada.submit(bob, b"1")
    bob.take()
    bob.login()
    assert bob.take() == [Deliver(1, relay.now_ms, b"1"), CaughtUp(1)]
    acknowledge(bob, 1)
    ada.submit(bob, b"2")
    assert bob.take() == [Deliver(2, relay.now_ms, b"2")]
