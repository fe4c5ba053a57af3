"""Locks that notice when they are taken in another order than docs/architecture.md says."""

import linecache
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
_FOLDERS = tuple(str(ROOT / name) for name in ("server", "client", "protocol", "crypto", "src"))
_MADE = re.compile(r"self\.(\w+)[^=]*= threading\.(?:Lock|RLock|Condition|Event)\(")


def documented() -> dict[str, int]:
    """The tier of each lock, from the two tables."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+\.\w+)`", text, re.M)
    return {name: int(tier) for tier, name in rows}


def written() -> set[str]:
    """Every lock, condition and event that a class of the two programs makes."""
    found = set()
    for folder in ("server", "client", "protocol", "crypto"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            owner = ""
            for line in file.read_text("utf-8").splitlines():
                if line.startswith("class "):
                    owner = re.split(r"[ (:\[]", line)[1]
                if made := _MADE.search(line):
                    found.add(f"{owner}.{made[1]}")
                else:
                    assert not re.search(r"threading\.(R?Lock|Condition|\w*Semaphore)\(", line), (
                        f"a lock that belongs to no object: {file.name}: {line}"
                    )
    return found


class Watch:
    """What happened to the locks that were made meanwhile."""

    def __init__(self, tiers: dict[str, int]) -> None:
        self._tiers = tiers
        self._mine = threading.local()
        self.wrong: list[str] = []
        self.taken: set[str] = set()
        self.nested: set[tuple[str, str]] = set()

    @property
    def held(self) -> list[str]:
        """The names of the locks that this thread holds, the oldest first."""
        if not hasattr(self._mine, "held"):
            self._mine.held = []
        held: list[str] = self._mine.held
        return held

    def note(self, name: str) -> None:
        """This thread has a lock."""
        for other in self.held:
            self.nested.add((other, name))
            if self._tiers[other] >= self._tiers[name]:
                self.wrong.append(f"{name} was taken under {other}")
        self.held.append(name)
        self.taken.add(name)


class TieredLock:
    """A lock that tells its watch. Not for a thread that holds it already: no lock here is."""

    def __init__(self, name: str, watch: Watch) -> None:
        self._name, self._watch = name, watch
        self._lock = _real_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._watch.note(self._name)
        return taken

    def release(self) -> None:
        self._watch.held.remove(self._name)
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


_real_lock = threading.Lock


def _name_of(frame: FrameType | None, tiers: dict[str, int]) -> str | None:
    """Whose lock the frame is about to make, if that is one of ours."""
    while frame is not None and frame.f_code.co_filename == threading.__file__:
        frame = frame.f_back
    if frame is None or not str(Path(frame.f_code.co_filename).resolve()).startswith(_FOLDERS):
        return None
    made = _MADE.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno))
    owner = type(frame.f_locals.get("self")).__name__
    name = f"{owner}.{made[1]}" if made else ""
    return name if name in tiers else None


@contextmanager
def watched() -> Iterator[Watch]:
    """Locks that the two programs make in this block are watched, also after it."""
    tiers = documented()
    watch = Watch(tiers)

    def maker(real: Any) -> Any:
        def make() -> Any:
            name = _name_of(_caller(), tiers)
            return real() if name is None else TieredLock(name, watch)

        return make

    before = threading.Lock, threading.RLock
    threading.Lock, threading.RLock = maker(before[0]), maker(before[1])
    try:
        yield watch
    finally:
        threading.Lock, threading.RLock = before


def _caller() -> FrameType | None:
    return sys._getframe(2)
