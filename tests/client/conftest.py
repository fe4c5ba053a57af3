"""A relay with Alice and Bob on it, in memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saltline.server.settings import Settings
from tests.client.world import MemoryRelay, Person

Meet = Callable[[str], Person]


@pytest.fixture
def relay(tmp_path: Path) -> MemoryRelay:
    return MemoryRelay(tmp_path, Settings(registrations_per_minute_and_address=1000))


@pytest.fixture
def meet(relay: MemoryRelay, tmp_path: Path) -> Meet:
    """Somebody who has registered and is online."""

    def register(name: str) -> Person:
        return Person(relay, tmp_path / name, name).online()

    return register


@pytest.fixture
def alice(meet: Meet) -> Person:
    return meet("alice")


@pytest.fixture
def bob(meet: Meet) -> Person:
    return meet("bob")
