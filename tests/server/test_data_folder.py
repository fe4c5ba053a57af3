"""The data folder: private, one relay's at a time, and nothing in it replaced in silence."""

import errno
import os
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.protocol.names import RelayAddress
from saltline.server import data_folder
from saltline.server.config import Config
from saltline.server.data_folder import LOG_KEY_FILE, DataFolder, write_private
from saltline.server.errors import UsageError
from saltline.server.relay import Relay
from tests.server.edge import config_in, open_descriptors
from tests.server.wire_client import WireClient


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with Relay(config_in(tmp_path)) as relay:
        yield relay


def greets(relay: Relay) -> bool:
    with WireClient(relay.address.port) as stranger:
        return bool(stranger.greet().log_key)


def test_the_data_folder_is_private(relay: Relay) -> None:
    folder = relay.config.data
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secret = {"certificate.key", LOG_KEY_FILE, "admin.sock", "relay.db"}
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in secret}
    assert modes == dict.fromkeys(secret, 0o600)


def test_one_relay_a_folder(relay: Relay) -> None:
    with pytest.raises(UsageError, match=rf"Another relay \(process {os.getpid()}\) runs on"):
        Relay(relay.config).start()
    assert greets(relay)


def test_a_full_disk_takes_no_process_number_and_the_lock_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = config_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        relay = Relay(config)
        relay.start()
    try:
        with pytest.raises(UsageError, match=r"Another relay \(process unknown\) runs on"):
            Relay(config).start()
    finally:
        relay.stop()


def refusal(config: Config) -> str:
    descriptors, threads = open_descriptors(), threading.active_count()
    with pytest.raises(UsageError) as refused:
        Relay(config).start()
    assert (open_descriptors(), threading.active_count()) == (descriptors, threads)
    return str(refused.value)


def test_a_start_that_fails_undoes_itself_and_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = RelayAddress("127.0.0.1", other.getsockname()[1])
        in_use = Config(listen=taken, data=tmp_path / "data")
        assert "is in use by another program" in refusal(in_use)

    (tmp_path / "file").write_text("x")
    assert refusal(Config(data=tmp_path / "file")).endswith(
        "is not a folder. Name one with --data."
    )
    below = refusal(Config(data=tmp_path / "file" / "below"))
    assert f"below cannot be made: {tmp_path / 'file'} is not a folder." in below
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    dangling = refusal(Config(data=tmp_path / "link"))
    assert "link cannot be made: it is a symbolic link to what is not there." in dangling

    # As with a folder that this user may not look into: nothing can be asked about it.
    unreachable = refusal(Config(data=tmp_path / ("x" * 300)))
    assert "cannot be made: File name too long. Name another one with --data." in unreachable

    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "letter.txt").write_text("x")
    assert refusal(Config(data=shared)).startswith(f"The data folder {shared} is open to others")
    assert (shared / "letter.txt").exists()


def test_an_empty_folder_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    with Relay(config_in(tmp_path)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_new_folder_survives_a_power_cut_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(data_folder, "sync_folder", synced.append)
    for _ in range(2):
        DataFolder.open(tmp_path / "one" / "two" / "data", create=True)
    assert sorted(synced) == [tmp_path, tmp_path / "one", tmp_path / "one" / "two"]


def test_a_lost_log_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with Relay(config):
        pass
    (config.data / LOG_KEY_FILE).rename(tmp_path / "kept")
    assert "log.key is missing" in refusal(config)
    (config.data / LOG_KEY_FILE).write_bytes(b"short")
    assert "is damaged: 32 bytes are expected" in refusal(config)
    (config.data / LOG_KEY_FILE).write_bytes(bytes(32))
    assert "belongs to another log key" in refusal(config)
    shutil.copy(tmp_path / "kept", config.data / LOG_KEY_FILE)
    with Relay(config) as relay:
        assert greets(relay)


@pytest.mark.parametrize("name", ["relay.lock", LOG_KEY_FILE, "certificate.key"])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_planted_link_is_refused_and_its_target_left_alone(
    tmp_path: Path, name: str, is_dangling: bool
) -> None:
    config = config_in(tmp_path)
    with Relay(config):
        pass
    target = tmp_path / "target"
    (config.data / name).rename(target)
    target.chmod(0o644)
    held = target.read_bytes()
    if is_dangling:
        target.unlink()
    (config.data / name).symlink_to(target)
    assert f"{name} is a symbolic link" in refusal(config)
    assert target.exists() is not is_dangling
    if not is_dangling:
        assert target.read_bytes() == held
        assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_a_pipe_instead_of_a_key_is_refused_at_once(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    config.data.mkdir(mode=0o700)
    os.mkfifo(config.data / LOG_KEY_FILE)
    assert "log.key is not a file" in refusal(config)


def test_secrets_that_were_opened_up_are_closed_again(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    secrets = [config.data / name for name in ("relay.lock", LOG_KEY_FILE, "certificate.key")]
    with Relay(config):
        pass
    for path in secrets:
        path.chmod(0o644)
    with Relay(config):
        assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600] * 3


@pytest.mark.parametrize("is_link", [False, True])
def test_somebody_elses_folder_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_link: bool
) -> None:
    config = config_in(tmp_path)
    theirs = tmp_path / "theirs" if is_link else config.data
    theirs.mkdir(mode=0o755)
    if is_link:
        config.data.symlink_to(theirs)
    uid = os.geteuid() + 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: uid)
        assert "belongs to another user. Nothing was changed." in refusal(config)
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755
    assert list(theirs.iterdir()) == []
    with Relay(config) as relay:
        assert greets(relay), "a link to a folder of one's own is fine"


def test_a_database_that_is_none_is_said(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with Relay(config):
        pass
    (config.data / "relay.db").write_bytes(b"no database at all" * 1000)
    assert "is not a relay's database" in refusal(config)


def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    write_private(path, b"old")

    def power_fails(*_: object) -> None:
        raise OSError("power")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", power_fails)
        with pytest.raises(OSError, match="power"):
            write_private(path, b"new")
    assert path.read_bytes() == b"old"
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_a_secret_is_on_the_disk_before_its_name_and_its_name_before_anybody_relies_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        what = "the folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes"
        happened.append(f"sync {what}")
        fsync(descriptor)

    def name(old: Path, new: Path) -> None:
        happened.append(f"name it {new.name}")
        rename(old, new)

    folder = DataFolder.open(tmp_path / "data", create=True)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", name)
    folder.log_key_seed(os.urandom)
    assert happened == ["sync 32 bytes", "name it log.key", "sync the folder"]


def test_whether_a_relay_runs_on_it(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True)
    assert not folder.is_in_use()
    folder.lock()
    assert DataFolder(folder.path).is_in_use()
    folder.close()
    assert not DataFolder(folder.path).is_in_use()


def test_a_folder_that_is_not_there_is_made_only_by_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no data folder .* `saltline-server run` makes"):
        DataFolder.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
