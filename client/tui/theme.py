"""Colours. Every state has a mark in text as well: a theme only helps the eye."""

from collections.abc import Mapping
from typing import Final

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

DEFAULT_THEME: Final = "dark"

# What all themes share: weight and reverse, which a screen without colours has as well.
_BASE: Final = {
    "status": "reverse",
    "status.alert": "reverse bold",
    "help-bar": "reverse",
    "header": "bold",
    "header.alert": "bold reverse",
    "border": "",
    "sidebar": "",
    "sidebar.title": "bold",
    "sidebar.unread": "bold",
    "sidebar.current": "reverse",
    "sidebar.alert": "bold",
    "time": "",
    "name": "bold",
    "name.own": "bold",
    "text.mention": "bold",
    "day": "",
    "divider": "bold",
    "below": "reverse",
    "event": "",
    "join": "",
    "alert": "bold reverse",
    "failed": "bold",
    "remark": "",
    "unsupported": "italic",
    "hit": "reverse",
    "mark.failed": "bold",
    "mark.mention": "bold",
    "prompt.public": "reverse",
    "prompt.blocked": "bold",
    "notice.error": "bold",
    "question": "reverse bold",
    "pane.title": "bold",
    "pane.strong": "bold",
    "hint": "",
    "completion-menu": "reverse",
    "completion-menu.completion.current": "noreverse bold",
}

_QR: Final = {"qr": "noreverse bg:#000000 #ffffff"}

_DARK: Final = {
    "status": "noreverse bg:#303050 #e0e0f0",
    "status.alert": "noreverse bg:#802020 #ffffff bold",
    "help-bar": "noreverse bg:#202030 #a0a0b8",
    "header": "bold #e0e0f0",
    "header.alert": "noreverse bg:#802020 #ffffff bold",
    "border": "#505060",
    "sidebar": "#b8b8c8",
    "sidebar.title": "bold #8080a0",
    "sidebar.unread": "bold #ffffff",
    "sidebar.current": "noreverse bg:#303050 #ffffff",
    "sidebar.alert": "bold #ff8070",
    "time": "#707088",
    "name.own": "bold #ffffff",
    "name.0": "bold #7fb4ff",
    "name.1": "bold #7fd8a0",
    "name.2": "bold #e0b060",
    "name.3": "bold #d890e0",
    "name.4": "bold #60d0d8",
    "name.5": "bold #f09090",
    "text.own": "#c8c8d8",
    "text.mention": "bold #ffe080",
    "day": "#707088",
    "divider": "bold #ff9060",
    "below": "noreverse bg:#404000 #ffffa0",
    "event": "#9090a8",
    "join": "#707088",
    "alert": "noreverse bold bg:#802020 #ffffff",
    "failed": "bold #ff8070",
    "remark": "#9090a8",
    "mark.queued": "#e0b060",
    "mark.relayed": "#9090a8",
    "mark.delivered": "#7fd8a0",
    "mark.read": "bold #7fd8a0",
    "mark.failed": "bold #ff8070",
    "mark.mention": "bold #ffe080",
    "prompt.private": "bold #7fd8a0",
    "prompt.public": "noreverse bg:#5a3a00 #ffffff",
    "prompt.blocked": "noreverse bold bg:#802020 #ffffff",
    "notice": "#c8c8d8",
    "notice.error": "bold #ff8070",
    "question": "noreverse bold bg:#c0a000 #000000",
    "pane.title": "bold #e0b060",
    "hint": "#9090a8",
    "completion-menu": "noreverse bg:#303050 #e0e0f0",
    "completion-menu.completion.current": "bg:#7fb4ff #000000 bold",
}

