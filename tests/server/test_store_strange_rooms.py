"""A room that is not in memory is loaded for its members alone."""

import pytest

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import EntryStored, HistoryRead, StoreError, TextsStored
from saltline.server.store.queries import Bindings, Rows
from saltline.server.store.sqlite import SqliteStore
from tests.server.store_harness import entry, history, join, one, post, texts

DEN = "#den"


def test_for_who_is_no_member_no_room_is_loaded(store: SqliteStore) -> None:
    store.run([join(1, DEN), post(1, DEN), join(2)])
    store._rooms.forget()
    posted, *refused = store.run(
        [
            post(2, DEN),
            ask.LeaveRoom(entry(2, DEN)),
            history(2, DEN),
            ask.ReadMembers(DEN, 2, 10),
            ask.JoinRoom(entry(2, DEN), 50, 1, 1_000),  # is in as many rooms as it may be
        ]
    )
    assert isinstance(posted, TextsStored)
    codes = [each.code for each in (*posted.outcomes, *refused) if isinstance(each, StoreError)]
    assert codes == [ErrorCode.NOT_A_MEMBER] * 4 + [ErrorCode.TOO_MANY_ROOMS]
    assert DEN not in store._rooms._tails.by_name
    assert isinstance(one(store, history(1, DEN)), HistoryRead)
    assert DEN in store._rooms._tails.by_name


def test_who_left_lately_is_told_what_is_stored(store: SqliteStore) -> None:
    store.run([join(1, DEN), join(2, DEN)])
    said, left = entry(2, DEN), entry(2, DEN)
    store.run([texts(said), ask.LeaveRoom(left)])
    store._rooms.forget()
    again = one(store, texts(said))
    assert isinstance(again, TextsStored)
    assert again.outcomes == (EntryStored(3, False, 1),)
    assert one(store, ask.LeaveRoom(left)) == EntryStored(4, False, 1)
    assert DEN not in store._rooms._tails.by_name


def test_what_somebody_said_in_such_a_room_is_read_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.run([join(1, DEN), join(2, DEN)])
    said = entry(2, DEN)
    store.run([texts(said), ask.LeaveRoom(entry(2, DEN))])
    store._rooms.forget()
    tails, reads = store._rooms._tails, list[str]()
    execute = tails._execute

    def count(sql: str, bindings: Bindings = ()) -> Rows:
        reads.extend([sql] if "FROM entry" in sql else [])
        return execute(sql, bindings)

    monkeypatch.setattr(tails, "_execute", count)
    outcomes = store.run([texts(entry(2, DEN), said, entry(2, DEN)), texts(said), texts(said)])
    assert [each.outcomes[-1] for each in outcomes if isinstance(each, TextsStored)][1:] == [
        EntryStored(3, False, 1)
    ] * 2
    assert len(reads) == 1


def test_what_was_said_in_such_a_room_is_read_anew_after_somebody_was_there(
    store: SqliteStore,
) -> None:
    store.run([join(1, DEN)])
    store._rooms.forget()
    refused = one(store, texts(entry(2, DEN)))
    assert isinstance(refused, TextsStored)
    assert isinstance(refused.outcomes[0], StoreError)
    joining, second = join(2, DEN), entry(2, DEN)
    store.run([joining, texts(second), ask.LeaveRoom(entry(2, DEN))])
    store._rooms.forget()
    again = one(store, texts(second))
    assert isinstance(again, TextsStored)
    assert again.outcomes == (EntryStored(3, False, 1),)
