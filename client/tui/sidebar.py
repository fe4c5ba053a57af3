"""The list of conversations: trust, unread lines, mentions."""

from dataclasses import dataclass
from typing import Final

from saltline.client.model import Trust
from saltline.client.tui.format import Row
from saltline.client.tui.state import ViewState
from saltline.client.tui.statusbar import TRUST_MARKS
from saltline.client.tui.wrap import fit, padded, shown

WIDTH_FULL: Final = 23
WIDTH_NARROW: Final = 16
FULL_FROM: Final = 100
NARROW_FROM: Final = 60
UNREAD_SHOWN_MAX: Final = 999


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the sidebar; `name` is "" for a title or a blank."""

    name: str
    row: Row


def sidebar_width(columns: int) -> int:
    """How wide the sidebar is on a screen of this width; 0 where there is no room beside."""
    if columns >= FULL_FROM:
        return WIDTH_FULL
    return WIDTH_NARROW if columns >= NARROW_FROM else 0


def sidebar_entries(state: ViewState, width: int, height: int) -> list[Entry]:
    """The rows of the sidebar, at most `height`, with the current conversation among them."""
    entries: list[Entry] = []
    for title, names in (
        ("DIRECT", state.people()),
        ("REQUESTS", state.requests()),
        ("ROOMS (public)", state.rooms()),
    ):
        if names:
            entries.append(Entry("", [("class:sidebar.title", padded(title, width))]))
            entries += [_entry(state, name, width) for name in names]
    return _cut(entries, state.current, width, height)


def _entry(state: ViewState, name: str, width: int) -> Entry:
    summary = state.summary(name)
    current = name == state.current
    if name.startswith("#"):
        mark, alert = "#", False
    else:
        mark = "?" if summary.request else TRUST_MARKS[summary.trust]
        alert = summary.trust is Trust.CHANGED
    count = state.unread(name)
    unread = f"{UNREAD_SHOWN_MAX}+" if count > UNREAD_SHOWN_MAX else str(count or "")
    unread += "@" if summary.mentions and count else " "
    if state.has_failed(name):
        unread = f"x {unread}" if count else "x "
    label = padded(shown(name[1:], newlines=False), width - 4 - len(unread))
    text = f"{'>' if current else ' '}{mark} {label} {unread}"
    if current:
        style = "class:sidebar.current"
    elif alert or state.has_failed(name):
        style = "class:sidebar.alert"
    else:
        style = "class:sidebar.unread" if count else "class:sidebar"
    return Entry(name, [(style, fit(text, width))])


def _cut(entries: list[Entry], current: str, width: int, height: int) -> list[Entry]:
    """Scroll so that the current conversation shows, and say how many do not."""
    if len(entries) <= height:
        return entries
    place = next((i for i, entry in enumerate(entries) if entry.name == current), 0)
    room = max(1, height - 1)
    first = max(0, min(place - room // 2, len(entries) - room))
    shown = entries[first : first + room]
    hidden = sum(1 for entry in entries if entry.name) - sum(1 for e in shown if e.name)
    return [*shown, Entry("", [("class:sidebar.title", padded(f"   {hidden} more", width))])]
