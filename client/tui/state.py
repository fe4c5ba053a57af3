"""What the screen knows between two frames. No toolkit here, and no thread but the screen's."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from saltline.client.model import (
    ConnectionChanged,
    ContactInfo,
    ConversationSummary,
    Line,
    Messenger,
    Status,
    Trust,
)
from saltline.client.tui.handover import Changes

NOTICES_SHOWN: Final = 4
NOTICES_KEPT: Final = 50
# Presence comes from the relay: a relay that names a million people must not fill our memory.
PRESENCE_KEPT: Final = 10_000


class Level(StrEnum):
    """How a notice is drawn."""

    INFO = "info"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Notice:
    """What the client says for itself, above the prompt; never stored."""

    text: str
    level: Level = Level.INFO
    row: int = 0  # of the message whose way it follows


@dataclass(frozen=True, slots=True)
class Draft:
    """What is typed and not sent, with the cursor's place in it."""

    text: str = field(default="", repr=False)
    cursor: int = 0


@dataclass(frozen=True, slots=True)
class Divider:
    """Where the unread lines begin: after the line `after_row`."""

    after_row: int
    count: int


@dataclass(frozen=True, slots=True)
class PaneRow:
    """A row of a command's answer: one style, so that text from outside is never markup."""

    text: str
    style: str = "class:pane"
    keep_whole: bool = False  # a row of a QR code: cut, never wrapped
    hang: int = 0  # columns before the rows that it continues on


@dataclass(slots=True)
class Pane:
    """A command's answer, over the timeline until Esc."""

    title: str
    rows: list[PaneRow]
    top: int = 0
    room: int = 1  # rows that the last frame had for it
    contact: ContactInfo | None = field(default=None, repr=False)  # whom it is about
    renew: Callable[[ContactInfo], "Pane"] | None = None  # the same when that changed


@dataclass(frozen=True, slots=True)
class Question:
    """Asked in the prompt's place. Only `y` is yes; Enter is not an answer."""

    text: str
    yes: Callable[[], None]
    no: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Hits:
    """Lines that a search found, newest first, and the one that is on screen."""

    query: str
    lines: list[Line] = field(repr=False)
    position: int = -1


class Shell(Protocol):
    """What the screen needs from the terminal's side."""

    def redraw(self) -> None:
        """Draw a frame soon."""

    def soon(self, function: Callable[[], None]) -> None:
        """Run `function` on the screen's loop; from any thread."""

    def after(self, delay_s: float, function: Callable[[], None]) -> None:
        """Run `function` on the screen's loop when the delay is over."""

    def aside(self, work: Callable[[], None]) -> None:
        """Run `work`, which may wait for the disk, outside the loop; say what it refuses."""

    def draft(self) -> Draft:
        """What stands in the input."""

    def set_draft(self, conversation: str, draft: Draft) -> None:
        """Put it there, with that conversation's input history."""

    def remember(self, conversation: str, text: str) -> None:
        """Add to a conversation's input history."""

    def insert(self, text: str) -> None:
        """Put text in at the cursor."""

    def set_theme(self, name: str) -> None:
        """Change the colours. Raises Refused where NO_COLOR is set."""

    def draws_unicode(self) -> bool:
        """Whether the terminal's encoding has block characters."""

    def quit(self) -> None:
        """Leave the screen."""


_NO_SUMMARY: Final = ConversationSummary(
    name="",
    trust=Trust.UNKNOWN,
    unread=0,
    mentions=0,
    last_row=0,
    request=False,
    joined=False,
    read_row=0,
)


