"""What commands answer with: rows of text for the pane over the timeline."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Final

from saltline.client.model import ContactInfo, Delivery, Line, Messenger, Trust
from saltline.client.tui.commands import COMMANDS, Command
from saltline.client.tui.format import MARKS, Row
from saltline.client.tui.state import Pane, PaneRow, ViewState
from saltline.client.tui.statusbar import TRUST_MARKS, TRUST_WORDS, connection_words
from saltline.client.tui.wrap import counted, fit, shown, wrap
from saltline.protocol.names import LOBBY
from saltline.protocol.to_client import Member, RoomInfo

STRONG: Final = "class:pane.strong"
USAGE_COLUMNS: Final = 24
SNIPPET_CHARS: Final = 400

KEYS: Final = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "new line in the message"),
    ("Tab", "complete commands, people, rooms"),
    ("Up, Down", "what you typed here before"),
    ("PgUp, PgDn", "scroll; Home and End too while the input is empty"),
    ("Alt-Up, Alt-Down", "the conversation above, below; Alt-1 to Alt-9 by place"),
    ("Alt-A", "next conversation with unread lines"),
    ("Alt-G", "go to a conversation by name"),
    ("F3", "find here; again: the next older line that was found"),
    ("F2", "mouse on and off (off, so that text can be selected)"),
    ("F4", "conversation list on and off"),
    ("Ctrl-L", "draw the screen again"),
    ("Ctrl-Z", "suspend; fg comes back"),
    ("Esc", "close this, or forget what was said above the prompt"),
    ("Ctrl-C", "clear the input"),
    ("Ctrl-Q", "quit"),
)
MARK_WORDS: Final = (
    (".", "queued on this disk; leaves by itself"),
    (">", "on the relay's disk"),
    ("+", "stored by your contact's device, which said so inside the encryption"),
    ("++", "read"),
    ("x", "not sent; the reason stands below, /retry queues it again"),
    ("name x", "something there was not sent since you looked"),
    ("= name", "verified: you compared safety numbers"),
    ("~ name", "first seen: nobody compared anything yet"),
    ("! name", "the key changed: nothing is sent until you decide"),
    ("- name", "blocked by you"),
    ("? name", "a stranger's request: /accept or /block"),
)


def pane_rows(pane: Pane, width: int, height: int) -> list[Row]:
    """The rows to draw, exactly `height`: a title, the visible part, how to go on."""
    rows: list[Row] = []
    for each in pane.rows:
        # Safe already where a row was made with care; here for the day when one was not.
        safe = replace(each, text=shown(each.text))
        if safe.keep_whole:
            rows.append([("", " "), (safe.style, fit(safe.text, width - 1, ""))])
        else:
            rows += _wrapped(safe, max(1, width - 2))
    room = max(1, height - 1)
    pane.room = room
    pane.top = max(0, min(pane.top, len(rows) - room))
    below = len(rows) - pane.top - room
    title = f" {shown(pane.title, newlines=False)}: Esc closes" + (
        f", PgDn {below} more rows" if below > 0 else ""
    )
    visible = rows[pane.top : pane.top + room]
    return [
        [("class:pane.title", fit(title, width))],
        *visible,
        *([[]] * (height - 1 - len(visible))),
    ]


def _wrapped(row: PaneRow, width: int) -> list[Row]:
    left, right, hang = row.text[: row.hang], row.text[row.hang :], row.hang
    if hang > width // 2:  # too little would stay for the right column
        hang = 4
        above: list[Row] = [[(row.style, " " + left.rstrip())]]
        return [*above, *_hung(right, row.style, width - hang, " " * hang)]
    rows = _hung(right, row.style, width - hang, " " * hang)
    rows[0] = [(row.style, " " + left), (row.style, rows[0][0][1][1 + hang :])]
    return rows


def _hung(text: str, style: str, width: int, blank: str) -> list[Row]:
    return [[(style, f" {blank}{text[a:b]}")] for a, b in wrap(text, max(1, width))]


# --- Help -----------------------------------------------------------------------------------------


def help_pane() -> Pane:
    """Everything that can be typed and pressed."""
    rows = [PaneRow("Commands", STRONG)]
    rows += [_two(command.usage, command.summary) for command in COMMANDS.values()]
    rows.append(_two("//text", "send text that begins with one slash"))
    rows += [PaneRow(""), PaneRow("Keys", STRONG), *(_two(key, text) for key, text in KEYS)]
    rows += [PaneRow(""), PaneRow("Marks", STRONG), *(_two(m, text) for m, text in MARK_WORDS)]
    return Pane("Help", rows)


def command_pane(command: Command) -> Pane:
    """One command, explained."""
    rows = [PaneRow(command.usage, STRONG), PaneRow(f"{command.summary[0].upper()}"), PaneRow("")]
    rows[1] = PaneRow(f"{command.summary[0].upper()}{command.summary[1:]}.")
    if command.more:
        rows.append(PaneRow(command.more))
    return Pane(f"Help for /{command.name}", rows)


def _two(left: str, right: str) -> PaneRow:
    return PaneRow(f"  {left:<{USAGE_COLUMNS}} {right}", hang=USAGE_COLUMNS + 3)


def welcome_rows(own: str, width: int, height: int) -> list[Row]:
    """What somebody sees who has no conversation yet: what to do first."""
    texts = [
        f"Welcome, {shown(own, newlines=False)}.",
        "",
        "/query NAME      begins a private conversation. It is encrypted on this",
        "                 computer; the relay cannot read it.",
        f"/join {LOBBY}     opens the public room. Everyone on the relay reads it.",
        "/fingerprint     shows your key; /verify NAME compares it with a friend's.",
        "",
        "F1 explains everything else.",
    ]
    return _lowest(texts, width, height)


def empty_rows(name: str, width: int, height: int) -> list[Row]:
    """What stands in a conversation without lines."""
    safe = shown(name, newlines=False)
    if name.startswith("#"):
        texts = [
            f"{safe} is PUBLIC: everyone on this relay can read what is written here.",
            "Nothing has been said since you came. Type a line and press Enter.",
        ]
    else:
        texts = [
            f"Nothing between you and {safe[1:]} yet.",
            "What you write here is encrypted on this computer, for this person only.",
            f"Type a line and press Enter. /verify {safe[1:]} compares keys.",
        ]
    return _lowest(texts, width, height)


def _lowest(texts: Sequence[str], width: int, height: int) -> list[Row]:
    columns = max(1, width - 4)
    rows: list[Row] = [
        [("class:hint", "  " + text[start:end])]
        for text in texts
        for start, end in wrap(text, columns)
    ]
    return [*([[]] * max(0, height - 1 - len(rows))), *rows, []][:height]


# --- People ---------------------------------------------------------------------------------------


def grouped(text: str, size: int = 4, per_row: int = 8) -> list[str]:
    """Hexadecimal or decimal digits in groups, for reading aloud."""
    digits = shown(text, newlines=False).replace(" ", "")
    groups = [digits[at : at + size] for at in range(0, len(digits), size)]
    return [" ".join(groups[at : at + per_row]) for at in range(0, len(groups), per_row)]


def fingerprint_pane(contact: ContactInfo, *, own: bool) -> Pane:
    """A key's fingerprint."""
    name = shown(contact.username, newlines=False)
    whose = "Your" if own else f"{name}'s"
    if not contact.fingerprint:
        return Pane(f"{whose} fingerprint", [PaneRow(f"No key of {name} is known yet.")])
    rows = [PaneRow(f"{whose} key:"), PaneRow("")]
    rows += [PaneRow(f"  {row}", STRONG) for row in grouped(contact.fingerprint)]
    if own:
        text = "/qr shows it as a QR code. For comparing with one person: /verify NAME."
    else:
        text = f"[{TRUST_WORDS[contact.trust]}]  devices: {contact.devices}. /verify {name}"
    pane = Pane(f"{whose} fingerprint", [*rows, PaneRow(""), PaneRow(text)])
    if not own:
        pane.contact, pane.renew = contact, partial(fingerprint_pane, own=False)
    return pane


