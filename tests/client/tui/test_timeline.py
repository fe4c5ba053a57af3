"""The timeline on a real screen: what stands where, how it moves, what it reads."""

import asyncio
import re

import pytest

from saltline.client.model import Delivery, LineKind
from tests.client.tui.fake_messenger import START_MS, FakeMessenger
from tests.client.tui.pilot import Pilot, a_fake, play

DAY_MS = 86_400_000


def lobby(count: int) -> FakeMessenger:
    fake = FakeMessenger()
    fake.enters("#lobby")
    for number in range(count):
        fake.arrives("#lobby", "bob", f"line {number}.", silent=True)
    if count:
        fake.mark_read("#lobby", fake.page("#lobby", limit=1)[-1].row)
    fake.calls.clear()
    fake.lines_read = 0
    fake.reads.clear()
    return fake


def test_the_picture_of_the_design() -> None:
    fake = FakeMessenger()
    fake.enters("#lobby")
    fake.meets("bob")
    fake.arrives("@bob", "bob", "did the build pass?")
    yes = fake.send("bob", "yes, tagged 1.2")
    fake.reaches(yes, Delivery.READ)
    fake.mark_read("@bob", yes.row)
    fake.arrives("@bob", "bob", "great, sending the log")

    async def script(p: Pilot) -> None:
        p.enter("/query bob")
        await p.shows("great, sending the log")
        p.enter("ok")
        await p.shows("ada       ok")
        text = p.lines()
        day, did, yes, great, ok = [row[25:] for row in text[-7:-2]]
        assert day.strip("-") == " Tue 12 May 2026 "
        assert did == "12:00 bob       did the build pass?"
        assert yes.startswith("12:00 ada       yes, tagged 1.2 ") and yes.endswith(" ++")
        assert great == "12:00 bob       great, sending the log"
        assert ok.startswith("12:00 ada       ok ") and ok.endswith(" .")
        assert p.lines()[-2] == "@bob encrypted>"

    play(fake, script, columns=120, rows=40)


def test_the_divider_stands_above_what_is_new_and_goes_with_an_answer() -> None:
    fake = lobby(3)
    for number in range(2):
        fake.arrives("#lobby", "carol", f"news {number}")

    async def script(p: Pilot) -> None:
        await p.shows("new (2)", "news 1")
        lines = p.lines()
        divider = next(i for i, row in enumerate(lines) if "new (2)" in row)
        assert "line 2." in lines[divider - 1]
        assert "news 0" in lines[divider + 1]
        p.enter("welcome")
        await p.hides("new (2)")

    play(fake, script)


def test_days_are_separated() -> None:
    fake = lobby(0)
    fake.arrives("#lobby", "bob", "monday's")
    fake.now_ms += DAY_MS
    fake.arrives("#lobby", "bob", "tuesday's")

    async def script(p: Pilot) -> None:
        await p.shows("- Tue 12 May 2026 -", "- Wed 13 May -")

    play(fake, script)


def test_a_senders_clock_is_shown_but_not_its_future() -> None:
    fake = lobby(0)
    fake.arrives("#lobby", "bob", "from the future", sent_ms=2**62)
    fake.arrives("#lobby", "bob", "from the past", sent_ms=START_MS - 3 * DAY_MS - 3_600_000)
    fake.arrives("#lobby", "bob", "odd clock", reason="bob's clock is off by 20 minutes")

    async def script(p: Pilot) -> None:
        await p.shows("odd clock")
        assert "12:00 bob" in p.row("from the future")
        assert "11:00 bob" in p.row("from the past")
        await p.shows("(sent Sat 9 May 2026)", "(bob's clock is off by 20 minutes)")

    play(fake, script)


def test_notices_joins_alerts_and_unknown_content() -> None:
    fake = lobby(0)
    fake.arrives("#lobby", "carol", "", kind=LineKind.JOIN)
    fake.arrives("#lobby", "carol", "", kind=LineKind.LEAVE)
    fake.arrives("#lobby", "", "a gap of 2 messages from bob", kind=LineKind.NOTICE)
    fake.arrives("#lobby", "", "this room is split", kind=LineKind.ALERT)
    fake.arrives("#lobby", "bob", "", kind=LineKind.UNSUPPORTED)

    async def script(p: Pilot) -> None:
        await p.shows(
            "--> carol joined",
            "<-- carol left",
            "--  a gap of 2 messages from bob",
            "!!  this room is split",
            "bob       sent something that needs a newer Saltline",
        )

    play(fake, script)


