"""The full-screen client: prompt_toolkit around the screen's behaviour."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Final

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output
from prompt_toolkit.styles import DynamicStyle
from prompt_toolkit.utils import is_dumb_terminal

from saltline.client.model import ExitCode, Messenger, Refused
from saltline.client.tui.completion import ConversationCompleter, InputCompleter
from saltline.client.tui.handover import Handover
from saltline.client.tui.keys import make_bindings
from saltline.client.tui.layout import Views, make_layout
from saltline.client.tui.screen import Screen
from saltline.client.tui.sidebar import sidebar_width
from saltline.client.tui.state import Draft
from saltline.client.tui.theme import THEMES, colour_depth, starting_theme
from saltline.client.tui.wrap import shown

FRAME_S: Final = 0.033
# Esc alone is told from Alt by waiting; longer feels stuck.
ESCAPE_S: Final = 0.05
TICK_S: Final = 1.0
STATUS_TICKS: Final = 10
COLUMNS_MIN: Final = 40
ROWS_MIN: Final = 8
HISTORIES_MAX: Final = 200


class Terminal:
    """The terminal's side of a screen: input, layout, loop. Implements `state.Shell`."""

    def __init__(
        self,
        messenger: Messenger,
        *,
        theme: str | None = None,
        vi: bool = False,
        source: Input | None = None,
        output: Output | None = None,
        zone: tzinfo | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messenger = messenger
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drained_at = 0.0
        self._failure: BaseException | None = None
        self._title = ""
        self._histories: dict[str, InMemoryHistory] = {}
        self.theme = starting_theme(os.environ, theme)
        self.mini: str | None = None  # "find" or "jump" while that is asked for
        self._read_only = Condition(lambda: self._locked())
        self.input = Buffer(multiline=True, read_only=self._read_only, name="input")
        self.mini_input = Buffer(multiline=False, name="mini")
        self._handover = Handover(lambda: self.soon(self._drain_soon))
        self._unsubscribe = messenger.subscribe(self._handover.put)
        self.screen = Screen(messenger, self, now=now, zone=zone)
        self.input.completer = InputCompleter(self.screen.state, self.screen.known_users)
        self.mini_input.completer = ConversationCompleter(self.screen.state)
        self.views = Views(self)
        self.app: Application[None] = Application(
            layout=make_layout(self.views),
            key_bindings=make_bindings(self),
            style=DynamicStyle(lambda: THEMES[self.theme]),
            color_depth=colour_depth(os.environ),
            full_screen=True,
            mouse_support=Condition(lambda: self.screen.state.mouse),
            editing_mode=EditingMode.VI if vi else EditingMode.EMACS,
            min_redraw_interval=FRAME_S,
            input=source,
            output=output,
        )
        self.app.timeoutlen = self.app.ttimeoutlen = ESCAPE_S
        self.app.after_render += lambda _: self._frame_done()

    # --- Running ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Show the screen until the person leaves. Raises what went wrong inside."""
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_failure)
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Only the main thread may; elsewhere the signals are somebody else's.
            with suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, self.quit)
        ticking = loop.create_task(self._tick())
        try:
            self._drain()  # what came before there was a loop woke nobody
            self.screen.start()
            await self.app.run_async(set_exception_handler=False)
        finally:
            ticking.cancel()
            self._unsubscribe()
            with suppress(OSError):
                self.app.renderer.reset()  # a first frame that failed is not undone by the toolkit
            self._restore_title()
        if self._failure is not None:
            raise self._failure

    def _on_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and self._failure is None:
            self._failure = error
            self.quit()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            if ticks % STATUS_TICKS == 0:
                with suppress(Refused):
                    self.screen.state.refresh_status()
                self.redraw()
            elif self.screen.state.retry_at is not None:
                self.redraw()

    def _drain_soon(self) -> None:
        assert self._loop is not None
        wait = self._drained_at + FRAME_S - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        assert self._loop is not None
        self._drained_at = self._loop.time()
        try:
            self.screen.apply(self._handover.take())
        except Refused as refused:
            self.screen.say_refused(refused)

    def _frame_done(self) -> None:
        self.screen.frame_done()
        self._show_title()

    # --- Title --------------------------------------------------------------------------------

    def _show_title(self) -> None:
        """Own names and numbers only: nothing from outside decides what a window is called."""
        unread = self.screen.state.unread_total()
        own = shown(self.screen.state.status.username, newlines=False)
        title = f"{f'({unread}) ' if unread else ''}Saltline {own}"
        # prompt_toolkit takes out ESC and BEL, not C1.
        title = "".join(char for char in title if " " <= char <= "~")
        if title != self._title:
            if not self._title:
                self.app.output.write_raw("\x1b[22;2t")  # remember the title that was
            self._title = title
            self.app.output.set_title(title)
            self.app.output.flush()

    def _restore_title(self) -> None:
        if self._title:
            self.app.output.clear_title()
            self.app.output.write_raw("\x1b[23;2t")
            with suppress(OSError):
                self.app.output.flush()

    # --- Shell: what the screen asks for ------------------------------------------------------

    def redraw(self) -> None:
        """See Shell."""
        self.app.invalidate()

    def soon(self, function: Callable[[], None]) -> None:
        """See Shell."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and the screen with it
                self._loop.call_soon_threadsafe(function)

    def after(self, delay_s: float, function: Callable[[], None]) -> None:
        """See Shell."""
        assert self._loop is not None
        self._loop.call_later(delay_s, function)

    def aside(self, work: Callable[[], None]) -> None:
        """See Shell."""
        assert self._loop is not None

        def run() -> None:
            try:
                work()
            except Refused as refused:
                self.soon(partial(self.screen.say_refused, refused))

        self._loop.run_in_executor(None, run)

    def draft(self) -> Draft:
        """See Shell."""
        return Draft(self.input.text, self.input.cursor_position)

    def set_draft(self, conversation: str, draft: Draft) -> None:
        """See Shell."""
        self.input.history = self._history(conversation)
        # A reset forgets the undo stack too: undo must not bring up another conversation's text.
        self.input.reset(Document(draft.text, draft.cursor))

    def remember(self, conversation: str, text: str) -> None:
        """See Shell."""
        self._history(conversation).append_string(text)

    def clear(self) -> None:
        """Ctrl-C: empty the input; Up brings the text back."""
        current, text = self.screen.state.current, self.input.text
        self.set_draft(current, Draft())
        self.remember(current, text)

    def insert(self, text: str) -> None:
        """See Shell."""
        self.input.insert_text(text)

    def set_theme(self, name: str) -> None:
        """See Shell."""
        if os.environ.get("NO_COLOR") and name != "mono":
            raise Refused("NO_COLOR is set: the screen stays without colours.")
        self.theme = name

    def draws_unicode(self) -> bool:
        """See Shell."""
        return "utf" in self.app.output.encoding().lower()

    def quit(self) -> None:
        """See Shell."""
        if self.app.is_running and not self.app.is_done:
            self.app.exit()

    def _history(self, conversation: str) -> InMemoryHistory:
        if conversation not in self._histories and len(self._histories) >= HISTORIES_MAX:
            del self._histories[next(iter(self._histories))]
        return self._histories.setdefault(conversation, InMemoryHistory())

    # --- What keys ask for --------------------------------------------------------------------

    def columns(self) -> int:
        """The terminal's width."""
        return self.app.output.get_size().columns

    def has_room(self) -> bool:
        """Whether the terminal is large enough to write in."""
        size = self.app.output.get_size()
        return size.columns >= COLUMNS_MIN and size.rows >= ROWS_MIN

    def escape(self) -> None:
        """Close what is on top."""
        if self.mini is not None:
            self.close_mini(accept=False)
        elif self.input.complete_state is not None:
            self.input.cancel_completion()
        else:
            self.screen.escape()

    def _locked(self) -> bool:
        return self.screen.state.question is not None or not self.has_room()

    def toggle_sidebar(self) -> None:
        """F4: the other way than it is now."""
        state = self.screen.state
        if sidebar_width(self.columns()):
            state.sidebar_wanted = not state.sidebar_wanted
        else:
            state.list_over = not state.list_over

    def open_mini(self, kind: str) -> None:
        """Ask for a search or a conversation, in a row that leaves the draft alone."""
        if self.has_room():
            self.mini = kind
            self.mini_input.reset()
            self.app.layout.focus(self.mini_input)

    def close_mini(self, *, accept: bool) -> None:
        """Take what was asked for, or leave it."""
        kind, text = self.mini, self.mini_input.text.strip()
        self.mini = None
        self.mini_input.reset()
        self.app.layout.focus(self.input)
        if not accept or not text:
            return
        try:
            if kind == "find":
                if self.screen.find(text):
                    self.screen.next_hit()
            else:
                self.screen.jump(text)
        except Refused as refused:
            self.screen.say_refused(refused)


