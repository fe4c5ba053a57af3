"""Names of users, rooms, conversations and relays: what is allowed, and what looks alike."""

import re
from dataclasses import dataclass
from typing import Final

USER_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{1,31}")
ROOM_PATTERN: Final = re.compile(r"#[a-z0-9][a-z0-9_-]{1,31}")
LOBBY: Final = "#lobby"
DEFAULT_PORT: Final = 7443

# Names that a person could take for the relay itself or for everyone.
RESERVED_NAMES: Final = frozenset(
    "abuse admin administrator all bot channel everyone here help hostmaster info lobby mod "
    "moderator nobody noreply null operator owner postmaster relay root saltline security server "
    "service staff support sysop system team undefined webmaster you me".split()
)


class BadName(ValueError):
    """A name is not of the allowed form; the text is the sentence that a person reads."""


def check_user(name: str) -> str:
    """Return `name` if it is a user's name, else raise BadName."""
    if USER_PATTERN.fullmatch(name) is None:
        raise BadName(
            "A user name has 2 to 32 characters: a-z, 0-9, _ and -, a letter or digit first."
        )
    return name


def check_room(name: str) -> str:
    """Return `name` if it is a room's name, else raise BadName."""
    if ROOM_PATTERN.fullmatch(name) is None:
        raise BadName(
            "A room is # and 2 to 32 characters: a-z, 0-9, _ and -, a letter or digit first."
        )
    return name


def skeleton(name: str) -> str:
    """What `name` looks like: two names with one skeleton are too alike to tell apart.

    Digits and letters fold before pairs, so that "rn" and "m", "vv" and "w" meet whatever
    stands between their parts.
    """
    folded = name.replace("_", "").replace("-", "").replace("0", "o").replace("1", "l")
    return folded.replace("rn", "m").replace("vv", "w")


_RESERVED_SKELETONS: Final = frozenset(skeleton(name) for name in RESERVED_NAMES)


def is_reserved(name: str) -> bool:
    """Whether `name` is, or looks like, a reserved name."""
    return skeleton(name) in _RESERVED_SKELETONS


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where a message belongs: "@user" or "#room"."""

    name: str

    @property
    def is_room(self) -> bool:
        """Whether this is a public room."""
        return self.name.startswith("#")

    @property
    def user(self) -> str:
        """The other person's name; only for a private conversation."""
        if self.is_room:
            raise ValueError("a room is not a user")
        return self.name[1:]


def parse_conversation(text: str) -> Conversation:
    """Read "#room", "@user" or "user". Raises BadName."""
    if text.startswith("#"):
        return Conversation(check_room(text))
    return Conversation("@" + check_user(text.removeprefix("@")))


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """A relay's host (a name, IPv4 or IPv6 address without brackets) and TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


_HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9._:%-]{1,253}")


def parse_relay_address(text: str, default_port: int = DEFAULT_PORT) -> RelayAddress:
    """Read HOST, HOST:PORT, [IPv6] or [IPv6]:PORT. Raises BadName."""
    host, port_text = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadName(f"Not a relay's address: {text!r}. Write HOST:PORT or [IPv6]:PORT.")
        port_text = rest[1:]
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    if _HOST_PATTERN.fullmatch(host) is None:
        raise BadName(f"Not a relay's address: {text!r}. Write HOST:PORT.")
    if not port_text:
        return RelayAddress(host, default_port)
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
        raise BadName(f"Not a port: {port_text!r}. A port is a number from 1 to 65535.")
    return RelayAddress(host, int(port_text))