def test_delivery_marks_change_in_place_and_a_failure_says_why() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/query bob")
        await p.shows("@bob encrypted>")
        p.enter("a message")
        await p.shows("ada       a message")
        line = fake.page("@bob", limit=1)[-1]
        for delivery, mark in (
            (Delivery.QUEUED, "."),
            (Delivery.RELAYED, ">"),
            (Delivery.DELIVERED, "+"),
            (Delivery.READ, "++"),
            (Delivery.FAILED, "x"),
        ):
            fake.reaches(line, delivery, "the mailbox is full")
            await p.until(lambda m=mark: p.row("a message").split()[-1] == m, mark)  # type: ignore[misc]
        await p.shows(f"Not sent: the mailbox is full. /retry {line.short_id} sends it again.")
        p.enter("/retry")
        await p.hides("Not sent:")
        assert fake.called("retry") == [("retry", line.row)]

    play(fake, script)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("", "Not sent: it failed. /retry {} sends it again."),
        ("Not sent: you left #dev.", "Not sent: you left #dev. /retry {} sends it again."),
        (
            "It was encrypted for the old key. To send it to the new one: /retry",
            "Not sent: It was encrypted for the old key. To send it to the new one: /retry",
        ),
    ],
)
def test_a_failure_says_everything_once(reason: str, shown: str) -> None:
    fake = lobby(0)
    line = fake.post("#lobby", "a message")
    fake.reaches(line, Delivery.FAILED, reason)

    async def script(p: Pilot) -> None:
        await p.shows(shown.format(line.short_id))
        assert p.words().count("Not sent") == 1
        assert p.words().count("/retry") == 1

    play(fake, script)


def test_a_mention_is_marked_and_counted() -> None:
    fake = lobby(0)
    fake.enters("#dev")
    fake.arrives("#dev", "bob", "ada: have a look")
    fake.arrives("#dev", "bob", "adamant is another word")

    async def script(p: Pilot) -> None:
        await p.until(lambda: p.row("# dev").split("|")[0].rstrip().endswith("@"))
        p.enter("/query dev2")
        p.press("alt-a")
        await p.shows("have a look")
        assert p.row("have a look").endswith("@")
        assert not p.row("adamant").endswith("@")

    play(fake, script)


def test_a_name_is_never_cut_in_the_timeline() -> None:
    fake = lobby(0)
    long = "a-name-of-thirty-two-characters-"
    fake.arrives("#lobby", long, "short text that still has to be wrapped somewhere")

    async def script(p: Pilot) -> None:
        await p.shows(long)
        await p.shows("somewhere")

    for columns in (120, 80, 50, 40):
        play(fake, script, columns=columns, rows=20)


# --- Moving ---------------------------------------------------------------------------------------


def test_paging_through_ten_thousand_lines_reads_small_pages() -> None:
    fake = lobby(10_000)

    async def script(p: Pilot) -> None:
        await p.shows("line 9999.")
        assert fake.lines_read <= 120
        for _ in range(30):
            p.press("pageup")
        await p.shows("newer below: End --", "line 9284.")
        assert fake.lines_read <= 120 + 30 * 40 + 120
        before = fake.reads["page"]
        for number in range(20):
            p.type(str(number))
            await p.settled()
        assert fake.reads["page"] == before
        p.press("ctrl-c", "home")
        await p.shows("line 0.")
        p.press("end")
        await p.shows("line 9999.")
        await p.hides("newer below")
        assert fake.lines_read <= 2000

    play(fake, script)


def test_page_up_and_down_come_back_to_the_same_rows() -> None:
    async def script(p: Pilot) -> None:
        await p.shows("line 499.")
        p.press("pageup", "pageup")
        await p.shows("newer below")
        seen = p.text()
        p.press("pageup")
        await p.until(lambda: p.text() != seen)
        p.press("pagedown")
        await p.until(lambda: p.text() == seen)
        p.press("pagedown", "pagedown", "pagedown")
        await p.hides("newer below")

    play(lobby(500), script)


def test_new_lines_do_not_move_what_is_being_read() -> None:
    fake = lobby(200)

    async def script(p: Pilot) -> None:
        await p.shows("line 199.")
        p.press("pageup")
        await p.shows("newer below")
        rows = [row[25:] for row in p.lines() if "bob " in row]
        for number in range(5):
            fake.arrives("#lobby", "carol", f"news {number}")
        await p.shows("-- 29 newer below: End --")
        assert [row[25:] for row in p.lines() if "bob " in row] == rows
        assert not fake.called("mark_read")
        p.press("end")
        await p.shows("new (5)", "news 4")
        await p.until(lambda: fake.called("mark_read"))

    play(fake, script)


