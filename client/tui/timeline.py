"""The timeline: lays out the visible rows only, whatever the length of the conversation."""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prompt_toolkit.data_structures import Point
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout.controls import GetLinePrefixCallable, UIContent, UIControl
from prompt_toolkit.mouse_events import MouseEvent, MouseEventType

from saltline.client.model import Line, Messenger
from saltline.client.tui.format import DIVIDER_OFFSET, Block, Formatter, Row
from saltline.client.tui.lines import LineWindow
from saltline.client.tui.state import Divider
from saltline.client.tui.wrap import text_width

if TYPE_CHECKING:
    from prompt_toolkit.key_binding.key_bindings import NotImplementedOrNone

# Rows in the cache of laid-out lines: a screen is 50, a message of 64 KiB may have 65,536.
CACHED_ROWS: Final = 70_000
WHEEL_ROWS: Final = 3
# Rows of the page before that stay on screen, so that the eye finds its place.
OVERLAP_ROWS: Final = 2


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the top row of the screen shows: a message, and how far into it.

    The distance is an offset in its text, not a count of rows: it means the same at any width.
    """

    row: int
    offset: int


class TimelineView:
    """One conversation's rows: where the screen stands in it, and how it moves."""

    def __init__(self, messenger: Messenger, formatter: Formatter) -> None:
        self._messenger = messenger
        self._formatter = formatter
        self._window = LineWindow(messenger, "")
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._cached_rows = 0
        self._width = 0
        self._height = 0
        self._divider: Divider | None = None
        self._anchor: Anchor | None = None  # None: follows the end
        self._top: Anchor | None = None  # of the last frame
        self._bottom_row = 0
        self._newer: tuple[int, int] | None = None  # (bottom row, count)
        self._open_at_divider = False
        self._highlight = 0

    # --- What is shown ------------------------------------------------------------------------

    def open(self, conversation: str, divider: Divider | None) -> None:
        """Show a conversation: its end, or where the unread lines begin if they overflow."""
        self._window = LineWindow(self._messenger, conversation)
        self._forget()
        self._anchor = self._top = None
        self._bottom_row = self._highlight = 0
        self._divider = divider
        self._open_at_divider = divider is not None

    def set_divider(self, divider: Divider | None) -> None:
        """Move the divider without moving the screen."""
        if divider != self._divider:
            self._divider = divider
            self._forget()

    def grew(self) -> None:
        """The conversation has a new line."""
        self._window.grew()
        self._newer = None

    def changed(self, rows: Collection[int]) -> bool:
        """These lines differ now; returns whether one of them is held here."""
        held = self._window.changed(rows)
        for row in held:
            self._drop(row)
        return bool(held)

    def changed_all(self) -> None:
        """Any line may differ now."""
        self._window.changed_all()
        self._forget()

    def show_line(self, row: int) -> None:
        """Go to a line and mark it."""
        self._highlight = row
        self._open_at_divider = False
        line = self._window.at_or_before(row)
        if line is None:
            return
        self._anchor = Anchor(line.row, DIVIDER_OFFSET)
        if self._height:
            self._anchor = self._moved(self._anchor, -(self._height // 3))

    @property
    def following(self) -> bool:
        """Whether the end is on screen, and stays there when lines come."""
        return self._anchor is None

    @property
    def bottom_row(self) -> int:
        """The row number of the last line on screen in the last frame; 0 for none."""
        return self._bottom_row

    def authors(self) -> set[str]:
        """Whose lines are at hand."""
        return self._window.authors()

    # --- Moving -------------------------------------------------------------------------------

    def page_up(self) -> None:
        """A screen towards the beginning."""
        self.scroll(-max(1, self._height - 1 - OVERLAP_ROWS))

    def page_down(self) -> None:
        """A screen towards the end."""
        self.scroll(max(1, self._height - 1 - OVERLAP_ROWS))

    def home(self) -> None:
        """The first line."""
        first = next(iter(self._messenger.page(self._window.conversation, after=0, limit=1)), None)
        if first is not None:
            self._anchor = Anchor(first.row, -3)

    def end(self) -> None:
        """The newest line, and follow from there."""
        self._anchor = None
        self._highlight = 0

    def scroll(self, rows: int) -> None:
        """Move by screen rows; negative is towards the beginning."""
        start = self._anchor or self._top
        if start is None or (rows > 0 and self._anchor is None):
            return
        self._anchor = self._moved(start, rows)

    def _moved(self, anchor: Anchor, rows: int) -> Anchor:
        line = self._window.at_or_before(anchor.row)
        if line is None:
            return anchor
        index = self._block(line).index(anchor.offset) + rows
        while index < 0:
            above = self._window.before(line.row)
            if above is None:
                index = 0
                break
            line = above
            index += len(self._block(line))
        while index >= len(self._block(line)):
            below = self._window.after(line.row)
            if below is None:
                index = len(self._block(line)) - 1
                break
            index -= len(self._block(line))
            line = below
        return Anchor(line.row, self._block(line).offset(index))

    # --- Layout -------------------------------------------------------------------------------

    def rows(self, width: int, height: int) -> list[Row]:
        """The rows to draw, exactly `height`."""
        if width != self._width:
            self._forget()
        self._width, self._height = width, height
        if self._open_at_divider:
            self._open_at_divider = False
            self._start_at_divider(height)
        if self._anchor is not None:
            shown = self._from_anchor(self._anchor, height - 1)
            if shown is not None:
                return [*shown, self._below_row(width)]
            self._anchor = None
        return self._to_end(height)

    def _start_at_divider(self, height: int) -> None:
        """Begin with what is unread when it does not fit on one screen."""
        if self._divider is None:
            return
        first = self._window.at_or_before(self._divider.after_row)
        first = self._window.after(first.row if first else self._divider.after_row)
        if first is not None:
            anchor = Anchor(first.row, DIVIDER_OFFSET)
            if self._from_anchor(anchor, height) is not None:
                self._anchor = self._moved(anchor, -1)

    def _from_anchor(self, anchor: Anchor, height: int) -> list[Row] | None:
        """Rows from the anchor down, or None if the conversation ends within them."""
        line = self._window.at_or_before(anchor.row)
        if line is None:
            return None
        index = self._block(line).index(anchor.offset)
        top = Anchor(line.row, self._block(line).offset(index))
        rows: list[Row] = []
        while True:
            block = self._block(line)
            taken = min(len(block) - index, height - len(rows))
            rows += [self._row(line, block, at) for at in range(index, index + taken)]
            at_its_end = index + taken == len(block)
            following = self._window.after(line.row)
            if at_its_end and following is None:
                return None
            if len(rows) == height:
                self._top = top
                whole = line.row if at_its_end else self._row_above(line)
                self._bottom_row = whole
                return rows
            assert following is not None
            line, index = following, 0

    def _row_above(self, line: Line) -> int:
        above = self._window.before(line.row)
        return above.row if above is not None else 0

    def _to_end(self, height: int) -> list[Row]:
        rows: list[Row] = []
        line = self._window.last()
        self._bottom_row = line.row if line is not None else 0
        self._top = None
        while line is not None and len(rows) < height:
            block = self._block(line)
            first = max(0, len(block) - (height - len(rows)))
            rows[:0] = [self._row(line, block, at) for at in range(first, len(block))]
            self._top = Anchor(line.row, block.offset(first))
            line = self._window.before(line.row)
        return [*([[]] * (height - len(rows))), *rows]

    def _below_row(self, width: int) -> Row:
        if self._newer is None or self._newer[0] != self._bottom_row:
            conversation = self._window.conversation
            count = self._messenger.count(conversation, after=self._bottom_row)
            self._newer = (self._bottom_row, count)
        text = f"-- {self._newer[1]} newer below: End --"
        return [("class:below", text.center(width)[:width])]

    def _row(self, line: Line, block: Block, index: int) -> Row:
        row = block.row(index)
        if line.row != self._highlight or block.offset(index) < 0:
            return row
        return [(f"{style} class:hit", text) for style, text in row]

    # --- Cache --------------------------------------------------------------------------------

    def _block(self, line: Line) -> Block:
        block = self._blocks.get(line.row)
        if block is None:
            previous = self._window.before(line.row)
            block = self._formatter.block(line, previous, self._divider, max(1, self._width))
            self._blocks[line.row] = block
            self._cached_rows += len(block)
            while self._cached_rows > CACHED_ROWS and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self._cached_rows -= len(oldest)
        else:
            self._blocks.move_to_end(line.row)
        return block

    def _drop(self, row: int) -> None:
        block = self._blocks.pop(row, None)
        if block is not None:
            self._cached_rows -= len(block)

    def _forget(self) -> None:
        self._blocks.clear()
        self._cached_rows = 0


def _ends_combined(row: Row) -> bool:
    last = row[-1][1][-1:] if row else ""
    return not last.isascii() and not text_width(last)


Rows = Callable[[int, int], list[Row]]  # of a width and a height


class RowsControl(UIControl):
    """Draws rows that a function makes for the size at hand. `sized`: as high as its rows."""

    def __init__(
        self,
        rows: Rows,
        *,
        sized: bool = False,
        wheel: Callable[[int], None] | None = None,
        click: Callable[[int], None] | None = None,
    ) -> None:
        self._rows = rows
        self._sized = sized
        self._wheel = wheel
        self._click = click

    def preferred_height(
        self,
        width: int,
        max_available_height: int,
        wrap_lines: bool,
        get_line_prefix: GetLinePrefixCallable | None,
    ) -> int | None:
        """See UIControl."""
        return len(self._rows(width, max_available_height)) if self._sized else None

    def create_content(self, width: int, height: int) -> UIContent:
        """See UIControl."""
        rows = self._rows(width, height)

        def line(index: int) -> StyleAndTextTuples:
            # The toolkit would draw a combining mark at the end of a row twice.
            return [*rows[index], ("", " ")] if _ends_combined(rows[index]) else [*rows[index]]

        return UIContent(line, len(rows), cursor_position=Point(0, 0), show_cursor=False)

    def mouse_handler(self, mouse_event: MouseEvent) -> "NotImplementedOrNone":
        """See UIControl."""
        if mouse_event.event_type is MouseEventType.SCROLL_UP and self._wheel:
            self._wheel(-WHEEL_ROWS)
        elif mouse_event.event_type is MouseEventType.SCROLL_DOWN and self._wheel:
            self._wheel(WHEEL_ROWS)
        elif mouse_event.event_type is MouseEventType.MOUSE_UP and self._click:
            self._click(mouse_event.position.y)
        else:
            return NotImplemented
        return None
