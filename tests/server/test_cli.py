"""The real program: what it prints, its signals, its exit codes, and what a kill leaves."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from saltline import __version__
from saltline.protocol.to_client import Error, Pong, Submitted
from saltline.protocol.to_relay import Submit
from saltline.server.cli import run_program
from tests.server.edge import TIMEOUT_S
from tests.server.test_certificates import write_pair
from tests.server.wire_client import WireClient
from tests.waiting import wait_until

PROGRAM = [sys.executable, "-c", "from saltline.server.entry import main; main()"]
IS_LINUX = sys.platform == "linux"


class Program:
    """`saltline-server run` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **options: Any) -> None:
        self.log = folder / "log.txt"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "run", "--data", str(folder / "data"), *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                **options,
            )
        self.port = 0
        self.pin = ""

    def wait_ready(self) -> "Program":
        """Read what it prints."""
        assert self.process.stdout is not None
        printed = [self.process.stdout.readline() for _ in range(4)]
        match = re.fullmatch(r"Listening on 127\.0\.0\.1:([0-9]+)\n", printed[0])
        assert match, (printed, self.log.read_text())
        self.port = int(match[1])
        pin = re.fullmatch(r"Pin of its key: (sha256:[0-9a-f]{64})\n", printed[1])
        assert pin and printed[2] == "To open an account, a user types:\n"
        self.pin = pin[1]
        self.register_line = printed[3].strip()
        return self

    def connect(self, name: str = "") -> WireClient:
        return WireClient(self.port, name)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait(self) -> int:
        code = self.process.wait(TIMEOUT_S)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs on one data folder, and leaves none behind."""
    programs: list[Program] = []

    def start(*arguments: str, **options: Any) -> Program:
        listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
        programs.append(Program(tmp_path, *listen, *arguments, **options))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def test_run_prints_what_a_user_needs_and_sigterm_ends_it(start: Start) -> None:
    relay = start().wait_ready()
    with relay.connect("ada") as ada:
        ada.register()
        assert f"sha256:{ada.spki_hash.hex()}" == relay.pin
        assert relay.register_line == (
            f"saltline register --relay 127.0.0.1:{relay.port} --user NAME --pin {relay.pin}"
        )
        if IS_LINUX:
            limits = Path(f"/proc/{relay.process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 +0 ", limits)
            assert re.search(r"Max open files +([0-9]+) +\1 ", limits)
            threads = Path(f"/proc/{relay.process.pid}/task").glob("*/status")
            blocked = [re.search(r"SigBlk:\s+([0-9a-f]+)", each.read_text()) for each in threads]
            masks = sorted(int(each[1], 16) for each in blocked if each)
            meant = sum(
                1 << number - 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            )
            assert [mask & meant for mask in masks] == [0] + [meant] * (len(masks) - 1)
            assert len(masks) > 4
        relay.send(signal.SIGTERM)
        assert ada.expect(Error).code == "stopping"
        assert ada.is_closed_by_relay()
    assert relay.wait() == 0
    lines = relay.log.read_text().splitlines()
    stamp = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[+-][0-9]{4} (INFO|WARNING) "
    assert lines and all(re.match(stamp, line) for line in lines)


def test_sigterm_answers_what_it_took_and_keeps_what_it_acknowledged(start: Start) -> None:
    relay = start().wait_ready()
    with relay.connect("ada") as ada, relay.connect("bob") as bob:
        ada.register()
        bob_keys = bob.register()
        bob.sock.close()
        ada.say(*(Submit(number, "bob", 1, b"%d" % number, b"") for number in range(1, 201)))
        ada.expect(Submitted)
        relay.send(signal.SIGTERM)
        acknowledged = 1
        while not isinstance(message := ada.expect(Submitted | Error), Error):  # type: ignore[arg-type]
            acknowledged += 1
        assert message.code == "stopping"
    assert relay.wait() == 0
    again = start().wait_ready()
    with again.connect("bob") as bob:
        bob.log_in(bob_keys)
        assert [bob.fetch() for _ in range(acknowledged)] == [
            b"%d" % number for number in range(1, acknowledged + 1)
        ]


def test_sighup_reloads_certificate_and_configuration(start: Start, tmp_path: Path) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), now - day, now + day)
    config = tmp_path / "relay.toml"
    common = 'certificate = "fullchain.pem"\nkey = "privkey.pem"\n'
    config.write_text(common)
    relay = start("--config", str(config)).wait_ready()
    assert relay.register_line.endswith(f"--user NAME --pin {relay.pin}")
    assert relay.logged("WARNING The certificate names no host")
    with relay.connect("ada") as ada:
        ada.register()
        write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), now - day, now + day)
        config.write_text(common + 'registration = "invite"\nworkers = 2\n')
        relay.send(signal.SIGHUP)
        wait_until(lambda: relay.logged("Changed only by a restart: workers."))
        with relay.connect("bob") as bob:
            assert bob.spki_hash != ada.spki_hash
            bob.ask_to_register()
            assert bob.expect(Error).code == "invite_needed"

        config.write_text("colour = 1")
        relay.send(signal.SIGHUP)
        wait_until(lambda: relay.logged("Nothing was reloaded. `colour` in "))
        ada.ping()
        ada.expect(Pong)
    relay.send(signal.SIGINT)
    assert relay.wait() == 0


def test_run_prints_the_name_in_an_own_certificate_and_the_pin_besides(
    start: Start, terminal: "Terminal", tmp_path: Path
) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    key = ec.generate_private_key(ec.SECP256R1())
    chain, key_file = write_pair(tmp_path, key, now - day, now + day, names=["relay.example"])
    own = ("--cert", str(chain), "--key", str(key_file))

    relay = start(*own).wait_ready()
    assert relay.process.stdout is not None
    alternative = [relay.process.stdout.readline() for _ in range(2)]

    line = f"saltline register --relay relay.example:{relay.port} --user NAME"
    assert relay.register_line == line
    assert "the pin always works" in alternative[0]
    assert alternative[1] == f"  {line} --pin {relay.pin}\n"
    warning = "The certificate is for relay.example, not for 127.0.0.1: users give --relay"
    assert relay.logged(f"WARNING {warning}")
    listen = ("--listen", "127.0.0.1:7443")
    assert f" But: {warning}" in terminal.run("check", "--data", str(tmp_path / "x"), *own, *listen)


def test_a_second_relay_on_the_folder_is_refused(start: Start) -> None:
    first = start().wait_ready()
    second = start()
    assert second.wait() == 1
    assert second.logged(f"Another relay (process {first.process.pid}) runs on ")


def test_nobody_has_to_read_what_it_prints(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    relay = start("--listen", f"127.0.0.1:{port}")
    assert relay.process.stdout is not None
    relay.process.stdout.close()
    wait_until(lambda: relay.logged("The relay listens on "))
    with WireClient(port) as client:
        client.greet()
    relay.send(signal.SIGTERM)
    assert relay.wait() == 0


def test_a_disk_that_fails_stops_the_relay_with_a_sentence(start: Start) -> None:
    relay = start(preexec_fn=_let_writes_fail_above_4_mb).wait_ready()
    acknowledged = 0
    with relay.connect("ada") as ada, relay.connect("bob") as bob:
        ada.register()
        bob_keys = bob.register()
        bob.sock.close()
        for number in range(1, 40):
            ada.say(Submit(number, "bob", 1, b"%200000d" % number, b""))
            if isinstance(ada.expect(Submitted | Error), Error):  # type: ignore[arg-type]
                break
            acknowledged = number
    assert 0 < acknowledged < 39
    assert relay.wait() == 2
    assert relay.logged("CRITICAL The relay's disk failed, and the relay stops.")
    assert relay.logged("ERROR The store's last call failed: IOError (SQLITE_IOERR_WRITE).")
    assert relay.log.read_text().count("CRITICAL") == 1
    again = start().wait_ready()
    with again.connect("bob") as bob:
        bob.log_in(bob_keys)
        assert [int(bob.fetch()) for _ in range(acknowledged)] == [*range(1, acknowledged + 1)]


def _let_writes_fail_above_4_mb() -> None:
    """A file size limit fails like a disk: the write does, and not for want of space."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))


