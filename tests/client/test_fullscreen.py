"""The screen, by its command: on a terminal, from the first run to other commands beside it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.client import fullscreen
from saltline.client.headless import Options
from saltline.client.model import ExitCode, Refused
from saltline.client.profile import Profile
from tests.client.programs import House, Shell, Terminal, owner_serves
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


CTRL_Q = "\x11"
CTRL_C = "\x03"


def test_other_commands_work_beside_the_screen(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann1"), house.user("ben1")
    terminal = Terminal(ann)
    try:
        terminal.expect("lobby")
        wait_until(lambda: owner_serves(ann), "the screen serves the profile")
        sent = saltline(ann, "send", "ben1", "-m", "from a script", "--json")
        terminal.expect("ben1")
        saltline(ben, "send", "ann1", "-m", "to a script")
        received = saltline(ann, "recv", "--count", "1", "--json")
        terminal.type(CTRL_Q)
        assert terminal.end() == 0
    finally:
        terminal.kill()

    assert (sent.code, sent.records[0]["delivery"]) == (0, "relayed")
    assert [each["body"] for each in received.records if each["type"] == "message"] == [
        "to a script"
    ]
    assert not owner_serves(ann)


def test_a_second_screen_on_a_profile_is_a_state_that_one_can_correct(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ann = house.user("ann3")
    monkeypatch.setattr(fullscreen, "_PATIENCE_S", 0.0)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    profile = Profile(ann)
    profile.acquire()
    try:
        with pytest.raises(Refused, match="is in use by another saltline") as refused:
            fullscreen.run(Options(ann))
    finally:
        profile.release()

    assert refused.value.code is ExitCode.USAGE


def test_the_first_run_leads_to_an_account(house: House, saltline: Shell, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "new")
    try:
        terminal.expect("HOST:PORT):")
        terminal.type(f"{house.address}\r")
        terminal.expect("Your name:")
        terminal.type("ann2\r")
        terminal.expect("Passphrase:")
        terminal.type("\r")
        terminal.expect("(Enter chooses a passphrase)")
        terminal.type("no passphrase\r")
        terminal.expect("Is it the same?")
        terminal.type("yes\r")
        terminal.expect("Enter opens #lobby")
        terminal.type("\r")
        terminal.expect("PUBLIC>")
        terminal.type(CTRL_Q)
        assert terminal.end() == 0
    finally:
        terminal.kill()

    (who,) = saltline(tmp_path / "new", "whoami", "--json").records
    assert (who["user"], who["pin"]) == ("ann2", house.pin)


def test_a_first_run_that_is_left_leaves_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "new")
    try:
        terminal.expect("HOST:PORT):")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
    finally:
        terminal.kill()

    assert "Nothing was registered" in terminal.shown
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]
