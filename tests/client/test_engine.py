"""The engine: one order of events, and futures that always end."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from saltline.client.commands import Answer, Command, Disconnect, Emit, Transmit
from saltline.client.engine import Engine
from saltline.client.link_events import (
    LinkDown,
    LinkReceived,
    LinkRefused,
    LinkTrying,
    LinkUp,
    Target,
)
from saltline.client.model import (
    CaughtUp,
    ConnectionChanged,
    ConnectionState,
    Event,
    ExitCode,
    Refused,
)
from saltline.client.vault.database import VaultFailed

TIMEOUT_S = 20.0


class ScriptedCore:
    """Writes down what it was told, and returns what the test says."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.returns: dict[str, list[Command]] = {}
        self.fails: dict[str, Exception] = {}
        self.caught_up = False
        self.is_idle = False

    def _turn(self, name: str, *told: Any) -> list[Command]:
        self.told.append((name, *told))
        if name in self.fails:
            raise self.fails[name]
        return self.returns.get(name, [])

    def link_up(self, spki_hash: bytes, now_ms: int) -> list[Command]:
        return self._turn("link_up", spki_hash)

    def received(self, bodies: Sequence[bytes], now_ms: int) -> list[Command]:
        return self._turn("received", *bodies)

    def link_down(self, now_ms: int) -> list[Command]:
        return self._turn("link_down")

    def tick(self, now_ms: int) -> list[Command]:
        return self.returns.get("tick", [])

    def idle(self) -> bool:
        return self.is_idle


class RecordingLink:
    """A link without a network."""

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []

    def start(self) -> None:
        self.did.append(("start",))

    def send(self, connection: int, data: bytes) -> None:
        self.did.append(("send", connection, data))

    def consumed(self, size_bytes: int) -> None:
        self.did.append(("consumed", size_bytes))

    def settled(self, connection: int) -> None:
        self.did.append(("settled", connection))

    def drop(self, connection: int, *, retry: bool) -> None:
        self.did.append(("drop", connection, retry))

    def reconnect(self) -> None:
        self.did.append(("reconnect",))

    def retarget(self, target: Target) -> None:
        self.did.append(("retarget", target))

    def stop(self, flush_s: float = 0.0) -> None:
        self.did.append(("stop",))


class Bench:
    """An engine with a scripted core and a recording link; `settle` waits until it has worked."""

    def __init__(self) -> None:
        self.core = ScriptedCore()
        self.link = RecordingLink()
        self.engine = Engine(self.core)
        self.events: list[Event] = []
        self.engine.subscribe(self.events.append)
        self.engine.start()
        self.do(lambda: self.engine.attach(self.link))

    def do(self, work: Callable[[], object]) -> None:
        def turn(now_ms: int) -> tuple[None, list[Command]]:
            work()
            return None, []

        self.engine.call(turn)

    def settle(self) -> None:
        self.do(lambda: None)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.stop()


def no_commands(result: object) -> Callable[[int], tuple[object, list[Command]]]:
    return lambda now_ms: (result, [])


# --- the engine ------------------------------------------------------------------------------


def test_link_events_reach_the_core_in_order_and_its_answers_the_link(bench: Bench) -> None:
    bench.core.returns["link_up"] = [Transmit(b"hello")]
    bench.core.returns["received"] = [Transmit(b"ack"), Emit(CaughtUp())]
    bench.engine.deliver(LinkTrying())
    bench.engine.deliver(LinkUp(7, b"spki"))
    bench.engine.deliver(LinkReceived(7, [b"one"], 10))
    bench.settle()
    bench.engine.deliver(LinkDown(7, "it hung up", 1.5))
    bench.settle()

    assert bench.core.told == [("link_up", b"spki"), ("received", b"one"), ("link_down",)]
    assert bench.link.did == [
        ("start",),
        ("send", 7, b"hello"),
        ("send", 7, b"ack"),
        ("consumed", 10),
    ]
    assert bench.events == [
        ConnectionChanged(ConnectionState.CONNECTING),
        CaughtUp(),
        ConnectionChanged(ConnectionState.OFFLINE, "it hung up", 1.5),
    ]


