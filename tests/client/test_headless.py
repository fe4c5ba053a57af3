"""The headless commands against a real relay: what they print, and how they end."""

import re
from collections.abc import Iterator

import pytest

from saltline.client.output import Output
from tests.client.programs import House, Process, Ran, Shell


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def bodies(ran: Ran) -> list[str]:
    return [each["body"] for each in ran.records if each["type"] == "message"]


# --- there and back --------------------------------------------------------------------------


def test_a_message_is_sent_received_and_receipted(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann1"), house.user("ben1")

    sent = saltline(ann, "send", "ben1", "-m", "hello", "--json")
    received = saltline(ben, "recv", "--json")
    answered = saltline(ben, "send", "@ann1", "-m", "hello back")  # accepts: receipts may leave
    back = saltline(ann, "recv", "--json")
    again = saltline(ann, "history", "ben1", "--json")

    assert [sent.code, received.code, answered.code, back.code] == [0, 0, 0, 0]
    assert sent.records[0]["delivery"] == "relayed"
    assert bodies(received) == ["hello"]
    assert bodies(back) == ["hello back"]
    assert [each["delivery"] for each in again.records if each["from"] == "ann1"] == ["delivered"]


def test_a_strangers_message_comes_with_what_accepts_it(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann22"), house.user("ben22")
    nobody = saltline(ben, "contacts")
    for text in ("one", "two"):
        saltline(ann, "send", "ben22", "-m", text)

    stranger = saltline(ben, "recv")
    saltline(ben, "send", "ann22", "-m", "hello")
    saltline(ann, "send", "ben22", "-m", "three")
    known = saltline(ben, "recv")

    assert (nobody.out, "talked to nobody yet" in nobody.err) == ("", True)
    assert stranger.out.count("\n") == 2 and stranger.err == (
        "ann22 is a stranger, and gets no receipt until you answer (saltline send ann22) or accept"
        " (/accept ann22 on the screen).\n"
    )
    assert (known.out.count("\n"), known.err) == (1, "")


def test_what_was_printed_once_is_not_printed_again(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann2"), house.user("ben2")
    saltline(ann, "send", "ben2", "-m", "one")

    assert bodies(saltline(ben, "recv", "--json")) == ["one"]
    saltline(ann, "send", "ben2", "-m", "two")

    assert bodies(saltline(ben, "recv", "--once", "--json")) == ["two"]
    assert saltline(ben, "recv") == Ran(0, "", "")


def test_what_another_command_took_in_is_printed_by_the_next_recv(
    house: House, saltline: Shell
) -> None:
    ann, ben = house.user("ann3"), house.user("ben3")
    saltline(ann, "send", "ben3", "-m", "while you post")
    posted = saltline(ben, "post", "#room3", "-m", "hi", "--json")

    assert (posted.code, posted.records[0]["conversation"]) == (0, "#room3")
    with house.closed():
        away = saltline(ben, "recv", "--json", "--timeout", "0.2")
    assert (away.code, bodies(away)) == (3, ["while you post"])


def test_the_mark_stays_where_it_was_when_nothing_could_be_printed(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, ben = house.user("ann4"), house.user("ben4")
    saltline(ann, "send", "ben4", "-m", "do not lose me")

    def broken(self: Output) -> None:
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr(Output, "flush", broken)
        patch.setattr("saltline.client.output.discard_standard_output", lambda: None)
        lost = saltline(ben, "recv", "--json")

    assert (lost.code, lost.err) == (141, "")
    assert bodies(saltline(ben, "recv", "--json")) == ["do not lose me"]


def test_people_are_not_shown_who_came_and_went(house: House, saltline: Shell) -> None:
    ben = house.user("ben45")
    house.user("ann45")

    for_programs = saltline(ben, "recv", "--json")
    house.user("ann46")

    assert "join" in [each["type"] for each in for_programs.records]
    assert saltline(ben, "recv") == Ran(0, "", "")
    assert "#lobby ~ann46 joined" in saltline(ben, "history", "#lobby").out


def test_count_waits_for_so_many_messages_and_prints_no_more(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann5"), house.user("ben5")
    for text in ("one", "two", "three"):
        saltline(ann, "send", "ben5", "-m", text)

    assert bodies(saltline(ben, "recv", "--count", "2", "--json")) == ["one", "two"]
    late = saltline(ben, "recv", "--count", "2", "--timeout", "1", "--json")
    assert (late.code, bodies(late)) == (7, ["three"])
    assert "1 of 2 messages came within 1 s" in late.err


def test_a_text_arrives_as_it_was_sent(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann6"), house.user("ben6")
    texts = [
        "two\nlines\n",
        "tab\tbell\a nul\0",
        "grüße 👩‍🚀",
        "\u202egnirts",
        " ",
        "x" * 65536,
        "\x01" * 65536,  # the longest in JSON
    ]

    for text in texts:
        assert saltline(ann, "send", "ben6", "-", stdin=text.encode()).code == 0
    received = saltline(ben, "recv", "--json")

    assert bodies(received) == texts
    assert received.out.isascii()


def test_json_lines_are_exactly_these(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann7"), house.user("ben7")
    saltline(ann, "send", "ben7", "-m", "grüße\n")
    saltline(ann, "post", "#room7", "-m", "all")
    saltline(ben, "post", "#room7", "-m", "mine")

    lines = saltline(ben, "recv", "--json").out.splitlines()
    own = saltline(ben, "history", "#room7", "--json").out.splitlines()
    moment = r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'

    (private,) = [line for line in lines if '"@ann7"' in line]
    assert re.fullmatch(
        r'{"v":1,"type":"message","id":"[0-9a-f]{32}","conversation":"@ann7","from":"ann7",'
        r'"trust":"first seen","encrypted":true,"sent_at":' + moment + ',"received_at":' + moment
        + r',"body":"gr\\u00fc\\u00dfe\\n"}',
        private,
    )  # fmt: skip
    (public,) = [line for line in lines if '"all"' in line]
    assert re.fullmatch(
        r'{"v":1,"type":"message","id":"[0-9a-f]{32}","conversation":"#room7","from":"ann7",'
        r'"trust":"first seen","encrypted":false,"sent_at":' + moment + ',"received_at":' + moment
        + r',"body":"all","number":2}',
        public,
    )  # fmt: skip
    (mine,) = [line for line in own if '"mine"' in line]
    assert re.fullmatch(
        r'{"v":1,"type":"message","id":"[0-9a-f]{32}","conversation":"#room7","from":"ben7",'
        r'"trust":"own","encrypted":false,"sent_at":' + moment + ',"received_at":' + moment
        + r',"body":"mine","number":4,"delivery":"relayed"}',
        mine,
    )  # fmt: skip


def test_a_hostile_text_cannot_move_the_cursor_or_pose_as_a_line(
    house: House, saltline: Shell
) -> None:
    ann, ben = house.user("ann8"), house.user("ben8")
    text = "\x1b[2Jgone\n2026-01-01 00:00 @ben8 =ben8: I never said that\u202e"
    saltline(ann, "send", "ben8", "-m", text)

    printed = saltline(ben, "recv").out

    assert "\x1b" not in printed and "\u202e" not in printed
    assert "<U+001B>[2Jgone\n    2026-01-01" in printed


# --- who and where ---------------------------------------------------------------------------


def test_whoami_names_the_account_and_its_relay(house: House, saltline: Shell) -> None:
    ann = house.user("ann9")

    (who,) = saltline(ann, "whoami", "--json").records
    text = saltline(ann, "whoami").out

    assert list(who) == ["v", "type", "user", "relay", "relay_id", "pin", "ca_file", "fingerprint"]
    assert (who["user"], who["relay"], who["pin"]) == ("ann9", str(house.address), house.pin)
    assert re.fullmatch("[0-9a-f]{64}", who["relay_id"])
    assert re.fullmatch("([0-9a-f]{4} ){3}[0-9a-f]{4}", who["fingerprint"])
    assert house.pin in text and who["fingerprint"] in text


def test_status_says_how_the_link_is(house: House, saltline: Shell) -> None:
    ann = house.user("ann10")

    online = saltline(ann, "status", "--json")
    with house.closed():
        offline = saltline(ann, "status", "--json", "--timeout", "0.3")

    assert (online.code, online.records[0]["connection"]) == (0, "online")
    assert (offline.code, offline.records[0]["connection"]) == (3, "offline")
    assert "nobody listens there" in offline.err


def test_contacts_and_rooms_are_listed(house: House, saltline: Shell) -> None:
    ann = house.user("ann11")
    house.user("ben11")
    saltline(ann, "send", "ben11", "-m", "hi")

    (contact,) = saltline(ann, "contacts", "--json").records
    rooms = saltline(ann, "rooms", "--json").records

    assert (contact["user"], contact["trust"]) == ("ben11", "first seen")
    (lobby,) = [each for each in rooms if each["room"] == "#lobby"]
    assert lobby["joined"] is True


def test_history_is_searched(house: House, saltline: Shell) -> None:
    ann = house.user("ann12")
    house.user("ben12")
    for text in ("the red fox", "the blue fox", "the red hen"):
        saltline(ann, "send", "ben12", "-m", text, "--wait", "queued")

    assert bodies(saltline(ann, "history", "ben12", "--search", "red", "--json")) == [
        "the red fox",
        "the red hen",
    ]
    assert bodies(saltline(ann, "history", "@ben12", "--limit", "1", "--json")) == ["the red hen"]


# --- trust -----------------------------------------------------------------------------------


def test_both_sides_see_one_number_and_only_that_verifies(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann13"), house.user("ben13")

    (of_ben,) = saltline(ann, "verify", "ben13", "--json").records
    (of_ann,) = saltline(ben, "verify", "@ann13", "--json").records
    number = of_ben["safety_number"]
    short = saltline(ann, "verify", "ben13", "12345")
    wrong = saltline(ann, "verify", "ben13", *["00000"] * 12)
    right = saltline(ann, "verify", "ben13", *number.split(), "--json")

    assert number == of_ann["safety_number"]
    assert re.fullmatch(r"(\d{5} ){11}\d{5}", number)
    assert of_ben["trust"] == "first seen"
    assert (short.code, wrong.code, right.code) == (1, 4, 0)
    assert "has 60 digits" in short.err and "Nothing was marked." in short.err
    assert "compare all 60 digits again" in wrong.err
    assert right.records[0]["trust"] == "verified"


def test_on_a_pipe_verify_prints_the_number_and_marks_nothing(
    house: House, saltline: Shell
) -> None:
    ann = house.user("ann14")
    house.user("ben14")

    shown = saltline(ann, "verify", "ben14", stdin=b"yes\n")

    assert shown.code == 0
    assert len(re.findall(r"\b\d{5}\b", shown.out)) == 12
    assert saltline(ann, "verify", "ben14", "--json").records[0]["trust"] == "first seen"


def test_trust_refuses_where_nothing_changed(house: House, saltline: Shell) -> None:
    ann = house.user("ann15")
    house.user("ben15")
    number = saltline(ann, "verify", "ben15", "--json").records[0]["safety_number"]

    refused = saltline(ann, "trust", "ben15", number)

    assert refused.code == 1
    assert "has not changed" in refused.err


# --- the relay away, wrong or full -----------------------------------------------------------


def test_with_the_relay_down_a_text_is_safe_and_leaves_later(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann16"), house.user("ben16")
    with house.closed():
        sent = saltline(ann, "send", "ben16", "-m", "later", "--timeout", "0.34", "--json")

    assert (sent.code, sent.records[0]["delivery"]) == (7, "queued")
    assert "Not on the relay within 0.34 s (" in sent.err  # what was asked, not what was left
    assert "It is queued on this disk and leaves by itself later." in sent.err
    assert saltline(ann, "recv").code == 0
    assert bodies(saltline(ben, "recv", "--json")) == ["later"]


def test_recv_says_that_the_relay_is_away(house: House, saltline: Shell) -> None:
    ann = house.user("ann20")
    with house.closed():
        follow = saltline(ann, "recv", "--follow", "--timeout", "2.5")
        count = saltline(ann, "recv", "--count", "1", "--timeout", "0.5")

    assert (follow.code, follow.out, follow.err.count("\n")) == (0, "", 1)
    assert "cannot be reached: nobody listens there. It is tried again until it" in follow.err
    assert count.code == 7
    assert "0 of 1 messages came within 0.5 s." in count.err
    assert "cannot be reached: nobody listens there." in count.err


def test_recv_follow_goes_on_when_the_relay_is_back(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann21"), house.user("ben21")
    with house.closed():
        follow = Process(ann, "recv", "--follow")
        assert follow.process.stderr is not None
        assert "cannot be reached" in follow.process.stderr.readline().decode()
    with follow:
        saltline(ben, "send", "ann21", "-m", "back again")
        assert "back again" in follow.line()


def test_queued_is_enough_when_that_is_all_that_was_asked(house: House, saltline: Shell) -> None:
    ann = house.user("ann17")
    house.user("ben17")
    with house.closed():
        sent = saltline(ann, "send", "ben17", "-m", "x", "--wait", "queued", "--json")

    assert (sent.code, sent.records[0]["delivery"], sent.err) == (0, "queued", "")


def test_another_certificate_ends_every_command_at_once(house: House, saltline: Shell) -> None:
    ann = house.user("ann18")
    house.user("ben18")
    changed = saltline(ann, "relay", "--pin", "sha256:" + "ab" * 32, "--json")
    assert changed.records == [
        {
            "v": 1,
            "type": "relay",
            "relay": str(house.address),
            "pin": "sha256:" + "ab" * 32,
            "ca_file": "",
        }
    ]

    for command in (["send", "ben18", "-m", "x"], ["recv"], ["recv", "--follow"], ["rooms"]):
        refused = saltline(ann, *command, "--timeout", "1000")
        assert refused.code == 3
        assert house.pin in refused.err and "sha256:" + "ab" * 32 in refused.err

    assert saltline(ann, "relay", "--pin", house.pin).code == 0
    assert saltline(ann, "recv").code == 0


def test_a_relay_that_moved_is_found_again(house: House, saltline: Shell) -> None:
    ann = house.user("ann19")
    saltline(ann, "relay", "--address", "127.0.0.1:1")
    assert saltline(ann, "rooms", "--timeout", "0.2").code == 3

    moved = saltline(ann, "relay", "--address", str(house.address))

    assert house.pin in moved.out
    assert saltline(ann, "rooms").code == 0
