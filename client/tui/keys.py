"""What each key does. Bindings that are not here are prompt_toolkit's own (Emacs or vi)."""

from typing import TYPE_CHECKING

from prompt_toolkit.filters import Condition, emacs_mode, vi_insert_mode
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from saltline.client.tui.prompt import read_paste

if TYPE_CHECKING:
    from saltline.client.tui.app import Terminal


def make_bindings(terminal: "Terminal") -> KeyBindings:
    """The bindings of the screen, for the whole application."""
    keys = KeyBindings()
    _bind_question(keys, terminal)
    _bind_input(keys, terminal)
    _bind_moving(keys, terminal)
    _bind_program(keys, terminal)
    return keys


def _bind_question(keys: KeyBindings, terminal: "Terminal") -> None:
    asked = Condition(lambda: terminal.screen.state.question is not None)

    @keys.add("y", filter=asked)
    @keys.add("Y", filter=asked)
    def _yes(event: KeyPressEvent) -> None:
        terminal.screen.answer(True)

    @keys.add("n", filter=asked)
    @keys.add("N", filter=asked)
    @keys.add("c-c", filter=asked)
    @keys.add("<sigint>", filter=asked)
    def _no(event: KeyPressEvent) -> None:
        terminal.screen.answer(False)

    @keys.add(Keys.Any, filter=asked)
    @keys.add("enter", filter=asked)
    @keys.add("escape", "enter", filter=asked)
    @keys.add("c-j", filter=asked)
    @keys.add("tab", filter=asked)
    @keys.add(Keys.BracketedPaste, filter=asked)
    def _neither(event: KeyPressEvent) -> None:
        """Neither yes nor no, and nothing that is typed may slip into the message."""


def _bind_input(keys: KeyBindings, terminal: "Terminal") -> None:
    typing = Condition(lambda: terminal.screen.state.question is None and terminal.has_room())
    finding = Condition(lambda: terminal.mini is not None)

    @keys.add("enter", filter=typing & ~finding)
    def _send(event: KeyPressEvent) -> None:
        buffer = terminal.input
        if buffer.complete_state is not None and buffer.complete_state.current_completion:
            buffer.complete_state = None
        else:
            buffer.cancel_completion()
            terminal.screen.submit(buffer.text)

    @keys.add("enter", filter=typing & finding)
    def _mini_done(event: KeyPressEvent) -> None:
        terminal.close_mini(accept=True)

    @keys.add("escape", "enter", filter=typing & ~finding)
    @keys.add("c-j", filter=typing & ~finding)
    def _newline(event: KeyPressEvent) -> None:
        terminal.input.newline(copy_margin=False)

    @keys.add("c-j", filter=typing & finding)
    @keys.add("c-o")
    def _nothing(event: KeyPressEvent) -> None:
        """Ctrl-O would accept the line behind our back; a search has one line."""

    @keys.add("tab", filter=typing)
    def _complete(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None:
            buffer.complete_next()
        else:
            buffer.start_completion(insert_common_part=True)

    @keys.add("s-tab", filter=typing)
    def _complete_back(event: KeyPressEvent) -> None:
        event.current_buffer.complete_previous()

    @keys.add(Keys.BracketedPaste, filter=typing)
    def _paste(event: KeyPressEvent) -> None:
        paste = read_paste(event.data)
        if terminal.mini is None:
            terminal.screen.paste(paste)
        else:
            event.current_buffer.insert_text(paste.text.partition("\n")[0][:200])


def _bind_moving(keys: KeyBindings, terminal: "Terminal") -> None:
    screen = terminal.screen
    calm = Condition(lambda: screen.state.question is None)
    empty = Condition(lambda: not terminal.input.text and terminal.mini is None)

    @keys.add("pageup")
    def _up(event: KeyPressEvent) -> None:
        screen.page(-1)

    @keys.add("pagedown")
    def _down(event: KeyPressEvent) -> None:
        screen.page(1)

    @keys.add("home", filter=empty)
    @keys.add("c-home")
    def _home(event: KeyPressEvent) -> None:
        screen.home()

    @keys.add("end", filter=empty)
    @keys.add("c-end")
    def _end(event: KeyPressEvent) -> None:
        screen.end()

    @keys.add("escape", "up", filter=calm)
    def _above(event: KeyPressEvent) -> None:
        screen.step(-1)

    @keys.add("escape", "down", filter=calm)
    def _below(event: KeyPressEvent) -> None:
        screen.step(1)

    @keys.add("escape", "a", filter=calm)
    def _unread(event: KeyPressEvent) -> None:
        screen.open_unread()

    @keys.add("escape", "g", filter=calm)
    def _jump(event: KeyPressEvent) -> None:
        terminal.open_mini("jump")

    @keys.add("f3", filter=calm)
    def _find(event: KeyPressEvent) -> None:
        if not screen.next_hit():
            terminal.open_mini("find")

    for place in range(1, 10):
        _bind_place(keys, terminal, place)


def _bind_place(keys: KeyBindings, terminal: "Terminal", place: int) -> None:
    calm = Condition(lambda: terminal.screen.state.question is None)

    @keys.add("escape", str(place), filter=calm)
    def _open(event: KeyPressEvent) -> None:
        terminal.screen.open_place(place)


def _bind_program(keys: KeyBindings, terminal: "Terminal") -> None:
    screen = terminal.screen
    calm = Condition(lambda: screen.state.question is None)

    @keys.add("escape", filter=~vi_insert_mode)
    def _escape(event: KeyPressEvent) -> None:
        terminal.escape()

    @keys.add("escape", "/", filter=calm & emacs_mode & Condition(terminal.has_room))
    def _escape_slash(event: KeyPressEvent) -> None:
        """Esc, and a slash too soon after it: swallowed, it would make a command a message."""
        terminal.escape()
        terminal.input.insert_text("/")

    @keys.add("c-c", filter=calm)
    @keys.add("<sigint>", filter=calm)
    def _clear(event: KeyPressEvent) -> None:
        if terminal.mini is not None:
            terminal.close_mini(accept=False)
        elif terminal.input.text:
            terminal.clear()
        else:
            screen.state.hint("Ctrl-Q quits.")

    @keys.add("c-d", filter=calm & Condition(lambda: not terminal.input.text))
    def _hint(event: KeyPressEvent) -> None:
        screen.state.hint("Ctrl-Q quits.")

    @keys.add("f1", filter=calm)
    def _help(event: KeyPressEvent) -> None:
        screen.help()

    @keys.add("f2")
    def _mouse(event: KeyPressEvent) -> None:
        screen.state.mouse = not screen.state.mouse
        words = "on: the wheel scrolls, F2 again to select text" if screen.state.mouse else "off"
        screen.say(f"Mouse {words}.")

    @keys.add("f4")
    def _sidebar(event: KeyPressEvent) -> None:
        terminal.toggle_sidebar()

    @keys.add("c-q", filter=calm)
    def _quit(event: KeyPressEvent) -> None:
        screen.quit()

    @keys.add("c-z")
    def _suspend(event: KeyPressEvent) -> None:
        event.app.suspend_to_background()
