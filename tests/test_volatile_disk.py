"""The disk that forgets: what was synced is never lost, and what was not may be."""

import random
from collections.abc import Iterator

import apsw
import pytest

from saltline.client.vault.database import Vault, VaultFailed
from saltline.server.store import operations as ask
from saltline.server.store.interface import StoreError
from saltline.server.store.sqlite import SqliteStore
from tests.server.store_harness import RELAY_ID, account, envelope, one
from tests.volatile_disk import VolatileDisk

KEY = bytes(range(32))
CUTS = 200


@pytest.fixture
def disk() -> Iterator[VolatileDisk]:
    made = VolatileDisk()
    yield made
    made.forget()


def database(disk: VolatileDisk, synchronous: str = "FULL") -> apsw.Connection:
    opened = apsw.Connection(str(disk.path("a.db")), vfs=disk.vfs)
    for pragma in (
        "locking_mode = EXCLUSIVE",
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
    ):
        opened.execute(f"PRAGMA {pragma}").fetchall()
    opened.execute("CREATE TABLE IF NOT EXISTS kept (number INTEGER, filling BLOB)")
    return opened


def numbers(opened: apsw.Connection) -> list[int]:
    return [row[0] for row in opened.execute("SELECT number FROM kept ORDER BY number")]


def lost_over_cuts(disk: VolatileDisk, synchronous: str) -> int:
    """Commits that a cut took back, over many cuts at random moments."""
    chance = random.Random(1)
    committed = lost = 0
    opened = database(disk, synchronous)
    for _ in range(CUTS):
        disk.cut_after(chance.randrange(1, 60))
        try:
            while True:
                opened.execute("INSERT INTO kept VALUES (?, zeroblob(700))", (committed + 1,))
                committed += 1
                if chance.random() < 0.1:
                    opened.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.IOError:
            assert disk.is_down
        disk.cut(chance)
        opened.close(True)
        opened = database(disk, synchronous)
        assert opened.execute("PRAGMA integrity_check").get == "ok"
        found = numbers(opened)
        assert found == list(range(1, len(found) + 1)), "a later commit outlived an earlier one"
        lost += max(0, committed - len(found))
        committed = len(found)
    assert committed > CUTS
    return lost


@pytest.mark.parametrize(("synchronous", "is_synced"), [("FULL", True), ("NORMAL", False)])
def test_it_tells_whether_a_cut_would_take_something(
    disk: VolatileDisk, synchronous: str, is_synced: bool
) -> None:
    opened = database(disk, synchronous)
    opened.execute("INSERT INTO kept VALUES (1, zeroblob(700))")
    assert disk.is_synced == is_synced == (disk.least() == disk.files())
    opened.close(True)


def test_full_synchronisation_loses_no_commit(disk: VolatileDisk) -> None:
    assert lost_over_cuts(disk, "FULL") == 0


def test_normal_synchronisation_is_seen_to_lose_commits(disk: VolatileDisk) -> None:
    assert lost_over_cuts(disk, "NORMAL") > CUTS


def test_larger_sectors_tear_elsewhere_and_lose_no_commit_either() -> None:
    disk = VolatileDisk(4096)
    assert lost_over_cuts(disk, "FULL") == 0
    disk.forget()


def test_a_cut_keeps_any_part_of_what_was_not_synced(disk: VolatileDisk) -> None:
    left = set()
    for seed in range(50):
        disk.put({"a": b"." * 2048})
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
        file = disk._open("a", flags)
        file.xWrite(b"x" * 1024, 256)
        assert disk.files()["a"] == b"." * 256 + b"x" * 1024 + b"." * 768
        assert disk.least()["a"] == b"." * 2048
        disk.cut(random.Random(seed))
        content = disk.files()["a"]
        assert content == disk.least()["a"], "after a cut, everything is on the platters"
        assert content[:256] + content[1280:] == b"." * 1024, "no neighbour was spoilt"
        pieces = (content[256:512], content[512:1024], content[1024:1280])
        left.add(tuple({b".": "-", b"x": "x"}.get(piece[:1], "?") for piece in pieces))
    assert {("-", "-", "-"), ("x", "x", "x"), ("-", "-", "x"), ("x", "-", "-")} <= left
    assert any("?" in pieces for pieces in left), "sometimes there is garbage"


def test_names_are_forgotten_until_the_directory_is_synced(disk: VolatileDisk) -> None:
    plain = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, 0]
    journal = [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, 0]
    was_kept = set()
    for seed in range(20):
        disk.put({"old": b"old"})
        disk._delete("old", False)
        disk._open("new", plain).xSync(0)
        disk.cut(random.Random(seed))
        was_kept.add(tuple(disk.files()))
    assert was_kept == {(), ("old",), ("new",), ("new", "old")}

    disk.put({})
    disk._open("new", plain).xSync(0)
    disk._open("new-wal", journal)
    disk.kill()
    disk._open("new-wal", journal).xSync(0)
    disk.cut(random.Random(1))
    assert list(disk.files()) == ["new", "new-wal"], "by whoever opens a journal and syncs it"


def test_a_killed_process_loses_nothing_and_writes_nothing_more(disk: VolatileDisk) -> None:
    opened = database(disk, "OFF")
    opened.execute("INSERT INTO kept VALUES (1, NULL)")
    disk.kill()
    opened.execute("INSERT INTO kept VALUES (2, NULL)")
    opened.close()
    assert numbers(database(disk)) == [1]