_LIGHT: Final = {
    "status": "noreverse bg:#d0d4e8 #101020",
    "status.alert": "noreverse bg:#b00020 #ffffff bold",
    "help-bar": "noreverse bg:#e6e8f0 #404050",
    "header": "bold #101020",
    "header.alert": "noreverse bg:#b00020 #ffffff bold",
    "border": "#9090a0",
    "sidebar": "#303040",
    "sidebar.title": "bold #606080",
    "sidebar.unread": "bold #000000",
    "sidebar.current": "noreverse bg:#d0d4e8 #000000",
    "sidebar.alert": "bold #b00020",
    "time": "#6a6a7a",
    "name.own": "bold #000000",
    "name.0": "bold #0040a0",
    "name.1": "bold #006030",
    "name.2": "bold #804000",
    "name.3": "bold #700080",
    "name.4": "bold #005868",
    "name.5": "bold #900030",
    "text.own": "#303040",
    "text.mention": "bold #7a3000",
    "day": "#6a6a7a",
    "divider": "bold #b03000",
    "below": "noreverse bg:#fff0a0 #302000",
    "event": "#505060",
    "join": "#6a6a7a",
    "alert": "noreverse bold bg:#b00020 #ffffff",
    "failed": "bold #b00020",
    "remark": "#505060",
    "mark.queued": "#804000",
    "mark.relayed": "#505060",
    "mark.delivered": "#006030",
    "mark.read": "bold #006030",
    "mark.failed": "bold #b00020",
    "mark.mention": "bold #7a3000",
    "prompt.private": "bold #006030",
    "prompt.public": "noreverse bg:#ffe0a0 #201000",
    "prompt.blocked": "noreverse bold bg:#b00020 #ffffff",
    "notice.error": "bold #b00020",
    "question": "noreverse bold bg:#ffe040 #000000",
    "pane.title": "bold #804000",
    "hint": "#505060",
    "completion-menu": "noreverse bg:#d0d4e8 #101020",
    "completion-menu.completion.current": "bg:#0040a0 #ffffff bold",
}

# Okabe and Ito's palette (Color Universal Design, 2008): told apart with every common deficiency.
_SAFE: Final = {
    "status": "noreverse bg:#0072b2 #ffffff",
    "status.alert": "noreverse bg:#d55e00 #000000 bold",
    "help-bar": "noreverse bg:#202020 #c0c0c0",
    "header.alert": "noreverse bg:#d55e00 #000000 bold",
    "sidebar.current": "noreverse bg:#0072b2 #ffffff",
    "sidebar.alert": "bold #d55e00",
    "name.0": "bold #56b4e9",
    "name.1": "bold #e69f00",
    "name.2": "bold #f0e442",
    "name.3": "bold #cc79a7",
    "name.4": "bold #56b4e9 underline",
    "name.5": "bold #e69f00 underline",
    "text.mention": "bold #f0e442",
    "divider": "bold #e69f00",
    "alert": "noreverse bold bg:#d55e00 #000000",
    "failed": "bold #d55e00",
    "mark.queued": "#e69f00",
    "mark.delivered": "#56b4e9",
    "mark.read": "bold #56b4e9",
    "mark.failed": "bold #d55e00",
    "prompt.private": "bold #56b4e9",
    "prompt.public": "noreverse bg:#e69f00 #000000",
    "prompt.blocked": "noreverse bold bg:#d55e00 #000000",
    "notice.error": "bold #d55e00",
    "question": "noreverse bold bg:#f0e442 #000000",
}

THEMES: Final = {
    "dark": Style.from_dict({**_BASE, **_DARK, **_QR}),
    "light": Style.from_dict({**_BASE, **_LIGHT, **_QR}),
    "colour-blind": Style.from_dict({**_BASE, **_SAFE, **_QR}),
    "mono": Style.from_dict(_BASE),
}

# What names of terminals with 256 colours hold; others say so in COLORTERM.
_MANY_COLOURS: Final = (
    "256", "direct", "kitty", "alacritty", "foot", "ghostty", "wezterm", "contour", "iterm",
)  # fmt: skip


def starting_theme(environment: Mapping[str, str], wanted: str | None) -> str:
    """The theme to begin with: what was asked for, but no colours where there are none."""
    if colour_depth(environment) is ColorDepth.DEPTH_1_BIT:
        return "mono"
    return wanted if wanted in THEMES else DEFAULT_THEME


def colour_depth(environment: Mapping[str, str]) -> ColorDepth | None:
    """One bit where NO_COLOR (no-color.org) asks for it, else by what TERM and COLORTERM say.

    None leaves it to the toolkit, which takes 256 colours for granted.
    """
    if environment.get("NO_COLOR"):
        return ColorDepth.DEPTH_1_BIT
    term = environment.get("TERM", "")
    chosen = environment.get("PROMPT_TOOLKIT_COLOR_DEPTH") or environment.get("COLORTERM")
    if not term or chosen or any(part in term for part in _MANY_COLOURS):
        return None
    return ColorDepth.DEPTH_1_BIT if term.startswith("vt") else ColorDepth.DEPTH_4_BIT
