"""The store on its own: groups, files, versions, crashes."""

import gc
import logging
import random
from unittest.mock import patch

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from saltline.crypto.signatures import EMPTY_HISTORY, next_history_hash
from saltline.protocol.errors import ErrorCode
from saltline.server.store import mailboxes, tails
from saltline.server.store import operations as ask
from saltline.server.store.interface import (
    AccountClosed,
    AccountCreated,
    AccountReset,
    Done,
    EntryStored,
    EnvelopeStored,
    Expired,
    HistoryRead,
    MailboxRead,
    MembersRead,
    Operation,
    RoomJoined,
    RoomsRead,
    RoomState,
    StoreError,
    TextsStored,
    TotalsRead,
)
from saltline.server.store.sqlite import SqliteStore
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
    one,
    post,
    posted,
    texts,
)

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
        ask.LeaveRoom(entry(1)),
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
        TextsStored,
        EnvelopeStored,
    ]
    failed = outcomes[2]
    assert isinstance(failed, StoreError)
    assert (failed.code, failed.fatal) == (ErrorCode.INTERNAL, False)
    assert outcomes[4] == EnvelopeStored(1, 2), "its number was not used"
    assert outcomes[3] == posted(2, 1)
    assert "StoreEnvelope failed in the store: OverflowError" in caplog.text
    assert "impossible" not in caplog.text


def test_an_unknown_operation_is_refused(store: SqliteStore) -> None:
    class Strange(ask.Work, frozen=True):
        pass

    outcomes = store.run([Strange(), envelope("ada")])  # type: ignore[list-item]
    assert isinstance(outcomes[0], StoreError)
    assert outcomes[1] == EnvelopeStored(1, 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 8),
    cached_max=st.sampled_from([1, 10**6]),
    lag_max=st.sampled_from([1, 3, 128]),
)
def test_numbers_and_hashes_are_right_whatever_is_rolled_back_or_forgotten(
    seed: int, groups: int, cached_max: int, lag_max: int
) -> None:
    with (
        patch.object(tails, "LAG_MAX", lag_max),
        patch.object(tails, "_CACHED_MAX", cached_max),
        patch.object(mailboxes, "_CACHED_MAX", cached_max),
    ):
        check_numbers_and_hashes(seed, groups)


def check_numbers_and_hashes(seed: int, groups: int) -> None:
    """Random groups, some of whose operations fail; then what the disk has is added up."""
    rng = random.Random(seed)
    store = SqliteStore(":memory:", RELAY_ID)
    store.run([account("ada"), account("bob"), join(1), join(2), join(1, "#garden")])
    entries: dict[tuple[str, int], bytes] = {}
    envelopes: dict[tuple[int, int], bytes] = {}
    logging.disable(logging.ERROR)  # the failures below are meant
    try:
        for _ in range(groups):
            group: list[Operation] = []
            for _ in range(rng.randrange(1, 12)):
                member, room = rng.choice([(1, "#lobby"), (2, "#lobby"), (1, "#garden")])
                box, number = rng.choice([(1, 99), *envelopes])  # of groups before this one
                choices: list[Operation] = [
                    post(member, room, rng.randbytes(5)),
                    envelope(rng.choice(["ada", "bob"]), rng.randbytes(5)),
                    ask.DeleteEnvelopes(box, (number,)),
                    envelope("ada", b"impossible", 2**64),
                    envelope("nobody"),
                    mailbox(1),
                ]
                group.append(rng.choice(choices))
            for operation, outcome in zip(group, store.run(group), strict=True):
                if isinstance(operation, ask.StoreTexts) and isinstance(outcome, TextsStored):
                    said = operation.entries[0]
                    (stored,) = outcome.outcomes
                    assert isinstance(stored, EntryStored)
                    entries[said.room, stored.number] = said.statement
                if isinstance(operation, ask.StoreEnvelope) and isinstance(outcome, EnvelopeStored):
                    envelopes[outcome.mailbox, outcome.number] = operation.envelope
                if isinstance(operation, ask.DeleteEnvelopes):
                    envelopes.pop((operation.mailbox, operation.numbers[0]), None)
    finally:
        logging.disable(logging.NOTSET)
    for room in ("#lobby", "#garden"):
        read = one(store, history(1, room))
        assert isinstance(read, HistoryRead)
        numbers = [each.number for each in read.entries]
        assert numbers == list(range(1, read.last + 1))
        kept = {each.number: each.statement for each in read.entries}
        told = {number: said for (name, number), said in entries.items() if name == room}
        assert told.items() <= kept.items()
        history_hash = EMPTY_HISTORY
        for each in read.entries:
            history_hash = next_history_hash(
                history_hash, each.username, each.device, each.statement, each.signature
            )
        goes_on = replace(entry(1, room), seen=read.last, seen_hash=history_hash)
        assert one(store, texts(goes_on)) == posted(read.last + 1, {"#lobby": 2}.get(room, 1))
    for number in (1, 2):
        waits = one(store, mailbox(number))
        assert isinstance(waits, MailboxRead)
        counted = store._database.execute(
            "SELECT waiting, waiting_bytes FROM mailbox WHERE id = ?", (number,)
        ).get
        assert {(number, each.number): each.envelope for each in waits.envelopes} == {
            place: sealed for place, sealed in envelopes.items() if place[0] == number
        }
        sizes = [len(each.envelope) for each in waits.envelopes]
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


