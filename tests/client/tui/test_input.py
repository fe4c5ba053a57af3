"""What is typed: where it goes, what is asked first, and what stays with its conversation."""

import pytest

from saltline.client.model import Refused
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import Pilot, a_fake, play


def test_enter_sends_to_the_conversation_that_the_prompt_names() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        p.enter("to everyone")
        await p.until(lambda: fake.called("post"))
        p.enter("/query bob")
        await p.shows("@bob encrypted>")
        p.enter("to bob alone")
        await p.until(lambda: fake.called("send"))
        assert fake.called("post") == [("post", "#lobby", "to everyone")]
        assert fake.called("send") == [("send", "bob", "to bob alone")]

    play(fake, script)


def test_a_room_has_another_background_than_a_private_conversation() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        public = p.column_style("#lobby PUBLIC>").bg
        p.enter("/query bob")
        await p.shows("@bob encrypted>")
        assert p.column_style("@bob encrypted>").bg != public

    play(fake, script)


@pytest.mark.parametrize("key", ["alt-enter", "ctrl-j"])
def test_a_message_may_have_several_lines(key: str) -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.type("one")
        p.press(key)
        p.type("two")
        await p.shows("one", "two")
        assert not fake.called("post")
        p.press("enter")
        await p.until(lambda: fake.called("post"))
        assert fake.called("post") == [("post", "#lobby", "one\ntwo")]

    play(fake, script)


def test_blank_text_is_not_sent() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("")
        p.enter("   ")
        await p.settled()
        assert not fake.called("post")

    play(fake, script)


def test_a_draft_waits_in_its_own_conversation() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.type("my secret plan")
        await p.shows("my secret plan")
        p.press("alt-down")
        await p.shows("@carol encrypted>")
        await p.hides("my secret plan")
        p.press("undo", "undo", "up")
        await p.settled()
        assert "secret" not in p.text()
        p.press("alt-up")
        await p.shows("@bob encrypted> my secret plan")
        p.type("!")
        p.press("enter")
        await p.until(lambda: fake.called("send"))
        assert fake.called("send") == [("send", "bob", "my secret plan!")]

    play(fake, script)


def test_the_input_history_belongs_to_its_conversation() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.enter("only for bob")
        await p.until(lambda: fake.called("send"))
        p.press("alt-2")
        await p.shows("@carol encrypted>")
        p.press("up", "up")
        await p.settled()
        assert p.lines()[-2] == "@carol encrypted>"
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.press("up")
        await p.shows("@bob encrypted> only for bob")

    play(fake, script)


def test_what_ctrl_c_cleared_comes_back_with_up() -> None:
    async def script(p: Pilot) -> None:
        p.type("a long thought")
        await p.shows("a long thought")
        p.press("ctrl-c")
        await p.hides("a long thought")
        p.press("up")
        await p.shows("#lobby PUBLIC> a long thought")

    play(a_fake(), script)


def test_leaving_with_a_draft_asks_first() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.type("unfinished")
        p.press("ctrl-q")
        await p.shows("Quit and lose what you typed to #lobby? y/n")
        p.type("n")
        await p.hides("Quit and lose")
        p.press("ctrl-q")
        await p.shows("Quit and lose")
        p.type("y")
        await p.until(lambda: not p.terminal.app.is_running)

    play(fake, script)


def test_what_is_refused_comes_back_to_be_mended() -> None:
    fake = a_fake()
    sentence = (
        "Not sent: dave's key changed (5f3a... -> 90bd...). Nothing left this computer. "
        "Compare in person: /verify dave"
    )
    fake.refusals["send"] = Refused(sentence)

    async def script(p: Pilot) -> None:
        p.enter("/query dave")
        await p.shows("@dave KEY CHANGED, sending is blocked>")
        p.enter("are you there?")
        await p.shows("Not sent: dave's key changed", "Compare in person: /verify dave")
        assert p.lines()[-2].endswith("are you there?")

    play(fake, script)


def test_an_unknown_command_is_not_sent_and_the_nearest_is_named() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/jion #dev")
        await p.shows("No command /jion: nothing was sent. Did you mean /join?")
        assert not fake.called("post") and not fake.called("join")
        p.press("ctrl-c")
        p.enter("//jion is a typo")
        await p.until(lambda: fake.called("post"))
        assert fake.called("post") == [("post", "#lobby", "/jion is a typo")]

    play(fake, script)


def test_a_private_message_that_lost_its_slash_is_asked_about() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("msg bob the code is 1234")
        await p.shows("looks like a command or a private message. Post it in #lobby, PUBLIC? y/n")
        p.press("enter", "tab")
        p.type("x")
        p.paste("more")
        await p.settled()
        assert not fake.called("post")
        p.type("n")
        await p.hides("looks like")
        assert p.lines()[-2] == "#lobby PUBLIC> msg bob the code is 1234"
        p.press("enter")
        await p.shows("looks like")
        p.type("y")
        await p.until(lambda: fake.called("post"))
        assert fake.called("post") == [("post", "#lobby", "msg bob the code is 1234")]

    play(fake, script)


