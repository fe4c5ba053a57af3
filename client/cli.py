"""The `saltline` command. Only click is imported before a command runs, so that --help is quick."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from saltline import __version__
from saltline.client.cli_options import (
    BROKEN_PIPE,
    check_seconds,
    failing_in_words,
    json_option,
    text_options,
    timeout_option,
)

if TYPE_CHECKING:
    from saltline.client.headless import Options, Session

# As a shell reports a program that a signal ended.
_INTERRUPTED = 128 + signal.SIGINT
_USAGE = 1
_ASK = "\0"  # what no argument can be

_EPILOG = """\b
Exit status: 0 done, 1 usage, 2 internal error, 3 relay unreachable or its certificate does not
match, 4 key changed or not trusted, 5 rate limited or over quota, 6 unknown user or room,
7 timed out (what was queued is safe).

\b
Shell completion, for instance for bash (or zsh, fish):
  eval "$(_SALTLINE_COMPLETE=bash_source saltline)"
"""


# What cannot be read is said by who reads it, in words that name what it is for.
_FOLDER = click.Path(path_type=Path, readable=False)
_FILE = click.Path(path_type=Path, readable=False)


def _options() -> "Options":
    from saltline.client.headless import Options

    found: dict[str, Path | None] = click.get_current_context().find_root().params
    return Options(found["profile"], found["passphrase_file"])


@contextmanager
def _session(as_json: bool, timeout_s: float) -> "Iterator[Session]":
    from saltline.client.headless import Session

    session = Session(_options(), as_json=as_json, timeout_s=timeout_s)
    # A signal may come between opening and the block that would close it.
    click.get_current_context().call_on_close(session.close)
    with session:
        yield session


@click.group(
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--profile",
    type=_FOLDER,
    metavar="DIR",
    help="The profile's folder: one account. [env: SALTLINE_PROFILE]",
)
@click.option(
    "--passphrase-file",
    type=_FILE,
    metavar="FILE",
    help="Read the profile's passphrase from a file's first line.",
)
@click.version_option(
    __version__, "--version", prog_name="saltline", message="%(prog)s %(version)s"
)
@click.pass_context
@failing_in_words
def cli(ctx: click.Context, profile: Path | None, passphrase_file: Path | None) -> None:
    """End-to-end encrypted messages in the terminal. Without a command: the full screen."""
    if ctx.invoked_subcommand is None:
        from saltline.client.fullscreen import run

        ctx.exit(run(_options()))


# --- Set-up ---------------------------------------------------------------------------------------


@cli.command()
@click.option("--relay", required=True, metavar="HOST:PORT", help="Where the relay is.")
@click.option("--user", required=True, metavar="NAME", help="The new account's name.")
@click.option("--pin", metavar="sha256:HEX", help="The fingerprint of the relay's key.")
@click.option("--ca", metavar="FILE", help="Certificates of the authorities to trust.")
@click.option(
    "--invite",
    default="",
    is_flag=False,
    flag_value=_ASK,
    metavar="[CODE]",
    help="An invite or reset code; without CODE, it is asked for.",
)
@click.option(
    "--invite-file", metavar="FILE", help="The code is its first line; -: standard input."
)
@click.option("--passphrase-file", type=_FILE, metavar="FILE", help="Its first line.")
@click.option("--no-passphrase", is_flag=True, help="Keep the key in a file instead.")
@json_option
@failing_in_words
def register(
    relay: str,
    user: str,
    pin: str | None,
    ca: str | None,
    invite: str,
    invite_file: str | None,
    passphrase_file: Path | None,
    no_passphrase: bool,
    as_json: bool,
) -> None:
    """Make an account at a relay. The same again finishes what was broken off.

    With neither --pin nor --ca, the system's certificate authorities must vouch for the relay.
    """
    from saltline.client.certificates import read_target
    from saltline.client.registration import KeyChoice, Wish
    from saltline.client.registration import register as make_account
    from saltline.client.terminal import ask_invite, invite_from

    options = _options()
    passphrase_file = passphrase_file or options.passphrase_file
    if no_passphrase and passphrase_file:
        raise click.UsageError("Either --passphrase-file or --no-passphrase, not both.")
    if invite and invite_file is not None:
        raise click.UsageError("Either --invite or --invite-file, not both.")
    target = read_target(relay, pin, ca)
    if invite_file is not None:
        invite = invite_from(invite_file)
    elif invite == _ASK:
        invite = ask_invite()
    make_account(
        options.folder,
        Wish(user, target, invite),
        KeyChoice(passphrase_file, no_passphrase),
        as_json=as_json,
    )


@cli.command()
@click.option("--address", metavar="HOST:PORT", help="The relay moved.")
@click.option("--pin", metavar="sha256:HEX", help="The relay has this key.")
@click.option("--ca", metavar="FILE", help="Trust these authorities ('': the system's).")
@timeout_option(30)
@json_option
@failing_in_words
def relay(
    address: str | None, pin: str | None, ca: str | None, timeout_s: float, as_json: bool
) -> None:
    """Show or change where the relay is, and what proves that it is the one."""
    from saltline.client import headless

    with _session(as_json, timeout_s) as session:
        headless.relay(session, address, pin, ca)


# --- Messages -------------------------------------------------------------------------------------


def _send(
    conversation: str, message: str | None, source: str | None, wait: str, timeout_s: float,
    as_json: bool,
) -> None:  # fmt: skip
    from saltline.client import headless
    from saltline.client.model import Delivery

    if message is not None and source is not None:
        raise click.UsageError("Either -m TEXT or -, not both.")
    text = headless.read_text(message)
    levels = {
        "queued": Delivery.QUEUED,
        "relay": Delivery.RELAYED,
        "delivered": Delivery.DELIVERED,
    }
    with _session(as_json, timeout_s) as session:
        headless.send(session, conversation, text, levels[wait])


@cli.command()
@click.argument("user")
@text_options("[queued|relay|delivered]")
@failing_in_words
def send(user: str, **options: Any) -> None:
    """Send a private, encrypted message."""
    from saltline.client import headless

    _send(headless.person(user), **options)


@cli.command()
@click.argument("room", metavar="'#ROOM'")
@text_options("[queued|relay]")
@failing_in_words
def post(room: str, **options: Any) -> None:
    """Post a public message; joins the room if need be."""
    from saltline.client import headless

    if options["wait"] == "delivered":
        raise click.UsageError("Nobody confirms a public message: --wait queued or relay.")
    _send(headless.room(room), **options)


@cli.command()
@click.option("--once", is_flag=True, help="Exchange everything, print, and end (the default).")
@click.option("--follow", is_flag=True, help="Go on printing what comes.")
@click.option("--count", type=click.IntRange(1, 1_000_000), metavar="N", help="Wait for N.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    callback=check_seconds,
    metavar="S",
    help="How long, in seconds.  [default: 30; --follow: without end]",
)
@json_option
@failing_in_words
def recv(
    once: bool, follow: bool, count: int | None, timeout_s: float | None, as_json: bool
) -> None:
    """Print what others sent and no earlier `recv` printed."""
    from saltline.client import headless

    if once + follow + (count is not None) > 1:
        raise click.UsageError("One of --once, --follow and --count.")
    with _session(as_json, 30.0 if timeout_s is None else timeout_s) as session:
        if follow:
            headless.receive_forever(session, endless=timeout_s is None)
        elif count is not None:
            headless.receive_count(session, count)
        else:
            headless.receive_once(session)


@cli.command()
@click.argument("conversation")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="N"
)
@click.option("--search", metavar="QUERY", help="Only lines with all of these words.")
@timeout_option(30)
@json_option
@failing_in_words
def history(
    conversation: str, limit: int, search: str | None, timeout_s: float, as_json: bool
) -> None:
    """Print the last lines of @USER or '#ROOM'."""
    from saltline.client import headless

    with _session(as_json, timeout_s) as session:
        headless.history(session, conversation, limit, search)


# --- People and rooms -----------------------------------------------------------------------------


def _simple(name: str, summary: str, timeout_s: float = 30) -> None:
    @timeout_option(timeout_s)
    @json_option
    @failing_in_words
    def command(timeout_s: float, as_json: bool) -> None:
        from saltline.client import headless

        with _session(as_json, timeout_s) as session:
            getattr(headless, name)(session)

    command.__doc__ = summary
    cli.command(name)(command)


_simple("contacts", "List the people you talk to.")
_simple("rooms", "List the relay's public rooms.")
_simple("status", "Show the profile and its link to the relay.", 10)
_simple("whoami", "Show who this profile is.")


@cli.command()
@click.argument("user")
@click.argument("number", nargs=-1)
@timeout_option(30)
@json_option
@failing_in_words
def verify(user: str, number: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Mark USER verified if NUMBER is your safety number; without NUMBER, print it and ask."""
    from saltline.client import headless

    with _session(as_json, timeout_s) as session:
        headless.verify(session, user, " ".join(number) or None)


