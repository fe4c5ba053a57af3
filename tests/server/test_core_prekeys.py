"""Prekeys: published by their owner, handed out once; and the key log for everyone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saltline.crypto.bundles import Bundle, Prekey, PrekeyKind
from saltline.crypto.keys import PrekeyPair
from saltline.crypto.signatures import Identity
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import AccountPage, Claimed, LookedUp, Published, Welcome
from saltline.protocol.to_relay import Claim, Lookup, LookupName, Publish
from saltline.server.settings import Settings
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import count_rows, refused, registered

SIGNED, ONE_TIME = PrekeyKind.SIGNED, PrekeyKind.ONE_TIME
LAST_RESORT, ONE_TIME_KEM = PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME_KEM


def publish(person: Person, *pairs: PrekeyPair) -> Published:
    person.publish(*pairs)
    return person.connection.take_one(Published)


def publish_all(person: Person, one_time: int = 2) -> None:
    """A signed prekey, a last resort, and some one-time prekeys of both kinds."""
    ids = range(1, one_time + 1)
    publish(
        person,
        *person.make(SIGNED, 1),
        *person.make(LAST_RESORT, 1),
        *person.make(ONE_TIME, *ids),
        *person.make(ONE_TIME_KEM, *ids),
    )


def claim(person: Person, other: Person) -> Bundle:
    """A bundle, its parts decoded and checked as a client does."""
    person.connection.send(Claim(person.next_id(), other.username, other.keys.identity.device))
    claimed = person.connection.take_one(Claimed)
    bundle = Bundle(
        Identity.decode(claimed.identity),
        claimed.identity_signature,
        Prekey.decode(claimed.signed_prekey),
        Prekey.decode(claimed.kem_prekey),
        Prekey.decode(claimed.one_time_prekey) if claimed.one_time_prekey else None,
    )
    bundle.verify(person.relay.now_ms)
    assert bundle.identity == other.keys.identity
    return bundle


# --- claiming ------------------------------------------------------------------------------------


def test_a_claim_gives_the_bundle_as_its_owner_made_it() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish_all(bob)
    bundle = claim(ada, bob)
    assert bundle.signed_prekey == bob.prekeys[SIGNED, 1].public
    assert bundle.kem_prekey == bob.prekeys[ONE_TIME_KEM, 1].public
    assert bundle.one_time_prekey == bob.prekeys[ONE_TIME, 1].public


def test_each_one_time_prekey_is_handed_out_once_and_then_the_last_resort() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish_all(bob, one_time=2)
    bundles = [claim(ada, bob) for _ in range(4)]
    one_time = [bundle.one_time_prekey and bundle.one_time_prekey.id for bundle in bundles]
    assert one_time == [1, 2, None, None]
    assert [(bundle.kem_prekey.kind, bundle.kem_prekey.id) for bundle in bundles] == [
        (ONE_TIME_KEM, 1),
        (ONE_TIME_KEM, 2),
        (LAST_RESORT, 1),
        (LAST_RESORT, 1),
    ]


def test_two_claims_in_one_group_share_no_one_time_prekey() -> None:
    relay = MemoryRelay()
    ada, bob, eve = registered(relay, "ada", "bob", "eve")
    publish_all(bob)
    relay.hold()
    ada.connection.send(Claim(1, "bob", 1))
    eve.connection.send(Claim(1, "bob", 1))
    assert ada.take() == []
    relay.release()
    first = ada.connection.take_one(Claimed)
    second = eve.connection.take_one(Claimed)
    assert first.one_time_prekey != second.one_time_prekey
    assert first.kem_prekey != second.kem_prekey


def test_a_claimed_prekey_stays_claimed_after_a_crash(tmp_path: Path) -> None:
    relay = MemoryRelay(tmp_path / "relay.db")
    ada, bob = registered(relay, "ada", "bob")
    publish_all(bob)
    claim(ada, bob)
    relay.crash()
    ada.login()
    ada.take()
    bundle = claim(ada, bob)
    assert bundle.one_time_prekey is not None
    assert bundle.one_time_prekey.id == 2


def test_one_claimant_cannot_drain_the_one_time_prekeys_of_a_device() -> None:
    relay = MemoryRelay()
    ada, bob, eve = registered(relay, "ada", "bob", "eve")
    publish_all(bob, one_time=12)
    bundles = [claim(eve, bob) for _ in range(12)]
    assert sum(bundle.one_time_prekey is not None for bundle in bundles) == 10
    assert {bundle.kem_prekey.kind for bundle in bundles[10:]} == {LAST_RESORT}
    # Others get what is left, and so does she the next day.
    left = claim(ada, bob).one_time_prekey
    assert left is not None
    assert left.id == 11
    relay.now_ms += DAY_MS
    assert claim(eve, bob).one_time_prekey is not None


def test_one_claimant_gets_so_many_one_time_prekeys_a_day_of_all_together() -> None:
    relay = MemoryRelay(settings=Settings(claims_per_day=3, claims_per_day_and_target=2))
    bob, cat, dan, eve = registered(relay, "bob", "cat", "dan", "eve")
    for person in (bob, cat, dan):
        publish_all(person, one_time=4)
    got = [claim(eve, person).one_time_prekey for person in (bob, bob, bob, cat, dan, dan)]
    assert [each is not None for each in got] == [True, True, False, True, False, False]
    assert len(relay.core._directory.claims._used) == 2, "no more has to be remembered"
    assert claim(bob, dan).one_time_prekey is not None
    relay.now_ms += DAY_MS
    assert claim(eve, dan).one_time_prekey is not None


def test_a_burst_of_claims_is_counted_before_it_is_answered() -> None:
    relay = MemoryRelay(settings=Settings(claims_per_day_and_target=1))
    bob, eve = registered(relay, "bob", "eve")
    publish_all(bob)
    relay.hold()
    eve.connection.send(Claim(1, "bob", 1), Claim(2, "bob", 1))
    relay.release()
    first, second = eve.take()
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    assert first.one_time_prekey
    assert not second.one_time_prekey


def test_a_claim_that_was_refused_is_not_counted() -> None:
    relay = MemoryRelay(settings=Settings(claims_per_day_and_target=1))
    ada, bob = registered(relay, "ada", "bob")
    assert refused(ada, Claim(1, "bob", 1)).code == ErrorCode.NO_PREKEYS
    publish_all(bob)
    assert claim(ada, bob).one_time_prekey is not None


def test_who_and_what_is_not_there_cannot_be_claimed() -> None:
    relay = MemoryRelay()
    ada, _ = registered(relay, "ada", "bob")
    assert refused(ada, Claim(1, "nobody-here", 1)).code == ErrorCode.UNKNOWN_USER
    assert refused(ada, Claim(2, "bob", 2)).code == ErrorCode.UNKNOWN_DEVICE
    assert refused(ada, Claim(3, "bob", 1)).code == ErrorCode.NO_PREKEYS


@pytest.mark.parametrize("kind", [SIGNED, LAST_RESORT, ONE_TIME, ONE_TIME_KEM])
def test_a_bundle_needs_a_signed_prekey_and_one_for_the_kem(kind: PrekeyKind) -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish(bob, *bob.make(kind, 1))
    assert refused(ada, Claim(1, "bob", 1)).code == ErrorCode.NO_PREKEYS
    rows = count_rows(relay, "prekey")
    assert rows == 1, "a refused claim takes nothing"


def test_expired_prekeys_are_not_handed_out() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish_all(bob)
    relay.now_ms += 30 * DAY_MS
    publish(bob, *bob.make(SIGNED, 2), *bob.make(LAST_RESORT, 2), *bob.make(ONE_TIME, 3))
    relay.now_ms += 20 * DAY_MS
    bundle = claim(ada, bob)
    assert bundle.signed_prekey.id == 2
    assert (bundle.kem_prekey.kind, bundle.kem_prekey.id) == (LAST_RESORT, 2)
    assert bundle.one_time_prekey is not None
    assert bundle.one_time_prekey.id == 3


# --- publishing ----------------------------------------------------------------------------------


def test_publishing_counts_what_is_left_and_the_welcome_says_it_again() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    assert publish(bob, *bob.make(ONE_TIME, 1, 2, 3)) == Published(1, 3, 0)
    assert publish(bob, *bob.make(ONE_TIME_KEM, 1, 2)) == Published(2, 3, 2)
    publish(bob, *bob.make(SIGNED, 4), *bob.make(LAST_RESORT, 5))
    claim(ada, bob)
    welcome = bob.login()
    assert (welcome.signed_prekey_id, welcome.kem_prekey_id) == (4, 5)
    assert (welcome.one_time_left, welcome.one_time_kem_left) == (2, 1)


def test_the_same_upload_again_changes_nothing() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    pairs = [*bob.make(SIGNED, 1), *bob.make(LAST_RESORT, 1), *bob.make(ONE_TIME, 1, 2)]
    assert publish(bob, *pairs).one_time_left == 2
    assert publish(bob, *pairs).one_time_left == 2
    assert publish(bob, *pairs, *pairs).one_time_left == 2
    assert claim(ada, bob).one_time_prekey == pairs[2].public


def test_an_upload_repeated_after_a_claim_does_not_bring_the_prekey_back() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish_all(bob)
    assert claim(ada, bob).one_time_prekey == bob.prekeys[ONE_TIME, 1].public
    left = publish(bob, *bob.prekeys.values())
    assert (left.one_time_left, left.one_time_kem_left) == (1, 1)
    assert claim(ada, bob).one_time_prekey == bob.prekeys[ONE_TIME, 2].public


@pytest.mark.parametrize("kind", list(PrekeyKind))
def test_an_id_again_with_another_key_is_refused(kind: PrekeyKind) -> None:
    relay = MemoryRelay()
    (bob,) = registered(relay, "bob")
    publish(bob, *bob.make(kind, 3))
    (other,) = bob.make(kind, 3)
    (fresh,) = bob.make(ONE_TIME, 9)
    request = Publish(5, (fresh.public.encode(), other.public.encode()))
    assert refused(bob, request).code == ErrorCode.BAD_PREKEY
    rows = count_rows(relay, "prekey")
    assert rows == 1, "nothing of a refused upload is kept"


def test_two_keys_of_one_id_in_one_upload_are_refused() -> None:
    relay = MemoryRelay()
    (bob,) = registered(relay, "bob")
    first, second = *bob.make(ONE_TIME, 3), *bob.make(ONE_TIME, 3)
    request = Publish(5, (first.public.encode(), second.public.encode()))
    assert refused(bob, request).code == ErrorCode.BAD_PREKEY


def test_the_newest_signed_prekey_and_last_resort_are_the_current_ones() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish(bob, *bob.make(SIGNED, 1, 3), *bob.make(LAST_RESORT, 2))
    publish(bob, *bob.make(SIGNED, 2), *bob.make(LAST_RESORT, 1))
    bundle = claim(ada, bob)
    assert (bundle.signed_prekey.id, bundle.kem_prekey.id) == (3, 2)
    assert count_rows(relay, "prekey") == 2


def foreign(prekey: Prekey) -> Prekey:
    """A prekey that somebody else signed."""
    return replace(prekey, signature=bytes(64))


def expired(prekey: Prekey) -> Prekey:
    return replace(prekey, not_after_ms=1)


def without_id(prekey: Prekey) -> Prekey:
    return replace(prekey, id=0)


@pytest.mark.parametrize("forge", [foreign, expired, without_id])
def test_a_wrong_prekey_is_refused(forge: Callable[[Prekey], Prekey]) -> None:
    relay = MemoryRelay()
    (bob,) = registered(relay, "bob")
    (good,) = bob.make(SIGNED, 1)
    request = Publish(5, (forge(good.public).encode(),))
    error = refused(bob, request)
    assert error.code == ErrorCode.BAD_PREKEY
    assert bob.login().signed_prekey_id == 0


def test_another_devices_prekey_is_refused() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    (pair,) = ada.make(SIGNED, 1)
    assert refused(bob, Publish(5, (pair.public.encode(),))).code == ErrorCode.BAD_PREKEY


@pytest.mark.parametrize("encoded", [b"", b"\x01", b"\x09" + bytes(200)])
def test_a_prekey_that_is_none_is_refused(encoded: bytes) -> None:
    (bob,) = registered(MemoryRelay(), "bob")
    assert refused(bob, Publish(5, (encoded,))).code == ErrorCode.BAD_PREKEY


def test_a_device_has_a_bounded_number_of_one_time_prekeys() -> None:
    relay = MemoryRelay()
    (bob,) = registered(relay, "bob")
    pairs = bob.make(ONE_TIME, *range(1, 258))
    assert publish(bob, *pairs[:128]).one_time_left == 128
    assert publish(bob, *pairs[128:256]).one_time_left == 256
    error = refused(bob, Publish(9, (pairs[256].public.encode(),)))
    assert error.code == ErrorCode.BAD_PREKEY
    assert "256" in error.detail


def test_at_login_the_relay_forgets_one_time_prekeys_that_the_device_does_not_hold() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    publish_all(bob, one_time=3)
    bob.connect()
    bob.connection.send(bob.login_request(one_time_ids=(2, 77), one_time_kem_ids=(3,)))
    welcome = bob.expect(Welcome)
    assert (welcome.one_time_left, welcome.one_time_kem_left) == (1, 1)
    bundle = claim(ada, bob)
    assert bundle.one_time_prekey == bob.prekeys[ONE_TIME, 2].public
    assert bundle.kem_prekey == bob.prekeys[ONE_TIME_KEM, 3].public


# --- the key log ---------------------------------------------------------------------------------


def test_a_lookup_gives_the_entries_above_what_is_held() -> None:
    relay = MemoryRelay()
    ada, bob = registered(relay, "ada", "bob")
    names = (LookupName("bob", 0), LookupName("ada", 1), LookupName("nobody-here", 0))
    ada.connection.send(Lookup(4, names))
    answer = ada.connection.take_one(LookedUp)
    assert answer.id == 4
    assert answer.accounts == (
        AccountPage("bob", 1, (bob.entry().encode(),)),
        AccountPage("ada", 1, ()),
        AccountPage("nobody-here", 0, ()),
    )


def test_an_empty_lookup_is_answered() -> None:
    (ada,) = registered(MemoryRelay(), "ada")
    ada.connection.send(Lookup(4, ()))
    assert ada.connection.take_one(LookedUp) == LookedUp(4, ())
