"""Several processes on one profile: one owns it and serves the others; any takes over."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import pytest

from saltline.client import control, headless
from saltline.client.control import ControlClient, OwnerGone
from saltline.client.messenger import Client
from saltline.client.model import ConnectionChanged, ConnectionState, Event, Refused, Status
from saltline.client.profile import Profile
from saltline.client.requests import Account, AnyRequest, Await, CatchUp, History, Reply, Send
from saltline.client.service import Service
from tests.client.programs import House, Process, Shell, owner_serves
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def saltline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def texts(house: House, saltline: Shell, profile: Path, conversation: str) -> list[str]:
    ran = saltline(profile, "history", conversation, "--json")
    return [each["body"] for each in ran.records if each["type"] == "message"]


def bodies_at_owner(profile: Path, conversation: str) -> list[str]:
    """A conversation as the process that owns the profile has it."""
    control = ControlClient(profile)
    try:
        replies = list(control.perform(History(conversation, 100)))
    except Refused:
        return []
    finally:
        control.close()
    return [each.record["body"] for each in replies if each.record["type"] == "message"]


@pytest.mark.parametrize("beside", [False, True])
def test_an_interrupted_send_prints_how_far_the_message_has_come(
    house: House, saltline: Shell, beside: bool
) -> None:
    ann = house.user(f"ann0{beside}".lower())
    house.user(f"ben0{beside}".lower())
    to = f"ben0{beside}".lower()

    def on_relay() -> bool:
        ran = saltline(ann, "history", to, "--json")
        return any(each.get("delivery") == "relayed" for each in ran.records)

    with ExitStack() as stack:
        if beside:
            stack.enter_context(Process(ann, "recv", "--follow"))
            wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        arguments = ("send", to, "-m", "x", "--wait", "delivered", "--json")
        send = stack.enter_context(Process(ann, *arguments))
        wait_until(lambda: owner_serves(ann), "somebody serves")
        wait_until(on_relay, "the message is on the relay")
        ran = send.end(signal.SIGINT)

    assert (ran.code, [each["delivery"] for each in ran.records]) == (130, ["relayed"])
    assert "Interrupted. The message is on the relay" in ran.err


def test_send_beside_recv_follow_says_what_it_says_alone(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann1"), house.user("ben1")
    alone = saltline(ann, "send", "ben1", "-m", "alone")

    with Process(ann, "recv", "--follow", "--json") as follow:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        beside = saltline(ann, "send", "ben1", "-m", "alone")
        unknown = saltline(ann, "send", "nobody-here", "-m", "x")
        bad = saltline(ann, "history", "nobody-else")
        saltline(ben, "send", "ann1", "-m", "printed by the owner")
        printed = ""
        while "printed by the owner" not in printed:
            printed = follow.line()
        ended = follow.end(signal.SIGTERM)

    assert (beside.code, beside.err) == (alone.code, alone.err)
    assert beside.out[16:] == alone.out[16:]  # but for the minute
    assert (unknown.code, bad.code) == (6, 6)
    assert "no user nobody-here" in unknown.err
    assert (ended.code, ended.err) == (128 + signal.SIGTERM, "")
    assert not owner_serves(ann)


def test_two_recv_print_each_message_once(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann2"), house.user("ben2")
    with (
        Process(ann, "recv", "--follow", "--json") as owner,
        Process(ann, "recv", "--count", "1000", "--timeout", "1000", "--json") as other,
    ):
        wait_until(lambda: owner_serves(ann), "one of the two owns the profile")
        for number in range(12):
            assert saltline(ben, "send", "ann2", "-m", str(number)).code == 0
        # A third one has nothing left to print, once all of it was.
        wait_until(
            lambda: (
                saltline(ann, "recv", "--json").out == ""
                and len(bodies_at_owner(ann, "@ben2")) == 12
            ),
            "everything was printed",
        )
        outputs = [owner.end(signal.SIGTERM).out, other.end(signal.SIGTERM).out]

    lines = [line for output in outputs for line in output.splitlines() if '"message"' in line]
    assert len(lines) == len(set(lines)) == 12


def test_who_waits_takes_over_from_an_owner_that_was_killed(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann3"), house.user("ben3")
    with house.closed(), Process(ann, "recv", "--follow") as owner:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        with Process(ann, "send", "ben3", "-m", "once", "--timeout", "60") as sender:
            wait_until(lambda: "once" in bodies_at_owner(ann, "@ben3"), "the text is queued")
            owner.process.kill()
            owner.process.wait()
            wait_until(lambda: owner_serves(ann), "the sender owns the profile")
            house.open()
            sent = sender.end()

    assert (sent.code, sent.err) == (0, "")
    assert texts(house, saltline, ann, "ben3") == ["once"]
    assert "once" in saltline(ben, "recv", "--json").out


def test_who_waits_takes_over_from_an_owner_that_ends(house: House, saltline: Shell) -> None:
    ann, ben = house.user("ann4"), house.user("ben4")
    with house.closed(), Process(ann, "recv", "--follow") as owner:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        with Process(ann, "send", "ben4", "-m", "once", "--timeout", "60") as sender:
            wait_until(lambda: "once" in bodies_at_owner(ann, "@ben4"), "the text is queued")
            assert owner.end(signal.SIGINT).code == 130
            house.open()
            sent = sender.end()

    assert (sent.code, sent.err) == (0, "")
    assert texts(house, saltline, ann, "ben4") == ["once"]
    assert "once" in saltline(ben, "recv", "--json").out


@pytest.mark.parametrize("was_queued", [True, False])
def test_a_text_is_queued_once_though_the_owner_went_away_before_it_said_so(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch, was_queued: bool
) -> None:
    ann, ben = house.user(f"ann6{was_queued:d}"), f"ben6{was_queued:d}"
    house.user(ben)
    ask = ControlClient.perform
    with Process(ann, "recv", "--follow") as owner:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        saltline(ann, "send", ben, "-m", "same words")  # an earlier one does not count

        def lose_the_answer(self: ControlClient, request: AnyRequest) -> Iterator[Reply]:
            if not isinstance(request, Send):
                yield from ask(self, request)
                return
            if was_queued:
                list(ask(self, request))
            owner.process.kill()
            owner.process.wait()
            raise OwnerGone

        monkeypatch.setattr(ControlClient, "perform", lose_the_answer)
        sent = saltline(ann, "send", ben, "-m", "same words", "--json")

    assert (sent.code, sent.records[0]["delivery"]) == (0, "relayed")
    assert texts(house, saltline, ann, ben) == ["same words", "same words"]


@pytest.mark.parametrize(("command", "to"), [("send", "ben7"), ("post", "#room7")])
def test_two_commands_with_the_same_words_queue_them_twice_whoever_goes_away(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch, command: str, to: str
) -> None:
    ann = house.user(f"ann7{command}")
    arguments = (command, to, "-m", "same words", "--wait", "queued")
    ask = ControlClient.perform
    with house.closed():
        with Process(ann, "recv", "--follow") as owner:
            wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")

            def overtaken(self: ControlClient, request: AnyRequest) -> Iterator[Reply]:
                if not isinstance(request, Send):
                    yield from ask(self, request)
                    return
                monkeypatch.undo()
                with Process(ann, *arguments) as other:
                    assert other.end().code == 0
                owner.process.kill()
                owner.process.wait()
                raise OwnerGone

            monkeypatch.setattr(ControlClient, "perform", overtaken)
            sent = saltline(ann, *arguments)

        assert sent.code == 0
        assert texts(house, saltline, ann, to) == ["same words", "same words"]


def test_a_command_waits_for_an_owner_that_does_not_serve_and_then_gives_up(
    house: House, saltline: Shell
) -> None:
    ann = house.user("ann5")
    busy = Profile(ann)
    busy.acquire()
    try:
        refused = saltline(ann, "whoami", "--timeout", "0.2")
    finally:
        busy.release()

    assert refused.code == 7
    assert f"is in use by another saltline (process {os.getpid()})" in refused.err


def test_who_cannot_take_over_says_that_the_text_is_queued(
    house: House, saltline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 1, and a sentence about the passphrase alone, had scripts send it again."""
    ann = house.user("ann9")
    ask = ControlClient.perform

    def no_terminal(*_: object) -> bytes:
        raise Refused("There is no terminal.")

    with house.closed(), Process(ann, "recv", "--follow") as owner:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")

        def die(self: ControlClient, request: AnyRequest) -> Iterator[Reply]:
            if isinstance(request, Await):
                owner.process.kill()
                owner.process.wait()
                raise OwnerGone
            yield from ask(self, request)

        monkeypatch.setattr(ControlClient, "perform", die)
        monkeypatch.setattr(headless, "ask_key", no_terminal)
        sent = saltline(ann, "send", "ben9", "-m", "x", "--json")

    assert (sent.code, sent.records[0]["delivery"]) == (7, "queued")
    assert "There is no terminal." in sent.err
    assert "Do not send it again." in sent.err


