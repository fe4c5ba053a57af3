"""A disk that fails at any statement: nothing lost, nothing twice, nobody left waiting."""

import os
from pathlib import Path

import apsw
import pytest

from saltline.client.commands import Transmit
from saltline.client.model import Delivery, LineKind, Refused
from saltline.client.vault.database import VaultError, VaultFailed
from saltline.protocol import limits, to_client
from saltline.protocol.content import Content, Kind
from saltline.server.settings import Settings
from tests.client.conftest import Meet
from tests.client.faults import Disk, trying
from tests.client.hostile import (
    Withheld,
    forge,
    inject,
    refusing,
    replacing,
    session_with,
    submit,
    under,
)
from tests.client.world import MemoryRelay, Person, refusal, settle

# Neighbouring writes are of one statement's kind: 1 tries them all.
STRIDE = int(os.environ.get("SALTLINE_STRIDE", "3"))

pytestmark = pytest.mark.usefixtures("quick")


def come_back(relay: MemoryRelay, *people: Person) -> None:
    """The disk has room again; time passes, as it does."""
    for _ in range(4):
        relay.now_ms += 31_000
        for person in people:
            person.tick()
            if person.link is None:
                person.online()
        settle(*people)


def read_all(person: Person) -> None:
    last = max([line.row for line in person.lines("@alice")], default=0)
    person.perform(person.core.mark_read("@alice", last, person.now))


def attempt(person: Person, username: str, text: str) -> bool:
    return trying(lambda: person.send(username, text))


@pytest.mark.parametrize(("error", "first"), [(apsw.FullError, 1), (apsw.IOError, 2)])
def test_a_talk_on_a_disk_that_fails_at_every_write(
    meet: Meet, relay: MemoryRelay, error: type[apsw.Error], first: int
) -> None:
    """One world; each round fails a later write, until a round meets no failure."""
    alice, bob = meet("alice"), meet("bob")
    said: dict[str, list[str]] = {"alice": [], "bob": []}
    posted: list[str] = []
    rounds = 0
    for nth in range(first, 1000, STRIDE):
        disk = Disk(bob, nth, error=error)
        for name, person, other in (("alice", alice, "bob"), ("bob", bob, "alice")):
            text = f"{name} {nth}"
            if attempt(person, other, text):
                said[name].append(text)
            settle(alice, bob)
        trying(lambda: read_all(bob))
        if trying(lambda: bob.post("#lobby", f"post {len(posted)}")):
            posted.append(f"post {len(posted)}")
        settle(alice, bob)
        disk.mend()
        come_back(relay, alice, bob)
        read_all(bob)
        rounds = nth
        if not disk.failures:
            break
    assert 30 < rounds < 900
    assert [line.body for line in bob.lines("@alice") if not line.mine] == said["alice"]
    assert [line.body for line in alice.lines("@bob") if not line.mine] == said["bob"]
    assert alice.texts("#lobby") == posted == bob.texts("#lobby")
    for person in (alice, bob):
        assert person.core.idle() and person.core.queued() == 0
        assert person.notices("#lobby") == []
        mine = [line for line in person.lines("#lobby") if line.mine]
        assert {line.delivery for line in mine} == {Delivery.RELAYED}
    come_back(relay, alice, bob)
    assert {line.delivery for line in alice.lines("@bob") if line.mine} == {Delivery.READ}
    assert alice.notices("@bob") == [] and bob.notices("@alice") == []


def test_registration_on_a_disk_that_fails_at_every_write(tmp_path: Path) -> None:
    everybody = 10**6
    settings = Settings(registrations_per_minute_and_address=everybody, room_recent_entries=1)
    relay = MemoryRelay(tmp_path, settings)
    for nth in range(1, 1000, STRIDE):
        name = f"user{nth}"
        person = Person(relay, tmp_path / name, name)
        disk = Disk(person, nth)
        person.online()
        disk.mend()
        account = person.vault.account()
        assert account is not None
        if not account.registered:
            person.perform(person.core.begin_registration(name, "", 99, person.now))
        if not person.core.ready:
            person.online()
        assert person.core.ready and person.core.idle()
        assert (LineKind.JOIN, name) in [
            (each.kind, each.author) for each in person.lines("#lobby")
        ]
        if not disk.failures:
            break
        person.offline()
    assert 10 < nth < 900


