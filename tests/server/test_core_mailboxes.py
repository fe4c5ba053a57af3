"""Private messages: acknowledged once stored, delivered in order, kept until acknowledged."""

from itertools import pairwise
from pathlib import Path

import pytest

from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import CaughtUp, Deliver, Error, Submitted
from saltline.protocol.to_relay import Submit
from saltline.server.administration import RemoveUser
from saltline.server.settings import Settings
from tests.server.relay_harness import DAY_MS, START_MS, MemoryRelay
from tests.server.scenes import acknowledge, delivered, registered, waiting

# --- in ------------------------------------------------------------------------------------------


def test_a_message_goes_to_who_is_connected() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    request = ada.submit(bob, b"sealed")
    assert ada.take() == [Submitted(request)]
    assert bob.take() == [Deliver(1, relay.now_ms, b"sealed")]


def test_nothing_is_acknowledged_or_pushed_before_the_commit() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    relay.hold()
    request = ada.submit(bob, b"sealed")
    assert (ada.take(), bob.take()) == ([], [])
    relay.release()
    assert ada.take() == [Submitted(request)]
    assert delivered(bob) == [(1, b"sealed")]


def test_who_is_not_connected_gets_everything_in_order_later() -> None:
    relay = MemoryRelay()
    ada, bob, eve = registered(relay, "ada", "bob", "eve")
    bob.connection.cut()
    ada.submit(bob, b"one")
    relay.now_ms += 60_000
    eve.submit(bob, b"two")
    ada.submit(bob, b"three")
    relay.now_ms += 60_000
    bob.login()
    assert bob.take() == [
        Deliver(1, START_MS, b"one"),
        Deliver(2, START_MS + 60_000, b"two"),
        Deliver(3, START_MS + 60_000, b"three"),
        CaughtUp(3),
    ]


def test_a_device_may_write_to_itself() -> None:
    (ada,) = registered(MemoryRelay(), "ada")
    ada.submit(ada, b"note")
    submitted, deliver = ada.take()
    assert isinstance(submitted, Submitted)
    assert isinstance(deliver, Deliver)


def test_who_is_unknown_gets_nothing() -> None:
    relay = MemoryRelay()
    ada, _ = registered(relay, "ada", "bob")
    ada.connection.send(
        Submit(1, "nobody-here", 1, b"x", b""),
        Submit(2, "bob", 2, b"x", b""),
        Submit(3, "bob\n", 1, b"x", b""),
    )
    errors = ada.connection.take_all(Error)
    assert [(error.id, error.code) for error in errors] == [
        (1, ErrorCode.UNKNOWN_USER),
        (2, ErrorCode.UNKNOWN_DEVICE),
        (3, ErrorCode.UNKNOWN_USER),
    ]
    assert waiting(relay) == 0


def test_a_refused_message_does_not_keep_others_from_being_stored() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    relay.hold()
    ada.submit(bob, b"one")
    ada.connection.send(Submit(99, "nobody-here", 1, b"x", b""))
    ada.submit(bob, b"two")
    relay.release()
    assert [type(message) for message in ada.take()] == [Submitted, Error, Submitted]
    assert delivered(bob) == [(1, b"one"), (2, b"two")]


def test_the_row_says_nothing_about_the_sender() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"sealed", (7).to_bytes(8, "big") + bytes(32))
    database = relay.database._database
    assert [column[0] for column in database.execute("SELECT * FROM envelope").description] == [
        "slot",
        "received_ms",
        "envelope",
    ]
    ada_mailbox = database.execute(
        "SELECT mailbox.id FROM mailbox JOIN account ON account.id = account WHERE username = 'ada'"
    ).get
    bob_mailbox = database.execute(
        "SELECT mailbox.id FROM mailbox JOIN account ON account.id = account WHERE username = 'bob'"
    ).get
    (row,) = database.execute("SELECT * FROM envelope")
    assert row == (bob_mailbox << 36 | 1, relay.now_ms, b"sealed")
    assert ada_mailbox != bob_mailbox


def test_a_full_mailbox_takes_no_more_and_says_so() -> None:
    relay = MemoryRelay(settings=Settings(mailbox_max_envelopes=2))
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    for _ in range(3):
        ada.submit(bob, b"x")
    assert [type(message) for message in ada.received] == [Submitted, Submitted, Error]
    error = ada.received[-1]
    assert isinstance(error, Error)
    assert (error.id, error.code) == (3, ErrorCode.MAILBOX_FULL)
    ada.take()
    # Others' mailboxes are not full, and this one is not once its owner came.
    assert ada.submit(ada, b"x") == 4
    assert isinstance(ada.take()[0], Submitted)
    bob.login()
    acknowledge(bob, 1)
    ada.submit(bob, b"x")
    assert isinstance(ada.take()[0], Submitted)
    assert [number for number, _ in delivered(bob)] == [1, 2, 3]


