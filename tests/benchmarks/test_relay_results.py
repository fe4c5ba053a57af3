"""What is made of the figures: medians, ratios, and whether a bound is kept."""

from typing import Any

import pytest
from benchmarks.relay.report import report
from benchmarks.relay.running import merge
from benchmarks.relay.table import Table
from benchmarks.relay.targets import TARGETS, Target
from benchmarks.relay.works import BLAST, COMMIT, FULL, RAW, US, WORKS

ABOUT: dict[str, Any] = {
    "date": "2026-11-20",
    "machine": "A machine",
    "versions": {US: "saltline 1"},
    "left_out": ["nats is left out: there is no nats-server."],
    "raised": {"requests_burst": 7},
    "measured": "3 seconds of each work",
}


def of(*rows: tuple[str, str, dict[str, Any]]) -> Table:
    return Table.of(rows)


def target(work: str, says: str) -> Target:
    (found,) = [each for each in TARGETS if each.work == work and each.says.startswith(says)]
    return found


def test_a_median_is_the_middle_of_the_runs() -> None:
    table = of(*(("room-256", US, {"per_s": value}) for value in (10, 400, 30)))

    assert table.median("room-256", US, "per_s") == 30
    assert table.median("room-256", US, "cpu_us") is None
    assert table.median("room-256", "nats", "per_s") is None


def test_a_ratio_is_one_of_medians() -> None:
    ours = [("room-256", US, {"per_s": value}) for value in (100, 300, 270)]
    theirs = [("room-256", "inspircd", {"per_s": value}) for value in (100, 1, 999)]
    table = of(*ours, *theirs)

    assert table.ratio("room-256", "per_s", US, "inspircd") == 2.7
    assert table.ratio("room-256", "per_s", US, "asyncio") is None
    assert target("room-256", "deliveries a second, of inspircd's").is_met(table) is True
    assert target("room-256", "deliveries a second, of asyncio's").is_met(table) is None


@pytest.mark.parametrize(
    ("work", "says", "rows", "found", "is_met"),
    [
        ("room-256", "CPU µs", {US: {"cpu_us": 0.41}}, 0.41, False),
        ("room-256", "CPU µs", {US: {"cpu_us": 0.40}}, 0.40, True),
        ("room-100-s", "p50", {US: {"p50_us": 1500}, COMMIT: {"p50_us": 900}}, 0.6, True),
        ("room-100-s", "p99", {US: {"p99_us": 9000}, COMMIT: {"p99_us": 7000}}, 2.0, False),
        ("one-at-a-time", "time", {US: {"per_s": 500}, COMMIT: {"per_s": 1000}}, 2.0, False),
        ("full-send", "CPU", {US: {"cpu_us": 10}, FULL: {"cpu_us": 11}}, 1.1, True),
        ("idle", "not served", {US: {"dead": 0, "storm_lost": 3, "errors": 0}}, 3, False),
        ("crowd", "memory", {US: {"rss_begin_kib": 100, "rss_end_kib": 101}}, 1.01, True),
    ],
)
def test_a_bound_is_kept_or_not(
    work: str, says: str, rows: dict[str, dict[str, float]], found: float, is_met: bool
) -> None:
    table = of(*((work, peer, figures) for peer, figures in rows.items()))

    assert target(work, says).found(table) == pytest.approx(found)
    assert target(work, says).is_met(table) is is_met


def test_figures_of_several_generators_are_added_or_the_worst_of_them() -> None:
    first = {"delivered": 100, "per_s": 10.0, "server_share": 0.5, "p99_us": 5.0, "dead": 1}
    second = {"delivered": 200, "per_s": 30.0, "server_share": 0.4, "dead": 0}

    merged = merge([first, second])

    assert merged["delivered"] == 300
    assert (merged["per_s"], merged["server_share"], merged["dead"]) == (40.0, 0.5, 1)
    assert merged["p99_us"] == 5.0
    assert merged["cpu_us"] == 0.5 * 1e6 / 40


def test_the_report_says_what_was_not_reached_and_what_did_not_arrive() -> None:
    ours = {"per_s": 1234.5, "cpu_us": 0.5, "server_share": 1.0, "generator_share": 0.5}
    arrived = {"all_expected": 10, "all_delivered": 10, "others_share": 0.25}
    theirs = {"per_s": 100.0, "all_expected": 10, "all_delivered": 7}
    table = of(
        ("room-256", US, ours | arrived),
        ("room-256", "asyncio", theirs),
        ("room-256", RAW, {"per_s": 5_000.0, "generator_share": 0.9}),
        ("room-256", BLAST, {"gathered_per_s": 9, "alone_per_s": 1}),
        (
            "idle",
            US,
            {"kib_each": 14.7, "login_cpu_ms_each": 0.65, "storm_s": 2.5, "storm_lost": 0},
        ),
    )

    lines = report(table, ABOUT).splitlines()

    assert "| room-256 | CPU µs a delivery | at most 0.4 | 0.50 | **not met** |" in lines
    assert (
        "| room-256 | deliveries a second, of inspircd's | at least 2.7 | – | not measured |"
        in (lines)
    )
    assert "| saltline | 1,234 |  | 0.50 | 100 | 50 | – | – | – | all |" in lines
    assert any(line.startswith("| asyncio | 100 | 12.35 |") for line in lines)
    assert any("+3 missing" in line for line in lines)
    assert any("took 5,000 a second from the raw relay, with 90 %" in line for line in lines)
    assert "| saltline | 14.7 | 0.650 | – | 2,000 | – | 0 |" in lines
    assert "- left out: nats is left out: there is no nats-server." in lines
    assert any("`requests_burst = 7`" in line for line in lines)
    assert any("25 % of a core" in line for line in lines)


def test_every_target_is_of_a_work_that_has_its_peers() -> None:
    works = {work.name: work for work in WORKS}

    assert len(works) == len(WORKS)
    assert {each.work for each in TARGETS} <= set(works)
    assert all(US in work.peers for work in WORKS)
    assert all((each.at_least is None) != (each.at_most is None) for each in TARGETS)


def test_rows_that_a_busy_generator_may_have_limited_are_named() -> None:
    busy = {"per_s": 5.0, "generator_share": 0.95}
    calm = {"per_s": 5.0, "generator_share": 0.6}
    text = report(of(("room-256", US, calm), ("room-256", "inspircd", busy)), ABOUT)
    assert "90 % of its core or more beside inspircd:" in text
    calm_text = report(of(("room-256", US, calm)), ABOUT)
    assert "or more beside" not in calm_text
