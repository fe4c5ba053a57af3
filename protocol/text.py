"""The one sanitiser of remote strings: before a screen, a log, a pipe or a window title.

A character that could move the cursor, reorder what stands around it, or hide, becomes a visible
mark, `<U+202E>`; nothing is removed. Marks are plain ASCII, so that they survive every terminal.

Marked: C0 except newline and tab, DEL, C1, U+2028/9, lone surrogates, private use, noncharacters,
every Cf, blank letters (Hangul fillers, U+2800), variation selectors, unassigned code points except
those whose nature Unicode has fixed (ideographs, emoji), and combining marks without a base or
above their cap. A tab becomes four spaces, and CR LF a newline.

Kept: ZWJ, U+FE0E and U+FE0F within an emoji sequence, and ZWNJ and ZWJ between letters of scripts
that need them. Tag sequences (three flags use them) are not worth invisible text, and are marked.
"""

import re
import unicodedata
from bisect import bisect_right
from enum import Enum
from functools import lru_cache
from itertools import chain
from typing import Final

# Accents in a row on one letter: Vietnamese needs 2, IPA 3.
MARKS_MAX: Final = 3
# Where mark and letter are of one script that stacks: Burmese "secret" begins with a stack of 5.
MARKS_MAX_IN_SCRIPT: Final = 6
# Joiners in one emoji: the longest that Unicode recommends (a kiss, families) have 3.
EMOJI_JOINERS_MAX: Final = 3
TAB: Final = "    "

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_TEXT_STYLE, _EMOJI_STYLE, _KEYCAP = "\ufe0e", "\ufe0f", "\u20e3"

# The common letters, that need no look: each is kept and has a cell of its own.
_PLAIN: Final = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u0410-\u044f"
    "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3]+"
)
_PLAIN_LINES: Final = re.compile("[ -~\n]*")

# Extended_Pictographic of emoji-data.txt, Unicode 15.1, with what it reserves for coming emoji.
_PICTOGRAPH: Final = re.compile(
    "[\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf"
    "\u23e9-\u23f3\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605"
    "\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734"
    "\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf"
    "\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f"
    "\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f\U0001f21a\U0001f22f"
    "\U0001f232-\U0001f23a\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa\U0001f400-\U0001f53d"
    "\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff"
    "\U0001f80c-\U0001f80f\U0001f848-\U0001f84f\U0001f85a-\U0001f85f\U0001f888-\U0001f88f"
    "\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001faff"
    "\U0001fc00-\U0001fffd]"
)
_SKIN_TONE: Final = re.compile("[\U0001f3fb-\U0001f3ff]")
# Planes 2 and 3 hold ideographs only; an older Unicode table does not know them all.
_IDEOGRAPH_PLANES: Final = re.compile("[\U00020000-\U0002fffd\U00030000-\U0003fffd]")

# Blank or without width although their category is innocent: DerivedCoreProperties.txt,
# Default_Ignorable_Code_Point, and U+2800, U+16FE4, U+1D159 for what fonts draw.
_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\U00016fe4\U0001d159"
)
# Medial vowels and final consonants of Hangul sit in the cell of the first consonant.
_JAMO_INITIAL: Final = re.compile("[\u1100-\u115e\ua960-\ua97c\uac00-\ud7a3]")
_JAMO_FOLLOWING: Final = re.compile("[\u1161-\u11ff\ud7b0-\ud7c6\ud7cb-\ud7fb]")

