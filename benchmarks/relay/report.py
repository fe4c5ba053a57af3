"""The table that is printed and kept."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from benchmarks.relay.setups import Idle, Offline, Pairs
from benchmarks.relay.table import Table
from benchmarks.relay.targets import TARGETS
from benchmarks.relay.works import BLAST, RAW, US, WORKS, Work

Cells = list[str]
_NONE: Final = "–"
# From this share of its core on, the generator may have been what was slow.
_BUSY_SHARE: Final = 0.9


def _number(value: float | None, digits: int = 0, scale: float = 1.0) -> str:
    return _NONE if value is None or value < 0 else f"{value * scale:,.{digits}f}"


def _share(value: float | None) -> str:
    return _number(value, 0, 100)


def _lines(head: Sequence[str], rows: Sequence[Cells]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _arrived(table: Table, work: Work, peer: str) -> str:
    """Whether every delivery, or acknowledgement, of every run came."""
    wanted, came = ("expected", "delivered")
    if isinstance(work.setup, Offline):
        wanted, came = ("sent", "acknowledged")
    expected = table.values(work.name, peer, f"all_{wanted}")
    if not expected:
        return _NONE
    missing = sum(expected) - sum(table.values(work.name, peer, f"all_{came}"))
    return "all" if missing == 0 else f"{missing:+,.0f} missing"


def _load_row(table: Table, work: Work, peer: str) -> Cells:
    def figure(key: str) -> float | None:
        return table.median(work.name, peer, key)

    per_s, cpu_us = figure("per_s"), figure("cpu_us")
    ours = table.ratio(work.name, "per_s", US, peer)
    cells = [
        peer,
        _number(per_s),
        _number(ours, 2) if peer != US else "",
        _number(cpu_us, 2),
        _share(figure("server_share")),
        _share(figure("generator_share")),
        _number(figure("bytes_each")),
        _number(figure("p50_us"), 2, 1e-3),
        _number(figure("p99_us"), 2, 1e-3),
        _arrived(table, work, peer),
    ]
    if _shows_bytes(work):
        body = work.setup.body_bytes if isinstance(work.setup, Pairs | Offline) else 0
        cells.append(_number(per_s, 1, body / 1e6))
    return cells


def _shows_bytes(work: Work) -> bool:
    return work.name.endswith("-real")


_LOAD_HEAD: Final = (
    "", "a second", "saltline ×", "CPU µs each", "server %", "generator %", "bytes each",
    "p50 ms", "p99 ms", "arrived",
)  # fmt: skip


def _load(table: Table, work: Work) -> Iterator[str]:
    head = (*_LOAD_HEAD, "MB/s") if _shows_bytes(work) else _LOAD_HEAD
    peers = [peer for peer in table.peers(work.name) if peer != BLAST]
    yield from _lines(head, [_load_row(table, work, peer) for peer in peers])
    if BLAST in table.peers(work.name):
        yield ""
        yield _limits(table, work.name)


def _limits(table: Table, work: str) -> str:
    def figure(name: str, key: str, digits: int) -> str:
        return _number(table.median(work, BLAST, f"{name}_{key}"), digits)

    return (
        "A C program that only writes messages of 215 bytes to 100 connections:"
        f" {figure('gathered', 'per_s', 0)} a second at {figure('gathered', 'cpu_us', 2)} µs"
        " with 16 KiB a record,"
        f" {figure('alone', 'per_s', 0)} at {figure('alone', 'cpu_us', 2)} µs with a record each."
    )


def _idle(table: Table, work: Work) -> Iterator[str]:
    head = (
        "",
        "KiB each",
        "CPU ms a login",
        "all at once",
        "logins a second",
        "generator %",
        "turned away",
    )
    rows = []
    for peer in table.peers(work.name):

        def figure(key: str, peer: str = peer) -> float | None:
            return table.median(work.name, peer, key)

        seconds = figure("storm_s")
        count = work.setup.clients if isinstance(work.setup, Idle) else 0
        rows.append(
            [
                peer,
                _number(figure("kib_each"), 1),
                _number(figure("login_cpu_ms_each"), 3),
                _number(figure("storm_cpu_ms_each"), 3),
                _number(count / seconds if seconds else None),
                _share(figure("storm_own_share")),
                _number(figure("storm_lost")),
            ]
        )
    yield from _lines(head, rows)


def _targets(table: Table) -> Iterator[str]:
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = []
    for target in TARGETS:
        if target.work not in table.works():
            continue
        bound = (
            f"at least {target.at_least:g}"
            if target.at_least is not None
            else f"at most {target.at_most:g}"
        )
        found = _number(max(0.0, value), 2) if (value := target.found(table)) is not None else _NONE
        rows.append([target.work, target.says, bound, found, words[target.is_met(table)]])
    yield from _lines(("work", "figure", "wanted", "found", ""), rows)


def _generator(table: Table, work: str) -> Iterator[str]:
    """Whether the generator could have taken more than the relay gave."""
    taken, share = (table.median(work, RAW, key) for key in ("per_s", "generator_share"))
    ours = table.median(work, US, "generator_share")
    if taken is not None:
        yield ""
        yield (
            f"The generator took {_number(taken)} a second from the raw relay, with"
            f" {_share(share)} % of its core; with {_share(ours)} % where saltline was measured."
        )


def _is_busy(table: Table, work: str, peer: str) -> bool:
    keys = ("generator_share", "storm_own_share")
    return any((table.median(work, peer, key) or 0) >= _BUSY_SHARE for key in keys)


def _busy_generator(table: Table, work: str) -> Iterator[str]:
    """Whose figures a second may be the generator's own; CPU is theirs all the same."""
    busy = [peer for peer in table.peers(work) if _is_busy(table, work, peer)]
    if busy:
        yield ""
        yield (
            f"The generator was busy for {_share(_BUSY_SHARE)} % of its core or more beside"
            f" {', '.join(busy)}: what is given a second may be its own limit there, CPU is not."
        )


def _others(table: Table) -> str:
    """Shares of a core, of which the greatest say how far the figures can be trusted."""
    shares = [row.figures["others_share"] for row in table.rows if "others_share" in row.figures]
    if not shares:
        return ""
    return (
        f" Everything else on the machine took {_share(median(shares))} % of a core"
        f" (median), {_share(max(shares))} % at most."
    )


def _about(table: Table, about: dict[str, Any]) -> Iterator[str]:
    counts = Counter((row.work, row.peer) for row in table.rows)
    runs = max(counts.values(), default=0)
    yield "# The relay beside its peers, as last measured"
    yield ""
    yield (
        f"Medians of {runs} runs, in turns, {about['measured']}, {about['date']}."
        f" {about['machine']}.{_others(table)}"
    )
    yield ""
    yield from (f"- {name}: {version}" for name, version in about["versions"].items())
    yield from (f"- left out: {sentence}" for sentence in about["left_out"])
    raised = ", ".join(f"`{name} = {value}`" for name, value in about["raised"].items())
    yield ""
    yield f"Raised in the relay's configuration, and nothing else: {raised}."


def report(table: Table, about: dict[str, Any]) -> str:
    """The whole of it, as Markdown. `about` is the machine, the versions and the settings."""
    lines = [*_about(table, about), "", "## Targets", "", *_targets(table)]
    for work in WORKS:
        if work.name in table.works():
            lines += ["", f"## {work.name}: {work.title}", ""]
            lines += _idle(table, work) if isinstance(work.setup, Idle) else _load(table, work)
            lines += _generator(table, work.name)
            lines += _busy_generator(table, work.name)
    return "\n".join(lines) + "\n"
