"""The relay's configuration: a TOML file, and the flags that override it.

    listen = "0.0.0.0:7443"
    data = "/var/lib/saltline"
    certificate = "fullchain.pem"      # with `key`; neither: the relay makes its own
    key = "privkey.pem"
    registration = "open"              # or "invite"
    log_level = "info"                 # debug, info, warning, error
    workers = 1                        # I/O threads
    handshake_threads = 2
    flush_interval_ms = 2.9            # a busy relay reads at this interval; 0: at once

    [limits]                           # the fields of saltline.server.settings.Settings
    connections_max = 20000

    [deadlines]                        # the fields of Deadlines, in seconds
    frame_s = 30.0

Relative paths are relative to the file. Everything has a default; nothing unknown is taken.
"""

import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import platformdirs

from saltline.protocol.limits import (
    HANDSHAKE_DEADLINE_S,
    OUTGOING_QUEUE_MAX_BYTES,
    ROOM_LIST_MAX,
)
from saltline.protocol.names import DEFAULT_PORT, BadName, RelayAddress, parse_relay_address
from saltline.protocol.text import sanitise
from saltline.server.errors import UsageError, why
from saltline.server.settings import Registration, Settings

CONFIG_MAX_BYTES: Final = 1024 * 1024
THREADS_MAX: Final = 64
ANY_ADDRESS: Final = ("0.0.0.0", "::")
FLUSH_INTERVAL_MAX_MS: Final = 1000.0
# Any size or time that makes sense lies below; SQLite and the wire end at 2^63 - 1.
_NUMBER_MAX: Final = 2**53
# The system's waits end at 24 days: the relay would die of a longer one, or hang when it stops.
_DEADLINE_MAX_S: Final = 86_400
# Who is in more rooms than a welcome may name could not log in again; and who has more in its
# window than fits into an output queue is cut off before it has read that.
_MOST: Final = {
    "rooms_per_user": ROOM_LIST_MAX,
    "delivery_window_bytes": OUTGOING_QUEUE_MAX_BYTES,
}
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Times of the edge, in seconds; totals, whatever arrives meanwhile."""

    handshake_s: float = HANDSHAKE_DEADLINE_S
    frame_s: float = 30.0  # from a frame's first byte to its last
    close_s: float = 5.0  # for what was sent before a connection is closed, to leave
    stop_s: float = 10.0  # for what was acknowledged, to leave, when the relay stops
    check_every_s: float = 1.0


def default_data_folder() -> Path:
    """Where a relay keeps its data unless told otherwise."""
    return platformdirs.user_data_path("saltline-server", appauthor=False)


@dataclass(frozen=True, slots=True)
class Config:
    """What a relay runs on."""

    listen: RelayAddress = RelayAddress("0.0.0.0", DEFAULT_PORT)  # port 0: any free one
    data: Path = field(default_factory=default_data_folder)
    certificate: Path | None = None
    key: Path | None = None
    settings: Settings = Settings()
    log_level: int = logging.INFO
    workers: int = 1
    handshake_threads: int = 2
    flush_interval_ms: float = 2.9
    deadlines: Deadlines = Deadlines()


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line may override; None where it is silent."""

    listen: str | None = None
    data: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def parse_listen(text: str) -> RelayAddress:
    """As a relay's address, but port 0 means any free port. Raises BadName."""
    free_port = re.fullmatch(r"(\[[^]]*\]|[^:]*):0+", text)
    if free_port is None:
        return parse_relay_address(text)
    return RelayAddress(parse_relay_address(free_port[1]).host, 0)


def known_host(listen: RelayAddress) -> str:
    """The host that the relay listens on; "" where it listens on every address."""
    return "" if listen.host in ANY_ADDRESS else listen.host


def load_config(file: Path | None, flags: Flags) -> Config:
    """Read the file, if there is one, and put the flags over it. Raises UsageError."""
    table = _Table(_read(file), str(file)) if file is not None else _Table({}, "")
    folder = file.parent if file is not None else Path()
    default = Config()

    def path_of(name: str, flag: Path | None) -> Path | None:
        text = table.take_text(name)
        if flag is not None or text is None:
            return flag
        try:
            return folder / Path(text).expanduser()
        except RuntimeError:  # ~name, of a name that has no home
            raise UsageError(f"`{name}` in {file} begins with an unknown user's home.") from None

    listen_text = table.take_text("listen")
    listen = default.listen
    if flags.listen is not None:
        listen = _listen(flags.listen, "--listen")
    elif listen_text is not None:
        listen = _listen(listen_text, f"`listen` in {file}")
    config = Config(
        listen=listen,
        data=(path_of("data", flags.data) or default.data).absolute(),
        certificate=path_of("certificate", flags.certificate),
        key=path_of("key", flags.key),
        log_level=table.take_choice("log_level", _LEVELS, default.log_level),
        workers=table.take_int("workers", default.workers, 1, THREADS_MAX),
        handshake_threads=table.take_int(
            "handshake_threads", default.handshake_threads, 1, THREADS_MAX
        ),
        flush_interval_ms=table.take_float(
            "flush_interval_ms", default.flush_interval_ms, 0.0, FLUSH_INTERVAL_MAX_MS
        ),
        settings=_settings(table),
        deadlines=Deadlines(**_numbers(table, "deadlines", Deadlines(), _DEADLINE_MAX_S)),
    )
    table.finish()
    if (config.certificate is None) != (config.key is None):
        raise UsageError(
            "A certificate and its key go together: give --cert and --key, or neither."
        )
    return config


