"""`saltline-server`: the relay's program, for its admin.

Exit codes: 0 done, 1 usage (the sentence says what to change), 2 internal or the disk.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from saltline import __version__
from saltline.protocol.names import BadName, check_user, parse_relay_address
from saltline.protocol.text import sanitise
from saltline.server import administration as asks
from saltline.server.admin import ask
from saltline.server.check import check_relay
from saltline.server.config import Config, Flags, load_config
from saltline.server.errors import RelayError, UsageError, where
from saltline.server.health import ask_health
from saltline.server.process import EXIT_DONE, EXIT_INTERNAL, EXIT_USAGE, serve

PROGRAM: Final = "saltline-server"
JSON_VERSION: Final = 1
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_EXPIRY_MIN_S: Final = 60
_EXPIRY_MAX_S: Final = 366 * 86_400

Command = TypeVar("Command", bound=Callable[..., Any])
# What cannot be read is said by who reads it, in words that name what it is for.
_FILE: Final = click.Path(path_type=Path, readable=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program's entry point: no traceback reaches the admin."""
    sys.exit(run_program(arguments))


def run_program(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; the exit code."""
    try:
        code = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Nothing was done.", err=True)
        return EXIT_USAGE
    except RelayError as error:
        click.echo(sanitise(str(error)), err=True)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_INTERNAL
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it; flushing it at exit would complain
        return EXIT_USAGE
    except Exception as error:
        click.echo(f"{PROGRAM} has a fault: {where(error)}. Please report this line.", err=True)
        return EXIT_INTERNAL
    return code if isinstance(code, int) else EXIT_DONE


def _location(command: Command) -> Command:
    """Which relay: every command takes these."""
    for option in (
        click.option(
            "--config", "config_file", type=_FILE, metavar="FILE.toml", help="The configuration."
        ),
        click.option("--data", type=_FILE, metavar="DIR", help="The relay's data folder."),
    ):
        command = option(command)
    return command


_as_json: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def _listening(command: Command) -> Command:
    """How it serves."""
    for option in (
        click.option("--key", type=_FILE, metavar="KEY.pem", help="The certificate's key."),
        click.option("--cert", type=_FILE, metavar="FULLCHAIN.pem", help="Its TLS certificate."),
        click.option("--listen", metavar="HOST:PORT", help="Where clients connect; port 0: any."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """The Saltline relay: keeps sealed messages until they are fetched, and cannot read them."""


@cli.command()
@_listening
@_location
def run(
    config_file: Path | None,
    data: Path | None,
    listen: str | None,
    cert: Path | None,
    key: Path | None,
) -> int:
    """Run the relay until SIGTERM. SIGHUP reloads certificate and configuration.

    Without a certificate it makes its own, and prints the pin that users give when registering.
    """
    flags = Flags(listen=listen, data=data, certificate=cert, key=key)
    return serve(lambda: load_config(config_file, flags))


@cli.command()
@_listening
@_location
def check(
    config_file: Path | None,
    data: Path | None,
    listen: str | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """Check configuration, certificate and database, before a start or an upgrade."""
    flags = Flags(listen=listen, data=data, certificate=cert, key=key)
    for line in check_relay(load_config(config_file, flags), datetime.now(UTC)):
        click.echo(line)


@cli.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--pin", default="", help="sha256:…, which the relay must show.")
def health(address: str, pin: str) -> None:
    """Ask a relay from outside, as any stranger may, whether it serves.

    Needs no data folder. Exit status 0 and a sentence, or 1 and why not.
    """
    if pin and not re.fullmatch(r"sha256:[0-9a-f]{64}", pin):
        raise UsageError("A pin is sha256: and 64 hexadecimal digits in lower case.")
    try:
        where_it_is = parse_relay_address(address)
    except BadName as error:
        raise UsageError(str(error)) from None
    click.echo(ask_health(where_it_is, pin))


@cli.command()
@click.option("--uses", type=click.IntRange(1, 1_000_000), default=1, show_default=True)
@click.option("--expires", default="7d", show_default=True, help="30m, 12h, 7d, 4w.")
@_as_json
@_location
def invite(
    config_file: Path | None, data: Path | None, uses: int, expires: str, as_json: bool
) -> None:
    """Print a new invite code, with which --uses people may open an account."""
    expires_ms = _expiry_ms(expires)
    result = _ask(config_file, data, asks.CreateInvite(uses=uses, expires_ms=expires_ms))
    _print_code(result, "invite", f"For {_counted(uses, 'account')}", expires_ms, as_json)


@cli.command()
@click.argument("user")
@click.option("--expires", default="7d", show_default=True, help="30m, 12h, 7d, 4w.")
@_as_json
@_location
def reset(
    config_file: Path | None, data: Path | None, user: str, expires: str, as_json: bool
) -> None:
    """Print a code with which USER registers a new device that ends all the old ones.

    For somebody who lost every device. Their contacts are told, and have to compare again.
    """
    expires_ms = _expiry_ms(expires)
    request = asks.ResetUser(username=_user(user), expires_ms=expires_ms)
    _print_code(_ask(config_file, data, request), "reset", f"For {user}", expires_ms, as_json)


@cli.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
@_location
def remove(
    config_file: Path | None, data: Path | None, user: str, yes: bool, as_json: bool
) -> None:
    """Revoke all devices of USER and close the name for good."""
    request = asks.RemoveUser(username=_user(user))
    question = (
        f"Close {user} for good? What waits for them is deleted; the name is never given again"
    )
    if not yes:
        click.confirm(question, abort=True, err=True)
    result = _ask(config_file, data, request)
    if not isinstance(result, asks.Removed):
        raise _unexpected(result)
    if as_json:
        _print_json("removed", result)
    else:
        click.echo(f"{result.username} is closed; {_counted(result.devices, 'device')} ended.")


@cli.command()
@_as_json
@_location
def users(config_file: Path | None, data: Path | None, as_json: bool) -> None:
    """List all accounts."""
    result = _ask(config_file, data, asks.ListUsers())
    if not isinstance(result, asks.Users):
        raise _unexpected(result)
    if as_json:
        for user in result.users:
            _print_json("user", user)
        return
    _print_table(
        ("USER", "SINCE", "STATE", "DEVICES", "ROOMS", "WAITING", "BYTES"),
        [
            (
                user.username,
                f"{datetime.fromtimestamp(user.created_ms / 1000, UTC):%Y-%m-%d}",
                "closed" if user.closed else "online" if user.online else "offline",
                user.devices,
                user.rooms,
                user.waiting,
                user.waiting_bytes,
            )
            for user in result.users
        ],
    )


@cli.command()
@_as_json
@_location
def rooms(config_file: Path | None, data: Path | None, as_json: bool) -> None:
    """List all rooms, largest first."""
    result = _ask(config_file, data, asks.ListRooms())
    if not isinstance(result, asks.Rooms):
        raise _unexpected(result)
    if as_json:
        for room in result.rooms:
            _print_json("room", room)
        return
    rows = [(room.room, room.members, room.online, room.last) for room in result.rooms]
    _print_table(("ROOM", "MEMBERS", "ONLINE", "LAST"), rows)


@cli.command()
@_as_json
@_location
def stats(config_file: Path | None, data: Path | None, as_json: bool) -> None:
    """Show what is stored and who is connected."""
    result = _ask(config_file, data, asks.ReadStats())
    if not isinstance(result, asks.Stats):
        raise _unexpected(result)
    if as_json:
        _print_json("stats", result)
        return
    for name, value in msgspec.structs.asdict(result).items():
        click.echo(f"{name.replace('_', ' '):18}{value:>16,}")


# --- asking and printing --------------------------------------------------------------------------


def _ask(
    config_file: Path | None, data: Path | None, request: asks.AdminRequest
) -> asks.AdminResult:
    config: Config = load_config(config_file, Flags(data=data))
    result = ask(config.data, request)
    if isinstance(result, asks.Refused):
        raise UsageError(result.detail)
    return result


def _unexpected(result: asks.AdminResult) -> RelayError:
    return RelayError(f"The relay answered something else ({type(result).__name__}).")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _user(name: str) -> str:
    try:
        return check_user(name.removeprefix("@"))
    except BadName as error:
        raise UsageError(str(error)) from None


def _expiry_ms(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not _EXPIRY_MIN_S <= seconds <= _EXPIRY_MAX_S:
        raise UsageError("--expires is a number and s, m, h, d or w, from 60s to 366d: 12h, 7d.")
    return time.time_ns() // 1_000_000 + seconds * 1000


def _print_code(
    result: asks.AdminResult, kind: str, purpose: str, expires_ms: int, as_json: bool
) -> None:
    if not isinstance(result, asks.Code):
        raise _unexpected(result)
    if as_json:
        _print_json(kind, result, expires_ms=expires_ms)
        return
    click.echo(result.code)
    until = datetime.fromtimestamp(expires_ms / 1000, UTC)
    click.echo(f"{purpose}, until {until:%Y-%m-%d %H:%M} UTC. It is not shown again.", err=True)


def _print_json(kind: str, row: msgspec.Struct, **more: object) -> None:
    values = {"v": JSON_VERSION, "type": kind, **msgspec.structs.asdict(row), **more}
    click.echo(json.dumps(values))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as needed, numbers to the right."""
    cells = [list(head), *([sanitise(str(cell), newlines=False) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_number = [bool(rows) and isinstance(rows[0][column], int) for column in range(len(head))]
    for row in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())
