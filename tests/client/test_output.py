"""What is printed: records to JSON lines and to sentences, with nothing raw from outside."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from saltline.client.model import (
    ConnectionState,
    ContactInfo,
    Delivery,
    Line,
    LineKind,
    Status,
    Trust,
)
from saltline.client.output import human, say
from saltline.client.records import (
    encode_record,
    format_time,
    of_account,
    of_contact,
    of_line,
    of_relay,
    of_room,
    of_status,
)
from saltline.protocol.to_client import RoomInfo

NOON_MS = 1_778_587_200_000
LINE = Line(
    row=7,
    conversation="@bob",
    kind=LineKind.TEXT,
    author="bob",
    mine=False,
    body="did the build pass?",
    sent_ms=NOON_MS,
    received_ms=NOON_MS + 1500,
    id=bytes(range(16)),
)
CONTACT = ContactInfo("dave", Trust.CHANGED, "aaaa bbbb", "1 2 3", 1, False, "cccc dddd")
STATUS = Status(
    "ada", "relay.example:7443", "ab" * 32, "", "aaaa bbbb", ConnectionState.ONLINE, "", 23, 4, 5
)


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def a_line(**changes: Any) -> Line:
    values = {name: getattr(LINE, name) for name in LINE.__dataclass_fields__}
    return Line(**{**values, **changes})


@pytest.mark.parametrize(
    ("line", "trust", "shown"),
    [
        (LINE, Trust.VERIFIED, "2026-05-12 12:00 @bob =bob: did the build pass?"),
        (LINE, Trust.FIRST_SEEN, "2026-05-12 12:00 @bob ~bob: did the build pass?"),
        (LINE, Trust.CHANGED, "2026-05-12 12:00 @bob !bob: did the build pass?"),
        (
            a_line(author="ada", mine=True, body="yes\n", delivery=Delivery.READ),
            Trust.VERIFIED,
            "2026-05-12 12:00 @bob ada: yes  [++]",
        ),
        (
            a_line(author="ada", mine=True, delivery=Delivery.FAILED, reason="no such user"),
            Trust.VERIFIED,
            "2026-05-12 12:00 @bob ada: did the build pass?  [x]  (no such user)",
        ),
        (
            a_line(conversation="#dev", kind=LineKind.JOIN, body=""),
            Trust.UNKNOWN,
            "2026-05-12 12:00 #dev ?bob joined",
        ),
        (
            a_line(kind=LineKind.NOTICE, author="saltline", body="new session with bob"),
            Trust.UNKNOWN,
            "2026-05-12 12:00 @bob -- new session with bob",
        ),
        (
            a_line(kind=LineKind.ALERT, author="saltline", body="this room is split"),
            Trust.UNKNOWN,
            "2026-05-12 12:00 @bob !! this room is split",
        ),
        (
            a_line(kind=LineKind.UNSUPPORTED, body="\x00\x01"),
            Trust.VERIFIED,
            "2026-05-12 12:00 @bob =bob: (needs a newer version of saltline)",
        ),
        # A clock that runs ahead is shown as the moment of arrival.
        (a_line(sent_ms=2**62), Trust.VERIFIED, "2026-05-12 12:00 @bob =bob: did the build pass?"),
    ],
)
def test_a_line_for_people(line: Line, trust: Trust, shown: str) -> None:
    assert human(of_line(line, trust)) == shown


def test_other_records_for_people() -> None:
    assert human(of_contact(CONTACT)) == "! dave  aaaa bbbb -> cccc dddd  changed"
    assert human(of_room(RoomInfo("#dev", 7, 2, 99), None)) == "#dev  7 members, 2 online"
    assert human(of_status(STATUS, "")) == (
        "ada@relay.example:7443  online 23 ms\nqueue 4  5 unread"
    )
    assert "certificate  the system's certificate authorities" in human(of_account(STATUS, ""))
    assert "certificate  /ca.pem" in human(of_account(STATUS, "/ca.pem"))
    assert human(of_relay("r:1", "", "/ca.pem")) == "relay        r:1\ncertificate  /ca.pem"
    assert human({"v": 1, "type": "of the future", "x": 1}) == (
        '{"v":1,"type":"of the future","x":1}'
    )


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOON_MS + 7, "2026-05-12T12:00:00.007Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999Z"),
        (-5, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_no_clock_is_too_wrong_to_be_written_down(time_ms: int, text: str) -> None:
    assert format_time(time_ms) == text


RECORDS = [
    of_line(LINE, Trust.VERIFIED),
    of_line(a_line(mine=True, delivery=Delivery.FAILED, reason="x"), Trust.VERIFIED),
    of_line(a_line(kind=LineKind.JOIN), Trust.UNKNOWN),
    of_line(a_line(kind=LineKind.LEAVE), Trust.UNKNOWN),
    of_line(a_line(kind=LineKind.ALERT), Trust.UNKNOWN),
    of_line(a_line(kind=LineKind.UNSUPPORTED), Trust.UNKNOWN),
    of_contact(CONTACT),
    of_room(RoomInfo("#dev", 7, 2, 99), None),
    of_account(STATUS, "/ca.pem"),
    of_status(STATUS, ""),
    of_relay("r:1", "", ""),
]
HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\u2028\x00\ud800"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["type"]))
def test_nothing_raw_reaches_a_terminal_whichever_field_it_comes_in(
    record: dict[str, Any],
) -> None:
    for name, value in record.items():
        if isinstance(value, str) and name != "type":
            printed = human({**record, name: HOSTILE})

            assert not set(printed).intersection(HOSTILE) - set("]0;owned2J"), name
            assert encode_record({**record, name: HOSTILE}).isascii()
            assert json.loads(encode_record({**record, name: HOSTILE}))[name] == HOSTILE


def test_words_of_the_relay_cannot_pose_as_a_line() -> None:
    forged = "no\n2026-05-12 12:00 @bob =bob: send it to dave"
    failed = a_line(mine=True, delivery=Delivery.FAILED, reason=forged)
    assert "\n" not in human(of_line(failed, Trust.VERIFIED))
    assert human(of_status(replace(STATUS, detail=forged), "")).count("\n") == 1, (
        "between its own two lines"
    )


def test_what_is_said_beside_the_data_passes_the_sanitiser(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"The relay says {HOSTILE}.")
    said = capsys.readouterr().err
    assert said.endswith(".\n")
    assert not any(char in said for char in "\x1b\x07\x9b\u202e\u2028\x00")
