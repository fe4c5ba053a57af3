"""The command line: quick help, nothing loaded in vain, and a quiet end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from saltline import __version__
from saltline.client.cli_options import failing_in_words
from saltline.client.model import Refused
from tests.client.programs import PROGRAM, TIMEOUT_S, House, Process, Shell, owner_serves
from tests.platform import platform_lacks
from tests.waiting import wait_until

COMMANDS = [
    "register", "relay", "send", "post", "recv", "history", "contacts", "rooms", "status",
    "whoami", "verify", "trust",
]  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


# --- help and loading ------------------------------------------------------------------------


def loaded_by(*commands: list[str]) -> set[str]:
    """The modules that these command lines load, in a process of their own."""
    code = (
        "import ast, sys; from saltline.client.cli import run\n"
        "failed = sum(run(command) for command in ast.literal_eval(sys.argv[1]))\n"
        "sys.stderr.write('\\n'.join(['', *sys.modules])); sys.exit(failed)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, repr(commands)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.splitlines())


def test_help_loads_neither_cryptography_nor_a_database() -> None:
    loaded = loaded_by(["--help"], ["--version"], ["send", "--help"])

    assert "click" in loaded
    assert loaded.isdisjoint(
        {"nacl", "cryptography", "msgspec", "apsw", "ssl", "prompt_toolkit", "asyncio"}
    )


def test_no_headless_command_loads_the_screen(house: House) -> None:
    ann = ["--profile", str(house.user("ann1"))]
    commands = (["recv"], ["post", "#dev", "-m", "x"], ["rooms"], ["contacts"], ["whoami"])

    loaded = loaded_by(*([*ann, *command] for command in commands))

    assert "saltline.client.core" in loaded
    assert not [each for each in loaded if each.startswith(("prompt_toolkit", "asyncio"))]


def test_importing_the_package_of_the_client_is_light() -> None:
    code = "import sys, saltline.client; print(*sys.modules); saltline.client.Client"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()

    assert "saltline.client" in loaded
    assert not {"nacl", "cryptography", "msgspec", "apsw"}.intersection(loaded)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(saltline: Shell, command: str) -> None:
    ran = saltline(None, command, "--help")

    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: saltline {command}" in ran.out
    assert "--json" in ran.out


def test_help_lists_every_command_and_exit_status(saltline: Shell) -> None:
    ran = saltline(None, "--help")

    assert all(f"  {command} " in ran.out for command in COMMANDS)
    assert re.findall(r"\b([0-7]) [a-z]", ran.out) == list("01234567")
    assert saltline(None, "--version").out == f"saltline {__version__}\n"


def test_the_shell_completes_commands() -> None:
    completed = subprocess.run(
        PROGRAM[:1] + ["-c", "from saltline.client.cli import main; main()"],
        env={
            **os.environ,
            "_SALTLINE_COMPLETE": "bash_complete",
            "COMP_WORDS": "saltline re",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )

    assert completed.stdout.split() == ["plain,recv", "plain,register", "plain,relay"]


def test_without_a_command_there_has_to_be_a_terminal(saltline: Shell, tmp_path: Path) -> None:
    ran = saltline(tmp_path / "new")

    assert ran.code == 1
    assert "needs a terminal" in ran.err
    assert not (tmp_path / "new").exists()


# --- how it ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_quietly(house: House, number: signal.Signals, code: int) -> None:
    ann = house.user(f"ann15{number}")
    with Process(ann, "recv", "--follow") as process:
        wait_until(lambda: owner_serves(ann), "recv --follow runs")
        ran = process.end(number)

    assert ran.code == code
    assert ran.err.strip() == ""
    assert not (ann / "control").exists()


def test_under_nohup_a_closed_terminal_ends_nothing(house: House) -> None:
    ann = house.user("ann15nohup")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = Process(ann, "recv", "--follow")
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        wait_until(lambda: owner_serves(ann), "recv --follow runs")
        process.process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.process.wait(1)
        assert process.end(signal.SIGTERM).code == 128 + signal.SIGTERM


def test_a_reader_that_goes_away_is_not_an_error(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann16"), house.user("ben16")
    for _ in range(3):
        saltline(ann, "send", "ben16", "-m", "y" * 60_000, "--wait", "queued")
    command = " ".join(f"'{part}'" for part in [*PROGRAM, "--profile", str(ann)])

    piped = subprocess.run(
        ["bash", "-c", f"{command} history @ben16 | head -c 5; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert piped.stdout[5:] == "141\n"
    assert piped.stderr == ""
    assert ben.exists()


def test_a_full_disk_behind_standard_output_moves_no_mark(house: House, saltline: Shell) -> None:
    if not os.path.exists("/dev/full"):
        platform_lacks("/dev/full")
    ann, ben = house.user("ann17"), house.user("ben17")
    saltline(ann, "send", "ben17", "-m", "do not lose me")

    with open("/dev/full", "w") as full:
        failed = subprocess.run(
            [*PROGRAM, "--profile", str(ben), "recv"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
        )

    assert failed.returncode == 2
    assert "Standard output cannot be written: No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "do not lose me" in saltline(ben, "recv").out


@pytest.mark.parametrize(
    ("wait", "state"), [("relay", "is on the relay"), ("queued", "Do not send it again")]
)
def test_a_text_that_was_sent_is_said_to_be_where_standard_output_is_full(
    house: House, wait: str, state: str
) -> None:
    if not os.path.exists("/dev/full"):
        platform_lacks("/dev/full")
    ann, ben = house.user(f"ann18{wait}"), house.user(f"ben18{wait}")

    with open("/dev/full", "w") as full:
        failed = subprocess.run(
            [*PROGRAM, "--profile", str(ann), "send", ben.name, "-m", "once", "--wait", wait],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
        )

    assert failed.returncode == 2
    assert state in failed.stderr
    assert "Standard output cannot be written" in failed.stderr


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("To write again: /unblock bob", "To write again: /unblock bob (on the screen: saltline)"),
        ("To the new one: /retry", "To the new one: /retry (on the screen: saltline)"),
        ("Compare in person: /verify bob", "Compare in person: saltline verify bob"),
        ("The folder is: /home is full", "The folder is: /home is full"),
    ],
)
def test_a_command_of_the_screen_is_called_that(
    said: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @failing_in_words
    def refuse() -> None:
        raise Refused(said)

    with pytest.raises(click.exceptions.Exit):
        refuse()
    assert capsys.readouterr().err == f"saltline: {printed}\n"
