"""The store on its own: groups, files, versions, crashes."""

import logging
import os
import random
import shutil
import stat
from pathlib import Path
from unittest.mock import patch

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltline.crypto.signatures import EMPTY_HISTORY, next_history_hash
from saltline.protocol.errors import ErrorCode
from saltline.server.store import mailboxes, rooms
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    AccountCreated,
    AccountReset,
    Done,
    EntryStored,
    EnvelopeStored,
    Expired,
    HistoryRead,
    MailboxRead,
    Operation,
    Outcome,
    RoomJoined,
    RoomsRead,
    RoomState,
    StoreError,
    StoreUnusable,
    TotalsRead,
)
from saltline.server.store.schema import SCHEMA
from saltline.server.store.sqlite import CHECKPOINT_PAGES, SqliteStore
from tests.server.store_harness import (
    DAY_MS,
    NOW_MS,
    RELAY_ID,
    account,
    entry,
    envelope,
    history,
    join,
    mailbox,
    post,
)


@pytest.fixture
def store() -> SqliteStore:
    """With the accounts ada (1) and bob (2)."""
    opened = SqliteStore(":memory:", RELAY_ID)
    opened.run([account("ada"), account("bob")])
    return opened


def one(store: SqliteStore, operation: Operation) -> Outcome | StoreError:
    (outcome,) = store.run([operation])
    return outcome


def copy_as_left(path: Path, to: Path) -> Path:
    """The files as kill -9 leaves them."""
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copyfile(path.with_name(path.name + suffix), to.with_name(to.name + suffix))
    return to


# --- groups --------------------------------------------------------------------------------------


def test_a_group_is_done_in_order(store: SqliteStore) -> None:
    outcomes = store.run(
        [
            envelope("ada", b"one"),
            mailbox(1),
            envelope("ada", b"two"),
            ask.DeleteEnvelopes(1, (1,)),
            mailbox(1),
        ]
    )
    first, second = outcomes[1], outcomes[4]
    assert isinstance(first, MailboxRead)
    assert isinstance(second, MailboxRead)
    assert [each.envelope for each in first.envelopes] == [b"one"]
    assert [each.envelope for each in second.envelopes] == [b"two"]


def test_an_empty_group_is_none(store: SqliteStore) -> None:
    assert store.run([]) == []


def test_what_is_refused_leaves_no_trace_and_harms_no_other(store: SqliteStore) -> None:
    refused: list[Operation] = [
        envelope("nobody"),
        account("ada2-with-the-skeleton-of-ada"),
        post(1),
        ask.AddCode(b"h" * 32, "nobody", 1, NOW_MS),
        ask.ClaimBundle("ada", 1, True, NOW_MS),
    ]
    clash = refused[1]
    assert isinstance(clash, ask.CreateAccount)
    refused[1] = ask.CreateAccount(
        "ada", ask.LogEntry("a-d-a", 0, b"x", b"l"), clash.device, b"", NOW_MS
    )
    before = one(store, ask.ReadTotals())
    outcomes = store.run([envelope("ada", b"one"), *refused, envelope("ada", b"two")])
    assert outcomes[0] == EnvelopeStored(1, 1)
    assert outcomes[-1] == EnvelopeStored(1, 2)
    codes = [each.code for each in outcomes[1:-1] if isinstance(each, StoreError)]
    assert codes == [
        ErrorCode.UNKNOWN_USER,
        ErrorCode.NAME_TAKEN,
        ErrorCode.NOT_A_MEMBER,
        ErrorCode.UNKNOWN_USER,
        ErrorCode.NO_PREKEYS,
    ]
    after = one(store, ask.ReadTotals())
    assert isinstance(before, TotalsRead)
    assert isinstance(after, TotalsRead)
    assert after.waiting == before.waiting + 2
    assert after.accounts == before.accounts


