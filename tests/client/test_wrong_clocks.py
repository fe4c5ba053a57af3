"""A clock that jumps by days or years: nothing is thrown away, nobody is locked out."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from saltline.client.model import Delivery
from saltline.protocol import to_client
from tests.client.conftest import Meet
from tests.client.hostile import replacing, under
from tests.client.world import MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS


class Wrong(Person):
    """Somebody whose computer's clock is not the relay's."""

    off_ms = 0

    @property
    def now(self) -> int:
        return self.relay.now_ms + self.off_ms


@pytest.fixture
def bob(relay: MemoryRelay, tmp_path: Path) -> Wrong:
    person = Wrong(relay, tmp_path / "bob", "bob")
    person.online()
    return person


def held(person: Person) -> dict[int, int]:
    return dict(person.vault.rows("SELECT kind, count(*) FROM prekeys GROUP BY kind"))


@pytest.mark.parametrize("off_ms", [5 * YEAR_MS, 60 * DAY_MS, -60 * DAY_MS, -5 * YEAR_MS])
def test_mail_that_waits_outlives_a_wrong_clock(
    meet: Meet, bob: Wrong, relay: MemoryRelay, off_ms: int
) -> None:
    alice = meet("alice")
    bob.send("alice", "hello")
    settle(alice, bob)
    alice.send("bob", "hello too")
    settle(alice, bob)
    bob.offline()
    stranger = meet("stranger")
    stranger.send("bob", "we have not met")
    alice.send("bob", "are you there?")
    settle(alice, stranger)
    before = held(bob)
    bob.off_ms = off_ms
    for _ in range(3):
        bob.tick()
    assert held(bob) == before
    bob.online()
    bob.tick()
    settle(bob)
    bob.offline()
    bob.off_ms = 0
    bob.online()
    bob.tick()
    settle(alice, bob)
    assert bob.texts("@stranger") == ["we have not met"]
    assert bob.texts("@alice") == ["hello", "hello too", "are you there?"]
    assert bob.vault.value("SELECT max(made_ms) FROM prekeys") <= relay.now_ms
    bob.send("stranger", "now we have")
    settle(bob, stranger)
    assert stranger.texts("@bob")[-1] == "now we have"


@pytest.mark.parametrize("off_ms", [5 * YEAR_MS, 60 * DAY_MS, -60 * DAY_MS, -5 * YEAR_MS])
def test_a_message_that_comes_late_outlives_a_wrong_clock(
    meet: Meet, bob: Wrong, off_ms: int
) -> None:
    """What came before it left its key, which is no older than the other clock says."""
    alice = meet("alice")
    bob.send("alice", "hello")
    settle(alice, bob)
    bob.offline()
    for text in ("withheld", "first", "second"):
        alice.send("bob", text)
    settle(alice)
    kept: list[Heard] = []

    def withhold(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Deliver) and not kept:
            kept.append(message)
        else:
            yield message

    under(bob, withhold)
    bob.offline()
    bob.off_ms = off_ms
    under(bob, None)
    settle(alice, bob)
    assert bob.texts("@alice") == ["hello", "first", "second", "withheld"]


@pytest.mark.parametrize("off_ms", [5 * YEAR_MS, 100 * DAY_MS, -60 * DAY_MS, -5 * YEAR_MS])
def test_who_registered_with_a_wrong_clock_can_be_written_to_when_it_is_right(
    relay: MemoryRelay, meet: Meet, tmp_path: Path, off_ms: int
) -> None:
    carol = Wrong(relay, tmp_path / "carol", "carol")
    carol.off_ms = off_ms
    carol.online()
    carol.tick()
    carol.offline()
    carol.off_ms = 0
    account = carol.vault.account()
    assert account is not None
    if not account.registered:
        carol.perform(carol.core.begin_registration("carol", "", 9, carol.now))
    carol.online()
    alice = meet("alice")
    line = alice.send("carol", "hello")
    alice.post("#lobby", "hello everybody")
    carol.post("#lobby", "hello alice")
    settle(alice, carol)
    assert alice.delivery(line) is Delivery.RELAYED
    assert carol.texts("@alice") == ["hello"]
    assert set(carol.texts("#lobby")) == {"hello everybody", "hello alice"}


def test_unpublished_keys_that_expired_do_not_stand_in_the_way(
    meet: Meet, alice: Person, relay: MemoryRelay
) -> None:
    """Made, not confirmed, and then nobody was here for two months."""
    with alice.vault.transaction():
        alice.vault.run("UPDATE prekeys SET published = 0")
    alice.offline()
    relay.now_ms += 60 * DAY_MS
    alice.online()
    alice.tick()
    stranger = meet("stranger")
    line = stranger.send("alice", "hello")
    settle(alice, stranger)
    assert stranger.delivery(line) is Delivery.RELAYED
    assert alice.texts("@stranger") == ["hello"]
    assert alice.core.idle()


def test_the_clock_is_set_back_while_connected(bob: Wrong, relay: MemoryRelay) -> None:
    """Every deadline and every ping would lie days ahead: begin again."""
    bob.off_ms = -3 * DAY_MS
    relay.now_ms += 1000
    bob.tick()
    assert bob.link is None and bob.last_disconnect is not None
    assert bob.last_disconnect.retry and "clock jumped" in bob.last_disconnect.detail
    bob.online()
    sent = 0
    for _ in range(100):
        relay.now_ms += 1000
        before = bob.core._ctx._last_request
        bob.tick()
        sent += bob.core._ctx._last_request - before
        settle(bob)
    assert bob.core.ready and sent >= 3  # pings


def test_a_clock_ahead_is_said_once_and_waits_for_its_time(
    meet: Meet, bob: Wrong, relay: MemoryRelay
) -> None:
    alice = meet("alice")
    bob.offline()
    bob.off_ms = -3 * DAY_MS
    for _ in range(3):
        bob.online()
        bob.offline()
    bob.online()
    (notice,) = bob.notices("@saltline")
    assert "3 days apart" in notice
    line = bob.send("alice", "hello")
    settle(alice, bob)
    assert bob.delivery(line) in (Delivery.QUEUED, Delivery.RELAYED)
    assert bob.notices("@alice") == []
    bob.offline()
    bob.off_ms = 0
    bob.online()
    settle(alice, bob)
    assert alice.texts("@bob") == ["hello"]


def test_a_certificates_word_that_has_expired_is_asked_for_again(bob: Wrong) -> None:
    past = replacing(to_client.Challenge, certificate_not_after_ms=1)
    under(bob, past)
    assert bob.link is None and bob.last_disconnect is not None
    assert not bob.core.ready
    bob.off_ms = 10**12
    under(bob, None)
    assert bob.last_disconnect.retry and "clock is wrong" in bob.last_disconnect.detail
    bob.off_ms = 0
    assert under(bob, None).core.ready


def test_a_relay_that_lies_about_the_time_makes_no_keys_die(
    meet: Meet, alice: Person, relay: MemoryRelay
) -> None:
    before = held(alice)
    under(alice, replacing(to_client.Welcome, time_ms=2**63 - 1))
    alice.tick()
    assert held(alice) == before
    under(alice, replacing(to_client.Welcome, time_ms=0))
    alice.tick()
    assert held(alice) == before
    assert under(alice, None).core.idle()


def test_a_computer_that_slept_comes_back(alice: Person, bob: Wrong, relay: MemoryRelay) -> None:
    relay.now_ms += 9 * HOUR_MS
    bob.tick()
    assert bob.link is None and bob.last_disconnect is not None and bob.last_disconnect.retry
    alice.offline()
    alice.online()
    alice.send("bob", "good morning")
    bob.online()
    settle(alice, bob)
    assert bob.texts("@alice") == ["good morning"]
