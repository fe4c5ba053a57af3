"""What a room's row does not say yet: a store that lost its memory is as one that never did."""

import random
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from saltline.server.store import operations as ask
from saltline.server.store import tails
from saltline.server.store.interface import (
    EntryStored,
    Operation,
    Outcome,
    RoomsRead,
    RoomState,
    StoreError,
    TextsStored,
    TotalsRead,
)
from saltline.server.store.schema import LAST_NUMBER
from saltline.server.store.sqlite import SqliteStore
from tests.server.store_harness import (
    NOW_MS,
    RELAY_ID,
    account,
    changed,
    entry,
    history,
    join,
    one,
    post,
    posted,
    texts,
    variation,
)
from tests.volatile_disk import VolatileDisk

ROOM = "SELECT last_number, bytes FROM room WHERE name = '#lobby'"


def row(store: SqliteStore) -> object:
    return store._database.execute(ROOM).get


class Pair:
    """A store in memory that runs on, and one whose power goes again and again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.steady = SqliteStore(":memory:", RELAY_ID)
        self.disk = VolatileDisk()
        self.restless = self.open()

    def open(self) -> SqliteStore:
        return SqliteStore(self.disk.path("relay.db"), RELAY_ID, vfs=self.disk.vfs)

    def cut(self) -> None:
        ghost = self.restless
        self.disk.cut(self.rng)
        self.restless = self.open()
        ghost.close()

    def run(self, group: Sequence[Operation]) -> list[Outcome | StoreError]:
        """Both say the same."""
        told, expected = self.restless.run(group), self.steady.run(group)
        assert told == expected
        return told

    def run_with_failure(self, group: Sequence[Operation], at: int) -> None:
        """Among them is one that cannot be done: what is before and after it is as without it."""
        failing = ask.AddCode(b"never", "", 1, 2**64)
        told = self.restless.run([*group[:at], failing, *group[at:]])
        assert isinstance(told.pop(at), StoreError)
        assert told == self.steady.run(group)

    def run_with_cut(self, group: Sequence[Operation]) -> None:
        """The power goes in the middle; then everybody posts again what was not answered."""
        expected = [numbers(outcome) for outcome in self.steady.run(group)]
        self.disk.cut_after(self.rng.randrange(1, 8))
        self.restless.run(group)
        self.cut()
        assert [numbers(outcome) for outcome in self.restless.run(group)] == expected

    def compare_rows(self) -> None:
        """Once all of them are written, the tables are the same."""
        with patch.object(tails, "LAG_MAX", 0):
            self.run([join(3), post(3), post(1, "#garden")])  # no stranger's text loads a room
        for table in ("room", "member"):
            rows = f"SELECT * FROM {table} ORDER BY 1, 2"
            both = [
                store._database.execute(rows).fetchall() for store in (self.steady, self.restless)
            ]
            assert both[0] == both[1]

    def compare(self) -> None:
        reads: list[Operation] = [ask.ReadRooms(10)]
        reads += [history(number, room) for number in (1, 2, 3) for room in ("#lobby", "#garden")]
        reads += [ask.BeginSession(number, number, (), ()) for number in (1, 2)]
        self.run(reads)
        totals = [one(store, ask.ReadTotals()) for store in (self.steady, self.restless)]
        assert [each.room_entries for each in totals if isinstance(each, TotalsRead)] == [
            self.steady._database.execute("SELECT count(*) FROM entry").get
        ] * 2


def numbers(outcome: Outcome | StoreError) -> list[int]:
    """What does not depend on whether it is the first time."""
    assert isinstance(outcome, TextsStored), outcome
    return [each.number for each in outcome.outcomes if isinstance(each, EntryStored)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), lag_max=st.sampled_from([2, 7, 128]))
def test_a_store_whose_power_goes_says_what_one_says_that_runs_on(seed: int, lag_max: int) -> None:
    rng = random.Random(seed)
    with patch.object(tails, "LAG_MAX", lag_max):
        pair = Pair(rng)
        people: list[Operation] = [account(name) for name in ("ada", "bob", "eve")]
        reset = ask.AddCode(b"code", "bob", 1, NOW_MS + 1)
        pair.run([*people, reset, join(1), join(2), join(3), join(1, "#garden")])
        known: list[ask.NewEntry] = []
        for _ in range(6):
            author = rng.choice([1, 1, 2, 3])
            said = tuple(variation(rng, author, known) for _ in range(rng.randrange(1, 5)))
            group = [ask.StoreTexts(said, rng.choice([4_000, 10**9]))]
            match rng.randrange(5):
                case 0:
                    pair.run_with_cut([texts(entry(author), *[entry(author) for _ in said])])
                case 1:
                    turn: list[Operation] = [ask.LeaveRoom(entry(author)), join(author)]
                    rng.shuffle(turn)
                    pair.run([*group, *turn, post(author)])
                case 2:
                    pair.run([*group, post(1, "#garden")])
                case 3:
                    pair.run_with_failure(
                        [*group, post(1, "#garden"), post(author)], rng.choice([1, 2])
                    )
                case _:
                    pair.run(group)
            if rng.random() < 0.6:
                pair.cut()
            if rng.random() < 0.4:
                pair.compare()
            if rng.random() < 0.3:
                pair.compare_rows()
        pair.compare_rows()
        close = ask.CloseAccount("ada", (ask.LogEntry("ada", 1, b"revoke", b"leaf"),))
        pair.run([post(1), close, post(2)])
        pair.cut()
        pair.run([post(1), post(3)])
        pair.compare()
        assert pair.restless.check() == []
        pair.restless.close()
        pair.disk.forget()


def test_a_rooms_row_is_written_now_and_then_and_when_somebody_comes_or_goes(
    store: SqliteStore,
) -> None:
    store.run([join(1)])
    assert row(store) == (1, 269)
    store.run([post(1), post(1)])
    assert row(store) == (1, 269), "what a commit need not write"
    assert one(store, ask.ReadRooms(1)) == RoomsRead((RoomState("#lobby", 3, 1),))
    store.run([join(2), post(2)])
    assert row(store) == (5, 5 * 269)
    for _ in range(tails.LAG_MAX - 1):
        store.run([post(1)])
    assert row(store) == (5, 5 * 269)
    store.run([post(1)])
    assert row(store) == (5 + tails.LAG_MAX, 269 * (5 + tails.LAG_MAX))
    store.run([post(1), ask.LeaveRoom(entry(2))])
    assert row(store) == (7 + tails.LAG_MAX, 269 * (7 + tails.LAG_MAX))


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_row_lacks_is_known_after_a_roll_back(store: SqliteStore, fails: bool) -> None:
    last = entry(2)
    store.run([join(1), join(2), post(1)])
    last = entry(2)
    store.run([texts(last)])
    if fails:
        assert isinstance(one(store, texts(replace(entry(1), now_ms=2**64))), StoreError)
        assert store._rooms._tails.by_name == {}
    late = texts(replace(entry(2), time_ms=last.time_ms))
    stored = one(store, late)
    assert isinstance(stored, TextsStored)
    assert isinstance(stored.outcomes[0], StoreError), "not later than the device's last"
    assert one(store, post(1)) == posted(5, 2)


def test_a_lone_text_changes_one_page() -> None:
    disk = VolatileDisk()
    store = SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
    store.run([account("ada"), join(1), post(1)])
    before = disk.operations
    store.run([post(1)])
    # A page in the log, which is its head and the page, and the sync.
    assert disk.operations == before + 3
    store.close()
    disk.forget()


def test_a_plan_for_a_rooms_last_number_reads_no_entries(store: SqliteStore) -> None:
    plan = store._database.execute(f"EXPLAIN QUERY PLAN SELECT {LAST_NUMBER} FROM room").fetchall()
    assert any("SEARCH entry USING INTEGER PRIMARY KEY" in str(step) for step in plan), plan


def test_a_text_that_is_signed_again_is_the_one_that_is_stored_also_after_a_restart(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.run([account("ada"), account("bob"), join(1)])
    said = entry(1)
    store.run([texts(said), join(2)])  # the room's row is up to date
    store.close()
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    later = changed(entry(1), message_id=said.message_id)
    assert one(store, texts(later)) == TextsStored((EntryStored(2, False, 2),), 0)
    store.close()
