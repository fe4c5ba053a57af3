"""What guards against replay, and what did not open: how much is kept, and for how long."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.client.vault.database import Vault
from saltline.client.vault.keys import (
    FAILED_KEPT_MS,
    FAILED_KEPT_PER_PEER,
    SEEN_KEPT_MS,
    KeyStore,
)

NOW_MS = 1_778_587_200_000


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    opened = Vault.create(tmp_path / "vault.db", bytes(32))
    yield opened
    opened.close()


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def failed(vault: Vault, username: str) -> list[int]:
    rows = vault.rows("SELECT digest FROM failed WHERE username = ? ORDER BY digest", username)
    return [int.from_bytes(row[0], "big") for row in rows]


def test_of_a_peer_the_newest_hundred_that_did_not_open_are_kept(vault: Vault) -> None:
    keys = KeyStore(vault)
    with vault.transaction():
        keys.keep_failed(digest(1), "bob", b"sealed", NOW_MS)
        for number in range(2, FAILED_KEPT_PER_PEER + 12):
            keys.keep_failed(digest(number), "mallory", b"sealed", NOW_MS + number)
    assert failed(vault, "mallory") == [*range(12, FAILED_KEPT_PER_PEER + 12)]
    assert failed(vault, "bob") == [1]


def test_what_did_not_open_is_kept_for_thirty_days(vault: Vault) -> None:
    keys = KeyStore(vault)
    with vault.transaction():
        keys.keep_failed(digest(1), "bob", b"sealed", NOW_MS)
        keys.expire(NOW_MS + FAILED_KEPT_MS - 1)
        assert failed(vault, "bob") == [1]
        keys.expire(NOW_MS + FAILED_KEPT_MS)
    assert failed(vault, "bob") == []


def test_what_was_taken_in_is_remembered_for_longer_than_a_mailbox_holds_it(vault: Vault) -> None:
    keys = KeyStore(vault)
    with vault.transaction():
        keys.remember_seen(digest(1), NOW_MS)
        keys.expire(NOW_MS + SEEN_KEPT_MS - 1)
        assert keys.was_seen(digest(1))
        keys.expire(NOW_MS + SEEN_KEPT_MS)
        assert not keys.was_seen(digest(1))