# Blocks.txt. Scripts whose letters join or form conjuncts: ZWNJ and ZWJ between two of one row.
_JOINING_SCRIPTS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "Arabic": ((0x0600, 0x06FF), (0x0750, 0x077F), (0x0870, 0x08FF)),
    "Syriac": ((0x0700, 0x074F), (0x0860, 0x086F)),
    "NKo": ((0x07C0, 0x07FF),),
    "Mandaic": ((0x0840, 0x085F),),
    "Devanagari": ((0x0900, 0x097F), (0x1CD0, 0x1CFF), (0xA8E0, 0xA8FF)),
    "Bengali": ((0x0980, 0x09FF),),
    "Gurmukhi": ((0x0A00, 0x0A7F),),
    "Gujarati": ((0x0A80, 0x0AFF),),
    "Oriya": ((0x0B00, 0x0B7F),),
    "Tamil": ((0x0B80, 0x0BFF),),
    "Telugu": ((0x0C00, 0x0C7F),),
    "Kannada": ((0x0C80, 0x0CFF),),
    "Malayalam": ((0x0D00, 0x0D7F),),
    "Sinhala": ((0x0D80, 0x0DFF),),
    "Tibetan": ((0x0F00, 0x0FFF),),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    "Khmer": ((0x1780, 0x17FF),),
    "Mongolian": ((0x1800, 0x18AF),),
    "Balinese": ((0x1B00, 0x1B7F),),
    "Javanese": ((0xA980, 0xA9DF),),
    "Phags-pa": ((0xA840, 0xA87F),),
    "Rohingya": ((0x10D00, 0x10D3F),),
    "Chakma": ((0x11100, 0x1114F),),
    "Grantha": ((0x11300, 0x1137F),),
    "Adlam": ((0x1E900, 0x1E95F),),
}
# Hebrew stacks (points and accents) but needs no joiner.
_STACKING_SCRIPTS: Final = {**_JOINING_SCRIPTS, "Hebrew": ((0x0590, 0x05FF),)}
_BLOCKS: Final = sorted(
    chain.from_iterable(
        ((first, last, script) for first, last in blocks)
        for script, blocks in _STACKING_SCRIPTS.items()
    )
)
_BLOCK_STARTS: Final = [first for first, _, _ in _BLOCKS]


class _Kind(Enum):
    """What may happen to a character."""

    KEPT = 1
    MARKED = 2
    COMBINING = 3
    JAMO = 4
    PICTOGRAPH = 5
    JOINER = 6
    STYLE = 7


@lru_cache(maxsize=4096)
def _kind(char: str) -> _Kind:
    if char in (_ZWNJ, _ZWJ):
        return _Kind.JOINER
    if char in (_TEXT_STYLE, _EMOJI_STYLE):
        return _Kind.STYLE
    if char in _BLANK or "\ufe00" <= char <= "\ufe0f" or "\U000e0000" <= char <= "\U000e0fff":
        return _Kind.MARKED
    if _PICTOGRAPH.match(char):
        return _Kind.PICTOGRAPH
    if _JAMO_FOLLOWING.match(char):
        return _Kind.JAMO
    category = unicodedata.category(char)
    if category[0] == "M":
        return _Kind.COMBINING
    if category == "Cn" and _IDEOGRAPH_PLANES.match(char):
        return _Kind.KEPT
    return _Kind.MARKED if category[0] == "C" or category in ("Zl", "Zp") else _Kind.KEPT


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """The row of the table that a letter or mark belongs to, or ""."""
    if not char or unicodedata.category(char)[0] not in "LM":
        return ""
    index = bisect_right(_BLOCK_STARTS, ord(char)) - 1
    if index < 0 or ord(char) > _BLOCKS[index][1]:
        return ""
    return _BLOCKS[index][2]


def _mark(char: str) -> str:
    return f"<U+{ord(char):04X}>"


