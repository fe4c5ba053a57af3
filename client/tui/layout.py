"""Where everything is on the screen, at every size."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from prompt_toolkit.filters import Condition
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    Float,
    FloatContainer,
    HSplit,
    Layout,
    VSplit,
    Window,
)
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput

from saltline.client.tui.format import Row
from saltline.client.tui.prompt import (
    INPUT_ROWS_MAX,
    SafeInput,
    label_has_own_row,
    label_row,
    prompt_label,
)
from saltline.client.tui.sidebar import Entry, sidebar_entries, sidebar_width
from saltline.client.tui.state import Level
from saltline.client.tui.statusbar import header_rows, help_rows, status_rows
from saltline.client.tui.timeline import Rows, RowsControl
from saltline.client.tui.wrap import fit, padded, text_width, wrap

if TYPE_CHECKING:
    from saltline.client.tui.app import Terminal

NOTICE_ROWS_MAX: Final = 6
# A help bar costs a row that a small screen needs for messages.
HELP_BAR_FROM_ROWS: Final = 16
COMPLETIONS_ROWS_MAX: Final = 8
MINI_LABELS: Final = {"find": "Find here: ", "jump": "Go to conversation: "}


class Views:
    """Makes the rows of each part of the screen."""

    def __init__(self, terminal: "Terminal") -> None:
        self.terminal = terminal
        self.screen = terminal.screen
        self.state = terminal.screen.state
        self._entries: list[Entry] = []

    def status(self, width: int, height: int) -> list[Row]:
        """The top row."""
        return status_rows(self.state, width, self.screen.now())

    def header(self, width: int, height: int) -> list[Row]:
        """What the conversation is."""
        return header_rows(self.state, width)

    def help_bar(self, width: int, height: int) -> list[Row]:
        """The bottom row."""
        return help_rows(width)

    def sidebar(self, width: int, height: int) -> list[Row]:
        """The conversation list."""
        self._entries = sidebar_entries(self.state, width, height)
        return [entry.row for entry in self._entries]

    def sidebar_clicked(self, row: int) -> None:
        """The mouse chose a conversation."""
        if row < len(self._entries) and self._entries[row].name and not self.state.question:
            self.screen.open(self._entries[row].name)

    def middle(self, width: int, height: int) -> list[Row]:
        """The timeline, a pane, or on a narrow screen the conversation list."""
        if self.list_over_timeline():
            return self.sidebar(width, height)
        return self.screen.timeline_rows(width, height)

    def middle_clicked(self, row: int) -> None:
        """The same for the list on a narrow screen."""
        if self.list_over_timeline():
            self.sidebar_clicked(row)

    def notices(self, width: int, height: int) -> list[Row]:
        """What the client says, newest last."""
        rows: list[Row] = []
        for notice in reversed(self.state.notices):
            style = "class:notice.error" if notice.level is Level.ERROR else "class:notice"
            sign = "!" if notice.level is Level.ERROR else "-"
            spans = wrap(notice.text, max(1, width - 3))[:NOTICE_ROWS_MAX]
            if rows and len(rows) + len(spans) > NOTICE_ROWS_MAX:
                break
            signs = [sign, *" " * len(spans)]
            texts = [notice.text[start:end] for start, end in spans]
            rows[:0] = [
                [(style, f" {sign} {text}")] for sign, text in zip(signs, texts, strict=False)
            ]
        return rows

    def question(self, width: int, height: int) -> list[Row]:
        """What waits for y or n."""
        if self.state.question is None:
            return []
        text = self.state.question.text
        spans = wrap(text, max(1, width - 2))
        return [[("class:question", padded(f" {text[a:b]}", width))] for a, b in spans]

    def label(self, width: int, height: int) -> list[Row]:
        """The prompt's words, where they have a row of their own."""
        return [label_row(prompt_label(self.state), width)]

    def prompt(self, width: int, height: int) -> list[Row]:
        """The prompt's words left of the text, on its first row however far that is scrolled."""
        return [[(self.prompt_style(), self._prompt_text())]]

    def prompt_columns(self) -> int:
        """The width of these words."""
        return text_width(self._prompt_text())

    def _prompt_text(self) -> str:
        label = prompt_label(self.state)
        return "> " if label_has_own_row(label, self.terminal.columns()) else f"{label.text} "

    def prompt_style(self) -> str:
        """The background of the whole input."""
        return prompt_label(self.state).style

    def too_small(self, width: int, height: int) -> list[Row]:
        """What a screen says that has no room for more."""
        text = (
            "Too small for Saltline (40x8). Messages still arrive: "
            f"{self.state.unread_total()} unread."
        )
        spans = wrap(text, max(1, width))[: max(1, height)]
        return [[("class:notice", fit(text[a:b], width))] for a, b in spans]

    # --- What there is room for ---------------------------------------------------------------

    def sidebar_columns(self) -> int:
        """The sidebar's width beside the timeline; 0 without one."""
        return sidebar_width(self.terminal.columns()) if self.state.sidebar_wanted else 0

    def list_over_timeline(self) -> bool:
        """Whether F4 put the list where a narrow screen has the timeline."""
        return self.state.list_over and not sidebar_width(self.terminal.columns())


