"""The relay's configuration file and the flags over it."""

import logging
import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest

from saltline.protocol.names import RelayAddress
from saltline.server import config as config_module
from saltline.server.config import Config, Deadlines, Flags, load_config, parse_listen
from saltline.server.errors import UsageError
from saltline.server.settings import Registration, Settings

WHOLE = """
listen = "[::1]:9000"
data = "state"
certificate = "/etc/relay/fullchain.pem"
key = "privkey.pem"
registration = "invite"
log_level = "debug"
workers = 3
handshake_threads = 1
flush_interval_ms = 5

[limits]
connections_max = 100
login_deadline_s = 7
silence_max_s = 12.5

[deadlines]
handshake_s = 3
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "relay.toml"
    file.write_text(text)
    return file


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as refused:
        load_config(write(folder, text), Flags())
    return str(refused.value).replace(str(folder), "")


def test_without_a_file_there_are_defaults() -> None:
    config = load_config(None, Flags())
    assert config == Config()
    assert config.listen == RelayAddress("0.0.0.0", 7443)
    assert config.data.is_absolute()


def test_a_whole_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, WHOLE), Flags())
    assert config == Config(
        listen=RelayAddress("::1", 9000),
        data=tmp_path / "state",
        certificate=Path("/etc/relay/fullchain.pem"),
        key=tmp_path / "privkey.pem",
        settings=Settings(
            registration=Registration.INVITE,
            connections_max=100,
            login_deadline_s=7.0,
            silence_max_s=12.5,
        ),
        log_level=logging.DEBUG,
        workers=3,
        handshake_threads=1,
        flush_interval_ms=5.0,
        deadlines=Deadlines(handshake_s=3.0),
    )


def test_flags_override_the_file(tmp_path: Path) -> None:
    flags = Flags(
        listen="127.0.0.1:0",
        data=tmp_path / "elsewhere",
        certificate=tmp_path / "a.pem",
        key=tmp_path / "b.pem",
    )
    config = load_config(write(tmp_path, WHOLE), flags)
    assert config.listen == RelayAddress("127.0.0.1", 0)
    assert (config.data, config.certificate, config.key) == (
        tmp_path / "elsewhere",
        tmp_path / "a.pem",
        tmp_path / "b.pem",
    )
    assert config.workers == 3


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    names = [setting.name for setting in fields(Settings) if setting.name != "registration"]
    text = "[limits]\n" + "".join(f"{name} = 77\n" for name in names)
    settings = load_config(write(tmp_path, text), Flags()).settings
    assert {getattr(settings, name) for name in names} == {77}


def test_the_documented_example_is_taken(tmp_path: Path) -> None:
    example = "\n".join(
        line[4:] for line in (config_module.__doc__ or "").splitlines() if line.startswith("    ")
    )
    assert set(tomllib.loads(example)) == {
        "listen", "data", "certificate", "key", "registration", "log_level", "workers",
        "handshake_threads", "flush_interval_ms", "limits", "deadlines",
    }  # fmt: skip
    config = load_config(write(tmp_path, example), Flags())
    assert config.key == tmp_path / "privkey.pem"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colour = 1", "`colour` in /relay.toml is not a setting of the relay."),
        ("[limits]\nx = 1", "`limits.x` in /relay.toml is not a setting of the relay."),
        ("[limits]\nregistration = 'open'", "`limits.registration` in /relay.toml is not a"
         " setting of the relay."),
        ("[limits]\nrooms_per_user = 1001", "`limits.rooms_per_user` in /relay.toml must be a"
         " whole number from 1 to 1000."),
        ("[limits]\ndelivery_window_bytes = 4194305", "`limits.delivery_window_bytes` in"
         " /relay.toml must be a whole number from 1 to 4194304."),
        ("limits = 3", "`limits` in /relay.toml must be a table."),
        ("listen = 7443", "`listen` in /relay.toml must be a text."),
        ("data = ''", "`data` in /relay.toml must be a text."),
        ("workers = 0", "`workers` in /relay.toml must be a whole number from 1 to 64."),
        ("workers = true", "`workers` in /relay.toml must be a whole number from 1 to 64."),
        ("workers = 1.0", "`workers` in /relay.toml must be a whole number from 1 to 64."),
        # epoll and joined threads take no longer ones.
        ("[deadlines]\nclose_s = 1e10", "`deadlines.close_s` in /relay.toml must be a number from"
         " 0.001 to 86400."),
        ("[deadlines]\ncheck_every_s = 90_000", "`deadlines.check_every_s` in /relay.toml must be"
         " a number from 0.001 to 86400."),
        ("flush_interval_ms = nan", "`flush_interval_ms` in /relay.toml must be a number from 0"
         " to 1000."),
        ("flush_interval_ms = '2'", "`flush_interval_ms` in /relay.toml must be a number from 0"
         " to 1000."),
        ("registration = 'all'", '`registration` in /relay.toml must be one of "open", "invite".'),
        ("log_level = 3", '`log_level` in /relay.toml must be one of "debug", "info", "warning",'
         ' "error".'),
        ("[limits]\nrooms_max = -1", "`limits.rooms_max` in /relay.toml must be a whole number"
         " from 1 to 9007199254740992."),
        ("listen = 'a b'", "`listen` in /relay.toml is wrong. Not a relay's address: 'a b'."
         " Write HOST:PORT or [IPv6]:PORT."),
        ("data = '~nobody-here/x'", "`data` in /relay.toml begins with an unknown user's home."),
        ("workers = " + "9" * 5000, "The configuration /relay.toml has a number with too many"
         " digits."),
        ("certificate = 'a'", "A certificate and its key go together: give --cert and --key, or"
         " neither."),
    ],
)  # fmt: skip
def test_each_fault_has_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


def test_a_remote_looking_name_is_shown_safely(tmp_path: Path) -> None:
    assert "\x1b" not in refusal(tmp_path, '"\\u001b[2J" = 1')


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    assert refusal(tmp_path, "listen 1").startswith(
        "The configuration /relay.toml is not TOML: Expected '='"
    )
    (tmp_path / "relay.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not a text in UTF-8"):
        load_config(tmp_path / "relay.toml", Flags())


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "none.toml", Flags())
    big = write(tmp_path, "#" * (1024 * 1024 + 1))
    with pytest.raises(UsageError, match="too large"):
        load_config(big, Flags())


def test_an_emptied_file_is_refused(tmp_path: Path) -> None:
    # A disk that was full when it was written, or a pipe that was read before: a reload would
    # open registration, and a start begin anew in another folder.
    sentence = "The configuration /relay.toml is empty. Without --config, defaults are used."
    assert refusal(tmp_path, "") == sentence


def test_a_pipe_is_read_to_its_end_and_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "relay.toml"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is empty"):
        load_config(pipe, Flags())
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, b"workers = 3")
    reading = ThreadPoolExecutor(1).submit(load_config, pipe, Flags())
    with pytest.raises(TimeoutError):
        reading.result(0.5)
    os.close(writer)
    assert reading.result(10).workers == 3


def test_a_bad_flag_names_the_flag() -> None:
    with pytest.raises(UsageError, match="^--listen is wrong. Not a port: '99999'"):
        load_config(None, Flags(listen="127.0.0.1:99999"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", RelayAddress("127.0.0.1", 0)),
        ("[::1]:0", RelayAddress("::1", 0)),
        ("[::]:7000", RelayAddress("::", 7000)),
        ("relay.example", RelayAddress("relay.example", 7443)),
        ("relay.example:0", RelayAddress("relay.example", 0)),
    ],
)
def test_listen_addresses(text: str, address: RelayAddress) -> None:
    assert parse_listen(text) == address
