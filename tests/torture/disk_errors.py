"""The disk fails at every call that a relay makes of it: strace answers in the kernel's place.

Under load: the k-th write or sync of the storage thread fails, for k = 1, 2, 3 …; at the end, when
the log is copied home; and at the start, where nothing has been promised yet. strace wrote down
what was called: no sync is tried again.
"""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import CaughtUp, Deliver, Error, RoomList, Submitted
from saltline.protocol.to_relay import Acknowledge, ListRooms, Submit
from saltline.server.process import EXIT_DONE, EXIT_INTERNAL, EXIT_USAGE
from tests.server.edge import TIMEOUT_S
from tests.torture.crowd import Caller, Cut, envelope_of, read_envelope
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MortalRelay
from tests.torture.straced import Logged, logged, need_strace
from tests.torture.trial import Figures, Lacking, Scale

LANE: Final = "ada>bob"
LETTERS: Final = 6
SYNCS: Final = "fsync,fdatasync"
WRITES: Final = "pwrite64"
FAILED_SENTENCE: Final = "CRITICAL The relay's disk failed, and the relay stops."


@dataclass(frozen=True, slots=True)
class Fault:
    """The `first`-th of these calls fails in each thread; all further ones too, if it `lasts`."""

    calls: str
    error: str
    first: int
    lasts: bool = False

    def __str__(self) -> str:
        return f"{self.error} on a {'write' if self.calls == WRITES else 'sync'}"

    @property
    def strace(self) -> list[str]:
        """Watch every write and sync of a file, and have these fail."""
        when = f"{self.first}+" if self.lasts else str(self.first)
        watched = f"-etrace={SYNCS},{WRITES}"
        fails = f"-einject={self.calls}:error={self.error}:when={when}"
        return ["strace", "-f", "-y", "-s0", "-esignal=none", watched, fails]


@dataclass
class Seen:
    """What strace wrote down."""

    log: Path
    happened: bool = False  # to a call of whose end somebody takes notice
    again: list[Logged] = field(default_factory=list)

    def read(self, thread: int | None = None) -> Self:
        """Whether a call failed (of one thread), and which syncs of that file came after it."""
        failed: set[str] = set()
        for call in logged(self.log):
            if call.name in SYNCS and call.file in failed:
                self.again.append(call)
            if call.was_injected and not _is_unheeded(call):
                self.happened |= thread in (None, call.thread)
                if "EIO" in call.rest:
                    failed.add(call.file)
        return self


def _is_unheeded(call: Logged) -> bool:
    """SQLite syncs the folder of a log that may be new, and takes no notice of what comes of it."""
    return call.name == "fdatasync" and Path(call.file).is_dir()