def verification_pane(contact: ContactInfo, own: str) -> Pane:
    """The safety number of two people, and how to compare it."""
    name = shown(contact.username, newlines=False)
    rows: list[PaneRow] = []
    if contact.trust is Trust.CHANGED:
        rows += [
            PaneRow(f"{name}'s key changed. Nothing has been sent since.", "class:alert"),
            *(PaneRow(f"  was {digits}") for digits in grouped(contact.fingerprint)),
            *(PaneRow(f"  now {digits}") for digits in grouped(contact.changed_fingerprint)),
            PaneRow("A new computer does this, and so does somebody in the middle."),
            PaneRow("The number below is of the new key."),
            PaneRow(""),
        ]
    rows.append(PaneRow(f"Safety number of {own} and {name}:"))
    rows.append(PaneRow(""))
    rows += [PaneRow(f"    {row}", STRONG) for row in grouped(contact.safety_number, 5, 4)]
    rows += [
        PaneRow(""),
        PaneRow(
            f"Ask {name} in person or by telephone to type /verify {own} and read the number "
            "aloud. Never compare it in the chat itself: whoever sits in the middle would answer."
        ),
    ]
    return Pane(f"Verify {name}", rows, contact=contact, renew=partial(verification_pane, own=own))


def contacts_pane(contacts: Iterable[ContactInfo]) -> Pane:
    """The people of this profile."""
    rows = [
        PaneRow(
            f"{'?' if each.request else TRUST_MARKS[each.trust]} "
            f"{shown(each.username, newlines=False):<20} "
            f"{'request' if each.request else TRUST_WORDS[each.trust]:<12} "
            + (grouped(each.fingerprint) or [""])[0][:19]
        )
        for each in sorted(contacts, key=lambda each: each.username)
    ]
    return Pane("Contacts", rows or [PaneRow("Nobody yet. /query NAME begins a conversation.")])


