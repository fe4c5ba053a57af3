"""A stretch of one conversation's lines, read in small pages and kept until they change."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from typing import Final

from saltline.client.model import Line, Messenger

# Two screens of single-row lines; a page is read in well under a frame.
PAGE_LINES: Final = 60
# What stays in memory of a conversation, however far one scrolls.
KEPT_LINES: Final = 600


class LineWindow:
    """Neighbouring lines without a gap. Asks the vault only at its ends and for changed lines."""

    def __init__(self, messenger: Messenger, conversation: str) -> None:
        self._messenger = messenger
        self.conversation = conversation
        self._lines: list[Line] = []
        self._rows: list[int] = []
        self._at_start = False
        self._at_end = False
        self._stale: set[int] = set()

    # --- What changed -------------------------------------------------------------------------

    def grew(self) -> None:
        """The conversation has lines after the ones that were last."""
        self._at_end = False

    def changed(self, rows: Collection[int]) -> list[int]:
        """Read these lines again when they are next looked at; returns those that are held."""
        held = [row for row in rows if self._index(row) is not None]
        self._stale.update(held)
        return held

    def changed_all(self) -> None:
        """Read every line again."""
        self._replace(())
        self._at_start = self._at_end = False

    # --- Reading ------------------------------------------------------------------------------

    def last(self) -> Line | None:
        """The conversation's newest line."""
        if not self._at_end:
            self._read_end()
        return self._at(len(self._lines) - 1) if self._lines else None

    def at_or_before(self, row: int) -> Line | None:
        """The line with this row, or the nearest one above it."""
        if not self._rows or not self._rows[0] <= row <= self._rows[-1]:
            if not (self._at_end and self._rows and row > self._rows[-1]):
                page = self._messenger.page(self.conversation, before=row + 1, limit=PAGE_LINES)
                self._replace(page)
                self._at_start = len(page) < PAGE_LINES
                self._at_end = False
        index = bisect_right(self._rows, row) - 1
        return self._at(index) if index >= 0 else None

    def before(self, row: int) -> Line | None:
        """The line above the one with this row."""
        index = bisect_left(self._rows, row)
        if index == 0:
            if self._at_start:
                return None
            self._read_above(row)
            index = bisect_left(self._rows, row)
        return self._at(index - 1) if index > 0 else None

    def after(self, row: int) -> Line | None:
        """The line below the one with this row."""
        index = bisect_right(self._rows, row)
        if index == len(self._rows):
            if self._at_end:
                return None
            self._read_below(row)
            index = bisect_right(self._rows, row)
        return self._at(index) if index < len(self._rows) else None

    def authors(self) -> set[str]:
        """Whose lines are held."""
        return {line.author for line in self._lines if line.author}

    # --- Pages --------------------------------------------------------------------------------

    def _read_end(self) -> None:
        page = list(self._messenger.page(self.conversation, limit=PAGE_LINES))
        if page and self._rows and page[0].row <= self._rows[-1]:
            self._append(page[bisect_right([line.row for line in page], self._rows[-1]) :])
        elif page or not self._rows:
            self._replace(page)
            self._at_start = len(page) < PAGE_LINES
        self._at_end = True

    def _read_above(self, row: int) -> None:
        page = list(self._messenger.page(self.conversation, before=row, limit=PAGE_LINES))
        self._at_start = len(page) < PAGE_LINES
        self._lines[:0] = page
        self._rows[:0] = [line.row for line in page]
        if len(self._lines) > KEPT_LINES:
            del self._lines[KEPT_LINES:], self._rows[KEPT_LINES:]
            self._stale.intersection_update(self._rows)
            self._at_end = False

    def _read_below(self, row: int) -> None:
        page = list(self._messenger.page(self.conversation, after=row, limit=PAGE_LINES))
        self._append(page)
        self._at_end = len(page) < PAGE_LINES

    def _append(self, page: list[Line]) -> None:
        self._lines += page
        self._rows += [line.row for line in page]
        excess = len(self._lines) - KEPT_LINES
        if excess > 0:
            del self._lines[:excess], self._rows[:excess]
            self._stale.intersection_update(self._rows)
            self._at_start = False

    def _replace(self, page: Sequence[Line]) -> None:
        self._lines = list(page)
        self._rows = [line.row for line in page]
        self._stale.clear()

    def _index(self, row: int) -> int | None:
        index = bisect_left(self._rows, row)
        return index if index < len(self._rows) and self._rows[index] == row else None

    def _at(self, index: int) -> Line:
        line = self._lines[index]
        if line.row in self._stale:
            self._stale.discard(line.row)
            fresh = self._messenger.line(line.row)
            if fresh is not None:
                self._lines[index] = line = fresh
        return line
