"""The prompt names target and protection, whatever is typed and however it is typed."""

import pytest

from tests.client.tui.pilot import Pilot, a_fake, play


@pytest.mark.parametrize(
    ("columns", "rows"), [(120, 40), (80, 24), (41, 12)], ids=["wide", "usual", "narrow"]
)
@pytest.mark.parametrize(
    ("conversation", "label"),
    [
        ("alt-1", "@bob encrypted>"),
        ("alt-4", "#dev PUBLIC>"),
        ("alt-3", "@dave KEY CHANGED, sending is blocked>"),
    ],
)
def test_the_prompt_stays_beside_a_message_longer_than_its_room(
    conversation: str, label: str, columns: int, rows: int
) -> None:
    async def script(p: Pilot) -> None:
        p.press(conversation)
        await p.shows(label)
        for number in range(20):
            p.type(f"row{number}")
            p.press("alt-enter")
        p.type("the last")
        await p.shows(label, "row19", "the last")
        assert "row0" not in p.text().split()
        p.press("ctrl-a")
        for _ in range(20):
            p.press("up")
        await p.shows(label, "row0")

    play(a_fake(), script, columns=columns, rows=rows)


def test_the_prompt_stays_beside_one_long_line() -> None:
    async def script(p: Pilot) -> None:
        p.type("word " * 300 + "end")
        await p.shows("#lobby PUBLIC> ", "end")

    play(a_fake(), script)


# --- A slash that was lost ------------------------------------------------------------------------


def test_a_slash_right_after_esc_is_a_slash() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.enter("/help")
        await p.shows("Help: Esc closes")
        p.press("alt-/")
        p.type("roo")
        await p.shows("@bob encrypted> /roo")
        assert "Help: Esc closes" not in p.text()
        p.enter("ms")
        await p.shows("Public rooms")
        assert not fake.called("send")

    play(fake, script)


def test_a_slash_right_after_esc_leaves_the_search_and_begins_a_command() -> None:
    async def script(p: Pilot) -> None:
        p.press("f3")
        await p.shows("Find here:")
        p.press("alt-/")
        await p.shows("#lobby PUBLIC> /")

    play(a_fake(), script)


@pytest.mark.parametrize(
    "typed",
    ["msg carol for you", "query carol", "query @zoe", "join #dev", " /rooms", "MSG zoe hi"],
)
def test_a_command_without_its_slash_is_asked_about_before_a_person_gets_it(typed: str) -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.enter(typed)
        await p.shows("This looks like a command. Send it to @bob as a message? y/n")
        assert not fake.called("send")
        p.type("y")
        await p.until(lambda: fake.called("send"))
        assert fake.called("send") == [("send", "bob", typed)]

    play(fake, script)


@pytest.mark.parametrize(
    "typed",
    ["rooms", "who?", "help me", "query results", "join us", "msg me later", "trust carol", "quit"],
)
def test_ordinary_words_go_to_a_person_at_once(typed: str) -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.enter(typed)
        await p.until(lambda: fake.called("send"))
        assert fake.called("send") == [("send", "bob", typed)]

    play(fake, script)
