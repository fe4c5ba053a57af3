"""The rows around the timeline: the status bar, a conversation's header, the help bar."""

from typing import Final

from saltline.client.model import ConnectionState, ContactInfo, Trust
from saltline.client.tui.format import Row
from saltline.client.tui.state import ViewState
from saltline.client.tui.wrap import fit, padded, shown, text_width, wrap
from saltline.protocol.names import DEFAULT_PORT

TRUST_MARKS: Final = {
    Trust.UNKNOWN: "~",
    Trust.FIRST_SEEN: "~",
    Trust.VERIFIED: "=",
    Trust.CHANGED: "!",
    Trust.BLOCKED: "-",
}
TRUST_WORDS: Final = {
    Trust.UNKNOWN: "no key yet",
    Trust.FIRST_SEEN: "first seen",
    Trust.VERIFIED: "verified",
    Trust.CHANGED: "KEY CHANGED",
    Trust.BLOCKED: "blocked",
}
HELP_BAR: Final = " Alt-Enter newline   F1 help   Alt-A next unread   F3 find   Ctrl-Q quit"
HELP_BAR_NARROW: Final = " F1 help  F4 list  Alt-A unread"
HEADER_ROWS_MAX: Final = 3
REFUSED_HINT: Final = "not tried again by itself: /reconnect tries again"


def short_fingerprint(fingerprint: str) -> str:
    """The first eight digits of a fingerprint, in groups of four."""
    digits = shown(fingerprint, newlines=False).removeprefix("sha256:").replace(" ", "")
    return f"{digits[:4]} {digits[4:8]} ..." if digits else ""


# --- Status bar -----------------------------------------------------------------------------------


def connection_words(state: ViewState, now: float) -> str:
    """The link's state, with what it waits for."""
    detail = shown(state.connection.detail, newlines=False)
    match state.connection.state:
        case ConnectionState.ONLINE:
            trip = state.status.round_trip_ms
            return "online" if trip is None else f"online {trip} ms"
        case ConnectionState.CONNECTING:
            return "connecting"
        case ConnectionState.REFUSED:
            words = f"refused, {REFUSED_HINT}"
            return f"{words}: {detail}" if detail else words
        case _:
            words = "offline"
            if state.retry_at is not None:
                words += f", next try in {max(0, round(state.retry_at - now))} s"
            return f"{words}: {detail}" if detail else words


def refused_words(detail: str) -> str:
    """Why the relay is not tried again, as a notice."""
    why = detail or "The relay refuses this client."
    if "/reconnect" in why:
        return why
    return f"{why.rstrip('.')}. Nothing is tried by itself: /reconnect tries again."


def status_rows(state: ViewState, width: int, now: float) -> list[Row]:
    """The top row: who, where, how the link is, what is queued, what is unread."""
    status = state.status
    connection = connection_words(state, now)
    own = shown(status.username, newlines=False)
    up = state.connection.state in (ConnectionState.ONLINE, ConnectionState.CONNECTING)
    queued = f"queue {status.queued}"
    unread = f"{state.unread_total()} unread"
    if width >= 60:
        relay = shown(status.relay, newlines=False).removesuffix(f":{DEFAULT_PORT}")
        who = f"{own}@{relay}"
        tls = "  TLS 1.3" if state.connection.state is ConnectionState.ONLINE else ""
        left, right = f" saltline  {who}   {connection}{tls}", f"{queued}   {unread} "
        if text_width(left) + text_width(right) >= width:
            left = f" {own}   {connection}"
    else:
        left, right = f" {own} {_brief(state, now)}", _unread_list(state, width)
    left_columns = max(0, width - text_width(right) - 1)
    text = padded(left, left_columns) + " " + right
    return [[("class:status" if up else "class:status.alert", fit(text, width))]]


def _brief(state: ViewState, now: float) -> str:
    match state.connection.state:
        case ConnectionState.OFFLINE if state.retry_at is not None:
            return f"offline {max(0, round(state.retry_at - now))}s"
        case ConnectionState.REFUSED:
            return "refused: /reconnect"
        case other:
            return str(other)


def _unread_list(state: ViewState, width: int) -> str:
    """Where there is no sidebar: the conversations with unread lines, as many as fit."""
    queued = f"queue {state.status.queued}"
    room = width // 2 - len(queued)
    parts: list[str] = []
    waiting = state.unread_elsewhere()
    for summary in waiting:
        name = shown(summary.name, newlines=False)
        count = f" {summary.unread}" if summary.unread else ""
        failed = " x" if state.has_failed(summary.name) else ""
        part = f"{name}{failed}{count}{'@' if summary.mentions else ''}"
        if sum(map(len, parts)) + len(parts) * 2 + len(part) > room:
            break
        parts.append(part)
    left_out = len(waiting) - len(parts)
    if left_out:
        parts.append(f"+{left_out}" if parts else f"{state.unread_total()} unread")
    return "  ".join([queued, *parts]) + " "


# --- Header ---------------------------------------------------------------------------------------


def header_rows(state: ViewState, width: int) -> list[Row]:
    """What the conversation is, how it is protected and what one has to know now."""
    name = state.current
    if not name:
        return [[("class:header", padded("No conversation", width))]]
    if name.startswith("#"):
        text, style = _room_header(state, name), "class:header"
    else:
        contact = state.contact(name[1:])
        text, style = _person_header(state, contact), "class:header"
        if contact.trust is Trust.CHANGED:
            style = "class:header.alert"
    spans = wrap(text, max(1, width))[:HEADER_ROWS_MAX]
    return [[(style, padded(text[start:end], width))] for start, end in spans]


def _room_header(state: ViewState, room: str) -> str:
    name = shown(room, newlines=False)
    if not state.summary(room).joined:
        return f"{name}  PUBLIC  You are not a member: /join {name}"
    return f"{name}  PUBLIC: everyone and the relay can read this"


def _person_header(state: ViewState, contact: ContactInfo) -> str:
    name = shown(contact.username, newlines=False)
    words = f"@{name}  encrypted  [{TRUST_WORDS[contact.trust]}]"
    fingerprint = short_fingerprint(contact.fingerprint)
    match contact.trust:
        case Trust.CHANGED:
            new = short_fingerprint(contact.changed_fingerprint)
            return (
                f"{words}  {fingerprint} -> {new}  Nothing is sent to {name} until you decide. "
                f"Compare in person: /verify {name}"
            )
        case Trust.BLOCKED:
            return f"{words}  /unblock {name} to write and receive again"
        case _ if contact.request:
            return (
                f"{words}  {fingerprint}  REQUEST from a stranger, who gets no receipt: "
                f"/accept {name} or /block {name}"
            )
        case _:
            online = state.presence.get(contact.username)
            presence = "" if online is None else ("  online" if online else "  offline")
            return f"{words}  {fingerprint}{presence}".rstrip()


# --- Help bar -------------------------------------------------------------------------------------


def help_rows(width: int) -> list[Row]:
    """The bottom row: the keys that one needs first."""
    text = HELP_BAR if width >= len(HELP_BAR) else HELP_BAR_NARROW
    return [[("class:help-bar", padded(text, width))]]