def test_a_second_process_is_shut_out(disk: VolatileDisk) -> None:
    first = database(disk)
    first.execute("INSERT INTO kept VALUES (1, NULL)")
    with pytest.raises(apsw.BusyError):
        database(disk)
    first.close()
    assert numbers(database(disk)) == [1]


def test_a_full_disk_takes_nothing_more_until_there_is_room(disk: VolatileDisk) -> None:
    opened = database(disk)
    disk.room_bytes = sum(map(len, disk.files().values())) + 5_000
    with pytest.raises(apsw.FullError):
        opened.execute("INSERT INTO kept VALUES (1, zeroblob(50000))")
    disk.room_bytes = None
    opened.execute("INSERT INTO kept VALUES (2, zeroblob(50000))")
    assert numbers(opened) == [2]


def test_what_a_failed_sync_forgot_a_later_sync_does_not_bring_back(disk: VolatileDisk) -> None:
    disk.put({"a": bytes(4096)})
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
    file = disk._open("a", flags)
    file.xWrite(b"x" * 4096, 0)
    disk.fail_next_sync(random.Random(3))
    with pytest.raises(apsw.IOError):
        file.xSync(0)
    file.xSync(0)
    assert disk.files()["a"] == b"x" * 4096, "the kernel's cache has it"
    assert disk.least()["a"] != b"x" * 4096, "the platters do not"


def test_the_relays_store_keeps_every_envelope_that_it_took(disk: VolatileDisk) -> None:
    chance = random.Random(5)
    store = SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
    taken: list[bytes] = []
    assert not isinstance(one(store, account("ada")), StoreError)
    for _ in range(CUTS // 4):
        disk.cut_after(chance.randrange(1, 40))
        while not disk.is_down:
            content = b"sealed %d" % len(taken)
            if not isinstance(one(store, envelope("ada", content)), StoreError):
                taken.append(content)
            store.maintain()
        disk.cut(chance)
        store.close()
        store = SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
        read = one(store, ask.ReadMailbox(1, 0, 100_000, 10**9))
        kept = [each.envelope for each in read.envelopes]  # type: ignore[union-attr]
        assert kept[: len(taken)] == taken
        taken = kept
    assert len(taken) > CUTS // 4
    store.close()


def test_a_log_that_reached_the_disk_in_part_does_not_come_back(disk: VolatileDisk) -> None:
    """A sync fails, the relay starts again from what the kernel has, and then the power goes."""
    for seed in range(CUTS // 4):
        chance = random.Random(seed)
        disk.put({})
        store = SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
        assert not isinstance(one(store, account("ada")), StoreError)
        taken = [b"sealed %d" % number + bytes(3_000) for number in range(8)]
        for content in taken[:7]:
            assert not isinstance(one(store, envelope("ada", content)), StoreError)
        store.close()  # the log is empty: what follows touches other pages than what came before
        store = SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
        assert not isinstance(one(store, envelope("ada", taken[7])), StoreError)
        disk.fail_next_sync(chance)
        lost = store.run([account("ben"), ask.DeleteEnvelopes(1, (1, 2, 3)), account("cyd")])
        assert all(isinstance(each, StoreError) and each.fatal for each in lost)
        disk.kill()
        store.close()

        SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
        disk.cut(chance)

        store = SqliteStore(disk.path("relay.db"), RELAY_ID, vfs=disk.vfs)
        assert store.check() == []
        read = one(store, ask.ReadMailbox(1, 0, 100_000, 10**9))
        found = [each.envelope for each in read.envelopes]  # type: ignore[union-attr]
        assert found in (taken, taken[3:]), "the group whose sync failed is there, or is not"
        store.close()


def test_the_vault_keeps_every_transaction_and_shows_none_of_it(disk: VolatileDisk) -> None:
    chance = random.Random(7)
    vault = Vault.create(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
    count = 0
    for _ in range(CUTS // 4):
        disk.cut_after(chance.randrange(1, 40))
        try:
            while True:
                with vault.transaction():
                    vault.set_meta("a canary of a name", count + 1)
                count += 1
                if chance.random() < 0.2:
                    vault.tidy()
        except VaultFailed:
            pass
        disk.cut(chance)
        vault.db.close(True)
        assert not any(b"canary" in content for content in disk.files().values())
        vault = Vault.open(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
        assert vault.meta("a canary of a name") in (count, count + 1)
        count = vault.meta("a canary of a name")
    assert count > CUTS // 4
    vault.close()


def test_a_vault_stands_on_no_log_that_reached_the_disk_in_part(disk: VolatileDisk) -> None:
    """A sync fails, the program starts again from what the kernel has, and then the power goes."""
    for seed in range(CUTS // 4):
        chance = random.Random(seed)
        disk.put({})
        vault = Vault.create(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
        vault.close()
        vault = Vault.open(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
        vault.set_meta("queued before", 1)
        disk.fail_next_sync(chance)
        with pytest.raises(VaultFailed), vault.transaction():
            vault.run("INSERT INTO conversations VALUES ('@ben', 0, 0, 0, 0, 0, 0, ?)", "x" * 9_000)
            vault.set_meta("refused", 1)
        disk.kill()
        vault.db.close(True)

        vault = Vault.open(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
        if seed % 2:
            vault.set_meta("queued after", 1)
        disk.cut(chance)
        vault.db.close(True)

        vault = Vault.open(disk.path("vault.db"), KEY, vfs=disk.cipher_vfs)
        assert vault.rows("PRAGMA integrity_check") == [("ok",)]
        assert vault.meta("queued before") == 1
        assert vault.meta("queued after") == seed % 2
        vault.db.close(True)
