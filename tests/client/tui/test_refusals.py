"""What is not done, and how that is said."""

import pytest

from tests.client.tui.pilot import Pilot, a_fake, play


@pytest.mark.parametrize("typed", ["/msg ada hi", "/query ada", "/block ada", "/accept @ada"])
def test_nothing_is_done_to_oneself(typed: str) -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter(typed)
        await p.shows("That is you: nothing was done.", "#lobby PUBLIC>")
        assert not fake.called("send") and not fake.called("block") and not fake.called("accept")

    play(fake, script)


@pytest.mark.parametrize("typed", ["/query Bad", "/msg @Bob hi", "/join #Dev", "/who #Dev"])
def test_capitals_are_refused_and_not_made_small_in_silence(typed: str) -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter(typed)
        await p.shows("2 to 32 characters: a-z")
        assert not fake.called("send") and not fake.called("join")
        assert p.terminal.screen.state.current == "#lobby"

    play(fake, script)


def test_white_space_alone_is_not_sent_and_said_so() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("  ")
        await p.shows("Not sent: there is nothing in it but blanks.")
        p.press("enter")
        await p.settled()
        p.press("ctrl-c", "enter")
        await p.hides("Not sent")
        p.enter("\u00a0\u3000")
        await p.shows("Not sent: there is nothing in it but blanks.")
        assert not fake.called("post") and not fake.called("send")

    play(fake, script)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/leave", "Which room? /leave #ROOM"),
        ("/who", "Which room? /who #ROOM"),
        ("/join", "/join #ROOM: something is missing."),
        ("/theme", "/theme NAME: something is missing."),
        ("/search", "/search [-a] QUERY: something is missing."),
        ("/query", "/query USER: something is missing."),
        ("/join #a/b", "A room is # and"),
        ("/rooms now", "/rooms takes nothing more."),
        ("/theme dark\nlight", "/theme NAME is one line."),
    ],
)
def test_what_would_not_send_does_not_speak_of_sending(typed: str, said: str) -> None:
    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.type(typed.replace("\n", "\x1b\r"))
        p.press("enter")
        await p.shows(said)
        assert "Nothing was sent" not in p.words()

    play(a_fake(), script)


def test_what_would_have_sent_says_that_it_did_not() -> None:
    async def script(p: Pilot) -> None:
        p.enter("/msg bob")
        await p.shows("/msg USER TEXT: something is missing. Nothing was sent.")

    play(a_fake(), script)
