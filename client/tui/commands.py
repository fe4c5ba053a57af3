"""What can be typed: the table of commands, and how a line is read."""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from saltline.protocol.names import USER_PATTERN


class Argument(StrEnum):
    """What Tab completes in an argument's place."""

    USER = "user"
    ROOM = "room"
    REQUEST = "request"
    BLOCKED = "blocked"
    COMMAND = "command"
    THEME = "theme"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table. `needed` arguments must be there; the last takes the rest of the line."""

    name: str
    usage: str
    summary: str
    arguments: tuple[Argument, ...] = ()
    needed: int = 0
    more: str = ""


_TABLE: Final = (
    Command(
        "msg",
        "/msg USER TEXT",
        "send a private message, encrypted to USER",
        (Argument.USER, Argument.TEXT),
        2,
        "The conversation on screen stays. What cannot be encrypted is not sent.",
    ),
    Command(
        "query",
        "/query USER",
        "open the private conversation with USER",
        (Argument.USER,),
        1,
        "Nothing is sent until you write something.",
    ),
    Command(
        "join",
        "/join #ROOM",
        "become a member of a public room and open it",
        (Argument.ROOM,),
        1,
        "Rooms are PUBLIC: everyone on the relay can join, and the relay reads along.",
    ),
    Command(
        "leave",
        "/leave [#ROOM]",
        "stop being a member of a room (this one, if none is named)",
        (Argument.ROOM,),
    ),
    Command(
        "rooms",
        "/rooms",
        "list the relay's public rooms",
    ),
    Command(
        "who",
        "/who [#ROOM]",
        "list a room's members",
        (Argument.ROOM,),
    ),
    Command(
        "contacts",
        "/contacts",
        "list the people this profile knows, and how far each is trusted",
    ),
    Command(
        "fingerprint",
        "/fingerprint [USER]",
        "show a key's fingerprint: yours, or USER's",
        (Argument.USER,),
    ),
    Command(
        "qr",
        "/qr",
        "show your own fingerprint as a QR code",
    ),
    Command(
        "verify",
        "/verify USER [NUMBER]",
        "compare the safety number with USER and mark the key verified",
        (Argument.USER, Argument.TEXT),
        1,
        "Without NUMBER: shows it and asks. With NUMBER: marks USER verified only if it is the "
        "safety number. Compare in person or by telephone, never in the chat itself.",
    ),
    Command(
        "trust",
        "/trust USER NUMBER",
        "take a changed key as first seen; NUMBER is the new safety number",
        (Argument.USER, Argument.TEXT),
        2,
        "What you write to USER leaves again afterwards. /verify USER is the stronger way.",
    ),
    Command(
        "accept",
        "/accept USER",
        "answer a stranger's request: from now on USER gets receipts",
        (Argument.REQUEST,),
        1,
    ),
    Command(
        "block",
        "/block USER",
        "take nothing more from USER and send nothing",
        (Argument.USER,),
        1,
        "USER is not told.",
    ),
    Command(
        "unblock",
        "/unblock USER",
        "undo /block",
        (Argument.BLOCKED,),
        1,
    ),
    Command(
        "search",
        "/search [-a] QUERY",
        "find lines here, or with -a in all conversations; F3 walks through them",
        (Argument.TEXT,),
        1,
        "Every word must occur. Newest first. The search happens on this computer.",
    ),
    Command(
        "next",
        "/next",
        "go to the next conversation with unread lines (Alt-A)",
    ),
    Command(
        "retry",
        "/retry [ID]",
        "queue what failed here again: all of it, or the message with this id",
        (Argument.TEXT,),
    ),
    Command(
        "queue",
        "/queue",
        "list what waits on this disk to be sent",
    ),
    Command(
        "reconnect",
        "/reconnect",
        "try the relay now instead of when the waiting time is over",
    ),
    Command(
        "status",
        "/status",
        "show this profile, its relay, and what was said above the prompt lately",
    ),
    Command(
        "theme",
        "/theme NAME",
        "change the colours: dark, light, mono, colour-blind",
        (Argument.THEME,),
        1,
    ),
    Command(
        "help",
        "/help [COMMAND]",
        "explain the keys and commands, or one command",
        (Argument.COMMAND,),
    ),
    Command(
        "quit",
        "/quit",
        "leave Saltline; what is queued stays on disk and leaves at the next start (Ctrl-Q)",
    ),
)
COMMANDS: Final = {command.name: command for command in _TABLE}


@dataclass(frozen=True, slots=True)
class Say:
    """A line that is a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A line that is a command with enough arguments."""

    command: Command
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line that is neither; the sentence says why, and that nothing was sent."""

    sentence: str