class Attached:
    """strace on a relay that runs. Raises Lacking where a running program may not be traced."""

    def __init__(self, relay: MortalRelay, fault: Fault) -> None:
        self._seen = Seen(relay.log.with_name("strace.txt"))
        self._process = subprocess.Popen(
            [*fault.strace, "-o", self._seen.log, "-p", str(relay.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if "attached" not in said:
            self._process.wait()
            raise Lacking(f"strace of running programs ({said.strip()})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(TIMEOUT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def detach(self) -> Seen:
        """The disk is well again; what happened. Not in the middle of a call, which would fail."""
        self.__exit__()
        return self._seen.read()


class Scene:
    """A relay, Ada who writes, and Bob who fetches after each trial."""

    def __init__(self, relay: MortalRelay, ledger: Ledger) -> None:
        self.relay = relay
        self.ledger = ledger
        self.last = 0
        self.seen: set[tuple[str, int]] = set()
        with relay.connect("ada") as ada, relay.connect("bob") as bob:
            self.ada, self.bob = ada.register(), bob.register()

    def write(self, count: int) -> list[Error]:
        """Send letters one after the other; what was not taken. Raises OSError, Cut."""
        refusals: list[Error] = []
        with Caller(self.relay.port, "ada") as wire:
            wire.excused, wire.takes_refusals = (ErrorCode.STOPPING,), True
            wire.log_in(self.ada)
            wire.expect(CaughtUp)
            for _ in range(count):
                self.last += 1
                self.ledger.sent(LANE, self.last)
                wire.say(Submit(self.last, "bob", 1, envelope_of(LANE, self.last), b""))
                answer = decode_relay_message(wire.receive())
                if isinstance(answer, Submitted):
                    self.ledger.acknowledged(LANE, answer.id)
                    continue
                assert isinstance(answer, Error) and answer.id == self.last, answer
                assert answer.code == ErrorCode.STORAGE_FAILED, answer
                assert "disk failed" in answer.detail or "disk is full" in answer.detail, answer
                refusals.append(answer)
        return refusals

    def fetch(self) -> None:
        """Bob takes what waits; nothing may be missing."""
        with self.relay.connect("bob") as wire:
            wire.log_in(self.bob)
            marks = wire.expect(CaughtUp)
            waiting = [each for each in wire.aside if isinstance(each, Deliver)]
            for found in (read_envelope(each.envelope) for each in waiting):
                if found not in self.seen:  # a full disk cannot forget what was fetched
                    self.seen.add(found)
                    self.ledger.shown(*found)
            assert marks.number == max((each.number for each in waiting), default=0)
            wire.say(Acknowledge(tuple(each.number for each in waiting), b""))
            # The store does its work in order: after this it is at rest.
            wire.say(ListRooms(wire.next_id()))
            wire.expect(RoomList)
        assert self.ledger.verdict().is_clean, self.ledger.verdict()


class Log:
    """What a relay logs from here on."""

    def __init__(self, relay: MortalRelay) -> None:
        self._relay = relay
        self._begin = len(relay.log_text) if relay.log.exists() else 0

    @property
    def text(self) -> str:
        """Raises AssertionError for a traceback."""
        text = self._relay.log_text[self._begin :]
        assert "Traceback" not in text, text
        return text


def run(scale: Scale, folder: Path) -> Figures:
    """Every call of the first so many fails once, under load, at the end and at the start."""
    need_strace()
    ledger = Ledger()
    trials: Counter[str] = Counter()
    with MortalRelay(folder / "relay") as relay:
        relay.start()
        scene = Scene(relay, ledger)
        for fault in _faults(scale, SYNCS, "EIO", LETTERS, quick=(2,)):
            trials["EIO on a sync"] += _disk_fails(scene, fault)
        for fault in _faults(scale, WRITES, "EIO", 30, quick=(9,)):
            trials["EIO on a write"] += _disk_fails(scene, fault)
        for fault in _faults(scale, WRITES, "ENOSPC", 30, quick=(9,)):
            trials["ENOSPC until there is room"] += _disk_is_full(scene, replace(fault, lasts=True))
            trials["ENOSPC once"] += _disk_is_full(scene, fault)
        for calls in (SYNCS, WRITES):
            for fault in _faults(scale, calls, "EIO", 30, quick=(3,)):
                trials["EIO at the end"] += _fails_at_its_end(scene, fault)
        for fault in _start_faults(scale):
            trials[f"{fault} at a start after a kill"] += _fails_at_its_start(scene, fault)
        assert relay.stop() == 0
        relay.check()
    for number, fault in enumerate(_start_faults(scale)):
        trials[f"{fault} at the first start"] += _fails_at_first(folder / f"first-{number}", fault)
    least = {"EIO on a sync at a start after a kill": 3, "EIO on a sync at the first start": 10}
    for kind, count in trials.items():
        assert count >= scale.of(1, least.get(kind, 1)), (kind, trials)
    return {**trials, **ledger.hold(scale.of(10, 300))}


def _faults(
    scale: Scale, calls: str, error: str, most: int, quick: Sequence[int]
) -> Iterator[Fault]:
    for first in quick if scale is Scale.QUICK else range(1, most + 1):
        yield Fault(calls, error, first)


def _start_faults(scale: Scale) -> Iterator[Fault]:
    # strace counts either kind of sync by itself, and a start makes both.
    yield from _faults(scale, SYNCS, "EIO", 0, quick=(1,))
    yield from _faults(scale, "fsync", "EIO", 8, quick=())
    yield from _faults(scale, "fdatasync", "EIO", 13, quick=())
    yield from _faults(scale, WRITES, "EIO", 30, quick=(2,))
    yield from _faults(scale, WRITES, "ENOSPC", 30, quick=())


def _disk_fails(scene: Scene, fault: Fault) -> bool:
    """The relay stops, says so once, tries nothing again; and nothing it acknowledged is lost."""
    relay, log = scene.relay, Log(scene.relay)
    with Attached(relay, fault) as strace:
        with suppress(OSError, Cut):
            scene.write(LETTERS)
        assert relay.wait() == EXIT_INTERNAL, (fault, log.text)
        seen = strace.detach()
    assert seen.happened and not seen.again, (fault, seen)
    assert log.text.count("CRITICAL") == log.text.count(FAILED_SENTENCE) == 1, log.text
    relay.start()
    scene.fetch()
    return seen.happened


def _disk_is_full(scene: Scene, fault: Fault) -> bool:
    """What does not fit is refused; the relay goes on, and takes more when there is room."""
    relay, log = scene.relay, Log(scene.relay)
    with Attached(relay, fault) as strace:
        refusals = scene.write(LETTERS)
        scene.fetch()  # what waits is handed over all the same
        seen = strace.detach()
    assert all("disk is full" in refusal.detail for refusal in refusals), refusals
    assert bool(refusals) == fault.lasts, (fault, refusals)
    assert log.text.count("disk is full") == int(fault.lasts), log.text
    assert scene.write(1) == [], "there is room again"
    scene.fetch()
    return seen.happened


def _fails_at_its_end(scene: Scene, fault: Fault) -> bool:
    """The log is not copied home, and stays for the next start."""
    relay, log = scene.relay, Log(scene.relay)
    with Attached(relay, fault) as strace:
        with suppress(OSError, Cut):
            scene.write(2)
        code = relay.stop()
        seen = strace.detach()
    assert not seen.again, (fault, seen)
    # It may fail before the signal, which then ends it at once.
    assert code in (EXIT_DONE, EXIT_INTERNAL, -signal.SIGTERM), (fault, log.text)
    relay.start()
    scene.fetch()
    return seen.happened


def _fails_at_its_start(scene: Scene, fault: Fault) -> bool:
    """It was killed, and its log waits: no start, or a whole one."""
    scene.write(2)
    scene.relay.kill()
    seen = _does_not_start(scene.relay, fault)
    assert not seen.again, (fault, seen)
    scene.fetch()
    return seen.happened


def _fails_at_first(folder: Path, fault: Fault) -> bool:
    """In a folder that was empty: what the failed start left does not hinder the next."""
    with MortalRelay(folder) as relay:
        seen = _does_not_start(relay, fault)
        # A start that fails rolls back, and syncs that: nothing was promised yet.
        assert seen.happened or not seen.again, (fault, seen)
        Scene(relay, Ledger()).fetch()
        return seen.happened


def _does_not_start(relay: MortalRelay, fault: Fault) -> Seen:
    """It says why in one line, and starts once the disk is well."""
    log, seen = Log(relay), Seen(relay.log.with_name("strace.txt"))
    seen.log.unlink(missing_ok=True)
    prefix = [*fault.strace, "-D", "--seccomp-bpf", "-o", str(seen.log)]
    serves, main_thread = relay.tries_to_start(prefix=prefix), relay.pid
    if serves:
        relay.kill()  # a later call may fail: "under load" tries those
    else:
        assert relay.wait() in (EXIT_USAGE, EXIT_INTERNAL)
        said = [line for line in log.text.splitlines() if line and not line.startswith("strace:")]
        assert len(said) == 1 and said[0][-1] in ".?", said
    seen.read(main_thread)
    # It serves if and only if its start does not make so many calls.
    assert serves != seen.happened, (fault, seen)
    relay.start()
    return seen
