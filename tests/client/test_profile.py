"""The profile folder: private, owned by one process, and opened by one key."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from saltline.client.model import ExitCode, Refused
from saltline.client.profile import (
    LOCK_FILE,
    Busy,
    KeyKind,
    Profile,
    default_folder,
    read_passphrase_file,
)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return Profile(tmp_path / "profile", create=True)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


# --- the folder ------------------------------------------------------------------------------


def test_a_new_profile_is_for_its_user_alone_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        profile = Profile(tmp_path / "new", create=True)
        profile.create_key(None)
        profile.acquire()
    finally:
        os.umask(before)

    assert mode_of(profile.folder) == 0o700
    assert {mode_of(path) for path in profile.folder.iterdir()} == {0o600}
    profile.release()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o720, 0o777])
def test_a_folder_that_others_can_look_into_is_refused(profile: Profile, mode: int) -> None:
    profile.folder.chmod(mode)

    with pytest.raises(Refused, match="Others can look into the profile .*: chmod 700 "):
        Profile(profile.folder)


def test_somebody_elses_folder_is_refused(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(Refused, match=r"belongs to another user\. It was not used\."):
        Profile(profile.folder, create=True)


def test_a_profile_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no profile at .*nowhere.*saltline register"):
        Profile(tmp_path / "nowhere")


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Refused, match="not a folder"):
        Profile(tmp_path / "file")


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SALTLINE_PROFILE", str(tmp_path / "there"))

    assert default_folder() == tmp_path / "there"


# --- one owner -------------------------------------------------------------------------------


def test_a_second_process_is_told_who_owns_the_profile(profile: Profile) -> None:
    profile.acquire()
    code = (
        "import sys; from pathlib import Path; from saltline.client.profile import Busy, Profile\n"
        "try: Profile(Path(sys.argv[1])).acquire()\n"
        "except Busy as busy: print(busy.pid)"
    )

    said = subprocess.run(
        [sys.executable, "-c", code, str(profile.folder)], capture_output=True, text=True
    )

    assert said.stdout == f"{os.getpid()}\n"
    profile.release()


def test_nobody_else_owns_it_either_where_the_lock_file_was_removed(profile: Profile) -> None:
    profile.acquire()
    (profile.folder / LOCK_FILE).unlink()
    other = Profile(profile.folder)
    with pytest.raises(Busy):
        other.acquire()
    profile.release()
    other.acquire()
    assert other.owned
    other.release()


def test_the_lock_ends_with_a_killed_process(profile: Profile) -> None:
    code = (
        "import sys, time; from pathlib import Path; from saltline.client.profile import Profile\n"
        "Profile(Path(sys.argv[1])).acquire(); print('owned', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(profile.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"owned\n"
        with pytest.raises(Busy) as busy:
            profile.acquire()
        owner.kill()

    assert busy.value.code is ExitCode.USAGE
    profile.acquire()
    assert profile.owned
    profile.release()


def test_a_link_in_the_locks_place_is_not_followed(profile: Profile, tmp_path: Path) -> None:
    (profile.folder / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Refused, match="Cannot use"):
        profile.acquire()

    assert not (tmp_path / "elsewhere").exists()


# --- the key ---------------------------------------------------------------------------------


def test_a_key_file_opens_what_it_was_made_for(profile: Profile) -> None:
    key = profile.create_key(None)

    assert len(key) == 32
    assert profile.key_kind is KeyKind.KEY_FILE
    assert Profile(profile.folder).unlock(None) == key


@pytest.mark.parametrize("passphrase", [None, "correct horse"], ids=["key file", "passphrase"])
def test_what_opens_a_vault_is_on_the_disk_before_there_is_one(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, passphrase: str | None
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        is_whole = stat.S_ISDIR(status.st_mode) or status.st_size > 0
        happened.append("sync" if is_whole else "sync of nothing")
        fsync(descriptor)

    def name(old: Path, new: Path) -> None:
        happened.append("name it")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", name)
    profile.create_key(passphrase)
    assert happened == ["sync", "name it", "sync"]


def test_a_passphrase_gives_its_key_again(profile: Profile) -> None:
    key = profile.create_key("Grüße aus Kiel")

    assert profile.key_kind is KeyKind.PASSPHRASE
    # The same word from a keyboard that composes its accents.
    assert Profile(profile.folder).unlock("Gru\u0308ße aus Kiel") == key
    assert b"Kiel" not in (profile.folder / "vault.salt").read_bytes()


def test_no_passphrase_where_one_is_needed(profile: Profile) -> None:
    (profile.folder / "vault.salt").write_text(f"saltline argon2id-moderate 1 {'00' * 16}\n")

    with pytest.raises(Refused, match="has a passphrase, and none was given"):
        profile.unlock(None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_refused(profile: Profile, mode: int) -> None:
    profile.create_key(None)
    (profile.folder / "vault.key").chmod(mode)

    with pytest.raises(Refused, match="Others can read the key file"):
        profile.unlock(None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vault.key", ""),
        ("vault.key", "00" * 32),
        ("vault.key", "00" * 31 + "\n"),
        ("vault.key", "AB" * 32 + "\n"),
        ("vault.key", "00" * 32 + "\n\n"),
        ("vault.key", " " + "00" * 32 + "\n"),
        ("vault.key", "00" * 4000),
        ("vault.salt", "00" * 16 + "\n"),
        ("vault.salt", f"saltline argon2id-moderate 2 {'00' * 16}\n"),
        ("vault.salt", f"saltline argon2id-moderate 1 {'00' * 17}\n"),
    ],
)
def test_a_damaged_file_is_refused_before_it_is_used(
    profile: Profile, name: str, text: str
) -> None:
    (profile.folder / name).write_text(text)
    (profile.folder / name).chmod(0o600)

    with pytest.raises(Refused, match="damaged or from a newer version"):
        profile.unlock("whatever")


def test_a_vault_whose_key_is_gone_says_so(profile: Profile) -> None:
    profile.vault_path.write_bytes(b"x")

    with pytest.raises(Refused, match="neither vault.key nor vault.salt"):
        profile.unlock(None)


def test_a_profile_that_is_set_up_keeps_its_key(profile: Profile) -> None:
    key = profile.create_key(None)
    profile.vault_path.write_bytes(b"x")

    with pytest.raises(Refused, match="set up already"):
        profile.create_key(None)

    assert profile.unlock(None) == key


def test_the_key_of_a_vault_that_is_elsewhere_is_put_aside(profile: Profile) -> None:
    """Who is told that there is no account registers, and finds the vault later."""
    keys = [profile.create_key(None) for _ in range(3)]
    assert profile.unlock(None) == keys[2]
    for number in (1, 2):
        (profile.folder / f"vault.key.{number}").replace(profile.folder / "vault.key")
        assert profile.unlock(None) == keys[number - 1]


def test_a_set_up_that_comes_to_nothing_puts_the_key_back(profile: Profile) -> None:
    key = profile.create_key(None)
    again = Profile(profile.folder)
    again.acquire()
    again.create_key("secret")
    again.vault_path.write_bytes(b"x")
    again.discard_set_up()
    again.discard_set_up()
    again.release()

    assert Profile(profile.folder).unlock(None) == key
    assert {path.name for path in profile.folder.iterdir()} == {LOCK_FILE, "vault.key"}


# --- passphrase files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "passphrase"),
    [(b"one", "one"), (b"one\ntwo\n", "one"), (b"one\r\n", "one"), (b" one \n", " one ")],
)
def test_the_first_line_of_a_file_is_the_passphrase(
    tmp_path: Path, data: bytes, passphrase: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)

    file.chmod(0o600)
    assert read_passphrase_file(file) == (passphrase, False)
    file.chmod(0o604)
    assert read_passphrase_file(file) == (passphrase, True)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "first line .* is empty"),
        (b"\nsecond", "first line .* is empty"),
        (b"\xff\xfe", "not valid UTF-8"),
        (b"x" * 5000, "longer than 4096 bytes"),
    ],
)
def test_a_file_without_a_passphrase_is_refused_in_a_sentence(
    tmp_path: Path, data: bytes, sentence: str
) -> None:
    (tmp_path / "file").write_bytes(data)

    with pytest.raises(Refused, match=sentence):
        read_passphrase_file(tmp_path / "file")


def test_the_process_leaves_no_core_dump() -> None:
    code = (
        "import resource; from saltline.client.profile import harden_process; harden_process();"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    assert subprocess.check_output([sys.executable, "-c", code]) == b"0\n"