def test_an_operation_that_fails_costs_only_itself(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    # A number that no database holds: a mistake that no check before caught.
    impossible = envelope("ada", b"impossible", now_ms=2**64)
    outcomes = store.run(
        [join(1), envelope("ada", b"one"), impossible, post(1), envelope("ada", b"two")]
    )
    assert [type(outcome) for outcome in outcomes] == [
        RoomJoined,
        EnvelopeStored,
        StoreError,
        EntryStored,
        EnvelopeStored,
    ]
    failed = outcomes[2]
    assert isinstance(failed, StoreError)
    assert (failed.code, failed.fatal) == (ErrorCode.INTERNAL, False)
    assert outcomes[4] == EnvelopeStored(1, 2), "its number was not used"
    assert outcomes[3] == EntryStored(2, True, 1)
    assert "StoreEnvelope failed in the store: OverflowError" in caplog.text
    assert "impossible" not in caplog.text


def test_an_unknown_operation_is_refused(store: SqliteStore) -> None:
    class Strange(ask.Work, frozen=True):
        pass

    outcomes = store.run([Strange(), envelope("ada")])  # type: ignore[list-item]
    assert isinstance(outcomes[0], StoreError)
    assert outcomes[1] == EnvelopeStored(1, 1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), groups=st.integers(1, 8), cached_max=st.sampled_from([1, 10**6]))
def test_numbers_and_hashes_are_right_whatever_is_rolled_back_or_forgotten(
    seed: int, groups: int, cached_max: int
) -> None:
    with (
        patch.object(rooms, "_CACHED_MAX", cached_max),
        patch.object(mailboxes, "_CACHED_MAX", cached_max),
    ):
        check_numbers_and_hashes(seed, groups)


def check_numbers_and_hashes(seed: int, groups: int) -> None:
    """Random groups, some of whose operations fail; then what the disk has is added up."""
    rng = random.Random(seed)
    store = SqliteStore(":memory:", RELAY_ID)
    store.run([account("ada"), account("bob"), join(1), join(2), join(1, "#garden")])
    logging.disable(logging.ERROR)  # the failures below are meant
    try:
        for _ in range(groups):
            group: list[Operation] = []
            for _ in range(rng.randrange(1, 12)):
                member, room = rng.choice([(1, "#lobby"), (2, "#lobby"), (1, "#garden")])
                choices: list[Operation] = [
                    post(member, room, rng.randbytes(5)),
                    envelope(rng.choice(["ada", "bob"]), rng.randbytes(5)),
                    ask.DeleteEnvelopes(rng.randrange(1, 3), (rng.randrange(1, 9),)),
                    envelope("ada", b"impossible", 2**64),
                    envelope("nobody"),
                    mailbox(1),
                ]
                group.append(rng.choice(choices))
            store.run(group)
    finally:
        logging.disable(logging.NOTSET)
    for room in ("#lobby", "#garden"):
        read = one(store, history(1, room))
        assert isinstance(read, HistoryRead)
        numbers = [each.number for each in read.entries]
        assert numbers == list(range(1, read.last + 1))
        history_hash = EMPTY_HISTORY
        for each in read.entries:
            history_hash = next_history_hash(history_hash, each.signed)
        database = store._database
        assert database.execute("SELECT last_hash FROM room WHERE name = ?", (room,)).get == (
            history_hash
        )
    for number in (1, 2):
        box = one(store, mailbox(number))
        assert isinstance(box, MailboxRead)
        counted = store._database.execute(
            "SELECT waiting, waiting_bytes FROM mailbox WHERE id = ?", (number,)
        ).get
        sizes = [len(each.envelope) for each in box.envelopes]
        assert counted == (len(sizes), sum(sizes))
    assert store.check() == []


