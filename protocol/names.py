"""Names of users, rooms, conversations and relays: what is allowed, and what looks alike."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
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
    stands between their parts. A w is taken apart first: "vw", "wv" and "vvv" are one.
    """
    folded = name.replace("_", "").replace("-", "").replace("0", "o").replace("1", "l")
    return folded.replace("rn", "m").replace("w", "vv").replace("vv", "w")


def _loose_skeleton(name: str) -> str:
    """The skeleton for a name with a 1 in it, which may stand for an i as well as for an l."""
    return skeleton(name.replace("i", "l"))


_RESERVED_SKELETONS: Final = frozenset(skeleton(name) for name in RESERVED_NAMES)
_RESERVED_LOOSELY: Final = frozenset(_loose_skeleton(name) for name in RESERVED_NAMES)


def is_reserved(name: str) -> bool:
    """Whether `name` is, or looks like, a reserved name ("adm1n"; but "ali" is not "all")."""
    if "1" in name and _loose_skeleton(name) in _RESERVED_LOOSELY:
        return True
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


_HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    # A scope, after %, may be anything else; brackets in it could not be written back.
    return host.isascii() and host.isprintable() and not set(host) & set("[]")


def parse_relay_address(text: str, default_port: int = DEFAULT_PORT) -> RelayAddress:
    """Read HOST, HOST:PORT, IPv6, [IPv6] or [IPv6]:PORT. Raises BadName."""
    bracketed = re.fullmatch(r"\[([^]]*)\](?::(.*))?", text, re.DOTALL)
    port_text: str | None = None
    if bracketed is not None:
        host, port_text = bracketed.groups()
    elif text.count(":") == 1:
        host, port_text = text.split(":")
    else:
        host = text
    if bracketed is not None or ":" in host:
        if not _is_ipv6(host):
            raise BadName(f"Not a relay's address: {text[:80]!r}. Write HOST:PORT or [IPv6]:PORT.")
    elif _HOST_PATTERN.fullmatch(host) is None:
        raise BadName(f"Not a relay's address: {text[:80]!r}. Write HOST:PORT or [IPv6]:PORT.")
    if port_text is None:
        return RelayAddress(host, default_port)
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
        raise BadName(f"Not a port: {port_text[:80]!r}. A port is a number from 1 to 65535.")
    return RelayAddress(host, int(port_text))