def make_layout(views: Views) -> Layout:
    """The whole screen."""
    terminal = views.terminal
    room = Condition(terminal.has_room)
    text = BufferControl(terminal.input, input_processors=[SafeInput()])
    main = HSplit(
        [
            _rows(views.status, height=1),
            VSplit([*_sidebar(views), HSplit([_header(views), _middle(views)])]),
            _when_rows(views.notices, lambda: bool(views.state.notices)),
            _when_rows(views.question, lambda: views.state.question is not None),
            *_prompt(views, text),
            ConditionalContainer(
                _rows(views.help_bar, height=1),
                Condition(lambda: terminal.app.output.get_size().rows >= HELP_BAR_FROM_ROWS),
            ),
        ]
    )
    both = HSplit(
        [
            ConditionalContainer(main, room),
            ConditionalContainer(_rows(views.too_small), ~room),
        ]
    )
    menu = CompletionsMenu(max_height=COMPLETIONS_ROWS_MAX, scroll_offset=1)
    floats = [Float(menu, xcursor=True, ycursor=True)]
    return Layout(FloatContainer(both, floats), focused_element=text)


def _sidebar(views: Views) -> list[ConditionalContainer]:
    beside = Condition(lambda: views.sidebar_columns() > 0)
    control = RowsControl(views.sidebar, click=views.sidebar_clicked)
    listed = Window(control, width=views.sidebar_columns, style="class:sidebar")
    border = Window(RowsControl(_border), width=2)
    return [ConditionalContainer(listed, beside), ConditionalContainer(border, beside)]


def _border(width: int, height: int) -> list[Row]:
    return [[("class:border", "| ")]] * height


def _header(views: Views) -> Window:
    return Window(RowsControl(views.header, sized=True), dont_extend_height=True)


def _middle(views: Views) -> Window:
    return Window(RowsControl(views.middle, wheel=views.screen.scroll, click=views.middle_clicked))


def _prompt(views: Views, text: BufferControl) -> list[ConditionalContainer]:
    terminal = views.terminal
    typing = Condition(lambda: terminal.mini is None)
    tall = Condition(lambda: label_has_own_row(prompt_label(views.state), terminal.columns()))
    label = Window(RowsControl(views.label), height=1, style=views.prompt_style)

    def rows() -> Dimension:
        most = max(1, min(INPUT_ROWS_MAX, terminal.app.output.get_size().rows // 3))
        return Dimension(min=1, max=most)

    style = views.prompt_style
    # Beside the text, not in it: the target has to show wherever a long message is scrolled to.
    before = Window(RowsControl(views.prompt, sized=True), width=views.prompt_columns, style=style)
    field = Window(text, height=rows, wrap_lines=True, dont_extend_height=True, style=style)
    asked = BufferControl(
        terminal.mini_input,
        input_processors=[
            SafeInput(),
            BeforeInput(lambda: MINI_LABELS.get(terminal.mini or "", ""), "class:pane.title"),
        ],
    )
    return [
        ConditionalContainer(label, typing & tall),
        ConditionalContainer(VSplit([before, field]), typing),
        ConditionalContainer(Window(asked, height=1), ~typing),
    ]


def _rows(rows: Rows, height: int | None = None) -> Window:
    return Window(RowsControl(rows), height=height)


def _when_rows(rows: Rows, there: Callable[[], bool]) -> ConditionalContainer:
    window = Window(RowsControl(rows, sized=True), dont_extend_height=True)
    return ConditionalContainer(window, Condition(there))
