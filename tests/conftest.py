"""What all tests share: Hypothesis counts examples, not time; the caller's terminal is not ours."""

import pytest
from hypothesis import settings

# Over the profile that Hypothesis chose itself: under CI=… it draws the same examples each time.
settings.register_profile("saltline", settings(), deadline=None)
settings.load_profile("saltline")

# What whoever runs the tests may have set, and what the programs heed.
HEEDED = ("NO_COLOR", "COLORTERM", "SALTLINE_PROFILE", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HEEDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
