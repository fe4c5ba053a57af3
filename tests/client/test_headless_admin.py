"""What an admin decides, as the headless commands say it: invites, resets, removals, quotas."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.server.admin import ask
from saltline.server.administration import Code, CreateInvite, RemoveUser, ResetUser
from saltline.server.settings import Registration, Settings
from tests.client.programs import House, Process, Ran, Shell, Terminal, owner_serves
from tests.waiting import wait_until

SETTINGS = Settings(
    registration=Registration.INVITE,
    registrations_per_minute_and_address=1000,
    mailbox_max_envelopes=3,
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house"), SETTINGS) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def code_for(house: House, username: str = "") -> str:
    """An invite, or a code that resets an account."""
    expires_ms = int(time.time() * 1000) + 3_600_000
    request = ResetUser(username, expires_ms) if username else CreateInvite(1, expires_ms)
    answer = ask(house.folder / "relay", request)
    assert isinstance(answer, Code)
    return answer.code


def register(house: House, saltline: Shell, name: str, code: str, folder: str = "") -> Ran:
    where = ["--relay", str(house.address), "--pin", house.pin, "--user", name]
    profile = house.folder / (folder or name)
    return saltline(profile, "register", *where, "--no-passphrase", "--invite", code)


def account(house: House, saltline: Shell, name: str) -> Path:
    assert register(house, saltline, name, code_for(house)).code == 0
    return house.folder / name


def test_a_relay_by_invitation_asks_for_a_code_that_is_good_once(
    house: House, saltline: Shell
) -> None:
    code = code_for(house)

    without = register(house, saltline, "ann1", "")
    wrong = register(house, saltline, "ann1", "no-such-code")
    right = register(house, saltline, "ann1", code)
    again = register(house, saltline, "ben1", code)

    assert [each.code for each in (without, wrong, right, again)] == [1, 1, 0, 1]
    assert "by invitation" in without.err
    for refused in (without, wrong, again):
        assert "Internal" not in refused.err


def test_a_code_need_not_be_an_argument(
    house: House, saltline: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(name: str, *more: str) -> list[str]:
        where = ["--relay", str(house.address), "--pin", house.pin, "--user", name]
        return ["register", *where, "--no-passphrase", *more]

    file = tmp_path / "code"
    file.write_text(code_for(house) + "\n")
    empty = tmp_path / "empty"
    empty.touch()
    piped = code_for(house).encode() + b"\nmore"
    from_file = saltline(tmp_path / "a", *command("ann6", "--invite-file", str(file)))
    from_pipe = saltline(tmp_path / "b", *command("ann7", "--invite-file", "-"), stdin=piped)
    none = saltline(tmp_path / "c", *command("ann8", "--invite-file", str(empty)))
    lost = saltline(tmp_path / "c", *command("ann8", "--invite-file", str(tmp_path / "lost")))
    both = saltline(tmp_path / "c", *command("ann8", "--invite", "x", "--invite-file", "-"))
    monkeypatch.setattr("saltline.client.terminal.has_terminal", lambda: False)
    unasked = saltline(tmp_path / "c", *command("ann8", "--invite"))

    assert (from_file.code, from_pipe.code) == (0, 0)
    assert [each.code for each in (none, lost, both, unasked)] == [1, 1, 1, 1]
    assert "the code stands there" in none.err and "Cannot read the code" in lost.err
    assert "not both" in both.err and "--invite-file FILE" in unasked.err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("option", [[], ["--invite"]])
def test_on_a_terminal_the_code_is_asked_for(
    house: House, saltline: Shell, tmp_path: Path, option: list[str]
) -> None:
    where = ["--relay", str(house.address), "--pin", house.pin, "--no-passphrase"]
    code = code_for(house)
    terminal = Terminal(tmp_path / "a", "register", *where, "--user", f"ann9{len(option)}", *option)
    try:
        terminal.expect("Invite code, from the relay's admin: ")
        terminal.type(code + "\n")
        assert terminal.end() == 0
    finally:
        terminal.kill()

    assert "fingerprint" in terminal.shown and code not in terminal.shown


def test_a_changed_key_stops_sending_until_the_person_decides(
    house: House, saltline: Shell
) -> None:
    ann, ben = account(house, saltline, "ann2"), account(house, saltline, "ben2")
    saltline(ann, "send", "ben2", "-m", "to the old key")
    before = saltline(ann, "verify", "ben2", "--json").records[0]["safety_number"]
    assert register(house, saltline, "ben2", code_for(house, "ben2"), folder="ben2new").code == 0
    ben = house.folder / "ben2new"

    first = saltline(ann, "send", "ben2", "-m", "to the new key", "--timeout", "1000")
    second = saltline(ann, "send", "ben2", "-m", "another", "--timeout", "1000")
    shown = saltline(ann, "contacts", "--json").records[0]
    wrong = saltline(ann, "trust", "ben2", before)
    now = saltline(ann, "verify", "ben2", "--json").records[0]["safety_number"]
    trusted = saltline(ann, "trust", "ben2", now, "--json")
    sent = saltline(ann, "send", "ben2", "-m", "to the new key, decided")
    received = saltline(ben, "recv", "--json")

    assert (first.code, second.code, wrong.code) == (4, 4, 4)
    for refused in (first, second):
        assert "key changed" in refused.err and "Nothing left this computer" in refused.err
        assert "saltline verify ben2" in refused.err
    assert shown["trust"] == "changed" and shown["changed_fingerprint"] != shown["fingerprint"]
    assert before != now
    assert (trusted.code, trusted.records[0]["trust"]) == (0, "first seen")
    assert sent.code == 0
    assert "to the new key, decided" in [each["body"] for each in received.records]


def test_a_full_mailbox_is_said_and_the_text_stays_queued(house: House, saltline: Shell) -> None:
    ann = account(house, saltline, "ann3")
    account(house, saltline, "ben3")
    results = [
        saltline(ann, "send", "ben3", "-m", str(number), "--timeout", "0.5", "--json")
        for number in range(4)
    ]

    assert [each.code for each in results] == [0, 0, 0, 5]
    assert results[-1].records[0]["delivery"] == "queued"
    assert "It is queued on this disk" in results[-1].err


def test_an_account_that_was_removed_is_told_and_does_not_come_back(
    house: House, saltline: Shell
) -> None:
    ann = account(house, saltline, "ann4")
    with Process(ann, "recv", "--follow") as follow:
        wait_until(lambda: owner_serves(ann), "recv --follow runs")
        assert saltline(ann, "status").code == 0
        ask(house.folder / "relay", RemoveUser("ann4"))
        ended = follow.end()

    again = saltline(ann, "recv")

    assert (ended.code, again.code) == (3, 3)
    assert "Traceback" not in ended.err and ended.err.count("\n") == 1


def test_the_newest_connection_of_an_account_wins(house: House, saltline: Shell) -> None:
    ann = account(house, saltline, "ann5")
    copied = house.folder / "ann5copy"
    copied.mkdir(mode=0o700)
    for name in ("vault.db", "vault.key"):
        (copied / name).write_bytes((ann / name).read_bytes())
        (copied / name).chmod(0o600)

    with Process(ann, "recv", "--follow") as follow:
        wait_until(lambda: owner_serves(ann), "recv --follow runs")
        assert saltline(ann, "status").code == 0
        assert saltline(copied, "status").code == 0
        ended = follow.end()

    assert ended.code == 3
