"""Prekeys that are offered, what guards against replay, and what did not open: for how long."""

import os
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
from saltline.crypto.bundles import DAY_MS, PREKEY_LIFE_MS, PrekeyKind
from saltline.crypto.keys import IdentityKeys, generate_prekey

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


@pytest.mark.parametrize(
    ("made_ms", "is_offered"),
    [
        (NOW_MS - PREKEY_LIFE_MS, False),
        (NOW_MS - PREKEY_LIFE_MS + 1, True),
        (NOW_MS + DAY_MS, True),
        (NOW_MS + DAY_MS + 1, False),
    ],
)
def test_a_prekey_that_the_relay_would_refuse_for_its_date_is_not_offered(
    vault: Vault, made_ms: int, is_offered: bool
) -> None:
    keys = KeyStore(vault)
    owner = IdentityKeys.generate(bytes(32), "ada", 1, os.urandom)
    pair = generate_prekey(owner, PrekeyKind.SIGNED, 1, made_ms, os.urandom)
    with vault.transaction():
        keys.add_prekey(pair, made_ms, made_ms + PREKEY_LIFE_MS)
    assert bool(keys.unpublished(NOW_MS, 10)) is is_offered
    assert keys.unpublished_counts(NOW_MS) == ({PrekeyKind.SIGNED: 1} if is_offered else {})