def test_a_reset_needs_a_code_of_the_account_and_a_fitting_number(store: SqliteStore) -> None:
    other = account("new-keys-of-ada").device

    def reset(number: int, code_hash: bytes) -> ask.ResetAccount:
        logged = ask.LogEntry("ada", number, b"reset", b"leaf")
        device = ask.NewDevice(2, b"id", b"sig", other.signing_key, other.agreement_key)
        return ask.ResetAccount(logged, device, code_hash, NOW_MS)

    later = NOW_MS + DAY_MS
    for code_hash, username in ((b"a", "ada"), (b"b", "bob"), (b"i", "")):
        store.run([ask.AddCode(code_hash, username, 1, later)])
    outcomes = store.run([reset(1, b"b"), reset(1, b"i"), reset(1, b"?"), reset(2, b"a")])
    assert [each.code for each in outcomes if isinstance(each, StoreError)] == [
        ErrorCode.BAD_INVITE,
        ErrorCode.BAD_INVITE,
        ErrorCode.BAD_INVITE,
        ErrorCode.BAD_ENTRY,
    ]
    assert one(store, reset(1, b"a")) == AccountReset(1, 3, (1,))
    again = one(store, reset(2, b"a"))
    assert isinstance(again, StoreError)
    assert again.code == ErrorCode.BAD_INVITE


# --- rooms and mailboxes -------------------------------------------------------------------------


def test_memberships_count_in_the_room(store: SqliteStore) -> None:
    store.run([join(1), join(2), join(1, "#garden")])
    assert one(store, ask.ReadRooms(10)) == RoomsRead(
        (RoomState("#lobby", 2, 2), RoomState("#garden", 1, 1))
    )
    assert one(store, ask.StoreEntry(entry(2), True)) == EntryStored(3, True, 1)
    assert one(store, ask.ReadRooms(1)) == RoomsRead((RoomState("#garden", 1, 1),))


def test_expiry_takes_the_oldest_first_and_a_bounded_number(store: SqliteStore) -> None:
    for day in (3, 1, 2):
        store.run([envelope("ada", b"day %d" % day, NOW_MS + day * DAY_MS)])
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 3 * DAY_MS, 1)) == Expired(1)
    read = one(store, mailbox(1))
    assert isinstance(read, MailboxRead)
    assert [each.envelope for each in read.envelopes] == [b"day 3", b"day 2"]
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 3 * DAY_MS, 10)) == Expired(1)
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 3 * DAY_MS, 10)) == Expired(0)


def test_a_long_list_of_acknowledgements_is_done_in_runs(store: SqliteStore) -> None:
    store.run([envelope("ada", b"%d" % number) for number in range(1, 101)])
    gone = [*range(1, 31), 40, *range(50, 91), 100, 100, 0, 2**36, 5_000]
    assert one(store, ask.DeleteEnvelopes(1, tuple(gone))) == Done()
    read = one(store, mailbox(1))
    assert isinstance(read, MailboxRead)
    left = [*range(31, 40), *range(41, 50), *range(91, 100)]
    assert [each.number for each in read.envelopes] == left


def test_numbers_beyond_a_mailbox_do_not_reach_into_its_neighbour(store: SqliteStore) -> None:
    store.run([envelope("ada"), envelope("bob")])
    store.run([ask.DeleteEnvelopes(1, (2**36 + 1, 2**37 + 1, 3 * 2**36 + 1, 2**63 - 1))])
    for box in store.run([mailbox(1), mailbox(2)]):
        assert isinstance(box, MailboxRead)
        assert [each.number for each in box.envelopes] == [1]


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    for file in (path, tmp_path / "relay.db-wal"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    pragmas = {
        name: store._database.execute(f"PRAGMA {name}").get
        for name in ("journal_mode", "synchronous", "locking_mode", "secure_delete", "fullfsync")
    }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "secure_delete": 1,
        "fullfsync": 1,
    }
    store.close()


def test_a_second_relay_on_the_same_file_is_shut_out(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    with pytest.raises(StoreUnusable, match="Another relay is using"):
        SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.close()
    SqliteStore(tmp_path / "relay.db", RELAY_ID).close()


def test_a_database_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    SqliteStore(path, RELAY_ID).close()
    database = apsw.Connection(str(path))
    database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="newer saltline-server"):
        SqliteStore(path, RELAY_ID)
    assert path.read_bytes() == before


def test_a_database_of_another_log_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    SqliteStore(path, RELAY_ID).close()
    with pytest.raises(StoreUnusable, match="another log key"):
        SqliteStore(path, b"other" * 6 + b"xx")
    SqliteStore(path, RELAY_ID).close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 500])