class _Pass:
    """One walk from left to right: what was written, and what the next character meets."""

    __slots__ = ("_base", "_emoji_joiners", "_last", "_marks", "_newlines", "written")

    def __init__(self, newlines: bool) -> None:
        self.written: list[str] = []
        self._newlines = newlines
        self._start("")

    def _start(self, base: str) -> None:
        """A new cell begins; `base` is "" where nothing may combine with what was written."""
        self._base = self._last = base
        self._marks = 0
        self._emoji_joiners = 0

    def take_plain(self, run: str) -> None:
        """Write characters that need no look."""
        self.written.append(run)
        self._start(run[-1])

    def take(self, char: str, following: str) -> None:
        """Write one character, or its mark; `following` is the next one or ""."""
        kind = _kind(char)
        if char == "\t":
            self.take_plain(TAB)
        elif char == "\n" and self._newlines:
            self.written.append(char)
            self._start("")
        elif kind is _Kind.KEPT:
            self._keep_base(char)
        elif kind is _Kind.PICTOGRAPH:
            joiners = self._emoji_joiners if self._last == _ZWJ else 0
            self.take_plain(char)
            self._emoji_joiners = joiners
        elif self._may_follow(kind, char, following):
            self.written.append(char)
            self._last = char
        else:
            self.written.append(_mark(char))
            self._start("")

    def _keep_base(self, char: str) -> None:
        if _SKIN_TONE.match(char) and _kind(self._last or " ") is _Kind.PICTOGRAPH:
            self.written.append(char)
            self._last = char
        else:
            self.take_plain(char)

    def _may_follow(self, kind: _Kind, char: str, following: str) -> bool:
        """Whether a character without a cell of its own is kept; counts it."""
        if kind is _Kind.STYLE:
            return self._may_style(char, following)
        if kind is _Kind.JOINER:
            return self._may_join_emoji(char, following) or self._may_join_letters(following)
        if kind in (_Kind.COMBINING, _Kind.JAMO) and self._may_combine(char):
            self._marks += 1
            return True
        return False

    def _may_combine(self, char: str) -> bool:
        if not self._base:
            return False
        if _kind(char) is _Kind.JAMO:
            return self._marks < MARKS_MAX and _JAMO_INITIAL.match(self._base) is not None
        script = _script(char)
        stacks = script != "" and script == _script(self._base)
        return self._marks < (MARKS_MAX_IN_SCRIPT if stacks else MARKS_MAX)

    def _may_style(self, char: str, following: str) -> bool:
        if self._last and _kind(self._last) is _Kind.PICTOGRAPH:
            return True
        return char == _EMOJI_STYLE and following == _KEYCAP and self._last in set("0123456789#*")

    def _may_join_emoji(self, char: str, following: str) -> bool:
        ends_emoji = (
            self._base != ""
            and _kind(self._base) is _Kind.PICTOGRAPH
            and (
                self._last in (self._base, _EMOJI_STYLE) or _SKIN_TONE.match(self._last) is not None
            )
        )
        if char != _ZWJ or not ends_emoji or self._emoji_joiners >= EMOJI_JOINERS_MAX:
            return False
        if not following or _kind(following) is not _Kind.PICTOGRAPH:
            return False
        self._emoji_joiners += 1
        return True

    def _may_join_letters(self, following: str) -> bool:
        script = _script(self._last)
        if script not in _JOINING_SCRIPTS or script != _script(self._base):
            return False
        # A half letter ends a word with virama and joiner: Malayalam, Marathi (RFC 5892, A.1, A.2).
        if unicodedata.combining(self._last) == 9:
            return True
        if _script(following) != script:
            return False
        kind = _kind(following)
        return kind is _Kind.KEPT or (kind is _Kind.COMBINING and self._may_combine(following))


def sanitise(text: str, *, newlines: bool = True) -> str:
    """Make a remote string safe to show; the same for what is safe already.

    `newlines=False` is for one line: a newline is marked as well. Takes linear time, raises
    nothing, and writes at most 10 characters for one.
    """
    if text.isascii() and (text.isprintable() or (newlines and _PLAIN_LINES.fullmatch(text))):
        return text
    if newlines:
        text = text.replace("\r\n", "\n")
    walk = _Pass(newlines)
    position, end = 0, len(text)
    while position < end:
        plain = _PLAIN.match(text, position)
        if plain is not None:
            walk.take_plain(plain.group())
            position = plain.end()
        else:
            walk.take(text[position], text[position + 1 : position + 2])
            position += 1
    return "".join(walk.written)
