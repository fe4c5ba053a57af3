"""From the client's thread to the screen's: many events, one wake-up."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from saltline.client.model import (
    CaughtUp,
    ConnectionChanged,
    ConnectionState,
    ConversationChanged,
    Event,
    LineAdded,
    LineChanged,
    PresenceChanged,
)

# More changed lines than any window holds: from here on the whole window is read again.
CHANGED_ROWS_MAX: Final = 1000
PRESENCE_MAX: Final = 10_000


@dataclass(slots=True)
class Changes:
    """What happened since the last hand-over, one entry for each thing however often it changed."""

    added: dict[str, int] = field(default_factory=dict)  # conversation: its greatest new row
    changed: set[int] = field(default_factory=set)
    changed_many: bool = False  # `changed` is full: any line may have changed
    refused: set[int] = field(default_factory=set)  # of `changed`: failed, or has to wait
    conversations: set[str] = field(default_factory=set)
    connection: ConnectionChanged | None = None
    presence: dict[str, bool] = field(default_factory=dict)
    presence_unknown: bool = False  # the link broke: what was known before `presence` is no more
    caught_up: bool = False

    def add(self, event: Event) -> None:
        """Fold one event in."""
        match event:
            case LineAdded(conversation, row):
                self.added[conversation] = max(row, self.added.get(conversation, 0))
            case LineChanged(row=row, code=code):
                if code is not None and len(self.refused) < CHANGED_ROWS_MAX:
                    self.refused.add(row)
                if len(self.changed) < CHANGED_ROWS_MAX:
                    self.changed.add(row)
                else:
                    self.changed_many = True
            case ConversationChanged(conversation):
                self.conversations.add(conversation)
            case ConnectionChanged():
                self.connection = event
                if event.state is not ConnectionState.ONLINE:
                    self.presence.clear()
                    self.presence_unknown = True
            case PresenceChanged(username, online):
                if username in self.presence or len(self.presence) < PRESENCE_MAX:
                    self.presence[username] = online
            case CaughtUp():
                self.caught_up = True


class Handover:
    """Collects events from any thread. `wake` is called once for each batch, from that thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()  # held for a few instructions, never while calling out
        self._changes: Changes | None = None

    def put(self, event: Event) -> None:
        """Take an event; from any thread, never blocks."""
        with self._lock:
            first = self._changes is None
            if self._changes is None:
                self._changes = Changes()
            self._changes.add(event)
        if first:
            self._wake()

    def take(self) -> Changes:
        """All that came since the last call."""
        with self._lock:
            changes, self._changes = self._changes, None
        return changes if changes is not None else Changes()
