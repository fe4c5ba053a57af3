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