def parse(text: str) -> Say | Call | Wrong:
    """Read what was typed. A slash at the beginning is never sent unless it is doubled."""
    if not text.startswith("/"):
        return Say(text)
    if text.startswith("//"):
        return Say(text[1:])
    name = re.split(r"\s", text[1:], maxsplit=1)[0]
    rest = text[1 + len(name) :]
    command = COMMANDS.get(name.lower())
    if command is None:
        return Wrong(_unknown(name))
    arguments = split(rest, max(1, len(command.arguments)))
    if len(arguments) < command.needed:
        return Wrong(f"{command.usage}: something is missing.{nothing_sent(command.name)}")
    if len(arguments) > len(command.arguments):
        return Wrong(f"{command.usage} takes nothing more.")
    if command.name != "msg" and "\n" in rest.strip():
        return Wrong(f"{command.usage} is one line.")
    return Call(command, arguments)


def nothing_sent(name: str) -> str:
    """What to add to a refusal of a command that would have sent a message."""
    return " Nothing was sent." if name == "msg" else ""


def split(text: str, most: int) -> tuple[str, ...]:
    """At most `most` arguments; the last keeps its spaces and newlines."""
    return tuple(text.strip().split(maxsplit=most - 1)) if most > 1 else _whole(text)


def _whole(text: str) -> tuple[str, ...]:
    stripped = text.strip()
    return (stripped,) if stripped else ()


def nearest(name: str) -> str | None:
    """The command that was probably meant."""
    lowered = name.lower()
    begins = [known for known in COMMANDS if lowered and known.startswith(lowered)]
    close = difflib.get_close_matches(lowered, COMMANDS, n=1, cutoff=0.5)
    return next(iter([*begins, *close]), None)


def _unknown(name: str) -> str:
    typed = name if len(name) <= 20 else name[:20] + ".."
    meant = nearest(name[:40])
    hint = f"Did you mean /{meant}?" if meant else "/help lists the commands."
    return f"No command /{typed}: nothing was sent. {hint} (//{typed} would send it as text.)"


# --- Almost a command -----------------------------------------------------------------------------

# Words of this and other messengers that nobody begins a sentence with.
_PRIVATE_WORDS: Final = frozenset({"msg", "privmsg", "pm", "dm"})
# Words that mean a person only if a name that we know follows.
_FOREIGN_WORDS: Final = _PRIVATE_WORDS | {"m", "q", "w", "tell", "whisper", "notice", "accept"}
_TAKES_USER: Final = _FOREIGN_WORDS | {
    name for name, command in COMMANDS.items() if command.arguments[:1] == (Argument.USER,)
}
_PRONOUNS: Final = frozenset({"me", "us", "you", "him", "her", "them", "it"})


def looks_private(text: str, known_users: Collection[str]) -> bool:
    """Whether a line for a public room was probably meant for one person, or for the client.

    True for `msg bob …`, ` /msg …`, and `verify bob` where bob is known; not for `help me`.
    """
    words = _words(text)
    if not words:
        return False
    first = words[0].lower()
    if _slashed(text) and (first in COMMANDS or first in _TAKES_USER):
        return True
    if len(words) < 2:
        return False
    user = words[1].lower().removeprefix("@").rstrip(":,")
    if USER_PATTERN.fullmatch(user) is None:
        return False
    if user in known_users:
        return first in _TAKES_USER
    return first in _PRIVATE_WORDS and len(words) > 2 and user not in _PRONOUNS


def looks_like_command(text: str, known_users: Collection[str]) -> bool:
    """Whether a line for one person was probably meant for the client.

    Only what is hardly ever said: `msg bob …`, `query @bob`, `join #dev`, ` /rooms`.
    """
    words = _words(text)
    first = words[0].lower() if words else ""
    if _slashed(text):
        return first in COMMANDS
    if len(words) < 2:
        return False
    second = words[1].lower()
    user = second.removeprefix("@")
    if first == "join":
        return second.startswith("#") and len(words) == 2
    if USER_PATTERN.fullmatch(user) is None:
        return False
    if first == "query":
        return len(words) == 2 and (second != user or user in known_users)
    return first == "msg" and len(words) > 2 and user not in _PRONOUNS


def _words(text: str) -> list[str]:
    return text.lstrip().lstrip("/\\.: ").split(maxsplit=2)


def _slashed(text: str) -> bool:
    stripped = text.lstrip()
    return stripped.startswith(("/", "\\")) and text != stripped
