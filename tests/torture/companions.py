"""Those who act beside a trial, each in a process of its own, so that they do not wait for it.

python -m tests.torture.companions PORT bystanders | envelopes | posts | listeners COUNT

Each says "ready", begins when a byte comes, and goes on until standard input ends; then it prints,
in JSON, what came of it.
"""

import json
import os
import select
import selectors
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, Final, Self

from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.messages import ClientMessage, decode_relay_message
from saltline.protocol.to_client import Entries, Error, Posted, Presence, Submitted
from saltline.protocol.to_relay import Post, Submit
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.measured import WAITS_MIN, MeasuredRelay, Waits, close_all
from tests.torture.trial import Scale

ENVELOPE: Final = b"x" * 3632  # the smallest that there is
CORNER: Final = "#corner"  # the room of the bystanders
_AT_ONCE: Final = 200
_PROBE_EVERY_S: Final = 0.01
_PATIENCE_S: Final = 120.0
_NICEST: Final = 19
# A few in a hundred, of a machine with other work, when some dozens are measured.
_BUSY_STALL_MS: Final = 500
_QUIET_S: Final = 0.4
_TEXT: Final = int(RoomKind.TEXT)


class Companion:
    """The process, until it has said what came of it."""

    def __init__(self, relay: MeasuredRelay, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.companions", str(relay.port), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Its next word. Raises AssertionError if it has ended, or says nothing for long."""
        stdout = self._process.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], _PATIENCE_S)[0], "a companion says nothing"
        line = stdout.readline()
        assert line, "a companion ended: see above"
        return line.rstrip()

    def nudge(self) -> None:
        """Let it begin, or end, what it does."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """Stop it, and take its account."""
        out, _ = self._process.communicate(timeout=_PATIENCE_S)
        assert self._process.returncode == 0, "a companion failed: see above"
        return json.loads(out)

    def __enter__(self) -> Self:
        assert self.hear() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


# --- who is not to notice ------------------------------------------------------------------------


@dataclass
class Seen:
    """How long a private envelope took from one to another, and a text in a small room."""

    letters: Waits = field(default_factory=Waits)
    texts: Waits = field(default_factory=Waits)

    @property
    def is_enough(self) -> bool:
        """Whether a 95th of 100 can be said of both."""
        return min(len(self.letters.each_s), len(self.texts.each_s)) >= WAITS_MIN

    def told(self) -> str:
        """For the figures."""
        return f"{self.letters.told()} and {self.texts.told()}"

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(
            Waits(self.letters.each_s + other.letters.each_s),
            Waits(self.texts.each_s + other.texts.each_s),
        )

    def are_usual(
        self,
        usual: "Seen",
        scale: Scale,
        *,
        median_more_s: float = 0.0,
        p95_more_s: float = 0.0,
    ) -> None:
        """Both kinds of waits (`Waits.are_usual`)."""
        for now, then in ((self.letters, usual.letters), (self.texts, usual.texts)):
            now.are_usual(
                then,
                scale,
                median_more_s=median_more_s,
                p95_more_s=p95_more_s,
                busy_stall_ms=_BUSY_STALL_MS,
            )


class Bystanders(Companion):
    """Two who write to each other, in private and in a small room, 100 times a second in all.

    What was due while one waited has waited until then: a stall counts for all that it holds up.
    """

    def __init__(self, relay: MeasuredRelay) -> None:
        super().__init__(relay, "bystanders")

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """What they see meanwhile; filled in at the end."""
        seen = Seen()
        self.nudge()
        yield seen
        self.nudge()
        seen.letters.each_s, seen.texts.each_s = json.loads(self.hear())

    def watch(self, seconds: float) -> Seen:
        """What they see in so long a time."""
        with self.watching() as seen:
            sleep(seconds)
        return seen


def stand_by(port: int) -> None:
    """Talk from one nudge to the next."""
    with WireClient(port, "ada") as ada, WireClient(port, "bob") as bob:
        keys = [person.register() for person in (ada, bob)]
        for person, own in zip((ada, bob), keys, strict=True):
            person.join(own, CORNER)

        def write() -> None:
            ada.submit("bob", ENVELOPE)
            assert bob.fetch() == ENVELOPE

        def talk() -> None:
            ada.post(keys[0], b"hello", CORNER)
            assert bob.hear() == b"hello"
            ada.expect(Posted)
            ada.aside.clear()

        print("ready", flush=True)
        while os.read(0, 1):
            waits: tuple[list[float], list[float]] = ([], [])
            due_s = monotonic()
            is_over = False
            while not is_over:  # once at least, however short the phase
                for act, each_s in zip((write, talk), waits, strict=True):
                    sleep(max(0.0, due_s - monotonic()))
                    act()
                    now_s = monotonic()
                    while due_s <= now_s:
                        each_s.append(now_s - due_s)
                        due_s += _PROBE_EVERY_S
                is_over = _is_nudged()
            os.read(0, 1)
            print(json.dumps(waits), flush=True)
    print("null")


# --- who takes all that there is -----------------------------------------------------------------


@dataclass
class Account:
    """What a culprit got: numbers of requests, the waits that it was told, and its time.

    Of its time also the part that begins with the requests of which the first was refused.
    """

    accepted: int
    refused: int
    least_ms: int
    most_ms: int
    seconds: float
    refused_s: float

    @property
    def answered(self) -> int:
        return self.accepted + self.refused


class Culprit(Companion):
    """One member who sends "envelopes", or "posts" to the lobby, without regard for refusals."""

    def __init__(self, relay: MeasuredRelay, what: str) -> None:
        super().__init__(relay, what)

    def is_told(self) -> None:
        """Wait until it is told to wait for the first time: its credit is used up."""
        assert self.hear() == "told to wait"

    def account(self) -> Account:
        """Stop it; what it got."""
        return Account(*self.end())


def be_greedy(port: int, what: str) -> None:
    """Ask again at once, whatever the answer."""
    with WireClient(port, f"greedy-{what}") as client:
        keys = client.register()
        if what == "posts":
            client.join(keys)

        def envelope() -> ClientMessage:
            return Submit(client.next_id(), "victim", 1, ENVELOPE, b"")

        def post() -> ClientMessage:
            signed = client.statement(keys, LOBBY, RoomKind.TEXT, b"me, me")
            return Post(client.next_id(), LOBBY, *signed)

        print("ready", flush=True)
        os.read(0, 1)
        os.nice(_NICEST)  # it has a machine of its own, and the relay's processor is the relay's
        print(json.dumps(_take_all(client, envelope if what == "envelopes" else post)))


def _take_all(
    client: WireClient, request: Callable[[], ClientMessage]
) -> tuple[int, int, int, int, float, float]:
    accepted = 0
    waits_ms: list[int] = []
    began_s = refused_from_s = monotonic()
    while not _is_nudged():
        if not waits_ms:
            refused_from_s = monotonic()
        client.say(*(request() for _ in range(_AT_ONCE)))
        answers = 0
        while answers < _AT_ONCE:
            answer = decode_relay_message(client.receive())
            if isinstance(answer, Entries | Presence):
                continue  # what all members get, its own texts too
            answers += 1
            if isinstance(answer, Submitted | Posted):
                accepted += 1
                continue
            assert isinstance(answer, Error) and answer.code == ErrorCode.RATE_LIMITED, answer
            if not waits_ms:
                print("told to wait", flush=True)
            waits_ms.append(answer.retry_after_ms)
    now_s = monotonic()
    waits = (len(waits_ms), min(waits_ms, default=0), max(waits_ms, default=0))
    return accepted, *waits, now_s - began_s, now_s - refused_from_s


# --- who reads, and no more ----------------------------------------------------------------------


class Listeners(Companion):
    """Members of the lobby who take what comes. The account: texts heard, and jumps in numbers."""

    def __init__(self, relay: MeasuredRelay, count: int) -> None:
        super().__init__(relay, "listeners", str(count))

    def account(self) -> tuple[int, int]:
        """Once nothing comes any more."""
        texts, jumps = self.end()
        return texts, jumps


def listen(port: int, count: int) -> None:
    """Read all, and look at what the first of them gets."""
    members = [WireClient(port, f"listener{number}") for number in range(count)]
    with selectors.DefaultSelector() as selector:
        for place, member in enumerate(members):
            member.join(member.register())
            member.sock.setblocking(False)
            selector.register(member.sock, selectors.EVENT_READ, place)
        print("ready", flush=True)
        decoder = FrameDecoder(2**31)
        texts, jumps, last = 0, 0, 0
        quiet_s = monotonic()
        while not _is_nudged() or monotonic() - quiet_s < _QUIET_S:
            for key, _ in selector.select(_QUIET_S / 4):
                quiet_s = monotonic()
                for data in _all_of(key.fileobj):
                    for body in decoder.feed(data) if key.data == 0 else ():
                        entries = decode_relay_message(body)
                        if isinstance(entries, Entries):
                            jumps += bool(last) and entries.first != last + 1
                            last = entries.first + len(entries.entries) - 1
                            texts += sum(each.statement[0] == _TEXT for each in entries.entries)
    close_all(members)
    print(json.dumps([texts, jumps]))


def _all_of(sock: object) -> Iterator[bytes]:
    """What is there."""
    assert isinstance(sock, ssl.SSLSocket)
    with suppress(ssl.SSLWantReadError):
        while True:
            data = sock.recv(65_536)
            assert data, "a member was cut off"
            yield data


def _is_nudged() -> bool:
    return bool(select.select([0], [], [], 0)[0])


if __name__ == "__main__":
    port, what = int(sys.argv[1]), sys.argv[2]
    if what == "bystanders":
        stand_by(port)
    elif what == "listeners":
        listen(port, int(sys.argv[3]))
    else:
        be_greedy(port, what)
