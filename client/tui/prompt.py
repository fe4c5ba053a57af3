"""The input line: whom it writes to, how that is protected, and what it refuses to swallow."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput

from saltline.client.model import Trust
from saltline.client.tui.state import ViewState
from saltline.client.tui.wrap import counted, fit, shown, text_width
from saltline.protocol import limits

PASTE_LINES_ASK: Final = 5
PASTE_BYTES_ASK: Final = 2048
INPUT_ROWS_MAX: Final = 8
# Below this many columns for the text, the prompt gets a row of its own.
TEXT_COLUMNS_MIN: Final = 20

PRIVATE: Final = "class:prompt.private"
PUBLIC: Final = "class:prompt.public"
BLOCKED: Final = "class:prompt.blocked"


@dataclass(frozen=True, slots=True)
class Label:
    """The prompt's words and the style of its whole row."""

    text: str
    style: str


def prompt_label(state: ViewState) -> Label:
    """Names the target and its protection, always."""
    name = shown(state.current, newlines=False)
    if not name:
        return Label("no conversation>", "class:prompt")
    if name.startswith("#"):
        joined = state.summary(state.current).joined
        return Label(f"{name} PUBLIC{'' if joined else ', not a member'}>", PUBLIC)
    match state.contact(state.current[1:]).trust:
        case Trust.CHANGED:
            return Label(f"{name} KEY CHANGED, sending is blocked>", BLOCKED)
        case Trust.BLOCKED:
            return Label(f"{name} blocked by you>", BLOCKED)
        case _:
            return Label(f"{name} encrypted>", PRIVATE)


def label_has_own_row(label: Label, columns: int) -> bool:
    """Whether the label would leave too little of the row for the text."""
    return text_width(label.text) + 1 + TEXT_COLUMNS_MIN > columns


def label_row(label: Label, columns: int) -> list[tuple[str, str]]:
    """The label on a row of its own."""
    return [(label.style, fit(label.text, columns))]


class SafeInput(Processor):
    """Draws what was pasted without letting it act: one character for one, so the cursor fits."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """See Processor."""
        fragments = [
            (fragment[0], harmless(fragment[1])) for fragment in transformation_input.fragments
        ]
        return Transformation([*fragments])


def harmless(text: str) -> str:
    """Typed or pasted text with a `?` for each character that hides or reorders others."""
    return text if text.isascii() else "".join("?" if _acts(char) else char for char in text)


def _acts(char: str) -> bool:
    if char in "\u200c\u200d\ufe0e\ufe0f":
        return False  # part of emoji and of several scripts; the recipient's client judges them
    return unicodedata.category(char) in ("Cf", "Cs", "Cn", "Co", "Zl", "Zp") or (
        "\x7f" <= char <= "\x9f"
    )


# --- Pastes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paste:
    """A paste, read as one piece of a message."""

    text: str

    @property
    def size_bytes(self) -> int:
        """Its size in UTF-8."""
        return len(self.text.encode("utf-8", "replace"))

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.text.rstrip("\n").count("\n") + 1

    @property
    def too_long(self) -> bool:
        """Whether no message could hold it."""
        return self.size_bytes > limits.TEXT_MAX_BYTES

    @property
    def asks(self) -> bool:
        """Whether a person should look first."""
        return self.lines > PASTE_LINES_ASK or self.size_bytes > PASTE_BYTES_ASK

    def described(self) -> str:
        """Its size in words."""
        return f"{counted(self.lines, 'line')}, {size_words(self.size_bytes)}"


def read_paste(data: str) -> Paste:
    """Take a bracketed paste: any line ends, the last dropped; what is no UTF-8 as U+FFFD."""
    return Paste(clean_surrogates(re.sub("\r\n?", "\n", data)).removesuffix("\n"))


def clean_surrogates(text: str) -> str:
    """Replace what the terminal sent and UTF-8 cannot hold."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def size_words(size_bytes: int) -> str:
    """A size for a person."""
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    if size_bytes < 1024 * 1024:
        return f"{size_bytes / 1024:.1f} KiB"
    return f"{size_bytes / 1024 / 1024:.1f} MiB"
