"""Draw docs/screen.svg: a real capture of the full-screen client, in the middle of a conversation.

python -m demo.picture
"""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from html import escape
from pathlib import Path

import pyte

from demo.programs import BIN, User, running_relay, temporary_folder

COLUMNS, ROWS = 104, 24
CELL_WIDTH, CELL_HEIGHT = 8.4, 18
PICTURE = Path(__file__).parent.parent / "docs" / "screen.svg"
# The terminal's own colours; pyte names the sixteen and gives the others in hexadecimal.
COLOURS = {
    "default": "#d8dee9",
    "black": "#3b4252",
    "red": "#bf616a",
    "green": "#a3be8c",
    "brown": "#ebcb8b",
    "blue": "#81a1c1",
    "magenta": "#b48ead",
    "cyan": "#88c0d0",
    "white": "#e5e9f0",
}
BACKGROUND = "#1d2129"


def colour(name: str, default: str) -> str:
    if name == "default":
        return default
    name = name.removeprefix("bright")
    return COLOURS.get(name, f"#{name}" if len(name) == 6 else default)


class Terminal:
    """A program in a pseudo-terminal, and the screen that it draws."""

    def __init__(self, *command: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execv(command[0], command)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def watch(self, seconds: float) -> None:
        """Take in what the program draws."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                try:
                    self._stream.feed(os.read(self._fd, 65536))
                except OSError:
                    return

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())
        self.watch(1.0)

    def leave(self) -> None:
        self.type("\x11")
        os.close(self._fd)
        os.waitpid(self._pid, 0)


def draw(screen: pyte.Screen) -> str:
    """The screen as SVG: one text element for each run of one style."""
    width, height = COLUMNS * CELL_WIDTH + 20, ROWS * CELL_HEIGHT + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}">',
        f'<rect width="100%" height="100%" rx="6" fill="{BACKGROUND}"/>',
        '<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14"'
        ' xml:space="preserve">',
    ]
    for row in range(ROWS):
        parts += draw_row(screen, row)
    return "\n".join([*parts, "</g></svg>", ""])


def draw_row(screen: pyte.Screen, row: int) -> list[str]:
    parts, column = [], 0
    line = screen.buffer[row]
    while column < COLUMNS:
        first = line[column]
        style = (first.fg, first.bg, first.bold, first.reverse)
        text = ""
        start = column
        while column < COLUMNS:
            cell = line[column]
            if (cell.fg, cell.bg, cell.bold, cell.reverse) != style:
                break
            text += cell.data
            column += 1
        front, back = colour(first.fg, COLOURS["default"]), colour(first.bg, BACKGROUND)
        if first.reverse:
            front, back = back, front
        x, y = 10 + start * CELL_WIDTH, 10 + row * CELL_HEIGHT
        length = (column - start) * CELL_WIDTH
        if back != BACKGROUND:
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{CELL_HEIGHT}"'
                f' fill="{back}"/>'
            )
        if text.strip():
            weight = ' font-weight="bold"' if first.bold else ""
            parts.append(
                f'<text x="{x:.1f}" y="{y + 13}" textLength="{length:.1f}" fill="{front}"'
                f"{weight}>{escape(text)}</text>"
            )
    return parts


def compare(one: User, other: User) -> None:
    """Both compare the safety number, as they would in person."""
    for user, name in ((one, other.profile.name), (other, one.profile.name)):
        number = next(
            each["safety_number"]
            for each in map(json.loads, user.run("contacts", "--json").splitlines())
            if each["user"] == name
        )
        user.run("verify", name, number)


def main() -> int:
    with temporary_folder("picture") as folder, running_relay(folder / "relay") as relay:
        people = {name: User(folder / name) for name in ("ada", "bob", "carol", "dave")}
        for name, user in people.items():
            user.register(relay, name)
        ada, bob, carol, dave = people.values()
        for user, text in (
            (ada, "anybody else on the new relay yet?"),
            (carol, "just arrived"),
            (dave, "moving my bots over tonight"),
        ):
            user.run("post", "#lobby", "-m", text)
        bob.run("send", "ada", "-m", "did the build pass?")
        ada.run("recv", "--once")
        for text in ("yes, tagged 1.2", "the notes say what changed in the wire format"):
            ada.run("send", "bob", "-m", text)
        bob.run("recv", "--once")
        compare(ada, bob)
        carol.run("send", "ada", "-m", "lunch?")
        dave.run("post", "#dev", "-m", "tests are green on main")
        terminal = Terminal(str(BIN / "saltline"), "--profile", str(ada.profile))
        terminal.watch(3.0)
        terminal.type("/join #dev\r")
        terminal.type("/query bob\r")
        bob.run("send", "ada", "-m", "great, reading them now")
        bob.run("send", "ada", "-m", "and what was the code for the door again?")
        dave.run("post", "#dev", "-m", "ada: merging?")
        terminal.watch(1.0)
        terminal.type("let me say that here, where only you can read it\r")
        bob.run("recv", "--once")
        terminal.watch(1.5)
        terminal.type("it is 4")
        PICTURE.write_text(draw(terminal.screen), encoding="utf-8")
        print("\n".join(terminal.screen.display))
        terminal.leave()
    print(f"\n{PICTURE.name} is drawn.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
