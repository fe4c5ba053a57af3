"""A computer's clock that is set, or wrong at a start: what lasts, lasts as long as it should."""

import pytest

from saltline.protocol.to_client import Deliver, Error
from saltline.protocol.to_relay import Ping
from saltline.server.core import RelayCore
from saltline.server.effects import Persist
from saltline.server.settings import Settings
from saltline.server.store.operations import ExpireEnvelopes
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import registered

_YEAR_MS = 365 * DAY_MS
_HOUR_MS = 3_600_000


@pytest.mark.parametrize("ahead_ms", [-_HOUR_MS, _HOUR_MS, _YEAR_MS])
def test_deadlines_do_not_follow_it(ahead_ms: int) -> None:
    relay = MemoryRelay(settings=Settings(login_deadline_s=20, silence_max_s=60))
    (ada,) = registered(relay, "ada")
    stranger = relay.connect()
    relay.set_clock(ahead_ms)
    relay.advance(19_000)
    assert stranger.is_open
    relay.advance(1_000)
    assert not stranger.is_open
    relay.advance(30_000)
    assert ada.connection.is_open
    relay.advance(20_000)
    assert not ada.connection.is_open


@pytest.mark.parametrize("ahead_ms", [-_HOUR_MS, _YEAR_MS])
def test_it_gives_nobody_more_requests_and_takes_none(ahead_ms: int) -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=1, requests_burst=5))
    (ada,) = registered(relay, "ada")
    relay.advance(5_000)
    ada.connection.send(*(Ping(ada.next_id()) for _ in range(5)))
    relay.set_clock(ahead_ms)
    ada.take()
    ada.connection.send(Ping(ada.next_id()))
    assert isinstance(ada.take()[0], Error)
    relay.advance(1_001)
    ada.take()
    ada.connection.send(Ping(ada.next_id()))
    assert not isinstance(ada.take()[0], Error)


def test_what_is_written_down_has_the_date() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    relay.set_clock(_YEAR_MS)
    ada.submit(bob, b"x")
    assert bob.connection.take_one(Deliver).received_ms == relay.now_ms + _YEAR_MS
    relay.set_clock(0)
    assert ada.login().time_ms == relay.now_ms


def _has_mail(relay: MemoryRelay, person: Person) -> bool:
    person.login()
    return bool(person.connection.take_all(Deliver))


def test_a_clock_set_forward_by_mistake_loses_no_mail() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"x")
    relay.set_clock(_YEAR_MS)
    relay.advance(1)
    assert "set forward by 8,760 h" in relay.logged[-1].text
    for _ in range(22):
        relay.advance(_HOUR_MS)
    relay.set_clock(0)
    relay.advance(_HOUR_MS)
    assert _has_mail(relay, bob)


def test_a_clock_that_was_behind_expires_mail_a_day_after_it_is_right() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"x")
    relay.set_clock(_YEAR_MS)
    relay.advance(DAY_MS - 1)
    assert _has_mail(relay, bob)
    bob.connection.cut()
    relay.advance(60_001)
    assert not _has_mail(relay, bob)


def test_a_clock_that_is_wrong_when_the_relay_starts_loses_no_mail() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"x")
    relay.now_ms += _YEAR_MS  # what the clock shows at the start is the time from then on
    relay.core = RelayCore(relay.settings, relay.log_key, relay.certificate, relay.random)
    for _ in range(59):
        relay.advance(60_000)
    relay.set_clock(-_YEAR_MS)
    for _ in range(59):
        relay.advance(60_000)
    assert _has_mail(relay, bob)


def test_after_a_start_mail_expires_an_hour_later() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    bob.connection.cut()
    ada.submit(bob, b"x")
    relay.now_ms += 31 * DAY_MS
    relay.core = RelayCore(relay.settings, relay.log_key, relay.certificate, relay.random)
    relay.advance(1_000)
    relay.advance(_HOUR_MS - 1)
    assert _has_mail(relay, bob)
    bob.connection.cut()
    relay.advance(60_001)
    assert not _has_mail(relay, bob)


def test_the_log_is_truncated_also_while_nothing_expires() -> None:
    relay = MemoryRelay()
    relay.advance(1_000)
    relay.set_clock(_YEAR_MS)
    relay.effects.clear()
    relay.advance(60_001)
    asked = [effect.operation for effect in relay.effects if isinstance(effect, Persist)]
    assert [type(operation) for operation in asked] == [ExpireEnvelopes]
