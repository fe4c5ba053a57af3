"""A disk that mail filled: what is there can still be handed over, and that makes room again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.crypto.bundles import PrekeyKind
from saltline.protocol.errors import ErrorCode
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    AccountClosed,
    AccountCreated,
    Done,
    EnvelopeStored,
    Expired,
    MailboxRead,
    Operation,
    Outcome,
    StoreError,
)
from saltline.server.store.schema import PAGE_BYTES
from saltline.server.store.space import Space, growth_bytes, measure_at
from saltline.server.store.sqlite import SqliteStore
from tests.server.store_harness import (
    NOW_MS,
    RELAY_ID,
    account,
    envelope,
    history,
    join,
    mailbox,
    one,
    post,
)
from tests.volatile_disk import VolatileDisk

MIB = 1024 * 1024


class SmallDisk:
    """A disk of 1 MiB with a store on it; `said` is whether the store knows how small it is."""

    def __init__(self, said: bool = True) -> None:
        self.disk = VolatileDisk()
        self.disk.room_bytes = MIB
        self.said = said
        self.store = self.open()
        self.store.run([account("ada")])

    def open(self) -> SqliteStore:
        return SqliteStore(
            self.disk.path("relay.db"),
            RELAY_ID,
            vfs=self.disk.vfs,
            space=self.measure if self.said else None,
        )

    def measure(self) -> tuple[int, int]:
        return MIB - sum(map(len, self.disk.files().values())), MIB

    def fill(self, size_bytes: int = 3600) -> int:
        """Until the store takes no more; how many it took."""
        for number in range(10_000):
            stored = one(self.store, envelope("ada", bytes(size_bytes)))
            if isinstance(stored, StoreError):
                assert (stored.code, stored.fatal) == (ErrorCode.STORAGE_FAILED, False)
                assert "full" in stored.detail
                return number
        raise AssertionError("this disk is never full")

    def fetch(self) -> list[int]:
        """The numbers of everything that waits."""
        box = one(self.store, mailbox(1))
        assert isinstance(box, MailboxRead)
        return [each.number for each in box.envelopes]

    def empty(self) -> list[Outcome | StoreError]:
        """Acknowledge everything that waits, at once."""
        return self.store.run([ask.DeleteEnvelopes(1, tuple(self.fetch()))])

    def expire_some(self, before_ms: int = 0) -> int:
        """Delete what is older, or can be fetched by nobody; how much went."""
        expired = one(self.store, ask.ExpireEnvelopes(before_ms, 1_000, 50_000))
        assert isinstance(expired, Expired), "in bits that the disk has room to delete"
        return expired.count


@pytest.fixture
def small() -> Iterator[SmallDisk]:
    made = SmallDisk()
    yield made
    made.store.close()
    made.disk.forget()


def test_a_full_disk_is_emptied_and_filled_again_and_again(small: SmallDisk) -> None:
    taken = [small.fill()]
    for _ in range(3):
        assert small.empty() == [Done()]
        assert small.fetch() == []
        taken.append(small.fill())
    assert min(taken) > 50, "half a MiB holds this many at least"
    assert small.store.check() == []


def test_old_mail_leaves_a_full_disk(small: SmallDisk) -> None:
    small.fill()
    while small.expire_some(NOW_MS + 1):
        pass
    assert small.fetch() == []
    assert small.fill() > 50


def test_an_account_that_fills_a_disk_can_be_removed_from_it(small: SmallDisk) -> None:
    waits = small.fill()
    close = ask.CloseAccount("ada", (ask.LogEntry("ada", 1, b"revoke", b"leaf"),))
    assert isinstance(one(small.store, close), AccountClosed)
    gone = []
    while expired := small.expire_some():
        gone.append(expired)
    assert sum(gone) == waits and max(gone) < waits / 3, "bit by bit"
    assert isinstance(one(small.store, account("bob")), AccountCreated)


def test_without_what_is_kept_free_it_could_never_be_emptied() -> None:
    small = SmallDisk(said=False)
    small.fill()
    waits = small.fetch()
    assert [type(outcome) for outcome in small.empty()] == [StoreError]
    assert small.fetch() == waits != []
    small.disk.forget()


def test_a_relay_on_a_full_disk_starts_again(small: SmallDisk) -> None:
    taken = small.fill()
    small.disk.kill()
    small.store = small.open()
    assert len(small.fetch()) == taken
    assert small.empty() == [Done()]


def test_large_mail_is_refused_before_small(small: SmallDisk) -> None:
    small.fill(100_000)
    assert isinstance(one(small.store, envelope("ada", b"small")), EnvelopeStored)


def test_a_group_that_does_not_fit_is_taken_as_far_as_it_does(small: SmallDisk) -> None:
    group: list[Operation] = [envelope("ada", bytes(20_000)) for _ in range(60)]
    outcomes = small.store.run([*group, mailbox(1)])
    stored = [each for each in outcomes[:-1] if isinstance(each, EnvelopeStored)]
    refused = [each for each in outcomes[:-1] if isinstance(each, StoreError)]
    assert stored and refused
    assert outcomes.index(refused[0]) >= len(stored) - 1, "the first come"
    assert small.fetch() == [each.number for each in stored]


def test_only_what_grows_is_measured() -> None:
    space = Space(lambda: (0, 4 * MIB))
    prekeys = ask.StorePrekeys(1, (ask.PublicPrekey(PrekeyKind.SIGNED, 1, 1, bytes(100)),))
    grows: list[Operation] = [envelope("ada"), post(1), join(1), prekeys, account("bob")]
    grows.append(ask.AddCode(b"hash", "", 1, 1))
    assert all(space.lacks([operation], 0, 0) for operation in grows)
    assert [growth_bytes(operation) for operation in (mailbox(1), history(1))] == [0, 0]
    # What was deleted makes room at home; the log and half of what is kept still need theirs.
    half = Space(lambda: (MIB + 100 * PAGE_BYTES, 4 * MIB))
    assert half.lacks([envelope("ada")], 0, 0)
    assert not half.lacks([envelope("ada")], 0, 100 * PAGE_BYTES)
    assert half.lacks([], PAGE_BYTES, 0), "the log has to fit home"


def test_where_nothing_can_be_measured_writing_will_tell(tmp_path: Path) -> None:
    free, in_all = measure_at(tmp_path)()
    assert 0 <= free <= in_all
    assert not Space(measure_at(tmp_path / "gone")).lacks([envelope("ada")], 0, 0)


def test_a_disk_with_plenty_is_measured_now_and_then_and_a_small_one_each_time() -> None:
    free, now_s, measured = 2 * 1024 * MIB, 0.0, 0

    def measure() -> tuple[int, int]:
        nonlocal measured
        measured += 1
        return free, 4 * 1024 * MIB

    space = Space(measure, lambda: now_s)
    assert [space.lacks([envelope("ada")], 0, 0) for _ in range(5)] == [False] * 5
    assert measured == 1
    free, now_s = MIB, 0.11
    assert [space.lacks([envelope("ada")], 0, 0) for _ in range(5)] == [True] * 5
    assert measured == 6
