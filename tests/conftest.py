"""What all tests share: Hypothesis counts examples, not time; the caller's terminal is not ours."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Over the profile that Hypothesis chose itself: under CI=… it draws the same examples each time.
settings.register_profile("saltline", settings(), deadline=None)
settings.load_profile("saltline")

DESCRIPTORS_MAX = 256

# What whoever runs the tests may have set, and what the programs heed.
HEEDED = ("NO_COLOR", "COLORTERM", "SALTLINE_PROFILE", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def _few_descriptors() -> Iterator[None]:
    """People and relays in memory hold each other, and with them their databases' descriptors.

    The screen's loop waits in select(), which knows 1,024 of them.
    """
    yield
    lowest_free = os.dup(0)
    os.close(lowest_free)
    if lowest_free > DESCRIPTORS_MAX:
        gc.collect()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HEEDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
