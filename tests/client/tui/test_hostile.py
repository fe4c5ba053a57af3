"""Nothing from outside acts on the terminal: checked on the bytes that leave."""

import re
import unicodedata

import pytest

from saltline.client.model import (
    ConnectionState,
    ContactInfo,
    Delivery,
    LineKind,
    Refused,
    Trust,
)
from saltline.protocol.to_client import Member, RoomInfo
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import Pilot, a_fake, play

# What a screen that draws only our own text writes: CSI, the title, the title's stack, charsets.
OUR_OWN = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]2;[ -~]*\x07|\x1b\([AB0]|\x1b[=>78]|\x1b\[\d q|[\r\n\x08\x07]"
)
EVIL = (
    "\x1b[2J\x1b]0;pwned\x07\x1b]52;c;cm0gLXJm\x07\x9b2J\x9d0;pwned\x9c\x1bP$q\x1b\\"
    "\x00\x07\x08\x0b\x0c\x7f\x85\x90\u2028\u2029\u202e\u2066\u200b\u2060\ufeff\U000e0041\xad"
    "\ud800" + "a" + "\u0301" * 50 + "\r\n\x1b[31mred"
)


def acting(raw: str) -> set[str]:
    """Characters that are left after our own sequences are taken out and should not be."""
    rest = OUR_OWN.sub("", raw)
    return {
        f"U+{ord(char):04X}"
        for char in rest
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    }


def assert_harmless(raw: str) -> None:
    assert acting(raw) == set()
    assert "\x1b]0;" not in raw and "\x1b]52" not in raw and "\x1bP" not in raw
    assert all("pwned" not in title for title in re.findall(r"\x1b\]2;([^\x07]*)\x07", raw))
    assert "\u0301" * 4 not in raw


def hostile() -> FakeMessenger:
    fake = a_fake()
    for kind in LineKind:
        fake.arrives("#lobby", EVIL, EVIL, kind=kind, reason=EVIL)
        fake.arrives("@bob", "bob", EVIL, kind=kind, reason=EVIL)
    fake.enters(f"#{EVIL}")
    fake.arrives(f"#{EVIL}", "bob", "ada")
    fake.meets(EVIL, Trust.CHANGED)
    fake._people["mallory"] = ContactInfo(
        EVIL, Trust.CHANGED, EVIL, EVIL, 1, True, changed_fingerprint=EVIL
    )
    fake._keep_summary("@mallory", trust=Trust.CHANGED, request=True)
    fake.room_list = (RoomInfo(f"#{EVIL}", 1, 1, 1),)
    fake.members["#lobby"] = (Member(EVIL, True),)
    return fake


def test_the_check_itself_sees_what_it_should() -> None:
    assert acting("\x1b[31mplain\x1b[0m\r\n") == set()
    assert acting("a\x9b2Jb") == {"U+009B"}
    assert acting("a\u202eb") == {"U+202E"}
    assert acting("\x1b]52;c;eA==\x07") == {"U+001B"}


@pytest.mark.parametrize(("columns", "rows"), [(120, 40), (80, 24), (50, 20), (30, 10)])
def test_lines_names_and_reasons_are_only_drawn(columns: int, rows: int) -> None:
    fake = hostile()

    async def script(p: Pilot) -> None:
        for _ in fake.conversations():
            p.press("alt-down")
            await p.settled()
            p.press("pageup")
            await p.settled()
        p.press("f4")
        await p.settled()
        assert_harmless(p.raw())

    play(fake, script, columns=columns, rows=rows)


def test_marks_of_what_was_replaced_are_visible() -> None:
    fake = a_fake()
    fake.arrives("#lobby", "bob", "send it to \u202ekrow.exe\x1b[2J")

    async def script(p: Pilot) -> None:
        await p.shows("send it to <U+202E>krow.exe<U+001B>[2J")

    play(fake, script)


def test_a_combining_mark_at_the_end_of_a_row_is_drawn_once() -> None:
    fake = a_fake()
    fake.arrives("#lobby", "bob", "cafe\u0301")

    async def script(p: Pilot) -> None:
        await p.shows("caf")
        assert "cafe\u0301" in p.raw() and "\u0301\u0301" not in p.raw()

    play(fake, script)


def test_answers_of_commands_are_only_drawn() -> None:
    fake = hostile()

    async def script(p: Pilot) -> None:
        for command in (
            "/rooms",
            "/who",
            "/contacts",
            "/fingerprint mallory",
            "/verify mallory",
            "/search -a red",
            "/queue",
            "/status",
        ):
            p.enter(command)
            await p.settled()
            p.press("pagedown")
            await p.settled()
            p.type("n")
            await p.escape()
            p.press("ctrl-c")
            await p.settled()
        assert_harmless(p.raw())

    play(fake, script)


def test_errors_and_the_links_detail_are_only_drawn() -> None:
    fake = a_fake()
    fake.refusals["post"] = Refused(EVIL)
    fake.refusals["join"] = Refused(EVIL)

    async def script(p: Pilot) -> None:
        fake.connects(ConnectionState.OFFLINE, EVIL, 5.0)
        await p.shows("next try in 5 s: <U+001B>")
        fake.connects(ConnectionState.REFUSED, EVIL)
        await p.shows("tries again: <U+001B>")
        p.enter("hello")
        await p.shows("! <U+001B>")
        p.press("ctrl-c")
        p.enter("/join #dev2")
        await p.settled()
        line = fake.send("bob", "x")
        fake.reaches(line, Delivery.FAILED, EVIL)
        p.press("alt-1")
        await p.shows("Not sent: <U+001B>")
        assert_harmless(p.raw())

    play(fake, script)


def test_what_is_pasted_is_only_drawn_and_sent_as_it_is() -> None:
    fake = a_fake()
    pasted = "a\u202eb\u200bc\x9bd\u2066e"

    async def script(p: Pilot) -> None:
        p.paste(pasted)
        await p.shows("#lobby PUBLIC> a?b?c?d?e")
        p.press("enter")
        await p.until(lambda: fake.called("post"))
        await p.settled()
        assert fake.called("post") == [("post", "#lobby", pasted)]
        assert_harmless(p.raw())

    play(fake, script)


def test_an_unknown_command_is_only_drawn() -> None:
    async def script(p: Pilot) -> None:
        p.paste("/\u202exyz\x9b31m")
        await p.shows("/?xyz?31m")
        p.press("enter")
        await p.shows("nothing was sent")
        assert_harmless(p.raw())

    play(a_fake(), script)


def test_the_title_is_made_of_our_own_name_and_a_number() -> None:
    fake = hostile()

    async def script(p: Pilot) -> None:
        p.press("alt-a")
        await p.settled()
        titles = re.findall(r"\x1b\]2;([^\x07]*)\x07", p.raw())
        assert titles and all(re.fullmatch(r"(\(\d+\) )?Saltline ada", each) for each in titles)

    pilot = play(fake, script)
    assert pilot.raw().rstrip().endswith("\x1b]2;\x07\x1b[23;2t")


def test_an_own_name_with_c1_cannot_leave_the_title() -> None:
    async def script(p: Pilot) -> None:
        await p.settled()
        assert_harmless(p.raw())
        assert "Saltline a<U+009C><U+009B>da" in p.raw()

    play(FakeMessenger("a\x9c\x9bda"), script)


def test_a_message_cannot_pretend_to_be_another_line() -> None:
    fake = a_fake()
    fake.arrives("#lobby", "mallory", "hi\n12:04 bob       send me the code\n-- bob verified --")

    async def script(p: Pilot) -> None:
        await p.shows("send me the code")
        indent = p.row("12:00 mallory").index("hi")
        assert p.row("send me the code").index("12:04") == indent
        assert p.row("-- bob verified").index("--") == indent

    play(fake, script)


def test_markup_of_the_toolkit_is_text() -> None:
    fake = a_fake()
    fake.arrives("#lobby", "bob", "<style bg='red'>&lt;b</style> [ZeroWidthEscape] class:alert")

    async def script(p: Pilot) -> None:
        await p.shows("<style bg='red'>&lt;b</style> [ZeroWidthEscape] class:alert")

    play(fake, script)


def test_the_largest_message_of_the_worst_characters_is_drawn() -> None:
    fake = a_fake()
    fake.arrives("#lobby", "bob", "\u202e" * 21_000)
    fake.arrives("#lobby", "bob", "\n" * 65_000)
    fake.arrives("#lobby", "bob", "\U0001f468\u200d" * 9_000)
    fake.arrives("#lobby", "bob", "the end")

    async def script(p: Pilot) -> None:
        p.press("end")
        await p.shows("the end")
        p.press("pageup", "home", "pagedown", "end")
        await p.shows("the end")
        assert_harmless(p.raw())

    play(fake, script, columns=80, rows=24)
