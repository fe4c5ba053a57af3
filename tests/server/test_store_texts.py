"""Texts stored many at a time: each has the outcome, number and hash that it would have alone."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    AccountClosed,
    EntryStored,
    HistoryRead,
    StoreError,
    TextsStored,
)
from saltline.server.store.room import RECENT
from saltline.server.store.space import growth_bytes
from saltline.server.store.sqlite import SqliteStore
from tests.server.store_harness import (
    RELAY_ID,
    account,
    changed,
    entry,
    history,
    join,
    one,
    post,
    texts,
    variation,
)


def outcomes(store: SqliteStore, work: ask.StoreTexts) -> list[int | ErrorCode]:
    """The number of each that is new, minus that of each that is not, or why it is refused."""
    stored = one(store, work)
    assert isinstance(stored, TextsStored), stored
    return [told(outcome) for outcome in stored.outcomes]


def told(outcome: EntryStored | StoreError) -> int | ErrorCode:
    if isinstance(outcome, StoreError):
        assert not outcome.fatal
        return outcome.code
    return outcome.number if outcome.is_new else -outcome.number


def test_texts_are_numbered_in_order_and_count_the_members(store: SqliteStore) -> None:
    store.run([join(1), join(2)])
    said = [entry(1), entry(1), entry(1)]
    stored = one(store, texts(*said))
    outcomes = tuple(EntryStored(number, True, 2) for number in (3, 4, 5))
    assert stored == TextsStored(outcomes, sum(len(each.statement) for each in said))
    read = one(store, history(2))
    assert isinstance(read, HistoryRead)
    assert [each.statement for each in read.entries[2:]] == [each.statement for each in said]


def test_a_text_that_is_refused_does_not_stop_the_next(store: SqliteStore) -> None:
    store.run([join(1), post(1)])
    first, second, third = entry(1), entry(1), entry(1)
    group = texts(
        first,
        replace(entry(1), seen=9),
        first,  # the same again
        replace(entry(1), seen=1),  # with another history than the relay's
        replace(entry(1), time_ms=first.time_ms),
        second,
        replace(third, message_id=second.message_id),
        third,
    )
    assert outcomes(store, group) == [
        3,
        ErrorCode.BAD_STATEMENT,
        -3,
        ErrorCode.BAD_STATEMENT,
        ErrorCode.BAD_STATEMENT,
        4,
        -4,
        5,
    ]


def test_a_full_room_takes_what_still_fits(store: SqliteStore) -> None:
    store.run([join(1)])
    long, short = entry(1, body=bytes(2_000)), entry(1, body=b"")
    room_max_bytes = 2 * 265 + 1_000  # the join's, a short one's, and not the long one's
    group = ask.StoreTexts((long, short, entry(1, body=bytes(2_000))), room_max_bytes)
    assert outcomes(store, group) == [ErrorCode.ROOM_FULL, 2, ErrorCode.ROOM_FULL]


def test_who_is_no_member_is_told_so_for_each_and_who_left_what_is_stored(
    store: SqliteStore,
) -> None:
    assert outcomes(store, texts(entry(1), entry(1))) == [ErrorCode.NOT_A_MEMBER] * 2
    one(store, join(1))
    said = entry(1)
    store.run([texts(said), ask.LeaveRoom(entry(1))])
    assert outcomes(store, texts(said, entry(1))) == [-2, ErrorCode.NOT_A_MEMBER]


def test_an_ended_device_or_an_unknown_room_is_refused_for_all(store: SqliteStore) -> None:
    close = ask.CloseAccount("ada", (ask.LogEntry("ada", 1, b"revoke", b"leaf"),))
    elsewhere, closed, late = store.run(
        [texts(entry(1, "#nowhere"), entry(1, "#nowhere")), close, texts(entry(1), entry(1))]
    )
    assert isinstance(elsewhere, StoreError) and elsewhere.code == ErrorCode.UNKNOWN_ROOM
    assert isinstance(closed, AccountClosed)
    assert isinstance(late, StoreError) and late.code == ErrorCode.UNKNOWN_DEVICE


def test_what_came_long_ago_is_known_by_its_time(store: SqliteStore) -> None:
    store.run([join(1), join(2)])
    old = entry(1)
    assert outcomes(store, texts(old)) == [3]
    for _ in range(3):
        store.run([texts(*(entry(2) for _ in range(RECENT)))])
    assert outcomes(store, texts(old, entry(1))) == [-3, 3 + 3 * RECENT + 1]


def test_an_id_that_came_back_is_known_as_long_as_any_other(store: SqliteStore) -> None:
    store.run([join(1), join(2)])
    said = entry(1)

    def others(count: int) -> ask.StoreTexts:
        return texts(*(entry(2) for _ in range(count)))

    store.run([others(250), texts(said), others(247)])
    store.run([others(12)])  # its row says 500
    # 259 entries later the relay has forgotten it: signed again, it is stored again.
    again = changed(entry(1), message_id=said.message_id)
    assert outcomes(store, texts(again)) == [513]
    # Read from the disk, the end of the room has this id twice.
    assert isinstance(one(store, texts(replace(entry(1), now_ms=2**64))), StoreError)
    store.run([texts(entry(1)), others(243), others(1)])
    assert outcomes(store, texts(again)) == [-513], "244 entries later"


def test_many_texts_need_space_like_many() -> None:
    small, large = entry(1), entry(1, body=bytes(5_000))
    assert growth_bytes(texts(small, large)) > growth_bytes(texts(large)) > 5_000
    assert growth_bytes(texts(*[large] * 60)) > 60 * 5_000


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_together_they_have_the_outcomes_that_they_have_alone(seed: int) -> None:
    rng = random.Random(seed)
    stores = [SqliteStore(":memory:", RELAY_ID) for _ in range(2)]
    for store in stores:
        store.run([account("ada"), account("bob"), *started])
    known = [entry(1)]
    for _ in range(4):
        author = rng.choice([1, 1, 2])
        group = [variation(rng, author, known) for _ in range(rng.randrange(1, 9))]
        work = ask.StoreTexts(tuple(group), rng.choice([1_500, 10**9]))
        together = one(stores[0], work)
        assert isinstance(together, TextsStored)
        alone: list[Any] = [one(stores[1], replace(work, entries=(each,))) for each in group]
        assert all(isinstance(each, TextsStored) for each in alone)
        assert [(outcome,) for outcome in together.outcomes] == [each.outcomes for each in alone]
        assert together.size_bytes == sum(each.size_bytes for each in alone)
    assert one(stores[0], history(1)) == one(stores[1], history(1))


started: Sequence[ask.JoinRoom] = (join(1), join(2))


@pytest.mark.parametrize("count", [1, 16])
def test_a_group_that_fails_leaves_none_of_them(store: SqliteStore, count: int) -> None:
    store.run([join(1)])
    *fine, last = [entry(1) for _ in range(count)]
    failed = one(store, texts(*fine, replace(last, now_ms=2**64)))
    assert isinstance(failed, StoreError)
    assert failed.code == ErrorCode.INTERNAL
    assert outcomes(store, texts(entry(1))) == [2]