def test_a_file_that_is_no_database_is_refused_and_not_touched(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnusable):
        SqliteStore(path, RELAY_ID)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        SqliteStore(tmp_path / "nowhere" / "relay.db", RELAY_ID)


def test_closing_leaves_one_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "relay.db", RELAY_ID)
    store.run([account("ada"), envelope("ada")])
    store.close()
    left = tmp_path / "relay.db-wal"
    assert not left.exists() or left.stat().st_size == 0
    assert os.listdir(tmp_path)[0].startswith("relay.db")


def test_what_was_acknowledged_vanishes_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    canary = b"canary" * 500
    store.run([account("ada"), envelope("ada", canary)])
    assert canary in (tmp_path / "relay.db-wal").read_bytes()
    store.run([ask.DeleteEnvelopes(1, (1,))])
    store.run([ask.ExpireEnvelopes(0, 10)])
    store.maintain()
    for file in tmp_path.iterdir():
        assert b"canary" not in file.read_bytes()
    store.close()


def test_the_log_is_copied_home_when_it_is_long(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    for _ in range(2):
        store.run([envelope("ada", bytes(200_000)) for _ in range(CHECKPOINT_PAGES // 40)])
        store.maintain()
    assert path.stat().st_size > CHECKPOINT_PAGES * 8192
    assert store._wal_pages == 0
    store.close()


# --- crashes -------------------------------------------------------------------------------------


def test_a_crash_keeps_every_group_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada"), join(1)])
    for group in range(1, 8):
        store.run([post(1, signed=b"%d" % group), envelope("ada", b"%d" % group)])
        left = SqliteStore(copy_as_left(path, tmp_path / f"left-{group}.db"), RELAY_ID)
        read, box = left.run([history(1), mailbox(1)])
        assert isinstance(read, HistoryRead)
        assert isinstance(box, MailboxRead)
        expected = [b"%d" % number for number in range(1, group + 1)]
        assert [each.signed for each in read.entries[1:]] == expected
        assert [each.envelope for each in box.envelopes] == expected
        # It goes on where it was.
        assert left.run([post(1)]) == [EntryStored(group + 2, True, 1)]
        assert left.run([envelope("ada")]) == [EnvelopeStored(1, group + 1)]
        assert left.check() == []
        left.close()
    store.close()


def test_a_log_cut_off_anywhere_loses_the_last_groups_and_nothing_else(tmp_path: Path) -> None:
    # What power loss leaves if the last fsync did not happen: a log that ends early.
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada"), account("bob")])
    store._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    sizes = [0]
    for number in range(1, 6):
        store.run([envelope("ada", b"%d" % number), envelope("bob", b"%d" % number)])
        sizes.append((tmp_path / "relay.db-wal").stat().st_size)
    for cut in sorted({*sizes, *(size - 1 for size in sizes[1:]), sizes[2] + 5_000}):
        left_path = copy_as_left(path, tmp_path / f"cut-{cut}.db")
        os.truncate(left_path.with_name(left_path.name + "-wal"), cut)
        left = SqliteStore(left_path, RELAY_ID)
        whole_groups = sum(size <= cut for size in sizes[1:])
        for box in left.run([mailbox(1), mailbox(2)]):
            assert isinstance(box, MailboxRead)
            kept = [each.envelope for each in box.envelopes]
            assert kept == [b"%d" % number for number in range(1, whole_groups + 1)]
        left.close()
    store.close()


def test_accounts_are_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = SqliteStore(path, RELAY_ID)
    store.run([account("ada")])
    left = SqliteStore(copy_as_left(path, tmp_path / "left.db"), RELAY_ID)
    assert left.run([account("ada")]) == [AccountCreated(1, 1)], "the same entry: the same account"
    other = account("bob")
    refused = one(left, ask.CreateAccount("ada", other.entry, other.device, b"", NOW_MS))
    assert isinstance(refused, StoreError)
    assert refused.code == ErrorCode.NAME_TAKEN
    left.close()
    store.close()
