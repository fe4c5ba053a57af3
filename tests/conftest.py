"""What all tests share: Hypothesis counts examples, not time; the caller's terminal is not ours."""

import signal
import threading
from collections.abc import Iterator

import apsw
import pytest
from hypothesis import settings

# Over the profile that Hypothesis chose itself: under CI=… it draws the same examples each time.
settings.register_profile("saltline", settings(), deadline=None)
settings.load_profile("saltline")

# What whoever runs the tests may have set, and what the programs heed.
HEEDED = ("NO_COLOR", "COLORTERM", "SALTLINE_PROFILE", "XDG_RUNTIME_DIR")

# Folders of tests that take seconds each.
LONG = ("torture", "simulation")

# Threads that use a database.
SERVING = ("saltline-storage", "saltline-engine")


# A shell's `&` leaves it ignored, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: whoever begins one last is waited for by the other worker."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def _databases_closed() -> Iterator[None]:
    """A database that a test leaves open is closed after it, and with it goes what holds it.

    apsw counts a reference too many to some cursors (server/store/queries.py): no collection frees
    a store. All of them together cost each later collection its time, and the screen's loop its
    descriptors: select() knows 1,024 of them. A relay that serves a whole module keeps its own.
    """
    opened_before = apsw.connections()
    yield
    if any(thread.name in SERVING for thread in threading.enumerate()):
        return
    for connection in apsw.connections():
        if not any(connection is each for each in opened_before):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(True)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HEEDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
