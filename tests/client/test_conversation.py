"""Two people and a relay, whole from end to end, without a socket."""

import random
from pathlib import Path

import apsw
import pytest

from saltline.client.model import Delivery, ExitCode, LineKind, Refused, Trust
from saltline.client.vault import views
from saltline.protocol import limits
from saltline.server.administration import Code, ResetUser
from tests.client.conftest import Meet
from tests.client.world import MemoryRelay, Person, refusal, settle
from tests.server.relay_harness import START_MS


def test_a_message_waits_for_somebody_offline_and_is_receipted(alice: Person, bob: Person) -> None:
    bob.offline()
    line = alice.send("bob", "did the build pass?")
    assert alice.delivery(line) is Delivery.QUEUED
    settle(alice)
    assert alice.delivery(line) is Delivery.RELAYED

    bob.online()
    assert bob.texts("@alice") == ["did the build pass?"]
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.RELAYED  # a stranger's message gives no receipt

    bob.send("alice", "yes, tagged 1.2")
    settle(alice, bob)
    assert alice.texts("@bob") == ["did the build pass?", "yes, tagged 1.2"]
    assert alice.delivery(line) is Delivery.DELIVERED

    (incoming,) = [each for each in bob.lines("@alice") if not each.mine]
    bob.perform(bob.core.mark_read("@alice", incoming.row, bob.now))
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.READ


def test_what_is_typed_offline_leaves_by_itself_and_in_order(alice: Person, bob: Person) -> None:
    alice.offline()
    texts = [f"text {number}" for number in range(100)]
    lines = [alice.send("bob", text) for text in texts]
    assert {alice.delivery(line) for line in lines} == {Delivery.QUEUED}
    alice.crash()
    alice.online()
    settle(alice, bob)
    assert bob.texts("@alice") == texts
    assert {alice.delivery(line) for line in lines} == {Delivery.RELAYED}
    assert alice.core.idle() and bob.core.idle()


def test_the_relays_disk_holds_no_word_and_no_sender(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    bob.offline()
    alice.send("bob", "meet me at the canary")
    settle(alice)
    relay.store.close()
    (mailbox,) = [
        rows
        for (name,) in apsw.Connection(str(tmp_path / "relay.db")).execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%envelope%'"
        )
        if (
            rows := apsw.Connection(str(tmp_path / "relay.db"))
            .execute(f"SELECT * FROM {name}")
            .fetchall()
        )
    ]
    (row,) = mailbox
    flat = b"|".join(part if isinstance(part, bytes) else str(part).encode() for part in row)
    assert len(flat) > 3584
    assert b"canary" not in flat and b"alice" not in flat
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("relay.db*"))
    assert b"canary" not in everything


