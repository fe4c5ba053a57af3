"""When a worker reads at once, and when it gathers."""

import pytest

from saltline.server.pace import Pace


def test_nothing_waits_while_little_happens() -> None:
    pace = Pace(0.002)
    for turn in range(1, 100):
        pace.reads(turn * 0.001)
        pace.wrote(10, turn * 0.001)  # 10,000 writes a second
        assert pace.wait_s(turn * 0.001) == 0.0


def test_after_many_writes_it_reads_at_intervals_and_a_calm_ends_it() -> None:
    pace, now_s = Pace(0.002), 100.0
    for _ in range(20):
        now_s += 0.001
        pace.wrote(100, now_s)  # 100,000 writes a second
    assert pace.is_busy
    assert pace.wait_s(now_s) == 0.0, "it has not read yet"
    pace.reads(now_s)
    assert pace.wait_s(now_s) == pytest.approx(0.002)
    assert pace.wait_s(now_s + 0.0015) == pytest.approx(0.0005)
    assert pace.wait_s(now_s + 0.002) == 0.0
    for _ in range(20):
        now_s += 0.002
        pace.reads(now_s)
        pace.wrote(1, now_s)
    assert not pace.is_busy
    assert pace.wait_s(now_s) == 0.0


def test_without_an_interval_nothing_ever_waits() -> None:
    pace = Pace(0.0)
    for turn in range(100):
        pace.reads(turn * 0.001)
        pace.wrote(1000, turn * 0.001)
        assert pace.wait_s(turn * 0.001) == 0.0