def test_a_mailbox_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db", Settings(mailbox_max_bytes=100))
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"x" * 60)
    ada.submit(bob, b"x" * 41)
    ada.submit(bob, b"x" * 40)
    answers = [getattr(message, "code", "submitted") for message in ada.take()]
    assert answers == ["submitted", ErrorCode.MAILBOX_FULL, "submitted"]
    # The count is on the disk with the rest.
    relay.restart()
    ada.login()
    ada.take()
    ada.submit(bob, b"x")
    assert ada.connection.take_one(Error).code == ErrorCode.MAILBOX_FULL


# --- time ----------------------------------------------------------------------------------------


def test_envelopes_are_kept_for_thirty_days() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"old")
    relay.advance(10 * DAY_MS)
    ada.login()
    ada.submit(bob, b"newer")
    relay.advance(20 * DAY_MS)
    assert waiting(relay) == 2, "thirty days to the millisecond"
    relay.advance(60_000)
    assert waiting(relay) == 1
    bob.login()
    assert delivered(bob) == [(2, b"newer")]
    relay.advance(DAY_MS)
    bob.login()
    acknowledge(bob, 2)
    counted = relay.database._database.execute(
        "SELECT sum(waiting), sum(waiting_bytes) FROM mailbox"
    )
    assert counted.get == (0, 0)


def test_any_number_expires_a_bounded_number_at_a_time() -> None:
    relay = MemoryRelay(settings=Settings(mailbox_max_envelopes=5_000))
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    relay.hold()
    for _ in range(2_500):
        ada.submit(bob, b"x")
    relay.release()
    assert waiting(relay) == 2_500
    relay.advance(1_000)
    relay.advance(31 * DAY_MS)
    assert waiting(relay) == 0


@pytest.mark.parametrize("is_held", [False, True], ids=["before", "in one group"])
def test_mail_for_a_removed_account_is_refused(is_held: bool) -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    ada.submit(bob, b"waits")
    ada.take()
    if is_held:
        relay.hold()
    relay.ask(RemoveUser("bob"))
    ada.submit(bob, b"meanwhile")
    relay.release()
    last = ada.take()[-1]
    # In one group the message comes between the question and the removal, which deletes it.
    assert isinstance(last, Submitted if is_held else Error)
    ada.submit(bob, b"after")
    assert ada.connection.take_one(Error).code == ErrorCode.UNKNOWN_DEVICE
    assert waiting(relay) == 0


def test_the_mail_of_a_removed_account_goes_in_bits_that_hold_nobody_up() -> None:
    relay = MemoryRelay()
    ada, bob, eve = registered(relay, "ada", "bob", "eve")
    bob.connection.cut()
    eve.connection.cut()
    for _ in range(500):
        ada.submit(bob, b"x")
    ada.submit(eve, b"stays")
    relay.hold()
    relay.ask(RemoveUser("bob"))
    left = [501]
    for _ in range(8):
        relay.release_one_group()
        left.append(waiting(relay))
    relay.release()
    assert left[-1] == 1 and max(a - b for a, b in pairwise(left)) <= 128, left


def test_a_relay_that_ends_meanwhile_goes_on_with_it_at_its_next_start(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    for _ in range(500):
        ada.submit(bob, b"x")
    relay.hold()
    relay.ask(RemoveUser("bob"))
    for _ in range(3):
        relay.release_one_group()
    relay.crash()
    relay.is_holding = False
    assert 0 < waiting(relay) < 500
    relay.advance(1)
    assert waiting(relay) == 0


def test_a_crash_keeps_what_was_acknowledged_and_nothing_else(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    for number in range(1, 21):
        ada.submit(bob, b"%d" % number)
    acknowledged = len(ada.connection.take_all(Submitted))
    relay.hold()
    ada.submit(bob, b"never acknowledged")
    relay.is_holding = False
    relay.crash()
    bob.login()
    assert [envelope for _, envelope in delivered(bob)] == [
        b"%d" % number for number in range(1, acknowledged + 1)
    ]
    assert acknowledged == 20
    # What is acknowledged by its recipient stays deleted.
    acknowledge(bob, *range(1, 20))
    relay.crash()
    bob.login()
    assert delivered(bob) == [(20, b"20")]
    assert relay.database.check() == []