# --- without a relay ------------------------------------------------------------------------------


class Terminal:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.errors = ""

    def run(self, *arguments: str, code: int = 0) -> str:
        found = run_program(arguments)
        output, self.errors = self.capsys.readouterr()
        assert found == code, (output, self.errors)
        assert "Traceback" not in self.errors
        return output


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_help_and_version(terminal: Terminal) -> None:
    commands = ("run", "check", "invite", "users", "rooms", "stats", "remove", "reset")
    overview = terminal.run("--help")
    assert all(f"  {command}" in overview for command in commands)
    for command in commands:
        assert f"Usage: saltline-server {command} " in terminal.run(command, "--help")
    assert terminal.run("--version") == f"saltline-server, version {__version__}\n"


def test_usage_errors_exit_1(terminal: Terminal) -> None:
    for arguments in (("fly",), ("run", "--listen"), ("users", "--colour"), ("reset",)):
        assert terminal.run(*arguments, code=1) == ""
        assert "Error: " in terminal.errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--cert", "none.pem"), "A certificate and its key go together"),
        (("--cert", "none.pem", "--key", "none.key"), "The certificate none.pem cannot be read:"),
        (("--config", "none.toml"), "The configuration none.toml cannot be read:"),
        (
            ("--listen", "nowhere:x"),
            "--listen is wrong. Not a port: 'x'. A port is a number from 1 to 65535, or 0 for any",
        ),
        (
            ("--data", "/dev/null/x"),
            "The data folder /dev/null/x cannot be made: /dev/null is not a folder.",
        ),
        (("--data", "/proc/x"), "The data folder /proc/x cannot be made: "),
        (("--listen", "192.0.2.7:0"), "192.0.2.7 is not an address of this computer."),
    ],
)
def test_run_says_what_is_wrong_in_one_sentence(
    terminal: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("set_up_log", "harden"):  # this process is the test's
        monkeypatch.setattr(f"saltline.server.process.{name}", lambda *_: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    assert terminal.run("run", "--data", "data", *arguments, code=1) == ""
    assert terminal.errors.startswith(sentence)
    assert len(terminal.errors.splitlines()) == 1
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_key_that_cannot_be_read_is_said_in_words_of_ours(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    key.unlink()
    key.mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    arguments = ("--data", str(tmp_path / "x"), "--cert", str(chain), "--key", str(key))
    terminal.run("check", *arguments, code=1)
    assert terminal.errors == f"The key {key} cannot be read: Is a directory.\n"


def test_a_fault_of_ours_is_one_line_without_what_it_handled(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr("saltline.server.cli.load_config", fail)
    assert terminal.run("users", code=2) == ""
    assert terminal.errors.startswith("saltline-server has a fault: KeyError at test_cli.py:")
    assert "secret" not in terminal.errors


# --- check ----------------------------------------------------------------------------------------


def test_check_before_the_first_start_changes_nothing(terminal: Terminal, tmp_path: Path) -> None:
    data = tmp_path / "data"
    lines = terminal.run("check", "--data", str(data)).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "Configuration",
        "Certificate",
        "Database",
    ]
    assert not data.exists()


def test_check_looks_at_a_relay_that_ran_and_one_that_runs(
    start: Start, terminal: Terminal, tmp_path: Path
) -> None:
    data = ("--data", str(tmp_path / "data"))
    relay = start().wait_ready()
    running = terminal.run("check", *data)
    assert "runs and answers" in running and relay.pin in running
    relay.send(signal.SIGTERM)
    assert relay.wait() == 0
    assert terminal.run("check", *data).endswith("Database: ok, every page of it.\n")

    database = tmp_path / "data" / "relay.db"
    with open(database, "r+b") as file:
        file.seek(16 * 8192)
        file.write(os.urandom(4 * 8192))
    terminal.run("check", *data, code=1)
    assert "relay.db is damaged: " in terminal.errors and len(terminal.errors.splitlines()) == 1
    assert "restore a backup (docs/relay.md, Backups)" in terminal.errors
    assert "Error" not in terminal.errors


def test_check_says_of_a_folder_that_it_may_not_look_into_it(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal.run("check", "--data", str(tmp_path / ("x" * 300)), code=1)
    assert "cannot be used: File name too long." in terminal.errors


def test_check_names_a_missing_log_key(terminal: Terminal, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "relay.db").write_bytes(b"")
    terminal.run("check", "--data", str(data), code=1)
    assert "log.key is missing" in terminal.errors
    assert sorted(os.listdir(data)) == ["relay.db", "relay.lock"]
