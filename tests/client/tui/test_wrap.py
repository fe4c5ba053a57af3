"""Rows are never wider than their width, and lose nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth

from saltline.client.tui.wrap import fit, padded, shown, text_width, wrap


def rows(text: str, width: int, first_width: int | None = None) -> list[str]:
    return [text[start:end] for start, end in wrap(text, width, first_width)]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("", 10, [""]),
        ("did the build pass?", 10, ["did the", "build", "pass?"]),
        ("one two", 3, ["one", "two"]),
        ("a\n\nb", 10, ["a", "", "b"]),
        ("a\n", 10, ["a", ""]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("    indented code", 12, ["    indented", "code"]),
        ("漢字漢字漢", 4, ["漢字", "漢字", "漢"]),
        ("漢字漢字漢", 5, ["漢字", "漢字", "漢"]),
        ("abcde\u0301f", 5, ["abcde\u0301", "f"]),
        ("abcdef<U+0301>gh", 10, ["abcdef", "<U+0301>gh"]),
        ("a<U+E0041><U+202E>b", 10, ["a<U+E0041>", "<U+202E>b"]),
        ("see <U+202E>x", 8, ["see", "<U+202E>", "x"]),
        ("<U+10FFFF>", 6, ["<U+10F", "FFF>"]),
        ("abc<U+what>", 6, ["abc<U+", "what>"]),
    ],
)
def test_text_breaks_at_spaces_else_between_clusters(
    text: str, width: int, expected: list[str]
) -> None:
    assert rows(text, width) == expected


def test_the_first_row_may_be_shorter() -> None:
    assert rows("aaa bbb ccc", 11, 4) == ["aaa", "bbb ccc"]


@given(st.text(max_size=200), st.integers(2, 40))
def test_no_row_is_wider_than_asked_and_no_letter_is_lost(text: str, width: int) -> None:
    safe = shown(text)
    drawn = rows(safe, width)
    assert all(text_width(row) <= width for row in drawn)
    assert "".join(drawn).replace(" ", "") == safe.replace(" ", "").replace("\n", "")


def test_a_cut_row_says_that_something_is_missing() -> None:
    assert fit("a-very-long-name", 8) == "a-very.."
    assert fit("short", 8) == "short"
    assert padded("漢字漢", 5) == "漢.. "
    assert get_cwidth(padded("漢字漢字", 7)) == 7


def test_an_emoji_is_drawn_in_parts_of_one_width_each() -> None:
    assert shown("\U0001f468\u200d\U0001f469 \u2764\ufe0f") == "\U0001f468\U0001f469 \u2764"


def test_joiners_of_scripts_that_need_them_stay() -> None:
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert shown(persian) == persian