def members_pane(room: str, members: Sequence[Member], trust: dict[str, Trust]) -> Pane:
    """A room's members, those who are online first."""
    rows = []
    for each in sorted(members, key=lambda each: (not each.online, each.username)):
        mark = TRUST_MARKS[trust[each.username]] if each.username in trust else " "
        name = shown(each.username, newlines=False)
        rows.append(PaneRow(f"{mark} {name:<20} {'online' if each.online else 'offline'}"))
    return Pane(f"{counted(len(members), 'member')} of {shown(room, newlines=False)}", rows)


def rooms_pane(rooms: Sequence[RoomInfo], mine: set[str]) -> Pane:
    """The relay's rooms."""
    found = [
        PaneRow(
            f"{'*' if each.room in mine else ' '} {shown(each.room, newlines=False):<24} "
            f"{each.members:>5} members  {each.online:>5} online"
        )
        for each in rooms
    ]
    found += [PaneRow(""), PaneRow("* you are a member. /join #ROOM; a new name makes a new room.")]
    return Pane("Public rooms", found)


# --- Lines ----------------------------------------------------------------------------------------


def hits_pane(query: str, hits: Sequence[Line], zone: tzinfo | None) -> Pane:
    """What a search found."""
    rows = [PaneRow(_one_line(line, zone)) for line in hits]
    title = f"{counted(len(hits), 'line')} with {shown(query, newlines=False)!r}"
    return Pane(f"{title}, F3 goes there", rows)


def queue_pane(lines: Sequence[Line], zone: tzinfo | None) -> Pane:
    """What has not left, or failed."""
    rows = [
        PaneRow(f"{MARKS[line.delivery][0]} {line.short_id} {_one_line(line, zone)}")
        for line in lines
    ]
    rows += [PaneRow(""), PaneRow(". waits and leaves by itself   x failed: /retry in its place")]
    return Pane("Not sent yet", rows)


def waiting_lines(messenger: Messenger, names: Iterable[str], per_name: int) -> list[Line]:
    """Own lines that are queued or failed, among the last `per_name` of each conversation."""
    return [
        line
        for name in names
        for line in messenger.page(name, limit=per_name)
        if line.mine and line.delivery in (Delivery.QUEUED, Delivery.FAILED)
    ]


def _one_line(line: Line, zone: tzinfo | None) -> str:
    moment = datetime.fromtimestamp(line.received_ms / 1000, UTC).astimezone(zone)
    where, author = shown(line.conversation, newlines=False), shown(line.author, newlines=False)
    body = " ".join(shown(line.body[:SNIPPET_CHARS]).split())
    return f"{moment:%d %b %H:%M} {where} {author}: {body}"


# --- Status ---------------------------------------------------------------------------------------


def status_pane(state: ViewState, now: float) -> Pane:
    """This profile, its relay, and the last notices."""
    status = state.status
    pairs = (
        ("you", shown(status.username, newlines=False)),
        ("your key", (grouped(status.fingerprint) or [""])[0]),
        ("relay", shown(status.relay, newlines=False)),
        ("relay's log key", shown(status.relay_id, newlines=False)),
        ("certificate", shown(status.pin, newlines=False) or "vouched for by an authority"),
        ("connection", connection_words(state, now)),
        ("queued here", str(status.queued)),
        ("unread", str(status.unread)),
    )
    rows = [PaneRow(f"{name:<16} {value}") for name, value in pairs]
    if state.notice_log:
        rows += [PaneRow(""), PaneRow("Said lately", STRONG)]
        rows += [PaneRow(notice.text) for notice in state.notice_log]
    return Pane("Status", rows)
