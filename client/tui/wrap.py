"""Text to screen rows, by the width of what a terminal draws."""

import re
from typing import Final

from prompt_toolkit.utils import get_cwidth

from saltline.protocol.text import sanitise

# Within emoji only: terminals disagree on how wide a joined or restyled emoji is, and a row whose
# width is a guess shifts its marks. Apart, every part has one width everywhere.
_EMOJI_GLUE: Final = re.compile("[\ufe0e\ufe0f]|\u200d(?=[\u2190-\u2bff\U0001f000-\U0001faff])")

_MARK: Final = re.compile("<U\\+[0-9A-F]{4,6}>")
_MARK_CHARS_MAX: Final = len("<U+10FFFF>")


def shown(text: str, *, newlines: bool = True) -> str:
    """A remote string made safe and steady in width; the only way from outside to the screen."""
    safe = sanitise(text, newlines=newlines)
    return safe if safe.isascii() else _EMOJI_GLUE.sub("", safe)


def text_width(text: str) -> int:
    """Columns that one row of safe text takes."""
    return len(text) if text.isascii() else get_cwidth(text)


def fit(text: str, width: int, mark: str = "..") -> str:
    """One row of safe text cut to `width` columns, with a mark where something is missing."""
    if text_width(text) <= width:
        return text
    room = max(0, width - len(mark))
    return text[: _fitting(text, 0, len(text), room)] + mark[:width]


def padded(text: str, width: int) -> str:
    """Cut or filled with spaces to exactly `width` columns."""
    cut = fit(text, width)
    return cut + " " * (width - text_width(cut))


def counted(number: int, thing: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def wrap(text: str, width: int, first_width: int | None = None) -> list[tuple[int, int]]:
    """Where the rows of safe text begin and end, as offsets; at least one row.

    Breaks at newlines, else at the last space that fits (which is not drawn), else anywhere but
    before a character that sits in its neighbour's cell. `first_width` is the first row's.
    """
    spans: list[tuple[int, int]] = []
    room = width if first_width is None else first_width
    start = 0
    while True:
        newline = text.find("\n", start)
        end = len(text) if newline < 0 else newline
        while True:
            stop, following = _break(text, start, end, max(1, room))
            spans.append((start, stop))
            room = width
            if following >= end:
                break
            start = following
        if newline < 0:
            return spans
        start = newline + 1


def _break(text: str, start: int, end: int, width: int) -> tuple[int, int]:
    """The end of the row that begins at `start`, and where the next one begins."""
    stop = _fitting(text, start, end, width)
    if stop >= end:
        return end, end
    if text[stop] == " ":
        return stop, min(stop + 1, end)
    space = text.rfind(" ", start, stop)
    # Leading blanks are indentation: a row of them alone helps nobody.
    if space > start and text[start:space].strip():
        return space, space + 1
    stop = _before_mark(text, start, stop)
    return stop, stop


def _before_mark(text: str, start: int, stop: int) -> int:
    """`stop`, or the beginning of the mark (`<U+202E>`) that it would cut in two."""
    opened = text.rfind("<", max(start, stop - _MARK_CHARS_MAX), stop)
    if opened <= start or _MARK.match(text, opened) is None:
        return stop
    return opened if stop < text.index(">", opened) + 1 else stop


def _fitting(text: str, start: int, end: int, width: int) -> int:
    """The greatest offset up to which the text fits in `width` columns; takes a cluster at least
    when the row is empty and nothing fits."""
    piece = text[start : min(end, start + width)]
    used, position = 0, start
    if piece.isascii():
        used, position = len(piece), start + len(piece)
    while position < end:
        columns = get_cwidth(text[position])
        if used + columns > width and used:
            return position
        used += columns
        position += 1
    return end
