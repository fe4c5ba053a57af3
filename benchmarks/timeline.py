"""Milliseconds of CPU for a key press on the full screen, beside the toolkit's ready-made control.

    python -m benchmarks.timeline [--lines 10000 100000] [--keys 30]

Both draw the same lines at 120x40 into nothing, in the same run: ours (client/tui/timeline.py, the
whole screen with sidebar, bars and prompt) and a bare FormattedTextControl above an input.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Point, Size
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.output.vt100 import Vt100_Output
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import Sink

from saltline.client.tui.app import Terminal

SIZE = Size(rows=40, columns=120)
WORDS = "did the build pass or shall we wait until somebody has looked at it"


def filled(lines: int) -> FakeMessenger:
    """A lobby with so many lines of one to two rows, all read."""
    fake = FakeMessenger()
    fake.enters("#lobby")
    for number in range(lines):
        fake.arrives("#lobby", "bob", f"{number} {WORDS * (1 + number % 3)}", silent=True)
    fake.mark_read("#lobby", lines)
    return fake


def output() -> Vt100_Output:
    return Vt100_Output(Sink(), lambda: SIZE, term="xterm-256color", enable_cpr=False)


def press(app: Application[None], key: str | Keys, times: int) -> float:
    """The median milliseconds from a key to the end of its frame."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        app.key_processor.feed(KeyPress(key))
        app.key_processor.process_keys()
        app._redraw()
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken)


async def running(
    app: Application[None], run: Awaitable[None], measure: Callable[[], None]
) -> None:
    showing = asyncio.ensure_future(run)
    while not app.render_counter:
        await asyncio.sleep(0.01)
    measure()
    app.exit()
    await showing


def ours(fake: FakeMessenger, keys: int) -> dict[str, float]:
    found: dict[str, float] = {}
    with create_pipe_input() as pipe:
        terminal = Terminal(fake, source=pipe, output=output())

        def measure() -> None:
            found["letter"] = press(terminal.app, "x", keys)
            found["PgUp"] = press(terminal.app, Keys.PageUp, keys)
            found["letter, scrolled up"] = press(terminal.app, "x", keys)

        asyncio.run(running(terminal.app, terminal.run(), measure))
    return found


def ready_made(fake: FakeMessenger, lines: int, keys: int) -> float:
    found: list[float] = []
    text: StyleAndTextTuples = [
        ("", f"12:00 {line.author} {line.body}\n") for line in fake.page("#lobby", limit=lines)
    ]
    control = FormattedTextControl(text, get_cursor_position=lambda: Point(0, lines - 1))
    field = BufferControl(Buffer())
    layout = Layout(HSplit([Window(control, wrap_lines=True), Window(field, height=1)]), field)
    with create_pipe_input() as pipe:
        app: Application[None] = Application(
            layout=layout, full_screen=True, input=pipe, output=output()
        )
        asyncio.run(running(app, app.run_async(), lambda: found.append(press(app, "x", keys))))
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--keys", type=int, default=30)
    arguments = parser.parse_args()
    print("lines     what                                     ms per key (median)")
    for lines in arguments.lines:
        fake = filled(lines)
        for what, milliseconds in ours(fake, arguments.keys).items():
            print(f"{lines:<9} Saltline, {what:<30} {milliseconds:>8.1f}")
        few = max(3, arguments.keys * 1000 // lines)
        slow = ready_made(fake, lines, few)
        print(f"{lines:<9} FormattedTextControl, {'letter':<18} {slow:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
