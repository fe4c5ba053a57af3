"""Events of the client's thread reach the screen's in batches."""

import threading

from saltline.client.model import (
    CaughtUp,
    ConnectionChanged,
    ConnectionState,
    ConversationChanged,
    LineAdded,
    LineChanged,
    PresenceChanged,
)
from saltline.client.tui.handover import CHANGED_ROWS_MAX, PRESENCE_MAX, Handover


def test_many_events_wake_once_and_fold_into_one_batch() -> None:
    wakes: list[int] = []
    handover = Handover(lambda: wakes.append(1))
    for row in range(1, 501):
        handover.put(LineAdded("#lobby", row))
    handover.put(ConversationChanged("@bob"))
    handover.put(ConnectionChanged(ConnectionState.OFFLINE, "gone", 4.0))
    handover.put(ConnectionChanged(ConnectionState.ONLINE))
    handover.put(PresenceChanged("carol", True))
    handover.put(PresenceChanged("carol", False))
    handover.put(CaughtUp())
    changes = handover.take()
    assert wakes == [1]
    assert changes.added == {"#lobby": 500}
    assert changes.conversations == {"@bob"}
    assert changes.connection == ConnectionChanged(ConnectionState.ONLINE)
    assert changes.presence == {"carol": False}
    assert changes.caught_up


def test_the_next_event_after_a_batch_wakes_again() -> None:
    wakes: list[int] = []
    handover = Handover(lambda: wakes.append(1))
    handover.put(CaughtUp())
    handover.take()
    assert handover.take().caught_up is False
    handover.put(CaughtUp())
    assert wakes == [1, 1]


def test_what_waits_is_bounded() -> None:
    handover = Handover(lambda: None)
    for number in range(CHANGED_ROWS_MAX + 5):
        handover.put(LineChanged("#lobby", number))
    for number in range(PRESENCE_MAX + 5):
        handover.put(PresenceChanged(f"user{number}", True))
    changes = handover.take()
    assert len(changes.changed) == CHANGED_ROWS_MAX
    assert changes.changed_many
    assert len(changes.presence) == PRESENCE_MAX


def test_nothing_is_lost_between_threads() -> None:
    rows: set[int] = set()
    handover = Handover(lambda: rows.update(handover.take().changed))

    def put(start: int) -> None:
        for row in range(start, start + 500):
            handover.put(LineChanged("#lobby", row))

    threads = [threading.Thread(target=put, args=(start,)) for start in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows.update(handover.take().changed)
    assert rows == {*range(500), *range(1000, 1500)}
