"""Options that several commands share, and how all of them fail. Imports click alone."""

import re
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

# As a shell reports a program that a signal ended.
BROKEN_PIPE = 128 + signal.SIGPIPE
SECONDS_MAX = 10_000_000
# "To write again: /unblock bob"
_ON_THE_SCREEN = re.compile(r": /[a-z]+( \S+)?$")


def check_seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """For an option's callback: a length of time that a clock can wait for."""
    if value is not None and not 0 <= value <= SECONDS_MAX:  # nan is neither
        raise click.BadParameter(f"{value} is not a number of seconds.", ctx, param)
    return value


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")(
        command
    )


def timeout_option(default: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--timeout, in seconds."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=float,
        callback=check_seconds,
        default=default,
        show_default=True,
        metavar="S",
        help="How long to wait, in seconds.",
    )


def text_options(levels: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What `send` and `post` have in common; of `levels` their help speaks."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        for decorate in (
            json_option,
            timeout_option(30),
            click.option(
                "--wait",
                type=click.Choice(["queued", "relay", "delivered"]),
                default="relay",
                show_default=True,
                metavar=levels,
                help="How far it must have come.",
            ),
            click.option("-m", "--message", metavar="TEXT", help="The text; else standard input."),
            click.argument("source", required=False, metavar="[-]", type=click.Choice(["-"])),
        ):
            command = decorate(command)
        return command

    return decorated


def failing_in_words(command: Callable[..., None]) -> Callable[..., None]:
    """Whatever goes wrong ends in one sentence and an exit status, never in a traceback."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (click.ClickException, click.exceptions.Exit, click.Abort, EOFError):
            raise
        except BrokenPipeError:
            from saltline.client.output import discard_standard_output

            discard_standard_output()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except Exception as error:
            from saltline.client.failures import as_refused
            from saltline.client.output import say

            refused = as_refused(error)
            say(f"saltline: {_for_a_shell(refused.sentence)}")
            raise click.exceptions.Exit(refused.code) from None

    return run


def _for_a_shell(sentence: str) -> str:
    """The core's sentences name the screen's commands; a shell has one of them too."""
    sentence = sentence.replace(" /verify ", " saltline verify ")
    return f"{sentence} (on the screen: saltline)" if _ON_THE_SCREEN.search(sentence) else sentence