def test_a_call_that_fails_ends_the_connection_that_forgot_what_was_on_its_way(
    alice: Person, bob: Person
) -> None:
    """The link is up, and nobody speaks: without a new one nothing would ever leave."""
    disk = Disk(alice, 3)
    with pytest.raises(VaultError, match="disk is full"):
        alice.send("bob", "lost")
    disk.mend()
    line = alice.send("bob", "kept")
    alice.tick()
    assert alice.link is None and alice.last_disconnect is not None
    assert alice.last_disconnect.retry and "disk is full" in alice.last_disconnect.detail
    alice.online()
    settle(alice, bob)
    assert bob.texts("@alice") == ["kept"]
    assert alice.delivery(line) is Delivery.RELAYED


@pytest.mark.parametrize("nth", range(1, 8))
def test_who_waits_for_an_answer_is_told_when_it_cannot_be_saved(
    alice: Person, bob: Person, nth: int
) -> None:
    withheld = Withheld(alice, to_client.Joined)
    under(alice, withheld)
    assert alice.ask(lambda ticket, now: alice.core.join("#dev", ticket, now)) is None
    disk = Disk(alice, nth, times=2)
    withheld.release()
    settle(alice)
    disk.mend()
    alice.tick()
    assert disk.failures
    assert refusal(alice.answers[alice._tickets])
    answer = alice.online().ask(lambda ticket, now: alice.core.join("#dev", ticket, now))
    assert answer is None


def test_answers_outlive_turns_that_fail_one_after_the_other(alice: Person, bob: Person) -> None:
    withheld = Withheld(alice, to_client.RoomList)
    under(alice, withheld)
    alice.ask(lambda ticket, now: alice.core.list_rooms(ticket, now))
    disk = Disk(alice, 1, times=5)
    for _ in range(3):
        assert not attempt(alice, "bob", "lost")
    disk.mend()
    alice.tick()
    assert isinstance(alice.answers[alice._tickets], Refused)


def _broken(*_: object) -> bool:
    raise apsw.IOError("no")


def test_whoever_waits_is_told_when_the_disk_reads_no_more_either(alice: Person) -> None:
    joined, listed = Withheld(alice, to_client.Joined), Withheld(alice, to_client.RoomList)
    under(alice, lambda message: [m for each in joined(message) for m in listed(each)])
    tickets = alice._ticket(), alice._ticket()
    alice.perform(alice.core.join("#dev", tickets[0], alice.now))
    alice.perform(alice.core.list_rooms(tickets[1], alice.now))
    settle(alice)
    alice.vault.db.exec_trace = _broken
    alice.tick()
    alice.vault.db.exec_trace = None
    alice.tick()
    for ticket in tickets:
        assert "did not answer" in refusal(alice.answers[ticket]).sentence