def test_who_finds_an_owner_with_too_many_callers_waits_without_haste_and_not_for_ever(
    house: House, saltline: Shell
) -> None:
    ann = house.user("ann8")
    with Process(ann, "recv", "--follow"), ExitStack() as stack:
        wait_until(lambda: owner_serves(ann), "recv --follow owns the profile")
        for _ in range(control._CALLERS_MAX):
            caller = ControlClient(ann)
            stack.callback(caller.close)
            with suppress(OwnerGone):  # the one before may not be gone yet
                list(caller.perform(Account()))
        before = time.process_time()
        refused = saltline(ann, "whoami", "--timeout", "1")
        used_s = time.process_time() - before

    assert refused.code == 7
    assert "serves as many commands as it can" in refused.err
    assert used_s < 0.5


class FullDisk:
    """A client that logs in, and whose vault then refuses what comes."""

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        self._tell = callback
        return lambda: None

    def start(self) -> None:
        pass

    def status(self) -> Status:
        return Status("ann", "", "", "", "", ConnectionState.ONLINE, "", None, 0, 0)

    def when_idle(self) -> "Future[None]":
        self._tell(ConnectionChanged(ConnectionState.OFFLINE, "The disk is full."))
        self._tell(ConnectionChanged(ConnectionState.CONNECTING))
        return Future()


def test_a_disk_that_is_full_is_not_blamed_on_the_relay() -> None:
    service = Service(cast(Client, FullDisk()))

    with pytest.raises(Refused, match=r"^Not everything was exchanged: The disk is full\.$"):
        list(service.perform(CatchUp(0.0), "recv"))
