"""A store in memory."""

import pytest

from saltline.server.store.sqlite import SqliteStore
from tests.server.store_harness import RELAY_ID, account


@pytest.fixture
def store() -> SqliteStore:
    """With the accounts ada (1) and bob (2)."""
    opened = SqliteStore(":memory:", RELAY_ID)
    opened.run([account("ada"), account("bob")])
    return opened
