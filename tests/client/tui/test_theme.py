"""How many colours a terminal gets, and who decides."""

import re

import pytest
from prompt_toolkit.output import ColorDepth

from saltline.client.tui.theme import colour_depth, starting_theme
from tests.client.tui.pilot import Pilot, a_fake, play

COLOURS_OF_256 = re.compile(r"\x1b\[[0-9;]*[34]8;5;")


@pytest.mark.parametrize(
    ("environment", "depth"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, None),
        ({"TERM": "screen", "COLORTERM": "truecolor"}, None),
        ({}, None),
        ({"TERM": "xterm"}, ColorDepth.DEPTH_4_BIT),
        ({"TERM": "screen"}, ColorDepth.DEPTH_4_BIT),
        ({"TERM": "linux"}, ColorDepth.DEPTH_4_BIT),
        ({"TERM": "vt100"}, ColorDepth.DEPTH_1_BIT),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, ColorDepth.DEPTH_1_BIT),
        ({"TERM": "xterm", "PROMPT_TOOLKIT_COLOR_DEPTH": "DEPTH_8_BIT"}, None),
    ],
)
def test_a_terminal_gets_the_colours_that_it_has(
    environment: dict[str, str], depth: ColorDepth | None
) -> None:
    assert colour_depth(environment) is depth
    assert (starting_theme(environment, None) == "mono") is (depth is ColorDepth.DEPTH_1_BIT)


@pytest.mark.parametrize(("term", "many"), [("xterm-256color", True), ("xterm", False)])
def test_a_terminal_without_256_colours_gets_no_code_for_them(
    monkeypatch: pytest.MonkeyPatch, term: str, many: bool
) -> None:
    for name in ("COLORTERM", "NO_COLOR", "PROMPT_TOOLKIT_COLOR_DEPTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)

    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        p.enter("/theme light")
        await p.settled()
        assert bool(COLOURS_OF_256.search(p.raw())) is many

    play(a_fake(), script)


def test_no_color_is_given_as_the_reason_why_a_theme_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(p: Pilot) -> None:
        p.enter("/theme light")
        await p.shows("! NO_COLOR is set: the screen stays without colours.")
        assert p.terminal.theme == "mono"

    play(a_fake(), script)


def test_the_hint_how_to_quit_is_not_kept() -> None:
    async def script(p: Pilot) -> None:
        p.press("ctrl-c")
        await p.shows("- Ctrl-Q quits.")
        p.press("ctrl-d")
        p.enter("/contacts")
        p.enter("/search nowhere")
        await p.shows("Nothing with 'nowhere' found.")
        p.enter("/status")
        await p.shows("Said lately", "Nothing with 'nowhere' found.")
        assert "Ctrl-Q quits." not in p.text()

    play(a_fake(), script)
