"""A room that is not in memory is loaded for its members alone."""

from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import EntryStored, HistoryRead, StoreError, TextsStored
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
