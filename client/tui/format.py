"""A line of a timeline to screen rows: plain (style, text) pairs, never markup from outside."""

import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from saltline.client.model import Delivery, Line, LineKind
from saltline.client.tui.state import Divider
from saltline.client.tui.wrap import fit, shown, text_width, wrap

Row = list[tuple[str, str]]

NAME_COLOURS: Final = 6
TIME_COLUMNS: Final = 6  # "12:03 "
MARK_COLUMNS: Final = 3  # " ++"
AUTHOR_COLUMNS: Final = 10
AUTHOR_COLUMNS_NARROW: Final = 8
NARROW_BELOW: Final = 60
# A longer name than its column pushes the text; below this it begins on the next row.
TEXT_COLUMNS_MIN: Final = 8

MARKS: Final = {
    Delivery.NONE: ("", ""),
    Delivery.QUEUED: (".", "class:mark.queued"),
    Delivery.RELAYED: (">", "class:mark.relayed"),
    Delivery.DELIVERED: ("+", "class:mark.delivered"),
    Delivery.READ: ("++", "class:mark.read"),
    Delivery.FAILED: ("x", "class:mark.failed"),
}

# Offsets of the rows that stand before a message's text, for the anchor.
DAY_OFFSET: Final = -2
DIVIDER_OFFSET: Final = -1


class Block:
    """The rows of one line, made when they are drawn. `offsets` say where in it each row begins."""

    __slots__ = ("_heads", "_indent", "_first", "_mark", "_spans", "_style", "_tails", "_text")

    def __init__(
        self,
        heads: list[tuple[int, Row]],
        first: Row,
        text: str,
        spans: list[tuple[int, int]],
        style: str,
        indent: int,
        mark: tuple[str, str, int],
        tails: list[Row],
    ) -> None:
        self._heads = heads
        self._first = first
        self._text = text
        self._spans = spans
        self._style = style
        self._indent = indent
        self._mark = mark
        self._tails = tails

    def __len__(self) -> int:
        return len(self._heads) + len(self._spans) + len(self._tails)

    def offset(self, index: int) -> int:
        """A place in the message that survives another width."""
        if index < len(self._heads):
            return self._heads[index][0]
        index -= len(self._heads)
        if index < len(self._spans):
            return self._spans[index][0]
        return len(self._text) + 1 + index - len(self._spans)

    def index(self, offset: int) -> int:
        """The row that shows `offset`."""
        low, high = 0, len(self) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.offset(middle) <= offset:
                low = middle
            else:
                high = middle - 1
        return low

    def row(self, index: int) -> Row:
        """The fragments of one row, no wider than the width that the block was made for."""
        if index < len(self._heads):
            return self._heads[index][1]
        index -= len(self._heads)
        if index >= len(self._spans):
            return self._tails[index - len(self._spans)]
        start, end = self._spans[index]
        text = self._text[start:end]
        before = self._first if index == 0 else [("", " " * self._indent)]
        row: Row = [*before, (self._style, text)]
        mark, style, column = self._mark
        if mark and index == len(self._spans) - 1:
            used = sum(text_width(part) for _, part in row)
            row += [("", " " * (column - used)), (style, mark)]
        return row