def test_long_talks_with_crashes_lose_and_repeat_nothing(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    rng = random.Random(7)
    said: dict[str, list[str]] = {"alice": [], "bob": []}
    people = {"alice": alice, "bob": bob}
    for number in range(300):
        name = rng.choice(["alice", "bob"])
        other = "bob" if name == "alice" else "alice"
        text = f"{name} {number}"
        people[name].send(other, text)
        said[name].append(text)
        event = rng.random()
        relay.now_ms += rng.randrange(60_000)
        if event < 0.1:
            people[rng.choice(["alice", "bob"])].crash()
        elif event < 0.2:
            people[rng.choice(["alice", "bob"])].offline()
        elif event < 0.25:
            for person in people.values():
                person.offline()
            relay.crash()
        elif event < 0.6:
            settle(*people.values())
        for person in people.values():
            if person.link is None and rng.random() < 0.5:
                person.online()
    for person in people.values():
        if person.link is None:
            person.online()
    settle(alice, bob)
    for _ in range(4):
        relay.now_ms += 40_000
        alice.tick()
        bob.tick()
        settle(alice, bob)
    assert [text for text in bob.texts("@alice") if text.startswith("alice")] == said["alice"]
    assert [text for text in alice.texts("@bob") if text.startswith("bob")] == said["bob"]
    states = {line.delivery for line in alice.lines("@bob") if line.mine}
    assert states == {Delivery.DELIVERED}
    assert not alice.notices("@bob") and not bob.notices("@alice")


def test_both_write_first_at_the_same_moment(alice: Person, bob: Person) -> None:
    alice.offline()
    bob.offline()
    alice.send("bob", "hello from alice")
    bob.send("alice", "hello from bob")
    alice.online()
    bob.online()
    settle(alice, bob)
    for number in range(5):
        alice.send("bob", f"a{number}")
        bob.send("alice", f"b{number}")
        settle(alice, bob)
    received = [line.body for line in bob.lines("@alice") if not line.mine]
    assert received == ["hello from alice", "a0", "a1", "a2", "a3", "a4"]
    assert {line.delivery for line in alice.lines("@bob") if line.mine} == {Delivery.DELIVERED}


def test_nobody_by_that_name(alice: Person) -> None:
    line = alice.send("nobody-here", "hello?")
    settle(alice)
    assert alice.delivery(line) is Delivery.FAILED
    assert "no user nobody-here" in alice.reason(line)
    assert alice.core.queued() == 0 and alice.core.idle()


@pytest.mark.parametrize(
    ("username", "text", "sentence"),
    [
        ("bob", "", "empty"),
        ("bob", "x" * 65_537, "65537 bytes"),
        ("bob", "\ud800", "not valid Unicode"),
        ("Bob!", "hello", "A user name has"),
        ("alice", "hello", "that is you"),
        ("saltline", "hello", "this program's own"),
    ],
)
def test_what_cannot_be_sent_is_not_queued(
    alice: Person, username: str, text: str, sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        alice.send(username, text)
    assert alice.core.queued() == 0
    assert alice.lines(f"@{username}") == []


def test_the_longest_text_arrives_unaltered(alice: Person, bob: Person) -> None:
    text = "\u202eabc\x1b[31m\n\t\x00 " + "ü" * 32_000
    alice.send("bob", text)
    settle(alice, bob)
    assert bob.texts("@alice") == [text]


def test_a_stranger_is_a_request_until_accepted(alice: Person, bob: Person) -> None:
    line = alice.send("bob", "we have not met")
    settle(alice, bob)
    (summary,) = [s for s in views.conversations(bob.vault) if s.name == "@alice"]
    assert summary.request and summary.unread == 1
    bob.perform(bob.core.accept("alice", bob.now))
    settle(alice, bob)
    assert alice.delivery(line) is Delivery.DELIVERED
    (summary,) = [s for s in views.conversations(bob.vault) if s.name == "@alice"]
    assert not summary.request


def test_somebody_blocked_is_neither_heard_nor_told(alice: Person, bob: Person) -> None:
    bob.perform(bob.core.block("alice", bob.now))
    line = alice.send("bob", "can you hear me?")
    settle(alice, bob)
    assert bob.texts("@alice") == [] and bob.notices("@alice") == []
    assert alice.delivery(line) is Delivery.RELAYED
    with pytest.raises(Refused, match="you blocked alice") as refused:
        bob.send("alice", "no")
    assert refused.value.code is ExitCode.NOT_TRUSTED


def reset(relay: MemoryRelay, person: Person, folder: Path) -> Person:
    """The admin resets somebody's key; they begin again on a new computer."""
    answer = relay.admin(ResetUser(person.name, relay.now_ms + 3_600_000))
    assert isinstance(answer, Code)
    person.offline()
    return Person(relay, folder, person.name, answer.code).online()


def test_a_changed_key_blocks_until_the_person_decides(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    alice.send("bob", "before")
    settle(alice, bob)
    bob.send("alice", "hello")
    settle(alice, bob)
    new_bob = reset(relay, bob, tmp_path / "bob2")
    assert new_bob.core.ready

    late = alice.send("bob", "for the old key")
    settle(alice, new_bob)
    assert alice.delivery(late) is Delivery.QUEUED
    assert "bob's key changed" in alice.reason(late)
    assert any("bob's key changed" in notice for notice in alice.notices("@bob"))
    with pytest.raises(Refused, match="Nothing left this computer") as refused:
        alice.send("bob", "more")
    assert refused.value.code is ExitCode.NOT_TRUSTED
    assert new_bob.texts("@alice") == []

    info = views.contact(alice.vault, "bob")
    assert info.trust is Trust.CHANGED
    wrong = "0" * 60
    with pytest.raises(Refused, match="not the safety number"):
        alice.core.verify("bob", wrong, alice.now)
    _, commands = alice.core.verify("bob", info.safety_number, alice.now)
    alice.perform(commands)
    assert views.contact(alice.vault, "bob").trust is Trust.VERIFIED
    settle(alice, new_bob)
    assert alice.delivery(late) is Delivery.FAILED  # encrypted for a key that is gone
    alice.perform(alice.core.retry(late.row, alice.now))
    alice.send("bob", "for the new key")
    settle(alice, new_bob)
    assert new_bob.texts("@alice") == ["for the old key", "for the new key"]
    assert (
        new_bob.notices("@alice") == []
    )  # nor a gap: what the old device had is no loss of this one


def test_both_see_one_safety_number(alice: Person, bob: Person) -> None:
    ours = alice.ask(lambda t, now: alice.core.fetch_contact("bob", t, now))
    theirs = bob.ask(lambda t, now: bob.core.fetch_contact("alice", t, now))
    assert ours.safety_number == theirs.safety_number
    assert len(ours.safety_number.replace(" ", "")) == 60
    assert ours.fingerprint != theirs.fingerprint
    unknown = alice.ask(lambda t, now: alice.core.fetch_contact("nobody", t, now))
    assert refusal(unknown).code is ExitCode.UNKNOWN_NAME


def test_prekeys_run_out_and_are_topped_up(meet: Meet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ONE_TIME_PREKEYS", 6)
    monkeypatch.setattr(limits, "ONE_TIME_PREKEYS_REFILL_BELOW", 3)
    monkeypatch.setattr(limits, "ONE_TIME_KEM_PREKEYS", 4)
    monkeypatch.setattr(limits, "ONE_TIME_KEM_PREKEYS_REFILL_BELOW", 2)
    bob = meet("bob")
    bob.offline()
    strangers = [meet(f"stranger{number}") for number in range(9)]
    for person in strangers:
        person.send("bob", f"hello from {person.name}")
        settle(person)
        person.offline()
    bob.online()
    for person in strangers:
        assert bob.texts(f"@{person.name}") == [f"hello from {person.name}"]
    assert bob.core.idle()
    held = dict(bob.vault.rows("SELECT kind, count(*) FROM prekeys GROUP BY kind"))
    assert held == {1: 1, 2: 6, 3: 1, 4: 4}  # used ones are gone, and new ones are there


def test_signed_prekeys_rotate_and_old_mail_still_opens(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    bob.offline()
    alice.send("bob", "to the first signed prekey")
    settle(alice)
    relay.now_ms += 8 * 86_400_000
    bob.online()
    assert bob.texts("@alice") == ["to the first signed prekey"]
    newest = bob.vault.value("SELECT max(id) FROM prekeys WHERE kind = 1")
    assert newest == 2
    bob.offline()
    relay.now_ms += 39 * 86_400_000
    bob.online().tick()
    assert bob.vault.value("SELECT count(*) FROM prekeys WHERE kind = 1 AND id = 1") == 0


def test_a_registration_whose_answer_was_lost_is_repeated(
    relay: MemoryRelay, tmp_path: Path
) -> None:
    ada = Person(relay, tmp_path / "ada", "ada")
    ada.tamper = lambda message: [] if type(message).__name__ == "Welcome" else [message]
    ada.online()
    assert not ada.core.ready
    ada.crash()
    ada.tamper = None
    ada.online()
    assert ada.core.ready
    assert ada.vault.value("SELECT count(*) FROM account WHERE registered") == 1


def test_a_name_that_is_taken_says_so(alice: Person, relay: MemoryRelay, tmp_path: Path) -> None:
    second = Person(relay, tmp_path / "second", "al_ice").online()
    refused = refusal(second.answers[second.registration])
    assert "taken" in refused.sentence
    assert not second.core.ready


def test_registration_joins_the_lobby(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    kinds = [(line.kind, line.author) for line in alice.lines("#lobby")]
    assert kinds == [(LineKind.JOIN, "alice"), (LineKind.JOIN, "bob")]


def test_a_full_vault_acknowledges_nothing(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.send("bob", "first")
    settle(alice)

    def full(*_: object, **__: object) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(bob.core._ctx.timeline), "add", full)
        settle(bob)
        assert bob.link is None
        assert bob.last_disconnect is not None and "disk is full" in bob.last_disconnect.detail
        assert bob.texts("@alice") == []
    bob.online()
    assert bob.texts("@alice") == ["first"]
    assert relay_holds_nothing(bob)


def relay_holds_nothing(person: Person) -> bool:
    settle(person)
    person.offline()
    person.online()
    return person.texts("@alice") == ["first"] and person.core.idle()


def test_clocks_do_not_matter_much(alice: Person, bob: Person, relay: MemoryRelay) -> None:
    assert relay.now_ms == START_MS
    relay.now_ms += 3_600_000
    alice.send("bob", "from the future")
    settle(alice)
    relay.now_ms -= 3_600_000
    settle(bob)
    (line,) = [each for each in bob.lines("@alice")]
    assert line.body == "from the future" and "clock is ahead" in line.reason


def test_an_idle_client_empties_its_vaults_log(alice: Person, relay: MemoryRelay) -> None:
    log = alice.folder / "vault.db-wal"
    assert log.stat().st_size > 0
    relay.now_ms += 10_000
    alice.tick()
    settle(alice)
    relay.now_ms += 10_000
    alice.tick()
    assert log.stat().st_size == 0
