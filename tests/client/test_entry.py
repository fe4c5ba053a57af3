"""The first moments of `saltline`, before there is anything that could say something."""

import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from saltline import __version__

# In click's place: Ctrl-C comes as it is imported, and then it is the real one.
INTERRUPTED = """import os, signal, sys
os.kill(os.getpid(), signal.SIGINT)
del sys.path[0], sys.modules["click"]
import click
"""


def run(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The installed program, interrupted while it is imported."""
    (script,) = entry_points(group="console_scripts", name="saltline")
    (folder / "click.py").write_text(INTERRUPTED)
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); sys.argv[1:] = ['--version']\n"
        f"from {script.module} import {script.attr} as main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)


def test_an_interrupt_while_it_is_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    ran = run(tmp_path)

    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ran = run(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert __version__ in ran.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_after_the_command_ends_it_without_a_traceback(number: signal.Signals) -> None:
    code = (
        "import os, sys\n"
        "from saltline.client import cli\n"
        "run = cli.run\n"
        f"cli.run = lambda given: (run(given), os.kill(os.getpid(), {number:d}))[0]\n"
        "sys.argv[1:] = ['--version']\n"
        "from saltline.client.entry import main; main()"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert (ran.returncode, ran.stderr) == (128 + number, "")
    assert __version__ in ran.stdout