def test_what_a_tick_decided_leaves_though_the_disk_fails_after_it(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    under(alice, refusing(to_client.Submitted, "mailbox_full"))
    alice.send("bob", "waits")
    settle(alice)
    relay.now_ms += int(limits.PING_INTERVAL_S * 1000)

    def after_commit(_cursor: object, sql: str, _bindings: object) -> bool:
        if sql == "COMMIT":
            alice.vault.db.exec_trace = _broken
        return True

    alice.vault.db.exec_trace = after_commit
    commands = alice.core.tick(alice.now)
    assert any(isinstance(each, Transmit) for each in commands)  # a ping


def test_reading_that_fails_is_a_failure_of_the_vault_too(alice: Person) -> None:
    def broken(*_: object) -> bool:
        raise apsw.IOError("no")

    alice.vault.db.exec_trace = broken
    with pytest.raises(VaultFailed):
        alice.core.queued()
    alice.tick()
    assert alice.link is None
    alice.vault.db.exec_trace = None
    assert alice.online().core.ready


def test_a_rollback_that_fails_is_done_later(alice: Person, bob: Person) -> None:
    def broken(_cursor: object, sql: str, _bindings: object) -> bool:
        if sql.startswith(("INSERT INTO outbox", "ROLLBACK")):
            raise apsw.IOError("no")
        return True

    alice.vault.db.exec_trace = broken
    assert not attempt(alice, "bob", "lost")
    alice.vault.db.exec_trace = None
    alice.tick()
    alice.online()
    alice.send("bob", "kept")
    settle(alice, bob)
    assert alice.texts("@bob") == ["kept"] == bob.texts("@alice")


def test_an_alarm_that_was_not_saved_is_said_again(alice: Person, bob: Person) -> None:
    bob.post("#lobby", "one")
    settle(alice, bob)
    shrunk = replacing(to_client.Welcome, rooms=(to_client.RoomMark("#lobby", 1),))
    alice.offline()
    alice.vault.db.exec_trace = lambda _cursor, sql, _bindings: _refuse_alerts(sql)
    under(alice, shrunk)
    assert alice.notices("#lobby") == []
    alice.vault.db.exec_trace = None
    under(alice, shrunk)
    (notice,) = alice.notices("#lobby")
    assert "split" in notice


def _refuse_alerts(sql: str) -> bool:
    if sql.startswith("INSERT INTO lines_text"):
        raise apsw.FullError("no")
    return True


def test_what_could_not_be_opened_is_counted_once(alice: Person) -> None:
    disk = Disk(alice, 1, times=1)
    garbage = [to_client.Deliver(number, 1, b"garbage") for number in range(3)]
    inject(alice, *garbage)
    disk.mend()
    alice.online()
    inject(alice, *garbage)
    (notice,) = alice.notices("@saltline")
    assert notice.startswith("3 messages")


def test_a_refused_question_costs_no_message(alice: Person, bob: Person) -> None:
    """A turn that is refused rolls back: what other turns had queued is still there."""
    alice.offline()
    lines = [alice.send("bob", f"text {number}") for number in range(40)]
    for _ in range(3):
        with pytest.raises(Refused):
            alice.send("Not A Name", "x")
    alice.online()
    settle(alice, bob)
    assert bob.texts("@alice") == [line.body for line in lines]


def test_that_something_could_not_be_opened_is_said_again_if_it_was_not_saved(
    alice: Person,
) -> None:
    garbage = to_client.Deliver(1, 1, b"garbage")
    alice.vault.db.exec_trace = lambda _cursor, sql, _bindings: _refuse_alerts(sql)
    inject(alice, garbage)
    assert alice.link is None
    alice.vault.db.exec_trace = None
    alice.online()
    inject(alice, garbage)
    (notice,) = alice.notices("@saltline")
    assert "could not be opened" in notice


def test_that_keys_were_gone_is_said_again_if_it_was_not_saved(alice: Person, bob: Person) -> None:
    """The relay delivers again what was not acknowledged; this time it is, and for good."""
    bob.send("alice", "hello")
    alice.send("bob", "hello")
    settle(alice, bob)
    session = session_with(bob, "alice", bob.now + 1)
    content = Content(Kind.TEXT, bytes(16), "alice", 0, bob.now, b"", b"lost")
    with alice.vault.transaction():
        alice.vault.run("DELETE FROM prekeys")
    alice.vault.db.exec_trace = lambda _cursor, sql, _bindings: _refuse_alerts(sql)
    submit(bob, "alice", forge(bob, session, content)[1])
    settle(alice)
    assert alice.link is None and alice.notices("@bob") == []
    alice.vault.db.exec_trace = None
    alice.online()
    (notice,) = alice.notices("@bob")
    assert "used keys of yours that are gone" in notice


def test_a_refused_question_forgets_nothing_that_is_to_be_said(
    alice: Person, relay: MemoryRelay
) -> None:
    inject(alice, *[to_client.Deliver(number, 1, b"garbage") for number in range(5)])
    inject(alice, *[to_client.Deliver(number, 1, b"garbage") for number in range(5, 7)])
    with pytest.raises(Refused):
        alice.send("Not A Name", "x")
    relay.now_ms += 3_700_000
    under(alice, None)
    assert [notice[:11] for notice in alice.notices("@saltline")] == ["5 messages ", "2 messages "]


def test_that_clocks_disagree_is_said_again_if_it_was_not_saved(alice: Person) -> None:
    def full(_cursor: object, sql: str, _bindings: object) -> bool:
        if sql == "COMMIT" and alice.core.ready:  # with Welcome
            raise apsw.FullError("no")
        return True

    years_off = replacing(to_client.Welcome, time_ms=alice.now + 2 * 365 * 86_400_000)
    alice.offline()
    alice.tamper = years_off
    alice.vault.db.exec_trace = full
    alice.online()
    assert alice.link is None
    alice.vault.db.exec_trace = None
    under(alice, years_off)
    (notice,) = alice.notices("@saltline")
    assert "days apart" in notice
