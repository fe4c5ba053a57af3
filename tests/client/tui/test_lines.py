"""The window over a conversation reads small pages, and never has a gap."""

from saltline.client.model import Delivery, Line
from saltline.client.tui.lines import KEPT_LINES, PAGE_LINES, LineWindow
from tests.client.tui.fake_messenger import FakeMessenger


def with_lines(count: int) -> tuple[FakeMessenger, LineWindow]:
    fake = FakeMessenger()
    fake.meets("bob")
    fake.enters("#lobby")
    for number in range(count):
        fake.arrives("@bob", "bob", f"line {number}", silent=True)
        fake.arrives("#lobby", "carol", "elsewhere", silent=True)
    return fake, LineWindow(fake, "@bob")


def walk_up(window: LineWindow) -> list[Line]:
    found = []
    line = window.last()
    while line is not None:
        found.append(line)
        line = window.before(line.row)
    return found


def test_an_empty_conversation_has_no_lines() -> None:
    _, window = with_lines(0)
    assert window.last() is None
    assert window.at_or_before(10) is None
    assert window.after(0) is None


def test_walking_up_and_down_again_meets_every_line_once() -> None:
    _, window = with_lines(2000)
    up = walk_up(window)
    assert [line.body for line in up] == [f"line {n}" for n in range(1999, -1, -1)]
    down = [up[-1]]
    while (line := window.after(down[-1].row)) is not None:
        down.append(line)
    assert down == up[::-1]


def test_walking_up_reads_each_line_once_in_pages() -> None:
    fake, window = with_lines(2000)
    walk_up(window)
    assert fake.lines_read == 2000
    assert fake.reads["page"] == 2000 // PAGE_LINES + 1


def test_memory_stays_bounded() -> None:
    _, window = with_lines(5 * KEPT_LINES)
    walk_up(window)
    assert len(window._lines) <= KEPT_LINES


def test_what_is_held_is_not_read_again() -> None:
    fake, window = with_lines(100)
    window.last()
    read = fake.reads["page"]
    for _ in range(50):
        window.last()
    assert fake.reads["page"] == read


def test_a_new_line_is_found_after_the_window_is_told() -> None:
    fake, window = with_lines(100)
    window.last()
    added = fake.arrives("@bob", "bob", "new")
    window.grew()
    assert window.last() == added
    assert window.before(added.row) is not None


def test_a_flood_between_two_looks_leaves_no_gap() -> None:
    fake, window = with_lines(10)
    window.last()
    for number in range(10, 10 + 3 * PAGE_LINES):
        fake.arrives("@bob", "bob", f"line {number}", silent=True)
    window.grew()
    assert len(walk_up(window)) == 10 + 3 * PAGE_LINES


def test_a_changed_line_is_read_again_when_it_is_looked_at() -> None:
    fake, window = with_lines(3)
    mine = fake.send("bob", "ok")
    window.last()
    fake.reaches(mine, Delivery.READ)
    assert window.changed([mine.row, 999_999]) == [mine.row]
    reads = fake.reads["line"]
    last = window.last()
    assert last is not None and last.delivery is Delivery.READ
    window.last()
    assert fake.reads["line"] == reads + 1


def test_a_jump_far_up_replaces_the_window_and_both_ways_stay_open() -> None:
    _, window = with_lines(2000)
    newest = window.last()
    line = window.at_or_before(500)
    assert line is not None and line.row == 499
    above, below = window.before(499), window.after(499)
    assert above is not None and above.row == 497
    assert below is not None and below.row == 501
    assert window.last() == newest
