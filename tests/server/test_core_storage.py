"""Disks that fail, and stopping in order."""

from collections.abc import Sequence
from pathlib import Path

from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import (
    Deliver,
    Error,
    Pong,
    Posted,
    RoomEntry,
    Submitted,
    Welcome,
)
from saltline.protocol.to_relay import Acknowledge, Ping, Submit
from saltline.server.administration import CreateInvite, Refused
from saltline.server.store.interface import Outcome, Store, StoreError
from saltline.server.store.operations import BeginSession, KeepGenerations, Operation, ReadMailbox
from tests.server.person import HELLO, Person
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import registered

FULL = StoreError(ErrorCode.STORAGE_FAILED, "The relay's disk is full.")
BROKEN = StoreError(ErrorCode.STORAGE_FAILED, "The relay's disk failed.", fatal=True)


class FailingStore:
    """A store that answers some operations with an error instead of doing them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.error: StoreError | None = None
        self.only: type | None = None

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        if self.error is None:
            return self._store.run(operations)
        return [
            self.error
            if self.only is None or isinstance(operation, self.only)
            else self._store.run([operation])[0]
            for operation in operations
        ]

    def maintain(self, *, nobody_waits: bool = False) -> StoreError | None:
        return self._store.maintain(nobody_waits=nobody_waits)

    def close(self) -> None:
        self._store.close()


def failing_relay() -> tuple[MemoryRelay, FailingStore, Person, Person]:
    """A relay on a disk that can be broken; ada and bob are members of the lobby."""
    relay = MemoryRelay(wrap_store=FailingStore)
    people = Person(relay, "ada"), Person(relay, "bob")
    for person in people:
        person.register()
        person.take()
        person.join("#lobby")
    for person in people:
        person.take()
    assert isinstance(relay.store, FailingStore)
    return relay, relay.store, *people


def test_what_a_full_disk_did_not_take_is_said_and_service_resumes() -> None:
    relay, disk, ada, bob = failing_relay()
    disk.error = FULL
    ada.submit(bob, b"lost?")
    ada.connection.send(ada.post_request("#lobby", ada.statement(1, b"lost?")))
    errors = ada.connection.take_all(Error)
    assert [(error.id, error.code) for error in errors] == [
        (ada.last_request - 1, ErrorCode.STORAGE_FAILED),
        (ada.last_request, ErrorCode.STORAGE_FAILED),
    ]
    assert bob.take() == []
    assert ada.connection.is_open
    assert relay.stopped_for is None

    disk.error = None
    ada.submit(bob, b"again")
    assert isinstance(ada.take()[0], Submitted)
    assert [message.envelope for message in bob.connection.take_all(Deliver)] == [b"again"]


def test_a_broken_disk_stops_the_relay_and_acknowledges_nothing() -> None:
    relay, disk, ada, bob = failing_relay()
    disk.error = BROKEN
    relay.hold()
    ada.submit(bob, b"one")
    bob.submit(ada, b"two")
    relay.release()
    for person in (ada, bob):
        assert person.connection.take_one(Error).code == ErrorCode.STORAGE_FAILED
    assert relay.stopped_for == BROKEN.detail

    # Even if the disk seems to work again.
    disk.error = None
    ada.submit(bob, b"three")
    assert ada.connection.take_one(Error).code == ErrorCode.STORAGE_FAILED
    refused = relay.admin(CreateInvite(1, relay.now_ms + DAY_MS))
    assert isinstance(refused, Refused)
    assert refused.code == ErrorCode.STORAGE_FAILED
    relay.advance(120_000)
    relay.stop()


def test_a_disk_that_breaks_in_its_maintenance_stops_the_relay() -> None:
    relay, _, ada, bob = failing_relay()
    relay.perform(relay.core.stored(0, BROKEN, relay.now_ms))
    assert relay.stopped_for == BROKEN.detail
    ada.submit(bob, b"x")
    assert ada.connection.take_one(Error).code == ErrorCode.STORAGE_FAILED


def test_a_login_that_the_disk_refuses_is_no_bad_login() -> None:
    relay, disk, ada, _ = failing_relay()
    for only in (None, BeginSession):
        disk.error, disk.only = FULL, only
        ada.connect()
        ada.connection.send(ada.login_request())
        assert ada.connection.take_one(Error).code == ErrorCode.STORAGE_FAILED
        assert not ada.connection.is_open
        disk.error = None


def test_a_mailbox_that_cannot_be_read_ends_the_connection() -> None:
    relay, disk, ada, bob = failing_relay()
    bob.connection.cut()
    ada.submit(bob, b"waits")
    disk.error, disk.only = FULL, ReadMailbox
    bob.login()
    assert bob.connection.take_one(Error).code == ErrorCode.STORAGE_FAILED
    assert not bob.connection.is_open
    disk.error = None
    bob.login()
    assert isinstance(bob.take()[0], Deliver)


def test_an_acknowledgement_that_the_disk_refuses_is_not_answered() -> None:
    relay, disk, ada, bob = failing_relay()
    ada.submit(bob, b"one")
    bob.take()
    disk.error = FULL
    bob.connection.send(Acknowledge((1,), b""))
    assert bob.take() == []
    disk.error = None
    bob.login()
    assert [message.number for message in bob.connection.take_all(Deliver)] == [1]


def test_a_generation_that_could_not_be_written_is_written_later() -> None:
    relay, disk, ada, _ = failing_relay()
    generation = (9).to_bytes(8, "big") + bytes(32)
    ada.submit(ada, b"x", generation)
    disk.error, disk.only = FULL, KeepGenerations
    relay.advance(1_000)
    disk.error = None
    relay.advance(1_000)
    held = relay.database._database.execute("SELECT max(generation) FROM mailbox").get
    assert held == generation


def test_a_login_hears_of_a_generation_that_is_being_written() -> None:
    relay = MemoryRelay()
    (ada,) = registered(relay, "ada")
    older, newer = ((number).to_bytes(8, "big") + bytes(32) for number in (8, 9))
    ada.submit(ada, b"x", older)
    relay.advance(1_000)
    ada.submit(ada, b"x", newer)
    relay.hold()
    ada.connect()
    ada.connection.send(ada.login_request())  # asks the store before it is written
    relay.advance(1_000)
    relay.advance(1_000)
    writes = [each for each in relay._held if isinstance(each.operation, KeepGenerations)]
    assert len(writes) == 1, "once, however long it takes"
    relay.release()
    assert ada.expect(Welcome).generation == newer


def test_a_stop_waits_for_the_newest_generation() -> None:
    relay = MemoryRelay()
    (ada,) = registered(relay, "ada")
    ada.submit(ada, b"x", (8).to_bytes(8, "big") + bytes(32))
    relay.hold()
    relay.advance(1_000)
    newest = (9).to_bytes(8, "big") + bytes(32)
    ada.submit(ada, b"x", newest)
    relay.stop()
    relay.release()
    assert relay.core.idle
    held = relay.database._database.execute("SELECT max(generation) FROM mailbox").get
    assert held == newest


def test_a_mistake_of_ours_costs_the_one_who_met_it() -> None:
    relay, _, ada, bob = failing_relay()

    def mistaken(*_: object) -> None:
        raise ZeroDivisionError("with a secret in its text")

    relay.core._handlers[Submit] = (mistaken, 1)
    ada.submit(bob, b"x")
    error = ada.connection.take_one(Error)
    assert (error.id, error.code) == (ada.last_request, ErrorCode.INTERNAL)
    assert not ada.connection.is_open
    bob.connection.send(Ping(1))
    assert Pong(1) in bob.take()
    (line,) = relay.logged
    assert "ZeroDivisionError" in line.text
    assert "mistaken" in line.text
    assert "secret" not in line.text


# --- stopping ------------------------------------------------------------------------------------


def test_stopping_finishes_what_was_taken_and_says_goodbye() -> None:
    relay, _, ada, bob = failing_relay()
    relay.hold()
    ada.submit(bob, b"taken before")
    relay.stop()
    assert not relay.core.idle
    assert ada.connection.is_open
    ada.submit(bob, b"too late")
    assert ada.connection.take_one(Error).code == ErrorCode.STOPPING
    relay.release()
    assert relay.core.idle
    submitted, goodbye = ada.take()
    assert isinstance(submitted, Submitted)
    assert isinstance(goodbye, Error)
    assert (goodbye.id, goodbye.code) == (0, ErrorCode.STOPPING)
    deliver, goodbye = bob.take()
    assert isinstance(deliver, Deliver)
    assert isinstance(goodbye, Error)
    assert relay.connections == {}


def test_an_idle_relay_stops_at_once() -> None:
    relay, _, ada, _ = failing_relay()
    relay.stop()
    assert relay.core.idle
    assert ada.connection.take_one(Error).code == ErrorCode.STOPPING
    late = relay.connect()
    assert late.take_one(Error).code == ErrorCode.STOPPING
    assert not late.is_open


def test_strangers_are_not_let_into_a_stopping_relay() -> None:
    relay, _, ada, bob = failing_relay()
    ada.connect()
    stranger = relay.connect()
    logging_in = ada.connection
    relay.hold()
    bob.submit(bob, b"keeps the relay from stopping at once")
    logging_in.send(ada.login_request())
    relay.stop()
    stranger.send(HELLO)
    assert stranger.take_one(Error).code == ErrorCode.STOPPING
    relay.release()
    assert not logging_in.is_promoted
    assert logging_in.take_one(Error).code == ErrorCode.STOPPING


def test_acknowledgements_do_not_keep_a_stopping_relay_busy() -> None:
    relay, _, ada, bob = failing_relay()
    ada.submit(bob, b"one")
    relay.hold()
    ada.submit(bob, b"two")
    relay.stop()
    effects = len(relay.effects)
    bob.connection.send(Acknowledge((1,), b""))
    assert len(relay.effects) == effects
    relay.release()
    assert relay.core.idle


def test_generations_are_written_before_the_end(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada = Person(relay, "ada")
    ada.register()
    generation = (9).to_bytes(8, "big") + bytes(32)
    ada.submit(ada, b"x", generation)
    relay.stop()
    relay.restart()
    assert ada.login().generation == generation


def test_rooms_and_mail_go_on_after_a_restart(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    for person in (ada, bob):
        person.register()
        person.take()
        person.join("#lobby")
    ada.submit(bob, b"not acknowledged")
    relay.stop()
    relay.restart()
    for person in (ada, bob):
        person.login()
    ada.take()
    assert [message.envelope for message in bob.connection.take_all(Deliver)] == [
        b"not acknowledged"
    ]
    ada.connection.send(ada.post_request("#lobby", ada.statement(1, b"hello again")))
    posted, entry = ada.take()
    assert isinstance(posted, Posted)
    assert posted.number == 3
    assert bob.take() == [entry]
    assert isinstance(entry, RoomEntry)