def test_deliveries_that_wait_together_share_one_turn(bench: Bench) -> None:
    def pile_up() -> None:
        bench.engine.deliver(LinkUp(1, b""))
        for number in range(5):
            bench.engine.deliver(LinkReceived(1, [bytes([number])], 1))
        bench.engine.deliver(LinkReceived(1, [b"large"], 2 * 1024 * 1024))
        bench.engine.deliver(LinkReceived(1, [b"apart"], 1))

    bench.do(pile_up)
    bench.settle()

    assert bench.core.told[1:] == [
        ("received", b"\0", b"\1", b"\2", b"\3", b"\4", b"large"),
        ("received", b"apart"),
    ]
    assert sum(each[1] for each in bench.link.did if each[0] == "consumed") == 2 * 1024 * 1024 + 6


def test_what_came_on_an_older_connection_is_not_for_the_next(bench: Bench) -> None:
    bench.engine.deliver(LinkUp(2, b""))
    bench.engine.deliver(LinkReceived(1, [b"late"], 4))
    bench.settle()

    assert bench.core.told == [("link_up", b"")]
    assert ("consumed", 4) in bench.link.did


def test_the_waiting_time_is_forgiven_only_when_all_was_taken_in(bench: Bench) -> None:
    bench.engine.deliver(LinkUp(1, b""))
    bench.engine.deliver(LinkReceived(1, [b"welcome"], 1))
    bench.settle()
    assert ("settled", 1) not in bench.link.did
    bench.core.caught_up = True
    bench.engine.deliver(LinkReceived(1, [b"caught up"], 1))
    bench.settle()

    assert ("settled", 1) in bench.link.did


def test_a_core_that_wants_to_leave_says_why(bench: Bench) -> None:
    refused = Disconnect(ConnectionState.REFUSED, "removed by the admin", retry=False)
    bench.core.returns["received"] = [refused]
    bench.engine.deliver(LinkUp(1, b""))
    bench.engine.deliver(LinkReceived(1, [b"error"], 1))
    bench.engine.deliver(LinkDown(1, "disconnected", None))
    bench.settle()

    assert ("drop", 1, False) in bench.link.did
    assert bench.events[-1] == ConnectionChanged(ConnectionState.REFUSED, "removed by the admin")


def test_a_vault_that_fails_ends_the_connection_not_the_messenger(bench: Bench) -> None:
    bench.core.fails["received"] = VaultFailed("The disk is full.")
    bench.engine.deliver(LinkUp(1, b""))
    bench.engine.deliver(LinkReceived(1, [b"mail"], 1))
    bench.engine.deliver(LinkDown(1, "disconnected", 2.0))
    bench.settle()

    assert ("drop", 1, True) in bench.link.did
    assert bench.events[-1] == ConnectionChanged(ConnectionState.OFFLINE, "The disk is full.", 2.0)


def test_a_call_gives_its_result_or_its_refusal(bench: Bench) -> None:
    def refuse(now_ms: int) -> tuple[None, list[Command]]:
        raise Refused("no", ExitCode.NOT_TRUSTED)

    def break_disk(now_ms: int) -> tuple[None, list[Command]]:
        raise VaultFailed("The disk is full.")

    def break_us(now_ms: int) -> tuple[None, list[Command]]:
        raise KeyError("a secret")

    assert bench.engine.call(no_commands("done")) == "done"
    for work, code, sentence in (
        (refuse, ExitCode.NOT_TRUSTED, "^no$"),
        (break_disk, ExitCode.INTERNAL, "The disk is full"),
        (break_us, ExitCode.INTERNAL, r"^Internal error \(KeyError, test_engine.py:\d+\)"),
    ):
        with pytest.raises(Refused, match=sentence) as refused:
            bench.engine.call(work)
        assert refused.value.code is code
    assert bench.engine.call(no_commands("still there")) == "still there"


