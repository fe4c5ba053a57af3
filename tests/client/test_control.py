"""The control socket: private, found again, and deaf to nonsense."""

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.client import control
from saltline.client.control import (
    PATH_MAX_BYTES,
    ControlClient,
    ControlServer,
    OwnerGone,
    find_place,
)
from saltline.client.profile import Profile
from saltline.client.requests import Account
from tests.client.programs import House, Process, Shell, owner_serves
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def texts(house: House, saltline: Shell, profile: Path, conversation: str) -> list[str]:
    ran = saltline(profile, "history", conversation, "--json")
    return [each["body"] for each in ran.records if each["type"] == "message"]


def test_the_socket_is_for_this_user_alone(house: House, saltline: Shell) -> None:
    ann = house.user("ann6")
    with Process(ann, "recv", "--follow"):
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        place = find_place(ann)
        mode = place.stat().st_mode

    assert place == ann / "control"
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_profile_whose_path_is_too_long_for_a_socket_is_served_elsewhere(
    house: House, saltline: Shell, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    ann = house.user("ann7").rename(deep / "ann7")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {"XDG_RUNTIME_DIR": str(runtime)}

    with Process(ann, "recv", "--follow", environment=environment) as owner:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        place = find_place(ann)
        assert saltline(ann, "whoami", "--json").records[0]["user"] == "ann7"
        assert len(os.fsencode(place)) <= PATH_MAX_BYTES
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        owner.process.kill()
        owner.process.wait()
        assert place.exists()  # what a killed owner leaves, the next one removes

    assert saltline(ann, "whoami").code == 0
    assert not place.parent.exists()
    assert not (ann / "control.at").exists()


@pytest.mark.parametrize("runtime", ["", "x" * 100])
def test_long_temporary_folders_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime and str(deep))
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    place = control._make_place(deep)
    assert place == find_place(deep)
    assert len(os.fsencode(place)) <= PATH_MAX_BYTES
    control._remove_place(deep)
    assert not place.parent.exists()
    assert list(deep.iterdir()) == []


def test_the_temporary_folder_comes_before_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        place = control._make_place(deep)
        assert place.parent.parent == Path(short)
        control._remove_place(deep)


HOSTILE = [
    b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"{}\n",
    b'{"v":1,"request":{"ask":"account"}}\n',
    b'{"v":2,"request":{"ask":"no such thing"}}\n',
    b'{"v":2,"request":{"ask":"account","and":"more"}}\n',
    b'{"v":2,"request":{"ask":"take","limit":-1,"timeout_s":1}}\n',
    b'{"v":2,"request":{"ask":"take","limit":1,"timeout_s":null}}\n',
    b'{"v":2,"request":{"ask":"await","row":99999999999999999999,"delivery":2,"timeout_s":1}}\n',
    b"[" * 100_000 + b"\n",
    b'"\xff\xfe"\n',
]


def test_nothing_that_is_said_to_the_socket_hurts_the_owner(house: House, saltline: Shell) -> None:
    ann = house.user("ann8")
    with Process(ann, "recv", "--follow") as owner:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        place = str(find_place(ann))
        for data in HOSTILE:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(place)
                sock.sendall(data)
                answer = sock.makefile("rb").read()
            assert answer.count(b"\n") == 1, data
            assert b"Another version of saltline" in answer
        with socket.socket(socket.AF_UNIX) as endless:
            endless.settimeout(20)
            endless.connect(place)
            with pytest.raises(OSError):  # cut off long before memory is full
                while True:
                    endless.sendall(b"x" * 65536)
        silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for sock in silent:
            sock.connect(place)
        assert saltline(ann, "whoami").code == 0
        for sock in silent:
            sock.close()
        assert owner.process.poll() is None
        assert owner.end(signal.SIGTERM).err == ""


def test_a_folder_for_the_socket_that_is_not_ours_alone_is_not_asked(tmp_path: Path) -> None:
    theirs = tmp_path / "saltline-once-ours"
    theirs.mkdir(mode=0o700)
    (tmp_path / "control.at").write_bytes(os.fsencode(theirs / "control"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(theirs / "control"))
        listener.listen()
        ControlClient(tmp_path).close()
        theirs.chmod(0o750)
        with pytest.raises(PermissionError, match="not ours any more"):
            ControlClient(tmp_path)


class _NothingToDo:
    """A service that is only asked to forget a caller."""

    def gone(self, _caller: object) -> None:
        pass


def _call(profile: Profile) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(20)
    caller.connect(str(find_place(profile.folder)))
    return caller


def test_no_more_callers_than_so_many_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_CALLERS_MAX", 2)
    monkeypatch.setattr(control, "_FIRST_LINE_S", 60.0)
    profile = Profile(tmp_path / "profile", create=True)
    server = ControlServer(profile, _NothingToDo())  # type: ignore[arg-type]
    callers = [_call(profile) for _ in range(3)]
    assert callers[2].recv(1) == b""
    assert len(server._callers) == 2
    for caller in callers:
        caller.close()
    server.close()


def test_a_caller_who_says_nothing_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_FIRST_LINE_S", 0.1)
    profile = Profile(tmp_path / "profile", create=True)
    server = ControlServer(profile, _NothingToDo())  # type: ignore[arg-type]
    with _call(profile) as caller:
        caller.sendall(b"half a line")
        assert caller.recv(1) == b""
    server.close()


def test_an_answer_that_makes_no_sense_is_an_owner_that_is_gone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()
        for answer in (b"", b"nonsense\n", b'{"reply":{}}\n', b'{"refused":"no","code":99}\n'):
            client = ControlClient(tmp_path)
            served, _ = listener.accept()
            served.sendall(answer)
            served.close()
            with pytest.raises(OwnerGone):
                list(client.perform(Account()))
            client.close()
