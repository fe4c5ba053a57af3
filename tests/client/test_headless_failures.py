"""How a headless command fails: one sentence, one exit status, no traceback."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from saltline.client import headless, requests
from saltline.client.output import Output
from saltline.client.records import Record
from saltline.client.requests import AnyRequest, Reply
from tests.client.programs import House, Shell


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


# --- exit statuses ---------------------------------------------------------------------------


TOO_LONG = b"x" * 65537


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "sentence"),
    [
        (["no-such-command"], None, 1, "No such command"),
        (["send"], None, 1, "Missing argument"),
        (["send", "ben", "-m", "x", "--timeout", "soon"], None, 1, "not a valid float"),
        (["send", "ben", "-m", "x", "--timeout", "nan"], None, 1, "not a number of seconds"),
        (["send", "ben", "-m", "x", "--wait", "for ever"], None, 1, "Invalid value"),
        (["send", "ben", "-m", "x", "-"], None, 1, "Either -m TEXT or -"),
        (["send", "ben", "-m", ""], None, 1, "The text is empty"),
        (["send", "ben"], b"", 1, "The text is empty"),
        (["send", "ben"], TOO_LONG, 1, "more than 65536 bytes"),
        (["send", "ben", "-m", "x" * 65537], None, 1, "more than 65536 bytes"),
        (["send", "ben"], b"ok \xff", 1, "not valid UTF-8 (byte 3)"),
        (["send", "ben", "-m", "\udcff"], None, 1, "not valid UTF-8 (byte 0)"),
        (["send", "Ben!", "-m", "x"], None, 1, "A user name has"),
        (["send", "\x1b[2J", "-m", "x"], None, 1, "A user name has"),
        (["send", "#room", "-m", "x"], None, 1, "saltline post '#room'"),
        (["send", "caller", "-m", "x"], None, 1, "that is you"),
        (["post", "ben", "-m", "x"], None, 1, "A room's name begins with #"),
        (["post", "#room", "-m", "x", "--wait", "delivered"], None, 1, "Nobody confirms"),
        (["post", "#", "-m", "x"], None, 1, "A room is #"),
        (["recv", "--once", "--follow"], None, 1, "One of --once"),
        (["recv", "--count", "0"], None, 1, "Invalid value"),
        (["history", "@nobody-here"], None, 6, "nothing with @nobody-here"),
        (["history", "two words"], None, 1, "A user name has"),
        (["verify", "caller"], None, 1, "That is you"),
        (["verify", "nobody-here"], None, 6, "no user nobody-here"),
        (["verify", "nobody-here", "12345"], None, 6, "no user nobody-here"),
        (["trust", "nobody-here", "12345"], None, 6, "No key of nobody-here"),
        (["send", "nobody-here", "-m", "x"], None, 6, "no user nobody-here"),
        (["relay", "--pin", "sha256:12"], None, 1, "64 hexadecimal digits"),
        (["relay", "--address", "a b"], None, 1, "Not a relay's address"),
        (["relay", "--ca", "/nowhere.pem"], None, 1, "cannot be read"),
        (["relay", "--ca", "x", "--pin", "y"], None, 1, "not both"),
    ],
)
def test_a_command_that_fails_says_why_and_with_which_status(
    house: House,
    saltline: Shell,
    arguments: list[str],
    stdin: bytes | None,
    code: int,
    sentence: str,
) -> None:
    caller = house.folder / "caller"
    if not caller.exists():
        house.user("caller")

    ran = saltline(caller, *arguments, stdin=stdin)

    assert ran.code == code
    assert sentence in ran.err
    assert "\x1b" not in ran.err


def test_whatever_is_not_expected_is_a_sentence_and_status_2(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(session: object) -> None:
        raise KeyError("a secret that no log may hold")

    monkeypatch.setattr(headless, "whoami", defect)

    ran = saltline(house.user("ann20"), "whoami")

    assert ran.code == 2
    assert ran.err.startswith("saltline: Internal error (KeyError, test_headless_failures.py:")
    assert "secret" not in ran.err


def test_a_profile_without_an_account_says_how_to_make_one(saltline: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)

    assert "saltline register" in saltline(tmp_path / "nowhere", "recv").err
    empty = saltline(tmp_path / "empty", "recv")
    assert (empty.code, "saltline register" in empty.err) == (1, True)
    assert os.listdir(tmp_path / "empty") == ["lock"]


def test_the_environment_names_the_profile(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALTLINE_PROFILE", str(house.user("ann21")))

    assert saltline(None, "whoami", "--json").records[0]["user"] == "ann21"


def test_the_first_silence_is_looked_into_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after lines that waited to be printed: a relay that is away would look like silence."""
    waits: list[float] = []
    looks: list[int] = []
    came = [[Reply({})], [], []]

    def take(session: headless.Session, limit: int, timeout_s: float) -> list[Reply]:
        if not came:
            raise KeyboardInterrupt
        waits.append(timeout_s)
        return came.pop(0)

    def look(session: headless.Session) -> str:
        looks.append(len(waits))
        return ""

    monkeypatch.setattr(headless, "_print_some", take)
    monkeypatch.setattr(headless, "_why_away", look)
    with pytest.raises(KeyboardInterrupt):
        headless.receive_forever(Mock(left_s=60.0), endless=True)

    assert waits == [1.0, 1.0, 10.0]
    assert looks == [2, 3]


@pytest.mark.parametrize(
    ("moment", "finished"),
    [
        ("as 7 begins", []),
        ("as 7 leaves", [7]),
        ("as 8 begins", [7]),
        ("as 8 leaves", [7, 8]),
        ("before the mark", [7, 8]),
    ],
)
def test_who_ends_it_for_what_was_printed_is_not_shown_that_again(
    moment: str, finished: list[int]
) -> None:
    """SIGTERM waits for a line that leaves, and for the mark of all that have left."""

    class Asked(BaseException):
        pass

    def end(_number: int, _frame: object) -> None:
        raise Asked

    marked: list[int] = []
    left: list[int] = []

    def ask(now: str) -> None:
        if now == moment:
            # To this thread, as in the program, where no other one takes signals.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def perform(request: AnyRequest) -> list[Reply]:
        if isinstance(request, requests.Printed):
            ask("before the mark")
            marked.append(request.row)
        is_take = isinstance(request, requests.Take)
        return [Reply({"type": "notice", "row": row}, row=row) for row in (7, 8) if is_take]

    def begin(record: Record) -> bytes:
        ask(f"as {record['row']} begins")
        return bytes([record["row"]])

    def finish(end: bytes) -> None:
        ask(f"as {end[0]} leaves")
        left.append(end[0])

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Asked):
            session = Mock(perform=perform, introduced=set())
            session.output.begin = begin
            session.output.finish = finish
            headless._print_some(session, 2, 0.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left == finished
    assert marked == finished[-1:]


def test_of_a_line_that_is_on_its_way_only_the_end_is_left(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Whatever does not fit into a pipe may wait for its reader, and be interrupted."""
    output = Output(as_json=True)
    end = output.begin({"type": "notice", "body": "x" * 100_000})
    begun = capfdbinary.readouterr().out

    assert len(end) == select.PIPE_BUF and end.endswith(b'"}\n')
    assert begun.count(b"x") > 90_000 and b"\n" not in begun
    output.finish(end)
    assert capfdbinary.readouterr().out == end
