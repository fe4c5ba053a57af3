"""The admin's door: commands against a relay that runs."""

import errno
import io
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import Error
from saltline.server import administration as asks
from saltline.server.admin import CLIENTS_MAX, REQUEST_MAX_BYTES, ask, socket_path
from saltline.server.cli import run_program
from saltline.server.data_folder import DataFolder
from saltline.server.errors import RelayError, UsageError
from saltline.server.listener import ACCEPT_PAUSE_S
from saltline.server.relay import Relay
from saltline.server.settings import Registration, Settings
from tests.server.edge import TIMEOUT_S, ScriptedRelay, config_in
from tests.server.wire_client import WireClient
from tests.waiting import wait_until


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with Relay(config_in(tmp_path)) as relay:
        yield relay


class Terminal:
    """Runs `saltline-server` commands on a relay's data folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.errors = ""

    def run(self, *arguments: str, code: int = 0) -> str:
        found = run_program([*arguments, "--data", str(self.folder)])
        output, self.errors = self.capsys.readouterr()
        assert found == code, self.errors
        assert "Traceback" not in self.errors
        return output

    def rows(self, *arguments: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]


@pytest.fixture
def terminal(relay: Relay, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(relay.config.data, capsys)


def connect(relay: Relay, name: str) -> WireClient:
    return WireClient(relay.address.port, name)


def test_who_is_here(relay: Relay, terminal: Terminal) -> None:
    assert terminal.run("users").split() == [
        "USER", "SINCE", "STATE", "DEVICES", "ROOMS", "WAITING", "BYTES",
    ]  # fmt: skip
    with connect(relay, "ada") as ada:
        keys = ada.register()
        ada.join(keys)
        (user,) = terminal.rows("users")
        assert (user["v"], user["type"], user["username"]) == (1, "user", "ada")
        assert (user["online"], user["devices"], user["rooms"]) == (True, 1, 1)
        assert terminal.run("users").splitlines()[1].startswith("ada ")
        (room,) = terminal.rows("rooms")
        assert (room["room"], room["members"], room["online"]) == ("#lobby", 1, 1)
        assert "#lobby" in terminal.run("rooms")
        (stats,) = terminal.rows("stats")
        assert (stats["accounts"], stats["connections"]) == (1, 1)
        assert "accounts online" in terminal.run("stats")


def test_an_invite_opens_one_account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(registration=Registration.INVITE)
    with Relay(config_in(tmp_path, settings=settings)) as relay:
        code = Terminal(relay.config.data, capsys).run("invite", "--expires", "2h").strip()
        with connect(relay, "ada") as ada, connect(relay, "bob") as bob:
            ada.register(code)
            bob.ask_to_register(code)
            assert bob.expect(Error).code == ErrorCode.BAD_INVITE


def test_invites_as_json_say_when_they_end(terminal: Terminal) -> None:
    (invite,) = terminal.rows("invite", "--uses", "3")
    assert invite["type"] == "invite" and invite["code"]
    assert isinstance(invite["expires_ms"], int)


def test_removing_somebody_ends_the_live_connection(relay: Relay, terminal: Terminal) -> None:
    with connect(relay, "ada") as ada:
        ada.register()
        assert terminal.run("remove", "@ada", "--yes") == "ada is closed; 1 device ended.\n"
        assert ada.expect(Error).code == ErrorCode.REMOVED
        assert ada.is_closed_by_relay()
    (user,) = terminal.rows("users")
    assert user["closed"] is True


def test_removing_asks_first(
    relay: Relay, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(relay, "ada") as ada:
        ada.register()
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        assert terminal.run("remove", "ada", code=1) == ""
        assert "never given again" in terminal.errors
        assert terminal.errors.endswith("Nothing was done.\n")
        assert [user["closed"] for user in terminal.rows("users")] == [False]


def test_a_reset_code_is_for_somebody_who_is_there(relay: Relay, terminal: Terminal) -> None:
    with connect(relay, "ada") as ada:
        ada.register()
        assert terminal.run("reset", "ada").strip()
        assert "For ada, until" in terminal.errors
        assert terminal.run("reset", "bob", code=1) == ""
        assert terminal.errors == "No account has this name.\n"


def test_wrong_usage_is_one_sentence_and_code_1(terminal: Terminal) -> None:
    for arguments in (
        ("invite", "--expires", "soon"),
        ("invite", "--expires", "0s"),
        ("invite", "--expires", "1000w"),
        ("reset", "Not A Name"),
    ):
        assert terminal.run(*arguments, code=1) == ""
        assert len(terminal.errors.splitlines()) == 1
    for arguments in (("invite", "--uses", "0"), ("invite", "--uses", "x"), ("ban", "ada")):
        assert terminal.run(*arguments, code=1) == ""
        assert "Error: " in terminal.errors


def test_without_a_relay_a_sentence_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_in(tmp_path)
    terminal = Terminal(config.data, capsys)
    sentence = (
        f"No relay runs on {config.data}. Start it: saltline-server run --data {config.data}\n"
    )
    assert terminal.run("users", code=1) == "" and terminal.errors == sentence
    with Relay(config):
        terminal.run("users")
    assert terminal.run("users", code=1) == "" and terminal.errors == sentence


def test_a_relay_that_does_not_answer_is_said(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True)
    folder.lock()
    with pytest.raises(RelayError, match="A relay runs on .* but .* does not answer") as refused:
        ask(folder.path, asks.ListUsers())
    assert not isinstance(refused.value, UsageError)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(folder.path)))
        listener.listen()
        with pytest.raises(RelayError, match="did not answer .* look before asking again"):
            ask(folder.path, asks.ListUsers(), timeout_s=0.1)
    folder.close()


def test_the_socket_is_for_its_user_alone(relay: Relay) -> None:
    path = socket_path(relay.config.data)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_descriptors_it_waits_and_does_not_burn_the_processor(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[socket.socket] = []

    def exhausted(listener: socket.socket) -> None:
        attempts.append(listener)
        raise OSError(errno.EMFILE, "Too many open files")

    with socket.socket(socket.AF_UNIX) as sock:
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "accept", exhausted)
            sock.connect(str(socket_path(relay.config.data)))
            sleep(3 * ACCEPT_PAUSE_S)
            assert 1 <= len(attempts) <= 4
        assert isinstance(ask(relay.config.data, asks.ReadStats()), asks.Stats)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def test_a_path_too_long_for_a_socket_has_one_elsewhere(tmp_path: Path, short: Path) -> None:
    deep = tmp_path / ("x" * 100)
    with ScriptedRelay(config_in(deep)) as relay:
        path = socket_path(relay.config.data)
        assert len(os.fsencode(path)) <= 103 and path.parent.parent == short
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert isinstance(ask(relay.config.data, asks.ReadStats()), asks.Refused)
    assert list(short.iterdir()) == []
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with pytest.raises(UsageError, match="belongs to somebody else, or is open to others"):
        ScriptedRelay(config_in(deep)).start()


@pytest.mark.parametrize("trap", ["open", "link", "another user's"])
def test_a_socket_in_a_shared_folder_is_trusted_only_if_it_is_ours(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    folder = DataFolder.open(tmp_path / ("x" * 100), create=True)
    if trap == "another user's":
        uid = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: uid)
    path = socket_path(folder.path)
    real = short / "real"
    real.mkdir(mode=0o700)
    if trap == "link":
        path.parent.symlink_to(real)
    else:
        real.rename(path.parent)
    if trap == "open":
        path.parent.chmod(0o770)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(UsageError, match="may not be the relay. Nothing was asked."):
            ask(folder.path, asks.RemoveUser("ada"), timeout_s=0.1)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_without_a_relay_no_folder_is_there_either(tmp_path: Path, short: Path) -> None:
    folder = DataFolder.open(tmp_path / ("x" * 100), create=True)
    with pytest.raises(UsageError, match="No relay runs on"):
        ask(folder.path, asks.ListUsers())
    assert list(short.iterdir()) == []


def test_a_temporary_folder_with_a_long_path_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with ScriptedRelay(config_in(deep)) as relay:
        path = socket_path(relay.config.data)
        assert len(os.fsencode(path)) <= 103 and path.parent.parent == Path("/tmp")
        assert isinstance(ask(relay.config.data, asks.ReadStats()), asks.Refused)
    assert not path.parent.exists()


# --- the socket itself ----------------------------------------------------------------------------


def raw(relay: Relay) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT_S)
    sock.connect(str(socket_path(relay.config.data)))
    return sock


def read_line(sock: socket.socket) -> dict[str, object]:
    line = b""
    while not line.endswith(b"\n"):
        data = sock.recv(1)  # the next line stays where it is
        assert data, "closed"
        line += data
    answer = json.loads(line)
    assert isinstance(answer, dict)
    return answer


def test_requests_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay, raw(relay) as sock:
        sock.sendall(b'{"type":"users"}\n{"type":"rooms"}\n{"type":"sta')
        assert read_line(sock)["detail"] == "ListUsers"
        assert read_line(sock)["detail"] == "ListRooms"
        sock.sendall(b'ts"}\n')
        assert read_line(sock)["detail"] == "ReadStats"


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"type":"format_disk"}', b'{"type":"invite"}', b"[" * 4000]
)
def test_what_is_no_request_is_refused(tmp_path: Path, line: bytes) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay, raw(relay) as sock:
        sock.sendall(line + b"\n")
        assert read_line(sock)["code"] == ErrorCode.BAD_MESSAGE
        sock.sendall(b'{"type":"users"}\n')
        assert read_line(sock)["detail"] == "ListUsers"
        assert relay.core.happened == [("admin", asks.ListUsers())]


def test_an_endless_line_is_cut_off(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay, raw(relay) as sock:
        try:
            sock.sendall(b"x" * (4 * REQUEST_MAX_BYTES))
            assert sock.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert isinstance(ask(relay.config.data, asks.ListUsers()), asks.Refused)


def test_silent_admins_give_way(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        silent = [raw(relay) for _ in range(CLIENTS_MAX)]
        assert isinstance(ask(relay.config.data, asks.ListUsers()), asks.Refused)
        assert silent[0].recv(1) == b""
        for sock in silent:
            sock.close()


def test_a_large_answer_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        row = asks.UserRow("ada", 1, False, True, 1, 1, 0, 0)
        users = asks.Users(users=(row,) * 50_000)
        monkeypatch.setattr("tests.server.edge.Refused", lambda **_: users)
        assert ask(relay.config.data, asks.ListUsers()) == users


def test_an_admin_that_leaves_early_harms_nobody(tmp_path: Path) -> None:
    with ScriptedRelay(config_in(tmp_path)) as relay:
        for _ in range(20):
            sock = raw(relay)
            sock.sendall(b'{"type":"users"}\n')
            sock.close()
        wait_until(lambda: not relay._admin._clients)
        assert isinstance(ask(relay.config.data, asks.ListUsers()), asks.Refused)
        assert not relay.failure


def test_many_admins_at_once(relay: Relay) -> None:
    answers: list[asks.AdminResult] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(relay.config.data, asks.ReadStats())))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(answers) == 8 and all(isinstance(answer, asks.Stats) for answer in answers)
