"""The sanitiser: nothing from outside moves a cursor, reorders text or hides; writing survives."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wcwidth import wcwidth

from saltline.protocol.text import (
    EMOJI_JOINERS_MAX,
    MARKS_MAX,
    MARKS_MAX_IN_SCRIPT,
    sanitise,
)

HOSTILE = {
    "clear the screen": ("\x1b[2J\x1b[H", "<U+001B>[2J<U+001B>[H"),
    "colour": ("\x1b[31mred\x1b[0m", "<U+001B>[31mred<U+001B>[0m"),
    "a C1 introducer": ("\x9b31mred", "<U+009B>31mred"),
    "a title": ("\x1b]0;mine\x07", "<U+001B>]0;mine<U+0007>"),
    "a title, C1": ("\x9d0;mine\x9c", "<U+009D>0;mine<U+009C>"),
    "OSC 8 link": (
        "\x1b]8;;http://evil\x1b\\bank\x1b]8;;\x1b\\",
        "<U+001B>]8;;http://evil<U+001B>\\bank<U+001B>]8;;<U+001B>\\",
    ),
    "OSC 52 clipboard": ("\x1b]52;c;cm0=\x07", "<U+001B>]52;c;cm0=<U+0007>"),
    "device control": ("\x1bP$q\x1b\\\x90", "<U+001B>P$q<U+001B>\\<U+0090>"),
    "carriage return": ("real\rfake", "real<U+000D>fake"),
    "backspace": ("no\x08\x08yes", "no<U+0008><U+0008>yes"),
    "delete": ("a\x7f", "a<U+007F>"),
    "a bell, a null, form feeds": ("\x07\x00\x0b\x0c", "<U+0007><U+0000><U+000B><U+000C>"),
    "next line": ("a\x85b", "a<U+0085>b"),
    "separators": ("a\u2028b\u2029c", "a<U+2028>b<U+2029>c"),
    "Trojan Source": (
        "if x: \u202e } \u2066if admin\u2069 \u2066",
        "if x: <U+202E> } <U+2066>if admin<U+2069> <U+2066>",
    ),
    "every bidi control": (
        "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        "<U+061C><U+200E><U+200F><U+202A><U+202B><U+202C><U+202D><U+202E>"
        "<U+2066><U+2067><U+2068><U+2069>",
    ),
    "zero width": ("pay\u200bpal\u2060\ufeff\u00ad", "pay<U+200B>pal<U+2060><U+FEFF><U+00AD>"),
    "joiners in Latin": ("ad\u200dmi\u200cn", "ad<U+200D>mi<U+200C>n"),
    "a joiner at the edges": ("\u200dab\u200c", "<U+200D>ab<U+200C>"),
    "two joiners": ("ب\u200c\u200cب", "ب<U+200C><U+200C>ب"),
    "a joiner between scripts": ("ب\u200cक", "ب<U+200C>क"),
    "a joiner between digits": ("١\u200c٢", "١<U+200C>٢"),
    "a borrowed virama": ("a\u094d\u200d", "a\u094d<U+200D>"),
    "a joiner before what is marked": ("ក\u200c\u17b4", "ក<U+200C><U+17B4>"),
    "hidden tags": ("hi\U000e0041\U000e007f", "hi<U+E0041><U+E007F>"),
    "a flag of tags": ("🏴\U000e0067\U000e007f", "🏴<U+E0067><U+E007F>"),
    "lone surrogates": ("\ud83d a \udca9", "<U+D83D> a <U+DCA9>"),
    "private use": ("\ue000\U0010fffd", "<U+E000><U+10FFFD>"),
    "noncharacters": ("\ufffe\ufdd0\U0002ffff", "<U+FFFE><U+FDD0><U+2FFFF>"),
    "unassigned": ("\u0378\U000e0fff", "<U+0378><U+E0FFF>"),
    "blank letters": (
        "\u115f\u1160\u3164\uffa0\u2800",
        "<U+115F><U+1160><U+3164><U+FFA0><U+2800>",
    ),
    "invisible marks": ("a\u034f\u180bb", "a<U+034F><U+180B>b"),
    "styles in text": ("a\ufe0f\ufe0e1\ufe0f漢\ufe00", "a<U+FE0F><U+FE0E>1<U+FE0F>漢<U+FE00>"),
    "hidden bytes": ("😀\U000e0100\U000e01ef", "😀<U+E0100><U+E01EF>"),
    "two styles": ("❤\ufe0f\ufe0f", "❤\ufe0f<U+FE0F>"),
    "an emoji that joins nothing": ("👩\u200d", "👩<U+200D>"),
    "an emoji that joins text": ("👩\u200da👩\u200c👩", "👩<U+200D>a👩<U+200C>👩"),
    "a mark at the start": ("\u0301a\n\u0301", "<U+0301>a\n<U+0301>"),
    "a mark on a mark": ("\u202e\u0301", "<U+202E><U+0301>"),
    "zalgo": ("h\u0300\u0301\u0302\u0303\u0304i", "h\u0300\u0301\u0302<U+0303><U+0304>i"),
    "stacked vowels": ("a\u1161", "a<U+1161>"),
    "tab": ("a\tb", "a    b"),
    "interlinear notes": ("\ufff9a\ufffab\ufffb", "<U+FFF9>a<U+FFFA>b<U+FFFB>"),
}

LEGITIMATE = {
    "ASCII": "Hello, <world> & \\o/ `~` 100%\nbye",
    "accents": "naïve Ærøskøbing Žižek Ångström",
    "combining accents": "e\u0301 a\u0323\u0302 o\u031b\u0309",
    "Vietnamese, decomposed": unicodedata.normalize("NFD", "Tiếng Việt của chúng ta"),
    "IPA": "t\u0361\u0283 ɔ\u0303\u0300",
    "Greek": "Καλημέρα κόσμε",
    "Cyrillic": "Съешь ещё этих мягких французских булок",
    "family": "👨\u200d👩\u200d👧\u200d👦",
    "kiss with skin tones": "👩🏻\u200d❤\ufe0f\u200d💋\u200d👨🏽",
    "skin tone": "👍🏽 ✊🏿",
    "rainbow and transgender flags": "🏳\ufe0f\u200d🌈🏳\ufe0f\u200d⚧\ufe0f",
    "flags": "🇮🇷🇺🇳🇮🇳",
    "keycaps": "1\ufe0f\u20e3#\ufe0f\u20e3*\ufe0f\u20e3",
    "emoji and text style": "❤\ufe0f ☎\ufe0e ©\ufe0f ™\ufe0e ↔\ufe0f",
    "professions": "🧑\u200d🚀👩🏽\u200d⚕\ufe0f⛹🏿\u200d♀\ufe0f👁\ufe0f\u200d🗨\ufe0f🐻\u200d❄\ufe0f",
    "emoji that Python 3.11 does not know": "\U0001fae8\U0001fadf",
    "ideographs that Python 3.11 does not know": "\U00031350\U0002ebf0",
    "Persian": "می\u200cخواهم کتاب\u200cها را",
    "Arabic, vowelled": "مُحَمَّدٌ بِسْمِ ٱللَّهِ",
    "Urdu": "یہ ایک آزمائش ہے",
    "Hebrew, pointed": "שָׁלוֹם בְּרֵאשִׁית",
    "Hindi": "हिन्दी क्षत्रिय",
    "Hindi, half forms": "क्\u200dष राष्\u200dट्र",
    "Hindi, explicit virama": "क्\u200cष",
    "Marathi eyelash": "दर्\u200dया",
    "Bengali": "র\u200d্যাব বাংলা",
    "Malayalam chillu": "അവന്\u200d വന്നു",
    "Sinhala": "ශ්\u200dරී ලංකා",
    "Kannada": "ರ\u200d್ಕ ಕನ್ನಡ",
    "Tamil": "வணக்கம் க்ஷ",
    "Thai": "สวัสดีครับ ที่นี่ น้ำ",
    "Lao": "ສະບາຍດີ",
    "Khmer": "សួស្តី ប៊\u200cី",
    "Burmese": "လျှို့ဝှက် မြန်မာ",
    "Tibetan": "བསྒྲུབས་ བོད་སྐད།",
    "Chinese": "你好，世界。",
    "Japanese": "こんにちは、カタカナ　ｶﾅ",
    "Japanese, decomposed": unicodedata.normalize("NFD", "がぎぐげご パピプ"),
    "Korean": "안녕하세요",
    "Korean, decomposed": unicodedata.normalize("NFD", "안녕하세요 값"),
    "spaces that show": "1\u00a0000\u202f€ a\u3000b",
    "drawing": "┌─┐ ▁▂▃ ⣿⣷ ★ ∀x∈ℝ",
    "the mark itself": "<U+202E>",
}

# Where sequences begin, join and break: far more telling than code points at random.
TELLING = (
    "a1#<\n\r\t \u200b\u200c\u200d\u202e\ufe0e\ufe0f\u20e3\u0301\u0302\u1100\u1161\u11a8가"
    "ب\u064bי\u05b0क\u094d\u093fক\u09cdက\u103d\u1039ក\u17d2\u17b4ᠠ\u180b"
    "👩❤🏽🏳🇮\U0001fae8\U000e0067\U0001faff漢\U0002ebf0\ue000\ufffe\ud800"
)
texts = st.text(st.sampled_from(TELLING)) | st.text(
    st.characters(exclude_categories=()) | st.sampled_from(TELLING), max_size=40
)


@pytest.mark.parametrize(("hostile", "shown"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_would_deceive_is_marked(hostile: str, shown: str) -> None:
    assert sanitise(hostile) == shown


@pytest.mark.parametrize("text", LEGITIMATE.values(), ids=LEGITIMATE.keys())
def test_writing_is_kept_as_it_is(text: str) -> None:
    assert sanitise(text) == text


def test_newlines() -> None:
    assert sanitise("a\nb\r\nc\n") == "a\nb\nc\n"
    assert sanitise("a\n\rb\r\r\n") == "a\n<U+000D>b<U+000D>\n"
    assert sanitise("a\nb\r\n", newlines=False) == "a<U+000A>b<U+000D><U+000A>"


def test_a_flood_of_marks_shows_the_cap_and_every_mark_above_it() -> None:
    assert sanitise("a" + "\u0301" * 50) == "a" + "\u0301" * MARKS_MAX + "<U+0301>" * 47
    deep = "\u1000" + "\u103d" * 50
    assert sanitise(deep) == deep[: 1 + MARKS_MAX_IN_SCRIPT] + "<U+103D>" * 44
    assert sanitise("\u1000" + "\u0301" * 4) == "\u1000" + "\u0301" * MARKS_MAX + "<U+0301>"


def test_a_chain_of_emoji_ends() -> None:
    longest = "\u200d".join("👩" * (EMOJI_JOINERS_MAX + 1))

    assert sanitise(longest) == longest
    assert sanitise(longest + "\u200d👩\u200d👩") == longest + "<U+200D>👩\u200d👩"


@given(texts, st.booleans())
@example("👩\u200d" * 9, True)
@example("क\u094d\u200d" * 9, True)
def test_the_output_is_its_own_output(text: str, newlines: bool) -> None:
    shown = sanitise(text, newlines=newlines)

    assert sanitise(shown, newlines=newlines) == shown
    assert sanitise(shown, newlines=True) == shown


@given(texts, st.booleans())
def test_nothing_is_removed_and_nothing_explodes(text: str, newlines: bool) -> None:
    shown = sanitise(text, newlines=newlines)

    assert len(text.replace("\r\n", "\n")) <= len(shown) <= 10 * len(text)


@given(texts, st.booleans())
def test_no_output_deceives(text: str, newlines: bool) -> None:
    shown = sanitise(text, newlines=newlines)
    around = zip(" " + shown, shown, shown[1:] + " ", strict=False)

    for before, char, after in around:
        category = unicodedata.category(char)
        if char in "\u200c\u200d":
            assert ord(before) > 0x2000 or unicodedata.category(before)[0] in "LM"
            assert not before.isascii()
            assert not after.isascii() or unicodedata.combining(before) == 9
        elif char in "\ufe0e\ufe0f":
            assert unicodedata.category(before) in ("So", "Sm", "Po", "Cn") or after == "\u20e3"
        elif char == "\n":
            assert newlines
        else:
            assert category not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        assert category[0] != "M" or before not in "\n>"
    assert run_of_marks(shown) <= MARKS_MAX_IN_SCRIPT + 1  # a style before a keycap


def run_of_marks(text: str) -> int:
    """The longest run of combining marks."""
    longest = run = 0
    for char in text:
        run = run + 1 if unicodedata.category(char)[0] == "M" else 0
        longest = max(longest, run)
    return longest


def test_whatever_stands_alone_has_a_width_or_is_marked() -> None:
    hidden = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if (shown := sanitise(chr(code))) not in ("\n", "    ")
        and (shown != f"<U+{code:04X}>")
        and (shown != chr(code) or wcwidth(shown) < 1)
    ]

    assert hidden == []
