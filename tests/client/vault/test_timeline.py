"""Lines of a conversation: kept in order, shown once, paged without reading everything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.client.model import Delivery, LineKind
from saltline.client.vault import views
from saltline.client.vault.database import Vault, VaultFailed
from saltline.client.vault.people import PeopleStore, Person
from saltline.client.vault.timeline import NewLine, Timeline

BOB = "@bob"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    opened = Vault.create(tmp_path / "vault.db", bytes(32))
    yield opened
    opened.close()


@pytest.fixture
def timeline(vault: Vault) -> Timeline:
    return Timeline(vault)


def theirs(body: str, number: int, conversation: str = BOB, *, mention: bool = False) -> NewLine:
    message_id = number.to_bytes(16)
    return NewLine(
        conversation, LineKind.TEXT, "bob", body, number, number, message_id, mention=mention
    )


def mine(body: str, number: int) -> NewLine:
    message_id = number.to_bytes(16)
    return NewLine(
        BOB,
        LineKind.TEXT,
        "ada",
        body,
        number,
        number,
        message_id,
        mine=True,
        delivery=Delivery.QUEUED,
    )


def test_pages_go_back_and_forth_in_order(vault: Vault, timeline: Timeline) -> None:
    rows = [timeline.add(theirs(f"text {n}", n)) for n in range(1, 11)]
    timeline.add(theirs("elsewhere", 99, "@carol"))

    last = views.page(vault, BOB, limit=3)
    assert [line.body for line in last] == ["text 8", "text 9", "text 10"]
    before = views.page(vault, BOB, before=last[0].row, limit=4)
    assert [line.body for line in before] == ["text 4", "text 5", "text 6", "text 7"]
    after = views.page(vault, BOB, after=rows[4], limit=2)
    assert [line.body for line in after] == ["text 6", "text 7"]
    assert views.count(vault, BOB, after=rows[6]) == 3


def test_paging_uses_the_index(vault: Vault) -> None:
    plan = vault.rows(
        "EXPLAIN QUERY PLAN SELECT row FROM lines WHERE conversation = ? AND row < ?"
        " ORDER BY row DESC LIMIT 50",
        BOB,
        10,
    )
    assert "USING COVERING INDEX lines_by_conversation" in plan[0][3]


def test_the_same_message_cannot_be_added_twice(vault: Vault, timeline: Timeline) -> None:
    timeline.add(theirs("once", 1))
    with pytest.raises(VaultFailed, match="ConstraintError"):
        timeline.add(theirs("twice", 1))
    assert timeline.find(BOB, "bob", (1).to_bytes(16)) == 1
    assert timeline.find(BOB, "mallory", (1).to_bytes(16)) is None


def test_unread_counts_texts_of_others_until_they_are_read(
    vault: Vault, timeline: Timeline
) -> None:
    first = timeline.add(theirs("one", 1))
    timeline.add(mine("two", 2))
    third = timeline.add(theirs("three, ada", 3, mention=True))
    (summary,) = views.conversations(vault)
    assert (summary.unread, summary.mentions, summary.last_row) == (2, 1, third)

    assert timeline.mark_read(BOB, first) == [(1).to_bytes(16)]
    assert timeline.mark_read(BOB, first) == []
    (summary,) = views.conversations(vault)
    assert (summary.unread, summary.mentions) == (1, 1)
    assert timeline.mark_read(BOB, third) == [(3).to_bytes(16)]
    (summary,) = views.conversations(vault)
    assert (summary.unread, summary.mentions, summary.read_row) == (0, 0, third)


def test_delivery_only_moves_forward(timeline: Timeline) -> None:
    row = timeline.add(mine("hello", 1))
    assert timeline.set_delivery(row, Delivery.DELIVERED)
    assert not timeline.set_delivery(row, Delivery.RELAYED)
    assert timeline.set_delivery(row, Delivery.READ)
    assert not timeline.set_delivery(row, Delivery.FAILED, "too late")
    line = timeline.line(row)
    assert line is not None and line.delivery is Delivery.READ and line.reason == ""


def test_a_failed_line_can_be_queued_again(timeline: Timeline) -> None:
    row = timeline.add(mine("hello", 1))
    assert timeline.set_delivery(row, Delivery.FAILED, "no such user")
    timeline.requeue(row)
    line = timeline.line(row)
    assert line is not None and (line.delivery, line.reason) == (Delivery.QUEUED, "")


def test_nobody_elses_line_gets_a_delivery(timeline: Timeline) -> None:
    row = timeline.add(theirs("hello", 1))
    assert not timeline.set_delivery(row, Delivery.READ)


def test_search_finds_words_and_beginnings_in_any_script(vault: Vault, timeline: Timeline) -> None:
    timeline.add(theirs("The build passed", 1))
    timeline.add(theirs("Über den Build reden", 2))
    timeline.add(theirs("nothing", 3))
    timeline.add(theirs("build elsewhere", 4, "@carol"))
    found = [line.body for line in views.search(vault, "build", BOB, 10)]
    assert found == ["Über den Build reden", "The build passed"]
    assert [line.body for line in views.search(vault, "uber bui", None, 10)] == [
        "Über den Build reden"
    ]
    assert len(views.search(vault, "build", None, 10)) == 3


@pytest.mark.parametrize("query", ["", "  ", '"', "*", "AND OR NOT", 'a" OR body:*', "(", "^", "-"])
def test_search_takes_any_text(vault: Vault, timeline: Timeline, query: str) -> None:
    timeline.add(theirs("something", 1))
    assert views.search(vault, query, None, 10) == []


def test_receipts_are_owed_only_to_accepted_and_trusted_people(
    vault: Vault, timeline: Timeline
) -> None:
    people = PeopleStore(vault)
    for name in ("bob", "carol", "dave"):
        timeline.owe_receipt(name, b"1" * 16, read=False)
    people.save(Person("bob", accepted=True))
    people.save(Person("carol"))
    people.save(Person("dave", accepted=True, changed=True))
    assert timeline.receipts_due(10) == [("bob", False, [b"1" * 16])]
    timeline.receipts_queued("bob", False, [b"1" * 16])
    assert timeline.receipts_due(10) == []
    people.save(Person("carol", accepted=True))
    assert timeline.receipts_due(10) == [("carol", False, [b"1" * 16])]


def test_what_was_printed_is_not_printed_again(timeline: Timeline) -> None:
    first = timeline.add(theirs("one", 1))
    timeline.add(mine("two", 2))
    third = timeline.add(theirs("three", 3))
    assert [line.row for line in timeline.unprinted(10)] == [first, third]
    timeline.mark_printed(first)
    timeline.mark_printed(0)
    assert [line.row for line in timeline.unprinted(10)] == [third]


def test_a_mark_beyond_the_end_does_not_cover_what_comes_later(
    vault: Vault, timeline: Timeline
) -> None:
    timeline.add(theirs("one", 1))
    timeline.mark_read(BOB, 2**62)
    second = timeline.add(theirs("two", 2))
    assert views.conversations(vault)[0].unread == 1
    assert timeline.mark_read(BOB, second) == [(2).to_bytes(16)]
    assert views.conversations(vault)[0].unread == 0