def run_screen(
    messenger: Messenger,
    *,
    theme: str | None = None,
    vi: bool = False,
    source: Input | None = None,
    output: Output | None = None,
) -> ExitCode:
    """Show the full screen until the person leaves. The messenger stays open; its owner closes it.

    Whatever happens, the terminal is as it was before and at most one sentence is on stderr.
    """
    if source is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _stopped("The screen needs a terminal. Commands do not: saltline --help.")
    if output is None and is_dumb_terminal():
        return _stopped("This terminal (TERM=dumb) cannot show the screen: saltline --help.")
    try:
        terminal = Terminal(messenger, theme=theme, vi=vi, source=source, output=output)
        asyncio.run(terminal.run())
    except EOFError:
        return ExitCode.DONE  # the terminal is gone
    except Refused as refused:
        return _stopped(shown(refused.sentence), refused.code)
    except Exception as error:  # the last line of defence: a sentence instead of a traceback
        return _stopped(_crash(error), ExitCode.INTERNAL)
    with suppress(Refused):
        queued = messenger.status().queued
        if queued:
            _stopped(f"{queued} queued on this disk, and sent the next time Saltline runs.")
    return ExitCode.DONE


def _stopped(sentence: str, code: ExitCode = ExitCode.USAGE) -> ExitCode:
    print(sentence, file=sys.stderr)
    return code


def _crash(error: BaseException) -> str:
    """Where it broke, without the error's own words: they may quote a message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "unknown"
    if trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return (
        f"Saltline stopped because of a fault of its own ({type(error).__name__} at {place}). "
        "Messages that it had shown or queued are on this disk; what was being typed is lost. "
        "Start it again, and report this line."
    )