# --- Pastes ---------------------------------------------------------------------------------------


def test_a_short_paste_is_one_message() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.paste("one\r\ntwo\rthree")
        await p.shows("three")
        assert not fake.called("post")
        p.press("enter")
        await p.until(lambda: fake.called("post"))
        assert fake.called("post") == [("post", "#lobby", "one\ntwo\nthree")]

    play(fake, script)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("line\n" * 6, "6 lines, 29 bytes"),
        ("x" * 2049, "1 line, 2.0 KiB"),
    ],
)
def test_a_long_paste_is_asked_about(text: str, size: str) -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.paste(text)
        await p.shows(f"Paste {size} into the message to #lobby (PUBLIC)? y/n")
        p.type("n")
        await p.hides("Paste")
        p.paste(text)
        await p.shows("Paste")
        p.type("y")
        await p.hides("Paste")
        p.press("enter")
        await p.until(lambda: fake.called("post"))
        assert fake.called("post") == [("post", "#lobby", text.removesuffix("\n"))]

    play(fake, script)


def test_only_the_last_newline_of_a_paste_is_dropped() -> None:
    async def script(p: Pilot) -> None:
        p.paste("\n  one\n\n\n")
        await p.until(lambda: p.terminal.input.text == "\n  one\n\n")

    play(a_fake(), script)


def test_five_lines_are_not_asked_about() -> None:
    async def script(p: Pilot) -> None:
        p.paste("1\n2\n3\n4\n5\n")
        await p.shows("5")
        assert p.terminal.screen.state.question is None

    play(a_fake(), script)


def test_a_paste_that_no_message_can_hold_is_refused() -> None:
    async def script(p: Pilot) -> None:
        p.paste("x" * 70_000)
        await p.shows("Not pasted: 1 line, 68.4 KiB, and a message holds 64 KiB. Nothing was sent.")
        assert p.terminal.input.text == ""

    play(a_fake(), script)


# --- Completion -----------------------------------------------------------------------------------


def test_tab_completes_commands_people_and_rooms() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        for typed, completed in (
            ("/ver", "/verify "),
            ("/verify ca", "/verify carol "),
            ("/msg @bo", "/msg @bob "),
            ("/leave #d", "/leave #dev "),
            ("/theme col", "/theme colour-blind "),
            ("bo", "bob: "),
            ("hello bo", "hello bob "),
            ("/help quer", "/help query "),
        ):
            p.type(typed)
            p.press("tab")
            await p.until(lambda c=completed: p.terminal.input.text == c, completed)  # type: ignore[misc]
            p.press("ctrl-c")

    play(fake, script)


def test_several_candidates_are_listed_and_enter_takes_one_without_sending() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.type("/re")
        p.press("tab")
        await p.shows("/retry", "/reconnect")
        p.press("tab")
        await p.until(lambda: p.terminal.input.text in ("/retry ", "/reconnect "))
        p.press("enter")
        await p.settled()
        assert not fake.called("reconnect")

    play(fake, script)


# --- Going about ----------------------------------------------------------------------------------


def test_alt_a_goes_to_what_is_unread() -> None:
    fake = a_fake()
    fake.arrives("@carol", "carol", "over here")

    async def script(p: Pilot) -> None:
        await p.shows("#lobby PUBLIC>")
        p.press("alt-a")
        await p.shows("@carol encrypted>", "over here")
        await p.until(lambda: fake.called("mark_read"))
        p.press("alt-a")
        await p.shows("Nothing unread elsewhere.")

    play(fake, script)


def test_alt_g_jumps_by_name_and_leaves_the_draft_alone() -> None:
    async def script(p: Pilot) -> None:
        p.type("draft")
        p.press("alt-g")
        await p.shows("Go to conversation:")
        p.enter("car")
        await p.shows("@carol encrypted>")
        p.press("alt-g")
        await p.shows("Go to conversation:")
        p.enter("lob")
        await p.shows("#lobby PUBLIC> draft")

    play(a_fake(), script)


def test_vi_editing() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.type("hello world")
        p.press("escape")
        await p.settled()
        p.type("bcwthere")
        p.press("enter")
        await p.until(lambda: fake.called("post"))
        assert fake.called("post") == [("post", "#lobby", "hello there")]

    play(fake, script, vi=True)


def test_without_any_conversation_one_is_told_what_to_do_first() -> None:
    fake = FakeMessenger()

    async def script(p: Pilot) -> None:
        await p.shows("Welcome, ada.", "/query NAME", "/join #lobby", "/fingerprint", "F1")
        p.enter("hello?")
        await p.shows("Not sent: no conversation is open.")
        p.press("ctrl-c")
        p.enter("/join #lobby")
        await p.shows("#lobby PUBLIC>", "#lobby is PUBLIC: everyone")

    play(fake, script)
