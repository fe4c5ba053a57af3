"""Drives a real application through a pipe and looks at the screen that its bytes draw."""

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC
from functools import partial

import pyte
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from saltline.client.tui.app import Terminal
from tests.client.tui.fake_messenger import FakeMessenger

PATIENCE_S = 5.0
KEYS = {
    "enter": "\r",
    "alt-enter": "\x1b\r",
    "ctrl-j": "\n",
    "tab": "\t",
    "escape": "\x1b",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "alt-up": "\x1b[1;3A",
    "alt-down": "\x1b[1;3B",
    "f1": "\x1bOP",
    "f2": "\x1bOQ",
    "f3": "\x1bOR",
    "f4": "\x1bOS",
    "undo": "\x1f",
}


class Sink(io.StringIO):
    """Standard output of the application."""

    encoding = "utf-8"


class Pilot:
    """One running screen."""

    def __init__(self, fake: FakeMessenger, columns: int, rows: int) -> None:
        self.fake = fake
        self._size = Size(rows=rows, columns=columns)
        self._sink = Sink()
        self._read = 0
        self._lines: list[str] = []  # of the screen, while nothing new is written
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self.output = Vt100_Output(
            self._sink, lambda: self._size, term="xterm-256color", enable_cpr=False
        )
        self.terminal: Terminal

    # --- Acting -------------------------------------------------------------------------------

    def type(self, text: str) -> None:
        """Type characters."""
        self.send_raw(text)

    def press(self, *names: str) -> None:
        """Press keys by name: `enter`, `alt-up`, `alt-3`, `ctrl-q`."""
        for name in names:
            if name in KEYS:
                self.send_raw(KEYS[name])
            elif name.startswith("alt-"):
                self.send_raw("\x1b" + name[4:])
            else:
                self.send_raw(chr(ord(name.removeprefix("ctrl-")) & 0x1F))

    def enter(self, text: str) -> None:
        """Type a line and press Enter."""
        self.send_raw(text + "\r")

    def paste(self, text: str) -> None:
        """Paste, as a terminal with bracketed paste does; a pipe holds only some of it."""
        data = f"\x1b[200~{text}\x1b[201~"
        threading.Thread(target=self.send_raw, args=(data,), daemon=True).start()

    def send_raw(self, data: str) -> None:
        """What the terminal sends."""
        raise NotImplementedError

    def resize(self, columns: int, rows: int) -> None:
        """The window gets another size."""
        self._size = Size(rows=rows, columns=columns)
        self.raw()
        self._screen.resize(rows, columns)
        self._lines = []
        self.terminal.app._on_resize()

    # --- Looking ------------------------------------------------------------------------------

    def raw(self) -> str:
        """All that was ever written."""
        written = self._sink.getvalue()
        if len(written) > self._read:
            self._stream.feed(written[self._read :])
            self._read = len(written)
            self._lines = []
        return written

    def lines(self) -> list[str]:
        """The rows of the screen, without blanks at their ends."""
        self.raw()
        self._lines = self._lines or [row.rstrip() for row in self._screen.display]
        return list(self._lines)

    def text(self) -> str:
        """The whole screen."""
        return "\n".join(self.lines())

    def words(self) -> str:
        """What stands right of the sidebar, as if rows did not end."""
        border = self.terminal.views.sidebar_columns()
        return " ".join(" ".join(row[border:].lstrip("|") for row in self.lines()).split())

    def words_printed(self) -> str:
        """The screen's words where there is no layout."""
        return " ".join(self.text().split())

    def row(self, part: str) -> str:
        """The first row that holds `part`."""
        return next((row for row in self.lines() if part in row), "")

    def column_style(self, part: str) -> pyte.screens.Char:
        """How the first character of `part` is drawn."""
        for y, row in enumerate(self.lines()):
            if part in row:
                return self._screen.buffer[y][row.index(part)]
        raise AssertionError(f"{part!r} is not on the screen:\n{self.text()}")

    @property
    def frames(self) -> int:
        """How often the screen was drawn."""
        return self.terminal.app.render_counter

    async def until(self, true: Callable[[], object], what: str = "") -> None:
        """Wait for a condition; fails with the screen after five seconds."""
        end = time.monotonic() + PATIENCE_S
        while not true():
            if time.monotonic() > end:
                raise AssertionError(f"never: {what or true}\n{self.text()}")
            await asyncio.sleep(0.003)

    async def shows(self, *parts: str) -> None:
        """Wait until all of these are on the screen, perhaps over several rows."""
        for part in parts:
            await self.until(partial(self._holds, part), repr(part))

    async def hides(self, part: str) -> None:
        """Wait until this is gone."""
        await self.until(lambda: part not in self.text(), f"no {part!r}")

    def _holds(self, part: str) -> bool:
        return part in self.text() or part in self.words()

    async def escape(self) -> None:
        """Press Esc, and wait until it cannot be the beginning of anything else."""
        keys = self.terminal.app.key_processor
        taken: list[object] = []
        keys.after_key_press += taken.append
        self.press("escape")
        await self.until(lambda: taken and not keys.key_buffer, "Esc")
        keys.after_key_press -= taken.append

    async def settled(self) -> None:
        """Wait until everything typed was taken and drawn."""
        app = self.terminal.app
        marks = self.frames
        app.invalidate()
        await self.until(lambda: self.frames > marks, "a frame")


Script = Callable[[Pilot], Awaitable[None]]


def play(
    fake: FakeMessenger,
    script: Script,
    *,
    columns: int = 100,
    rows: int = 30,
    theme: str | None = None,
    vi: bool = False,
) -> Pilot:
    """Run the screen over `fake` while `script` acts, then leave it."""

    async def run() -> Pilot:
        pilot = Pilot(fake, columns, rows)
        with create_pipe_input() as pipe:
            pilot.send_raw = pipe.send_text  # type: ignore[method-assign]
            pilot.terminal = Terminal(
                fake, theme=theme, vi=vi, source=pipe, output=pilot.output, zone=UTC
            )
            showing = asyncio.create_task(pilot.terminal.run())
            try:
                await pilot.until(lambda: pilot.frames or showing.done(), "the first frame")
                if not showing.done():
                    await script(pilot)
            finally:
                pilot.terminal.quit()
                await asyncio.wait_for(showing, PATIENCE_S)
        return pilot

    return asyncio.run(run())


def a_fake() -> FakeMessenger:
    """The picture of the design: bob verified, carol new, dave's key changed, two rooms."""
    from saltline.client.model import Trust

    fake = FakeMessenger()
    fake.meets("bob", Trust.VERIFIED)
    fake.meets("carol")
    fake.meets("dave", Trust.CHANGED)
    fake.enters("#lobby")
    fake.enters("#dev")
    return fake
