"""Waiting for what is to come: for a condition, never for a time to pass."""

import time
from collections.abc import Callable
from typing import Final

# Only a failure takes so long; a busy machine may need some of it.
PATIENCE_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.002


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Look again and again until it holds. Raises AssertionError after PATIENCE_S."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, f"never happened: {what or condition}"
        time.sleep(_LOOK_EVERY_S)