@cli.command()
@click.argument("user")
@click.argument("number", nargs=-1, required=True)
@timeout_option(30)
@json_option
@failing_in_words
def trust(user: str, number: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Accept USER's changed key as first seen; NUMBER is the new safety number."""
    from saltline.client import headless

    with _session(as_json, timeout_s) as session:
        headless.trust(session, user, " ".join(number))


# --- Running --------------------------------------------------------------------------------------


def run(arguments: list[str]) -> int:
    """Run a command line; its exit status."""
    try:
        status = cli.main(arguments, prog_name="saltline", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return _USAGE
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except _Ended as ended:
        return 128 + ended.number


class _Ended(BaseException):
    """SIGTERM or SIGHUP: clean up, then end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _end(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise _Ended(number)


def main() -> NoReturn:
    """The program."""
    ends = [  # an ignored one stays so, as nohup wants it
        each
        for each in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN
    ]
    try:
        for number in ends:
            signal.signal(number, _end)
        status = run(sys.argv[1:])
        for number in ends:  # nothing is left to clean up
            signal.signal(number, signal.SIG_DFL)
    except _Ended as ended:  # around the command, not in it
        status = 128 + ended.number
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):
        with suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or BROKEN_PIPE
    sys.exit(status)


if __name__ == "__main__":
    main()