def test_an_account_that_changed_meanwhile_is_not_closed(store: SqliteStore) -> None:
    def close(number: int) -> ask.CloseAccount:
        return ask.CloseAccount("ada", (ask.LogEntry("ada", number, b"revoke", b"leaf"),))

    refused = one(store, close(0))
    assert isinstance(refused, StoreError)
    assert refused.code == ErrorCode.BAD_ENTRY
    assert one(store, close(1)) == AccountClosed(1, (1,), ())


# --- rooms and mailboxes -------------------------------------------------------------------------


def test_of_too_many_members_the_oldest_accounts_are_listed_by_name(store: SqliteStore) -> None:
    made = store.run([account(name) for name in ("zoe", "yan", "al")])
    numbers = [each.account for each in made if isinstance(each, AccountCreated)]
    store.run([join(number) for number in reversed(numbers)])
    listed = one(store, ask.ReadMembers("#lobby", numbers[0], 2))
    assert isinstance(listed, MembersRead)
    assert (listed.total, [each.username for each in listed.members]) == (3, ["yan", "zoe"])


def test_memberships_count_in_the_room(store: SqliteStore) -> None:
    store.run([join(1), join(2), join(1, "#garden")])
    assert one(store, ask.ReadRooms(10)) == RoomsRead(
        (RoomState("#lobby", 2, 2), RoomState("#garden", 1, 1))
    )
    assert one(store, ask.LeaveRoom(entry(2))) == EntryStored(3, True, 1)
    assert one(store, ask.ReadRooms(1)) == RoomsRead((RoomState("#garden", 1, 1),))


def close_ada() -> ask.CloseAccount:
    return ask.CloseAccount("ada", (ask.LogEntry("ada", 1, b"revoke", b"leaf"),))


@pytest.mark.parametrize("is_one_group", [True, False])
def test_a_closed_account_enters_no_room(store: SqliteStore, is_one_group: bool) -> None:
    one(store, join(2))
    late: list[Operation] = [close_ada(), join(1), join(1, "#garden"), post(1)]
    outcomes = store.run(late) if is_one_group else [one(store, each) for each in late]
    assert outcomes[0] == AccountClosed(1, (1,), ())
    assert [each.code for each in outcomes[1:] if isinstance(each, StoreError)] == [
        ErrorCode.UNKNOWN_DEVICE
    ] * 3
    assert one(store, ask.ReadRooms(10)) == RoomsRead((RoomState("#lobby", 1, 1),))


def test_a_device_that_a_reset_ended_posts_nothing_more(store: SqliteStore) -> None:
    code = ask.AddCode(b"code", "ada", 1, NOW_MS + DAY_MS)
    new = ask.NewDevice(2, b"id", b"sig", b"new signing", b"new agreement")
    reset = ask.ResetAccount(ask.LogEntry("ada", 1, b"reset", b"leaf"), new, b"code", NOW_MS)
    store.run([join(1), join(2)])
    before, late = entry(1), entry(1)
    store.run([texts(before), code])
    _, *refused = store.run(
        [
            reset,
            texts(late),
            texts(before),
            ask.LeaveRoom(late),
            join(1, "#garden"),
        ]
    )
    assert [each.code for each in refused if isinstance(each, StoreError)] == [
        ErrorCode.UNKNOWN_DEVICE
    ] * 4
    # The account is a member still, through its new device, whose mailbox is the third.
    assert one(store, texts(replace(late, mailbox=3, device=2))) == posted(4, 2)


def test_expiry_takes_the_oldest_first_and_a_bounded_number(store: SqliteStore) -> None:
    for day in (3, 1, 2):
        store.run([envelope("ada", b"day %d" % day, NOW_MS + day * DAY_MS)])
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 3 * DAY_MS, 1, 10**6)) == Expired(1)
    read = one(store, mailbox(1))
    assert isinstance(read, MailboxRead)
    assert [each.envelope for each in read.envelopes] == [b"day 3", b"day 2"]
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 3 * DAY_MS, 10, 10**6)) == Expired(1)
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 3 * DAY_MS, 10, 10**6)) == Expired(0)
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 4 * DAY_MS, 10, 1)) == Expired(1), "one at least"
    store.run([envelope("ada", bytes(100)) for _ in range(5)])
    assert one(store, ask.ExpireEnvelopes(NOW_MS + 1, 10, 300)) == Expired(3)


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


def test_no_cursor_is_left_behind(store: SqliteStore) -> None:
    """apsw keeps alive what it should free when two are open at once."""

    def cursors() -> int:
        return sum(isinstance(each, apsw.Cursor) for each in gc.get_objects())

    work: list[Operation] = [
        join(1),
        post(1),
        history(1),
        ask.ReadMembers("#lobby", 1, 10),
        ask.ReadRooms(10),
        envelope("ada"),
        mailbox(1),
        ask.DeleteEnvelopes(1, (1,)),
        ask.ReadEntries((("ada", 0), ("bob", 0)), 10, 10_000),
        ask.BeginSession(1, 1, (), ()),
        ask.FindDevice("ada", 1),
    ]
    store.run(work)
    before = cursors()
    for _ in range(20):
        store.run(work[1:])
    assert cursors() == before
