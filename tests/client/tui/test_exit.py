"""However the screen ends, the terminal is as it was and a person reads at most one sentence."""

import asyncio
import threading

import pytest
from prompt_toolkit.input import PipeInput, create_pipe_input

from saltline.client.model import ExitCode, Refused
from saltline.client.tui.app import Terminal, run_screen
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import Pilot, a_fake, play

ALTERNATE_ON, ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"


def run(fake: FakeMessenger, typed: str) -> tuple[ExitCode, Pilot]:
    with create_pipe_input() as pipe:
        pilot = Pilot(fake, 100, 30)
        pipe.send_text(typed)
        code = run_screen(fake, source=pipe, output=pilot.output)
    return code, pilot


def assert_restored(pilot: Pilot) -> None:
    raw = pilot.raw()
    assert ALTERNATE_ON in raw
    for on, off in ((ALTERNATE_ON, ALTERNATE_OFF), ("[?2004h", "[?2004l"), ("[?25l", "[?25h")):
        assert raw.rfind(off) > raw.rfind(on)
    assert "\x1b[?1000h" not in raw  # the mouse stays off


@pytest.mark.parametrize("typed", ["\x11", "/quit\r"])
def test_quitting_restores_the_terminal(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, pilot = run(a_fake(), typed)
    assert code is ExitCode.DONE
    assert_restored(pilot)
    assert capsys.readouterr().err == ""
    assert not pilot.fake.callbacks
    assert not pilot.fake.called("close")


def test_what_is_queued_is_said_on_leaving(capsys: pytest.CaptureFixture[str]) -> None:
    fake = a_fake()
    fake.send("bob", "waits")
    run(fake, "\x11")
    error = capsys.readouterr().err
    assert error == "1 queued on this disk, and sent the next time Saltline runs.\n"


class Broken(FakeMessenger):
    """Fails in the middle of drawing, quoting a secret."""

    def contact(self, username: str) -> object:  # type: ignore[override]
        raise ZeroDivisionError("the secret is 1234")


@pytest.mark.parametrize("typed", ["/query bob\r", "\x1b1"])
def test_a_fault_ends_in_one_sentence_without_its_words(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Broken()
    fake.meets("bob")
    fake.enters("#lobby")
    code, pilot = run(fake, typed)
    error = capsys.readouterr().err
    assert code is ExitCode.INTERNAL
    assert error.startswith("Saltline stopped because of a fault of its own (ZeroDivisionError at")
    assert error.count("\n") == 1
    assert "1234" not in error and "Traceback" not in error
    assert_restored(pilot)


class Unreadable(FakeMessenger):
    """The disk breaks."""

    def page(self, *_: object, **__: object) -> object:  # type: ignore[override]
        raise Refused("The vault cannot be read (IOError).", ExitCode.INTERNAL)


def test_a_vault_that_cannot_be_read_ends_with_its_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = Unreadable()
    fake.enters("#lobby")
    code, pilot = run(fake, "")
    assert code is ExitCode.INTERNAL
    assert capsys.readouterr().err == "The vault cannot be read (IOError).\n"
    assert_restored(pilot)


def test_a_terminal_that_goes_away_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    fake = a_fake()
    with create_pipe_input() as pipe:
        pilot = Pilot(fake, 100, 30)
        hang_up = threading.Timer(0.2, close, (pipe,))
        hang_up.start()
        code = run_screen(fake, source=pipe, output=pilot.output)
        hang_up.join()
    assert code is ExitCode.DONE
    assert capsys.readouterr().err == ""
    assert_restored(pilot)


def close(pipe: PipeInput) -> None:
    pipe.close()


def test_without_a_terminal_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_screen(a_fake()) is ExitCode.USAGE
    assert "The screen needs a terminal." in capsys.readouterr().err


def test_events_after_the_end_do_no_harm() -> None:
    fake = a_fake()
    late: list[object] = []

    async def script(p: Pilot) -> None:
        late.extend(fake.callbacks)

    play(fake, script)
    fake.callbacks.extend(late)  # type: ignore[arg-type]
    fake.arrives("#lobby", "bob", "too late")


def test_events_before_the_first_frame_are_not_lost() -> None:
    fake = a_fake()

    async def run() -> Pilot:
        pilot = Pilot(fake, 100, 30)
        with create_pipe_input() as pipe:
            terminal = pilot.terminal = Terminal(fake, source=pipe, output=pilot.output)
            fake.arrives("@bob", "bob", "early")
            showing = asyncio.create_task(terminal.run())
            await pilot.until(lambda: pilot.frames, "the first frame")
            fake.arrives("#lobby", "bob", "and then")
            await pilot.shows("and then")
            terminal.quit()
            await showing
        return pilot

    assert "1 unread" in asyncio.run(run()).raw()


def test_a_dumb_terminal_is_told_what_to_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with create_pipe_input() as pipe:
        assert run_screen(a_fake(), source=pipe) is ExitCode.USAGE
    assert "TERM=dumb" in capsys.readouterr().err


def test_events_come_from_another_thread() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        def flood() -> None:
            for number in range(500):
                fake.arrives("#lobby", "bob", f"threaded {number}.")

        await asyncio.to_thread(flood)
        await p.shows("threaded 499.")

    play(fake, script)


def test_the_mouse_is_off_until_f2() -> None:
    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        assert "\x1b[?1000h" not in p.raw()
        p.press("f2")
        await p.shows("Mouse on")
        assert "\x1b[?1000h" in p.raw()
        p.send_raw("\x1b[<0;5;3M\x1b[<0;5;3m")  # a click on bob
        await p.shows("@bob encrypted>")
        p.press("f2")
        await p.shows("Mouse off.")
        assert p.raw().rindex("\x1b[?1000l") > p.raw().rindex("\x1b[?1000h")

    play(a_fake(), script)


def test_the_wheel_scrolls_the_timeline() -> None:
    fake = a_fake()
    for number in range(100):
        fake.arrives("#lobby", "bob", f"line {number}.", silent=True)
    fake.mark_read("#lobby", 1000)

    async def script(p: Pilot) -> None:
        p.press("f2")
        await p.shows("Mouse on")
        p.send_raw("\x1b[<64;60;10M" * 3)
        await p.shows("newer below")
        p.send_raw("\x1b[<65;60;10M" * 8)
        await p.hides("newer below")

    play(fake, script)