@pytest.mark.parametrize("size", [(80, 24), (50, 20), (120, 40)])
def test_a_resize_keeps_what_stands_at_the_top(size: tuple[int, int]) -> None:
    fake = lobby(0)
    for number in range(100):
        fake.arrives("#lobby", "bob", f"<{number}> " + "word " * 60, silent=True)
    fake.mark_read("#lobby", 100)

    async def script(p: Pilot) -> None:
        await p.shows("<99>")
        p.press("pageup", "pageup", "pageup")
        await p.shows("newer below")
        top = p.terminal.screen.timeline._top
        p.resize(*size)
        await p.settled()
        after = p.terminal.screen.timeline._top
        assert top is not None and after is not None
        assert after.row == top.row
        assert after.offset <= top.offset <= after.offset + 5 * 60
        p.resize(100, 30)
        await p.settled()
        assert p.terminal.screen.timeline._top == top

    play(fake, script)


def test_too_small_and_back_again() -> None:
    fake = lobby(50)

    async def script(p: Pilot) -> None:
        await p.shows("line 49.")
        p.resize(30, 10)
        await p.shows("Too small")
        fake.arrives("#lobby", "bob", "in the meantime")
        p.enter("typed blindly")
        await p.shows("arrive: 1")
        assert not fake.called("post") and not fake.called("mark_read")
        p.resize(80, 24)
        await p.shows("in the meantime", "#lobby PUBLIC>")
        await p.until(lambda: fake.called("mark_read"))

    play(fake, script)


def test_more_unread_than_fits_opens_where_it_begins() -> None:
    fake = lobby(50)
    for number in range(200):
        fake.arrives("#lobby", "carol", f"news {number}.")

    async def script(p: Pilot) -> None:
        await p.shows("new (200)", "news 0.", "newer below")
        assert not fake.called("mark_read")
        p.press("end")
        await p.shows("news 199.")
        await p.until(lambda: fake.called("mark_read"))

    play(fake, script)


def test_a_message_higher_than_the_screen_can_be_read_to_its_end() -> None:
    fake = lobby(1)
    fake.arrives("#lobby", "bob", "\n".join(f"part {n}." for n in range(500)))
    fake.mark_read("#lobby", 2)

    async def script(p: Pilot) -> None:
        await p.shows("part 499.")
        seen = set(re.findall(r"part (\d+)\.", p.text()))
        while "0" not in seen:
            before = p.text()
            p.press("pageup")
            await p.until(lambda b=before: p.text() != b)  # type: ignore[misc]
            assert "newer below: End --" in p.text()
            seen |= set(re.findall(r"part (\d+)\.", p.text()))
        assert len(seen) == 500
        p.press("home")
        await p.shows("line 0.", "part 0.")
        p.press("pagedown")
        await p.hides("line 0.")
        p.press("end")
        await p.shows("part 499.")

    play(fake, script)


# --- Floods ---------------------------------------------------------------------------------------


def test_a_flood_of_lines_is_drawn_in_few_frames() -> None:
    fake = lobby(100)

    async def script(p: Pilot) -> None:
        await p.shows("line 99.")
        frames, pages = p.frames, fake.reads["page"]
        for number in range(5000):
            fake.arrives("#lobby", "carol", f"flood {number}.")
        await p.shows("flood 4999.")
        assert p.frames - frames <= 20
        assert fake.reads["page"] - pages <= 40
        assert fake.reads["conversations"] <= 40

    play(fake, script)


def test_a_stream_of_lines_is_drawn_at_the_pace_of_frames_not_of_lines() -> None:
    fake = lobby(100)

    async def script(p: Pilot) -> None:
        await p.shows("line 99.")
        frames, lists = p.frames, fake.reads["conversations"]
        for number in range(2000):
            fake.arrives("#lobby", "carol", f"stream {number}.")
            if number % 4 == 0:
                await asyncio.sleep(0)  # the loop gets its turn 500 times
        await p.shows("stream 1999.")
        assert p.frames - frames <= 150
        assert fake.reads["conversations"] - lists <= 150

    play(fake, script)


def test_marks_of_a_thousand_messages_far_away_cost_no_read() -> None:
    fake = lobby(0)
    fake.meets("bob")
    sent = [fake.send("bob", f"message {n}") for n in range(300)]

    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        reads = fake.reads["line"]
        for line in sent:
            fake.reaches(line, Delivery.RELAYED)
        await p.settled()
        assert fake.reads["line"] == reads

    play(fake, script)
