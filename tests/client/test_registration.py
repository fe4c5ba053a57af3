"""Set-up by command: what proves the relay, what is kept, and the passphrase."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.client.model import Refused
from saltline.client.profile import SALT_FILE, Profile
from saltline.client.publishing import Publishing
from saltline.client.terminal import ask_key
from tests.client.programs import (
    House,
    Process,
    Shell,
    Terminal,
)
from tests.client.tls_peer import TlsServer, make_certificate


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def registration(house: House, name: str, *more: str) -> list[str]:
    return ["register", "--relay", str(house.address), "--user", name, "--pin", house.pin, *more]


# --- register --------------------------------------------------------------------------------


def test_register_prints_what_the_person_needs(house: House, saltline: Shell) -> None:
    profile = house.folder / "ann2"

    ran = saltline(profile, *registration(house, "ann2", "--no-passphrase", "--json"))

    assert ran.code == 0
    assert ran.records == saltline(profile, "whoami", "--json").records
    assert ran.records[0]["pin"] == house.pin
    assert "Compare safety numbers" in ran.err
    assert (profile / "vault.key").stat().st_mode & 0o777 == 0o600


def test_registering_again_changes_nothing(house: House, saltline: Shell) -> None:
    profile = house.folder / "ann3"
    command = registration(house, "ann3", "--no-passphrase", "--json")
    first = saltline(profile, *command)

    again = saltline(profile, *command)
    other = saltline(profile, *registration(house, "ben3", "--no-passphrase"))

    assert (again.code, again.out) == (0, first.out)
    assert other.code == 1
    assert f"is ann3 at {house.address} already" in other.err


def test_registering_again_publishes_what_a_kill_kept_back(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, writer = house.folder / "ann23", house.user("ben23")
    command = registration(house, "ann23", "--no-passphrase")
    with monkeypatch.context() as killed_after_the_welcome:
        killed_after_the_welcome.setattr(Publishing, "welcomed", lambda self, welcome: None)
        assert saltline(profile, *command).code == 0

    assert saltline(profile, *command).code == 0

    assert saltline(writer, "send", "ann23", "-m", "welcome").code == 0


def test_a_registration_that_was_killed_is_finished_by_the_next(
    house: House, saltline: Shell
) -> None:
    profile = house.folder / "ann4"
    with house.closed():
        # A relay that takes the name and never answers.
        shown = make_certificate(house.folder, "silent")
        with TlsServer(shown) as silent:
            target = f"127.0.0.1:{silent.address.port}"
            pin = f"sha256:{shown.spki_hash.hex()}"
            command = ["register", "--relay", target, "--user", "ann4", "--pin", pin]
            with Process(profile, *command, "--no-passphrase") as first:
                silent.accept().next_body()
                first.process.kill()
                first.process.wait()

    ran = saltline(profile, *registration(house, "ann4", "--no-passphrase", "--json"))

    assert (ran.code, ran.records[0]["user"]) == (0, "ann4")


@pytest.mark.parametrize(
    ("pin", "code", "sentence"),
    [
        (["--pin", "sha256:" + "ab" * 32], 3, "does not match: expected sha256:abab"),
        ([], 3, "not vouched for by the system's authorities"),
        (["--pin", "sha256:12"], 1, "64 hexadecimal digits"),
        (["--pin", "sha256:" + "ab" * 32, "--ca", "x"], 1, "not both"),
    ],
)
def test_a_relay_that_proves_nothing_gets_no_account_and_leaves_no_profile(
    house: House, saltline: Shell, tmp_path: Path, pin: list[str], code: int, sentence: str
) -> None:
    arguments = ["register", "--relay", str(house.address), "--user", "ann5", "--no-passphrase"]
    ran = saltline(tmp_path / "new", *arguments, *pin)

    assert ran.code == code
    assert sentence in ran.err
    assert "saltline relay" not in ran.err  # it needs an account
    assert code != 3 or "saltline register … --pin sha256:… or --ca FILE" in ran.err
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == ["lock"]


def test_a_relay_that_is_away_can_be_registered_at_later(house: House, saltline: Shell) -> None:
    profile = house.folder / "ann6"
    command = registration(house, "ann6", "--no-passphrase")
    with house.closed():
        away = saltline(profile, *command)

    assert away.code == 3
    assert "cannot be reached: nobody listens there. Nothing was sent." in away.err
    assert saltline(profile, *command).code == 0


def test_a_name_that_is_taken_leaves_nothing_behind(house: House, saltline: Shell) -> None:
    house.user("ann7")

    taken = saltline(house.folder / "other", *registration(house, "ann7", "--no-passphrase"))
    left = os.listdir(house.folder / "other")
    free = saltline(house.folder / "other", *registration(house, "bea7", "--no-passphrase"))

    assert (taken.code, left, free.code) == (1, ["lock"], 0)
    assert "taken" in taken.err


@pytest.mark.parametrize("name", ["A", "ann bee", "-ann", "x" * 33, "\x1b[2J"])
def test_a_name_that_is_none_is_refused_before_anything_is_made(
    house: House, saltline: Shell, tmp_path: Path, name: str
) -> None:
    ran = saltline(tmp_path / "new", *registration(house, name, "--no-passphrase"))

    assert ran.code == 1
    assert "A user name has 2 to 32 characters" in ran.err
    assert not (tmp_path / "new").exists()


def test_a_certificate_authority_vouches_instead_of_a_pin(
    house: House, saltline: Shell, tmp_path: Path
) -> None:
    authority = house.folder / "relay" / "certificate.pem"  # self-made: its own authority
    arguments = ["register", "--relay", str(house.address), "--user", "ann8", "--no-passphrase"]

    ran = saltline(tmp_path / "new", *arguments, "--ca", str(authority), "--json")
    shown = saltline(tmp_path / "new", "relay", "--json")

    assert (ran.code, ran.records[0]["pin"]) == (0, "")
    assert shown.records[0]["ca_file"] == ran.records[0]["ca_file"] == str(authority)
    assert str(authority) in saltline(tmp_path / "new", "whoami").out


# --- passphrases -----------------------------------------------------------------------------


def test_a_passphrase_file_opens_what_it_closed(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def derive_quickly(passphrase: str, salt: bytes) -> bytes:
        return hashlib.sha256(salt + passphrase.encode()).digest()

    monkeypatch.setattr("saltline.crypto.passphrase.derive_key", derive_quickly)
    profile, right, wrong = (house.folder / name for name in ("ann9", "right", "wrong"))
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    right.chmod(0o600)
    wrong.chmod(0o600)
    made = saltline(profile, *registration(house, "ann9", "--passphrase-file", str(right)))

    opened = saltline(None, "--profile", str(profile), "--passphrase-file", str(right), "whoami")
    shut = saltline(None, "--profile", str(profile), "--passphrase-file", str(wrong), "whoami")

    assert (made.code, opened.code, shut.code) == (0, 0, 1)
    assert "fewer than" not in made.err
    assert shut.out == ""
    assert shut.err == (
        f"saltline: The passphrase in {wrong} does not open this vault. Nothing was changed.\n"
    )


def test_without_terminal_and_file_a_passphrase_cannot_be_asked(
    house: House, saltline: Shell, tmp_path: Path
) -> None:
    with Process(tmp_path / "new", *registration(house, "ann10")) as process:
        ran = process.end()

    assert ran.code == 1
    assert "--passphrase-file FILE, or --no-passphrase" in ran.err


def test_a_registration_without_a_key_leaves_that_of_a_vault_that_is_elsewhere(
    house: House, tmp_path: Path
) -> None:
    profile = Profile(tmp_path / "moved", create=True)
    key = profile.create_key(None)
    with Process(profile.folder, *registration(house, "ann12")) as process:
        assert process.end().code == 1  # nobody can be asked for a passphrase

    assert profile.unlock(None) == key


def test_a_passphrase_is_typed_unseen_and_twice(house: House) -> None:
    profile = house.folder / "ann11"
    terminal = Terminal(profile, *registration(house, "ann11"))
    terminal.expect("New passphrase for this profile: ")
    terminal.type("correct horse\n")
    terminal.expect("Again: ")
    terminal.type("correct horse\n")
    assert terminal.end() == 0
    assert "fingerprint" in terminal.shown
    assert "horse" not in terminal.shown

    terminal = Terminal(profile, "whoami")
    terminal.expect("Passphrase of ")
    terminal.type("correct hearse\n")
    terminal.expect("does not open this vault. Try again.\r\nPassphrase of ")
    terminal.type("correct horse\n")
    assert terminal.end() == 0
    assert "fingerprint" in terminal.shown
    assert "horse" not in terminal.shown and "hearse" not in terminal.shown


def test_a_passphrase_is_asked_for_three_times_in_all(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def derive_quickly(passphrase: str, salt: bytes) -> bytes:
        return hashlib.sha256(salt + passphrase.encode()).digest()

    monkeypatch.setattr("saltline.crypto.passphrase.derive_key", derive_quickly)
    file = house.folder / "right15"
    file.write_text("horse!\n")
    file.chmod(0o600)
    profile = house.folder / "ann15"
    made = saltline(profile, *registration(house, "ann15", "--passphrase-file", str(file)))
    assert "has fewer than 8 characters: who copies this profile can guess it" in made.err
    monkeypatch.setattr("saltline.client.terminal.has_terminal", lambda: True)
    typed = iter(["", "wrong", "horse!", "wrong", "wrong", "wrong", "horse!"])
    monkeypatch.setattr("getpass.getpass", lambda question: next(typed))

    opened = saltline(profile, "whoami")
    shut = saltline(profile, "whoami")

    assert (opened.code, opened.err.count("Try again.")) == (0, 2)
    assert (shut.code, shut.out, next(typed)) == (1, "", "horse!")
    assert shut.err.endswith("vault, 3 times in a row. Nothing was changed.\n")
    assert "key file" not in opened.err + shut.err


def test_what_asks_for_a_passphrase_moves_no_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = Profile(tmp_path / "a\x1b[2J\u202e", create=True)
    (profile.folder / SALT_FILE).touch()
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return ""

    monkeypatch.setattr("getpass.getpass", answer)
    monkeypatch.setattr("saltline.client.terminal.has_terminal", lambda: True)
    with pytest.raises(Refused, match="3 times in a row"):
        ask_key(profile, None)
    assert asked == [f"Passphrase of {tmp_path}/a<U+001B>[2J<U+202E>: "] * 3


def test_two_passphrases_that_differ_make_no_profile(house: House) -> None:
    profile = house.folder / "ann12"
    terminal = Terminal(profile, *registration(house, "ann12"))
    terminal.expect("New passphrase")
    terminal.type("one\n")
    terminal.expect("Again: ")
    terminal.type("two\n")

    assert terminal.end() == 1
    assert "The two passphrases differ" in terminal.shown
    assert os.listdir(profile) == ["lock"]


@pytest.mark.parametrize(("answer", "trust"), [("yes", "verified"), ("no", "first seen")])
def test_on_a_terminal_verify_asks_and_marks(
    house: House, saltline: Shell, answer: str, trust: str
) -> None:
    ann = house.user(f"ann13{answer}")
    house.user(f"ben13{answer}")
    terminal = Terminal(ann, "verify", f"ben13{answer}")
    terminal.expect("have the same number?")
    terminal.type(f"{answer}\n")

    assert terminal.end() == 0
    (contact,) = saltline(ann, "verify", f"ben13{answer}", "--json").records
    assert contact["trust"] == trust


def test_a_folder_that_others_can_read_is_not_used(house: House, saltline: Shell) -> None:
    ann = house.user("ann14")
    ann.chmod(0o755)

    ran = saltline(ann, "whoami")

    assert ran.code == 1
    assert f"chmod 700 {ann}" in ran.err
