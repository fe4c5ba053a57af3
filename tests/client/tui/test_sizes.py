"""The screen at every size, and with every theme."""

import pytest

from saltline.client.model import ConnectionState
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import Pilot, a_fake, play


def busy() -> FakeMessenger:
    fake = a_fake()
    fake.arrives("@carol", "carol", "one")
    fake.arrives("@carol", "carol", "two")
    fake.arrives("#dev", "bob", "ada: three")
    for number in range(60):
        fake.arrives("#lobby", "bob", f"line {number}. " + "word " * number, silent=True)
    fake.mark_read("#lobby", 10_000)
    return fake


def test_a_wide_screen_has_the_full_sidebar() -> None:
    async def script(p: Pilot) -> None:
        await p.shows("line 59.", "Alt-A next unread")
        lines = p.lines()
        assert lines[0].startswith(" saltline  ada@relay.example   online 23 ms  TLS 1.3")
        assert lines[0].endswith("queue 0   3 unread")
        sidebar = [row[:23].rstrip() for row in lines[1:8]]
        assert sidebar == [
            "DIRECT",
            " = bob",
            " ~ carol             2",
            " ! dave",
            "ROOMS (public)",
            " # dev               1@",
            "># lobby",
        ]
        assert all(row[23] == "|" for row in lines[1:-2])

    play(busy(), script, columns=120, rows=40)


def test_a_narrow_screen_has_a_narrow_sidebar() -> None:
    async def script(p: Pilot) -> None:
        await p.shows("line 59.", "Alt-A next unread")
        lines = p.lines()
        assert all(row[16] == "|" for row in lines[1:-2])
        assert lines[3][:16].rstrip() == " ~ carol      2"
        p.press("f4")
        await p.hides("DIRECT")
        p.press("f4")
        await p.shows("DIRECT")

    play(busy(), script, columns=80, rows=24)


def test_a_slim_screen_has_the_unread_in_its_bar_and_the_list_behind_f4() -> None:
    async def script(p: Pilot) -> None:
        await p.shows("line 59.", "F4 list")
        assert p.lines()[0] == " ada online            queue 0  @carol 2  #dev 1@"
        assert "DIRECT" not in p.text()
        p.press("f4")
        await p.shows("DIRECT", "ROOMS (public)")
        await p.hides("line 59.")
        p.press("f4")
        await p.shows("line 59.")

    play(busy(), script, columns=50, rows=20)


def test_the_list_of_a_slim_screen_says_nothing_about_the_sidebar_of_a_wide_one() -> None:
    async def script(p: Pilot) -> None:
        await p.shows("line 59.")
        p.press("f4")
        await p.shows("DIRECT")
        p.press("f4")
        await p.shows("line 59.")
        p.resize(120, 30)
        await p.shows("DIRECT", "line 59.")
        p.press("f4")
        await p.hides("DIRECT")
        p.resize(41, 20)
        p.press("f4")
        await p.shows("DIRECT")
        p.press("f4")
        await p.shows("line 59.")
        p.resize(120, 30)
        await p.shows("line 59.")
        assert "DIRECT" not in p.text()

    play(busy(), script, columns=41, rows=20)


@pytest.mark.parametrize(("columns", "rows"), [(30, 10), (39, 40), (120, 7), (10, 3)])
def test_a_tiny_screen_says_that_it_is_one(columns: int, rows: int) -> None:
    async def script(p: Pilot) -> None:
        await p.shows("Too small")
        assert "Window too small" not in p.text()

    play(busy(), script, columns=columns, rows=rows)


@pytest.mark.parametrize(("columns", "rows"), [(40, 8), (59, 12), (60, 10), (99, 15), (200, 60)])
def test_at_the_edges_everything_still_has_its_place(columns: int, rows: int) -> None:
    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        p.enter("/unknown-command-with-a-long-name")
        await p.shows("No command")
        p.press("escape", "ctrl-c", "alt-3")
        await p.shows("KEY CHANGED")
        p.enter("/verify dave")
        await p.shows("Does dave read")
        p.type("n")
        p.press("escape")
        p.type("word " * 100)
        await p.settled()
        assert "Window too small" not in p.text()
        assert all(len(row) <= columns for row in p.lines())

    play(busy(), script, columns=columns, rows=rows)


def test_a_long_prompt_gets_a_row_of_its_own() -> None:
    fake = a_fake()
    room = "#a-room-with-a-really-long-name"
    fake.enters(room)

    async def script(p: Pilot) -> None:
        p.enter(f"/join {room}")
        await p.shows(f"{room} PUBLIC>")
        p.type("hello")
        await p.shows("> hello")
        assert p.row("> hello") == "> hello"

    play(fake, script, columns=42, rows=20)


def test_a_long_list_keeps_the_current_conversation_in_sight() -> None:
    fake = a_fake()
    for number in range(60):
        fake.meets(f"user{number:02}")

    async def script(p: Pilot) -> None:
        await p.shows("># lobby", "more")
        p.enter("/query user30")
        await p.shows(">~ user30")
        for _ in range(25):
            p.press("alt-down")
        await p.shows(">~ user55")

    play(fake, script, columns=80, rows=24)


def test_marks_do_not_depend_on_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(p: Pilot) -> None:
        await p.shows("= bob", "~ carol", "! dave", "#lobby PUBLIC>")
        fake.connects(ConnectionState.OFFLINE)
        await p.shows("offline")
        assert p.terminal.theme == "mono"
        raw = p.raw()
        assert "[38;" not in raw and "[48;" not in raw and ";38;" not in raw

    fake = a_fake()
    play(fake, script, theme="dark")