@dataclass(frozen=True, slots=True)
class Formatter:
    """Makes blocks. `own` is this profile's name; `zone` None is the computer's."""

    own: str
    zone: tzinfo | None = None

    def block(
        self, line: Line, previous: Line | None, divider: Divider | None, width: int
    ) -> Block:
        """The rows of `line`, with a day separator or the divider above where they belong."""
        heads = self._heads(line, previous, divider, width)
        if line.kind in (LineKind.TEXT, LineKind.UNSUPPORTED):
            return self._message(line, heads, width)
        return self._event(line, heads, width)

    # --- Above --------------------------------------------------------------------------------

    def _heads(
        self, line: Line, previous: Line | None, divider: Divider | None, width: int
    ) -> list[tuple[int, Row]]:
        heads: list[tuple[int, Row]] = []
        day = self._moment(line.received_ms).date()
        if previous is None or self._moment(previous.received_ms).date() != day:
            label = f"{day:%a} {day.day} {day:%b}"
            if previous is None or self._moment(previous.received_ms).year != day.year:
                label += f" {day.year}"
            heads.append((DAY_OFFSET, rule(label, width, "class:day")))
        if divider is not None and line.row > divider.after_row:
            if previous is None or previous.row <= divider.after_row:
                text = f"new ({divider.count})"
                heads.append((DIVIDER_OFFSET, rule(text, width, "class:divider")))
        return heads

    # --- Messages -----------------------------------------------------------------------------

    def _message(self, line: Line, heads: list[tuple[int, Row]], width: int) -> Block:
        column = AUTHOR_COLUMNS if width >= NARROW_BELOW else AUTHOR_COLUMNS_NARROW
        indent = TIME_COLUMNS + column
        text_columns = max(TEXT_COLUMNS_MIN, width - indent - MARK_COLUMNS)
        # The whole name, always: two cut names could be one.
        author = shown(line.author, newlines=False)
        author_columns = text_width(author)
        if line.kind is LineKind.UNSUPPORTED:
            text, style = "sent something that needs a newer Saltline", "class:unsupported"
        else:
            text, style = shown(line.body), "class:text.own" if line.mine else "class:text"
        time = ("class:time", f"{self._clock(line)} ")
        name = (self._name_style(line), fit(author, width - TIME_COLUMNS))
        if author_columns < column:
            first, first_columns = [time, name, ("", " " * (column - author_columns))], text_columns
        else:
            first = [time, name, ("", " ")]
            first_columns = width - TIME_COLUMNS - author_columns - 1 - MARK_COLUMNS
            if first_columns < TEXT_COLUMNS_MIN:
                heads = [*heads, (0, first[:2])]
                first, first_columns = [("", " " * indent)], text_columns
        mark, mark_style = MARKS[line.delivery]
        if not line.mine and self._mentions(line):
            mark, mark_style, style = "@", "class:mark.mention", "class:text.mention"
        return Block(
            heads,
            first,
            text,
            wrap(text, text_columns, first_columns),
            style,
            indent,
            (mark, mark_style, width - MARK_COLUMNS + 1),
            self._remarks(line, indent, text_columns),
        )

    def _remarks(self, line: Line, indent: int, columns: int) -> list[Row]:
        remarks: list[tuple[str, str]] = []
        reason = shown(line.reason, newlines=False)
        if line.delivery is Delivery.FAILED:
            remarks.append(("class:failed", _failure(reason, line.short_id)))
        elif reason:
            remarks.append(("class:remark", f"({reason})"))
        sent = self._moment(min(line.sent_ms, line.received_ms))
        if sent.date() != self._moment(line.received_ms).date():
            when = f"{sent:%a} {sent.day} {sent:%b %Y}"
            remarks.append(("class:remark", f"(sent {when})"))
        return [
            [("", " " * indent), (style, text[start:end])]
            for style, text in remarks
            for start, end in wrap(text, columns)
        ]

    def _name_style(self, line: Line) -> str:
        if line.mine:
            return "class:name.own"
        return f"class:name.{zlib.crc32(line.author.encode('utf-8', 'replace')) % NAME_COLOURS}"

    def _mentions(self, line: Line) -> bool:
        if not line.conversation.startswith("#") or self.own not in line.body.lower():
            return False
        pattern = rf"(?<![a-z0-9_-]){re.escape(self.own)}(?![a-z0-9_-])"
        return re.search(pattern, line.body.lower()) is not None

    # --- Notices ------------------------------------------------------------------------------

    def _event(self, line: Line, heads: list[tuple[int, Row]], width: int) -> Block:
        author = shown(line.author, newlines=False)
        match line.kind:
            case LineKind.JOIN:
                sign, style, text = "-->", "class:join", f"{author} joined"
            case LineKind.LEAVE:
                sign, style, text = "<--", "class:join", f"{author} left"
            case LineKind.ALERT:
                sign, style, text = "!!", "class:alert", shown(line.body)
            case _:
                sign, style, text = "--", "class:event", shown(line.body)
        indent = TIME_COLUMNS + 4
        columns = max(TEXT_COLUMNS_MIN, width - indent)
        first: Row = [("class:time", f"{self._clock(line)} "), (style, f"{sign:<4}")]
        return Block(heads, first, text, wrap(text, columns), style, indent, ("", "", 0), [])

    # --- Time ---------------------------------------------------------------------------------

    def _moment(self, milliseconds: int) -> datetime:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
        return moment.astimezone(self.zone)

    def _clock(self, line: Line) -> str:
        # The sender's clock is theirs to set: the future is cut off at our own.
        return f"{self._moment(min(line.sent_ms, line.received_ms)):%H:%M}"


def _failure(reason: str, short_id: str) -> str:
    """Why it was not sent and what to do, each said once: the reason may say both."""
    text = reason if reason.startswith("Not sent") else f"Not sent: {reason or 'it failed'}"
    if "/retry" in text:
        return text
    return f"{text.rstrip('.')}. /retry {short_id} sends it again."


def rule(label: str, width: int, style: str) -> Row:
    """A separator with a label in its middle, in ASCII."""
    text = fit(f" {label} ", width)
    dashes = width - text_width(text)
    return [(style, "-" * (dashes // 2) + text + "-" * (dashes - dashes // 2))]