def test_tickets_are_answered_once_with_a_result_or_a_refusal(bench: Bench) -> None:
    tickets: list[int] = []

    def remember(ticket: int, now_ms: int) -> list[Command]:
        tickets.append(ticket)
        return []

    first, second = bench.engine.ask(remember), bench.engine.ask(remember)
    bench.settle()
    bench.core.returns["received"] = [
        Answer(tickets[0], "found"),
        Answer(tickets[1], None, Refused("gone", ExitCode.UNKNOWN_NAME)),
        Answer(tickets[1], "too late"),
        Answer(99, "nobody asked"),
    ]
    bench.engine.deliver(LinkUp(1, b""))
    bench.engine.deliver(LinkReceived(1, [b"answers"], 1))

    assert first.result(TIMEOUT_S) == "found"
    with pytest.raises(Refused, match="gone"):
        second.result(TIMEOUT_S)


def test_who_waits_for_idleness_waits_for_it_or_for_a_refusal(bench: Bench) -> None:
    waiting = bench.engine.when_idle()
    bench.settle()
    assert not waiting.done()
    bench.core.is_idle = True
    bench.settle()
    assert waiting.result(TIMEOUT_S) is None

    bench.core.is_idle = False
    waiting = bench.engine.when_idle()
    bench.engine.deliver(LinkRefused("another certificate"))
    bench.settle()
    for each in (waiting, bench.engine.when_idle()):
        with pytest.raises(Refused, match="another certificate") as refused:
            each.result(TIMEOUT_S)
        assert refused.value.code is ExitCode.UNREACHABLE


def test_the_impatient_do_not_wait_for_retries(bench: Bench) -> None:
    patient = bench.engine.ask(lambda ticket, now_ms: [])
    impatient = bench.engine.ask(lambda ticket, now_ms: [], impatient=True)
    bench.engine.deliver(LinkDown(0, "nobody listens there", 1.0))
    bench.settle()

    with pytest.raises(Refused, match="nobody listens there") as refused:
        impatient.result(TIMEOUT_S)
    assert refused.value.code is ExitCode.UNREACHABLE
    assert not patient.done()


def test_a_subscriber_may_ask_and_may_fail(bench: Bench) -> None:
    answers: list[object] = []

    def fail(event: Event) -> None:
        raise RuntimeError("a face that fails")

    def ask(event: Event) -> None:
        answers.append(bench.engine.call(no_commands("answered")))

    bench.engine.subscribe(fail)
    stop = bench.engine.subscribe(ask)
    bench.engine.deliver(LinkTrying())
    bench.settle()
    stop()
    bench.engine.deliver(LinkTrying())
    bench.settle()

    assert answers == ["answered"]
    assert len(bench.events) == 2


def test_a_defect_in_a_link_turn_is_said_and_refuses_everything_after(bench: Bench) -> None:
    bench.core.fails["received"] = ZeroDivisionError("secret")
    open_question: Future[Any] = bench.engine.ask(lambda ticket, now_ms: [])
    bench.engine.deliver(LinkUp(1, b""))
    bench.engine.deliver(LinkReceived(1, [b"x"], 1))

    with pytest.raises(Refused, match="ZeroDivisionError") as refused:
        open_question.result(TIMEOUT_S)
    assert refused.value.code is ExitCode.INTERNAL
    assert "secret" not in refused.value.sentence
    with pytest.raises(Refused, match="ZeroDivisionError"):
        bench.engine.call(no_commands(None))
    last = bench.events[-1]
    assert isinstance(last, ConnectionChanged) and last.state is ConnectionState.REFUSED


def test_after_the_end_everything_is_refused_and_nothing_waits_for_ever() -> None:
    bench = Bench()
    question = bench.engine.ask(lambda ticket, now_ms: [])
    idle = bench.engine.when_idle()
    bench.engine.stop()

    for future in (question, idle, bench.engine.ask(lambda ticket, now_ms: [])):
        with pytest.raises(Refused, match="The messenger is closed"):
            future.result(TIMEOUT_S)
    with pytest.raises(Refused, match="The messenger is closed"):
        bench.engine.call(no_commands(None))
