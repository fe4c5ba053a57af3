"""How a line is read: what is sent, what is a command, and what is asked about."""

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from saltline.client.tui.actions import Actions
from saltline.client.tui.app import Terminal
from saltline.client.tui.commands import COMMANDS, Call, Say, Wrong, looks_private, parse
from tests.client.tui.fake_messenger import FakeMessenger


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("hello", "hello"),
        (" /msg bob hi", " /msg bob hi"),
        ("//etc/passwd is public", "/etc/passwd is public"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_text_is_sent_and_a_doubled_slash_is_one(typed: str, sent: str) -> None:
    assert parse(typed) == Say(sent)


@pytest.mark.parametrize(
    ("typed", "name", "arguments"),
    [
        ("/msg bob  two  spaces ", "msg", ("bob", "two  spaces")),
        ("/msg bob one\ntwo", "msg", ("bob", "one\ntwo")),
        ("/MSG bob hi", "msg", ("bob", "hi")),
        ("/verify bob", "verify", ("bob",)),
        ("/verify bob 12345 67890", "verify", ("bob", "12345 67890")),
        ("/search -a two words", "search", ("-a two words",)),
        ("/rooms", "rooms", ()),
        ("/rooms  ", "rooms", ()),
        ("/help", "help", ()),
    ],
)
def test_commands_and_their_arguments(typed: str, name: str, arguments: tuple[str, ...]) -> None:
    assert parse(typed) == Call(COMMANDS[name], arguments)


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        ("/jion #dev", "Did you mean /join?"),
        ("/jion #dev", "nothing was sent"),
        ("/ver bob", "Did you mean /verify?"),
        ("/zzzzzz", "/help lists"),
        ("/", "nothing was sent"),
        ("/msg bob", "/msg USER TEXT"),
        ("/rooms all", "/rooms takes nothing more"),
        ("/join #dev\nand more", "is one line"),
        ("/usr/bin/python fails", "//usr/bin/python"),
    ],
)
def test_what_is_no_command_is_never_sent(typed: str, part: str) -> None:
    answer = parse(typed)
    assert isinstance(answer, Wrong)
    assert part in answer.sentence
    assert ("sent" in answer.sentence) is not typed.startswith(("/rooms", "/join"))


def test_every_command_of_the_table_is_carried_out() -> None:
    with create_pipe_input() as pipe:
        terminal = Terminal(FakeMessenger(), source=pipe, output=DummyOutput())
    assert Actions(terminal.screen).table.keys() == COMMANDS.keys()


@pytest.mark.parametrize(
    "text",
    [
        "msg bob the code is 1234",
        "Msg @zoe hello there",
        " /msg bob hi",
        " /join #dev",
        "\\msg bob hi",
        "verify bob",
        "tell bob: come",
        "query bob",
        "dm stranger see you",
        "accept bob",
    ],
)
def test_text_that_was_meant_for_one_person_is_noticed(text: str) -> None:
    assert looks_private(text, {"bob"})


@pytest.mark.parametrize(
    "text",
    [
        "help me please",
        "who is coming?",
        "next week works",
        "msg",
        "verify that the build passes",
        "tell them I am late",
        "dm me if interested",
        "I told bob",
        "accept the invitation",
        "/etc is where it lives",
        "",
    ],
)
def test_ordinary_sentences_are_not(text: str) -> None:
    assert not looks_private(text, {"bob"})