def _listen(text: str, where: str) -> RelayAddress:
    try:
        return parse_listen(text)
    except BadName as error:
        reason = str(error).replace("to 65535.", "to 65535, or 0 for any free one.")
        raise UsageError(f"{where} is wrong. {reason}") from None


def _settings(table: "_Table") -> Settings:
    registrations = {choice.value: choice for choice in Registration}
    registration = table.take_choice("registration", registrations, Settings().registration)
    return replace(Settings(), registration=registration, **_numbers(table, "limits", Settings()))


def _numbers(
    table: "_Table", name: str, default: Settings | Deadlines, float_max: float = _NUMBER_MAX
) -> dict[str, Any]:
    """The numbers of a table, for the fields of a dataclass that are numbers."""
    numbers = table.take_table(name)
    values: dict[str, Any] = {}
    for entry in fields(default):
        usual = getattr(default, entry.name)
        if isinstance(usual, float):
            values[entry.name] = numbers.take_float(entry.name, usual, 0.001, float_max)
        elif isinstance(usual, int):
            most = _MOST.get(entry.name, _NUMBER_MAX)
            values[entry.name] = numbers.take_int(entry.name, usual, 1, most)
    numbers.finish()
    return values


def _read(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb", opener=_open_at_once) as opened:
            data = opened.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The configuration {file} cannot be read: {why(error)}.") from None
    if not data:
        # What is left of a file where writing it failed. Its defaults would open registration.
        raise UsageError(f"The configuration {file} is empty. Without --config, defaults are used.")
    if len(data) > CONFIG_MAX_BYTES:
        raise UsageError(f"The configuration {file} is too large to be one.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, RecursionError):
        raise UsageError(f"The configuration {file} is not a text in UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        reason = sanitise(str(error), newlines=False)
        raise UsageError(f"The configuration {file} is not TOML: {reason}.") from None
    except ValueError:  # Python's bound on the digits of a number
        raise UsageError(f"The configuration {file} has a number with too many digits.") from None


def _open_at_once(path: str, flags: int) -> int:
    """A pipe without a writer is empty: nothing would stop a relay that waits for one."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


Choice = TypeVar("Choice")


class _Table:
    """A TOML table whose entries are taken one by one; what is left over is unknown."""

    def __init__(self, values: Mapping[str, Any], file: str, prefix: str = "") -> None:
        self._values = dict(values)
        self._file = file
        self._prefix = prefix

    def _refusal(self, name: str, expected: str) -> UsageError:
        shown = sanitise(self._prefix + name, newlines=False)
        return UsageError(f"`{shown}` in {self._file} must be {expected}.")

    def take_table(self, name: str) -> "_Table":
        value = self._values.pop(name, {})
        if not isinstance(value, dict):
            raise self._refusal(name, "a table")
        return _Table(value, self._file, f"{self._prefix}{name}.")

    def take_text(self, name: str) -> str | None:
        value = self._values.pop(name, None)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            raise self._refusal(name, "a text")
        return value

    def take_choice(self, name: str, choices: Mapping[str, Choice], usual: Choice) -> Choice:
        value = self._values.pop(name, None)
        if value is None:
            return usual
        if not isinstance(value, str) or value not in choices:
            raise self._refusal(name, "one of " + ", ".join(f'"{choice}"' for choice in choices))
        return choices[value]

    def take_int(self, name: str, usual: int, least: int, most: int) -> int:
        value = self._values.pop(name, usual)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._refusal(name, f"a whole number from {least} to {most}")
        return value

    def take_float(self, name: str, usual: float, least: float, most: float) -> float:
        value = self._values.pop(name, usual)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:  # also refuses nan
            raise self._refusal(name, f"a number from {least:g} to {most:g}")
        return float(value)

    def finish(self) -> None:
        """Raises UsageError if something was not taken."""
        for name in self._values:
            shown = sanitise(self._prefix + name, newlines=False)
            raise UsageError(f"`{shown}` in {self._file} is not a setting of the relay.")
