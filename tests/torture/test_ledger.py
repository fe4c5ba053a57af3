"""The ledger itself: it would say so, if something were lost, doubled or out of order."""

import pytest

from tests.torture.ledger import Ledger

LANE = "ada>bob"


def ledger_of(acknowledged: list[int], shown: list[int], sent: int = 5) -> Ledger:
    ledger = Ledger()
    for number in range(1, sent + 1):
        ledger.sent(LANE, number)
    for number in acknowledged:
        ledger.acknowledged(LANE, number)
    for number in shown:
        ledger.shown(LANE, number)
    return ledger


def test_all_is_well_also_with_what_was_sent_and_never_acknowledged() -> None:
    ledger = ledger_of([1, 2, 4], [1, 2, 3, 4])
    assert ledger.hold(3) == {"acknowledged": 3, "lost": 0, "twice": 0, "out of order": 0}
    assert ledger.outstanding == 0


@pytest.mark.parametrize(
    ("acknowledged", "shown", "word"),
    [
        ([1, 2, 3], [1, 3], "lost: ada>bob 2"),
        ([1, 2], [1, 2, 1], "twice: ada>bob 1"),
        ([1, 2, 3], [1, 3, 2], "out of order: ada>bob 2"),
        ([1], [1, 6], "never sent: ada>bob 6"),
    ],
)
def test_each_fault_is_found_and_named(
    acknowledged: list[int], shown: list[int], word: str
) -> None:
    ledger = ledger_of(acknowledged, shown)
    with pytest.raises(AssertionError, match=word):
        ledger.hold(0)


def test_what_was_sent_again_may_have_a_number_for_each_time() -> None:
    ledger = ledger_of([1, 2], [1, 2])
    ledger.sent(LANE, 2)
    for number, place in ((1, 1), (2, 2), (2, 3), (2, 3), (1, 1)):
        ledger.handed_over(LANE, number, place)
    assert ledger.verdict().is_clean


@pytest.mark.parametrize(
    ("handed_over", "word"),
    [
        ([(1, 1), (1, 2)], "stored twice: ada>bob 1"),
        ([(1, 1), (2, 1)], "under another's number: ada>bob 2"),
    ],
)
def test_numbers_of_the_mailbox_name_one_submission_each(
    handed_over: list[tuple[int, int]], word: str
) -> None:
    ledger = ledger_of([1, 2], [1, 2])
    for number, place in handed_over:
        ledger.handed_over(LANE, number, place)
    assert ledger.verdict().twice == 1
    with pytest.raises(AssertionError, match=word):
        ledger.hold(0)


def test_too_little_is_no_proof() -> None:
    with pytest.raises(AssertionError, match="only 1 of 2"):
        ledger_of([1], [1]).hold(2)


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    with pytest.raises(AssertionError, match="never sent"):
        ledger_of([6], [])