class ViewState:
    """The current conversation, drafts, the unread divider, and copies of what the vault says."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self.current = ""  # "@user", "#room", or "" while there is nothing
        self.drafts: dict[str, Draft] = {}
        self.divider: Divider | None = None  # of the current conversation
        self.summaries: dict[str, ConversationSummary] = {}
        self.opened: dict[str, None] = {}  # asked for here, not in the vault yet
        self.presence: OrderedDict[str, bool | None] = OrderedDict()  # None: nobody knows now
        self.notices: deque[Notice] = deque(maxlen=NOTICES_SHOWN)
        self.notice_log: deque[Notice] = deque(maxlen=NOTICES_KEPT)
        self.failed: dict[int, str] = {}  # rows not sent and not looked at, with their conversation
        self.pane: Pane | None = None
        self.question: Question | None = None
        self.hits: Hits | None = None
        self.sidebar_wanted = True  # where there is room for it
        self.list_over = False  # F4 put the list over the timeline, where there is none
        self.mouse = False
        self.reading = False  # the end of the current conversation is on screen
        self.retry_at: float | None = None  # monotonic seconds
        self._contacts: dict[str, ContactInfo] = {}
        self.status: Status = messenger.status()
        self.connection = ConnectionChanged(self.status.connection, self.status.detail)
        self.refresh_conversations()

    # --- Copies of the vault ------------------------------------------------------------------

    def refresh_conversations(self) -> None:
        """Read the conversation list again."""
        self.summaries = {each.name: each for each in self._messenger.conversations()}
        for name in list(self.opened):
            if name in self.summaries:
                del self.opened[name]

    def refresh_status(self) -> None:
        """Read the counters and the link's state again."""
        self.status = self._messenger.status()

    def contact(self, username: str) -> ContactInfo:
        """What the vault knows of a person, read once until something changes."""
        known = self._contacts.get(username)
        if known is None:
            known = self._contacts[username] = self._messenger.contact(username)
        return known

    def forget_contacts(self) -> None:
        """Trust may have changed: read it again when it is shown."""
        self._contacts.clear()

    def summary(self, name: str) -> ConversationSummary:
        """The conversation's row; an empty one if the vault does not have it yet."""
        return self.summaries.get(name, _NO_SUMMARY)

    # --- Conversations ------------------------------------------------------------------------

    def people(self) -> list[str]:
        """Private conversations that are not requests, in their fixed order."""
        names = [n for n, s in self.summaries.items() if n.startswith("@") and not s.request]
        return sorted({*names, *(n for n in self.opened if n.startswith("@"))})

    def requests(self) -> list[str]:
        """Conversations that strangers began."""
        return sorted(n for n, s in self.summaries.items() if n.startswith("@") and s.request)

    def rooms(self) -> list[str]:
        """Rooms, joined or with lines left."""
        return sorted(
            {
                *(n for n in self.summaries if n.startswith("#")),
                *(n for n in self.opened if n.startswith("#")),
            }
        )

    def order(self) -> list[str]:
        """All conversations as the sidebar numbers them."""
        return [*self.people(), *self.requests(), *self.rooms()]

    def next_unread(self) -> str | None:
        """The next conversation with unread lines after the current one, in the sidebar's order."""
        order = self.order()
        start = order.index(self.current) + 1 if self.current in order else 0
        for name in [*order[start:], *order[:start]]:
            if name != self.current and self.summary(name).unread:
                return name
        return None

    def neighbour(self, step: int) -> str | None:
        """The conversation `step` places further in the sidebar, around its ends."""
        order = self.order()
        if not order:
            return None
        if self.current not in order:
            return order[0]
        return order[(order.index(self.current) + step) % len(order)]

    def unread(self, name: str) -> int:
        """Unread lines, but for those that are being looked at."""
        return 0 if self.reading and name == self.current else self.summary(name).unread

    def unread_total(self) -> int:
        """The same for all conversations together."""
        return sum(self.unread(name) for name in self.summaries)

    def unread_elsewhere(self) -> list[ConversationSummary]:
        """Conversations with unread lines or failures, but for the current one."""
        found = [self.summary(n) for n in self.order() if n != self.current]
        return [each for each in found if each.unread or self.has_failed(each.name)]

    # --- What happened ------------------------------------------------------------------------

    def apply(self, changes: Changes, now: float) -> bool:
        """Take in what happened; returns whether anything on screen may look different."""
        if changes.connection is not None:
            self.connection = changes.connection
            wait = changes.connection.retry_in_s
            self.retry_at = None if wait is None else now + wait
        shown_user = self.current[1:] if self.current.startswith("@") else ""
        if changes.presence_unknown:
            self.presence = OrderedDict.fromkeys(self.presence)
        for username, online in changes.presence.items():
            self.presence[username] = online
            self.presence.move_to_end(username)
        while len(self.presence) > PRESENCE_KEPT:
            self.presence.popitem(last=False)
        counted = bool(changes.added or changes.conversations or changes.caught_up)
        if counted:
            self.refresh_conversations()
            for name in changes.conversations:
                self._contacts.pop(name[1:], None)
        if counted or changes.changed or changes.connection is not None:
            self.refresh_status()
        if self.current in changes.added and not self.reading:
            self._move_divider()
        return (
            counted
            or changes.connection is not None
            or bool(changes.changed)
            or shown_user in changes.presence
        )

    def begin_divider(self, name: str) -> None:
        """Mark where the unread lines of a conversation begin, as it is opened."""
        summary = self.summary(name)
        self.divider = Divider(summary.read_row, summary.unread) if summary.unread else None
        self.saw_failures(name)

    def _move_divider(self) -> None:
        summary = self.summary(self.current)
        if summary.unread and (self.divider is None or self.divider.after_row <= summary.read_row):
            self.divider = Divider(summary.read_row, summary.unread)

    def notice(self, text: str, level: Level = Level.INFO) -> None:
        """Say something above the prompt; `text` is sanitised."""
        said = Notice(text, level)
        self.add_notice(said)

    def add_notice(self, said: Notice) -> None:
        """The same for one that is made already."""
        self.notices.append(said)
        self.notice_log.append(said)

    def hint(self, text: str) -> None:
        """Say for a moment what is not worth keeping."""
        self.notices.append(Notice(text))

    def replace_notice(self, said: Notice) -> None:
        """Put a notice where the one of the same row stands."""
        for notices in (self.notices, self.notice_log):
            for index, notice in enumerate(notices):
                if notice.row == said.row:
                    notices[index] = said

    def has_failed(self, name: str) -> bool:
        """Whether something there was not sent since one looked."""
        return name in self.failed.values()

    def saw_failures(self, name: str) -> None:
        """The conversation is being looked at."""
        if name in self.failed.values():
            self.failed = {row: each for row, each in self.failed.items() if each != name}
