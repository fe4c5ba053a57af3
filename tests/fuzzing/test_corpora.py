"""Every input that ever reached something new, tried again; and how much work it makes."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.fuzzing.targets import (
    CORPORA,
    CORPORA_MAX_BYTES,
    CORPUS_MAX_FILES,
    TARGETS,
    Target,
)

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def lines_run(work: Callable[[], None]) -> int:
    """How many lines of Python the product runs meanwhile: work, whatever the machine."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "call":
            name = frame.f_globals.get("__name__", "")
            return trace if str(name).startswith("saltline.") else None
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@every_target
def test_no_input_finds_fault_or_makes_more_work_than_its_size(target: Target) -> None:
    inputs = target.inputs()
    target.fuzz_one(inputs[0])  # prepares what is not the input's work
    for data in inputs:
        lines = lines_run(lambda data=data: target.fuzz_one(data))  # type: ignore[misc]
        most = target.lines_max + target.lines_per_byte * len(data)
        assert lines <= most, f"{lines} lines for {len(data)} bytes: {data!r}"


@every_target
def test_a_corpus_stays_small(target: Target) -> None:
    files = list(target.corpus.iterdir())
    assert 0 < len(files) <= CORPUS_MAX_FILES


def test_all_corpora_together_stay_small() -> None:
    assert sum(file.stat().st_size for file in CORPORA.glob("*/*")) <= CORPORA_MAX_BYTES
    assert {folder.name for folder in CORPORA.iterdir()} == {target.name for target in TARGETS}


# --- the targets find what is there ---------------------------------------------------------------


def _anything(*_arguments: object) -> bool:
    return True


FAULTS: tuple[tuple[str, str, Any], ...] = (
    ("layouts", "saltline.crypto.encoding.Reader.finish", _anything),
    ("bundles", "saltline.crypto.bundles.verify", _anything),
    ("bundles", "saltline.crypto.bundles.MAX_AHEAD_MS", -(2**62)),
    ("keylogs", "saltline.crypto.keylog._check_signature", _anything),
    ("envelopes", "saltline.crypto.envelope.MAX_HEADER_BYTES", 10),
    ("envelopes", "saltline.crypto.envelope.BOX_OVERHEAD_BYTES", 0),
    ("sessions", "saltline.crypto.session.equal", _anything),
    ("sessions", "saltline.crypto.ratchet.MAX_PAST_CHAINS", 0),
    ("client_messages", "saltline.protocol.messages._DECODE_ERRORS", ()),
    ("contents", "saltline.protocol.content._DECODE_ERRORS", ()),
    ("names", "saltline.protocol.names._is_ipv6", _anything),
    ("texts", "tests.fuzzing.text_targets.sanitise", lambda text, newlines: text),
    ("configurations", "saltline.server.config.sanitise", lambda text, newlines: text),
    ("frames", "saltline.protocol.frames.FRAME_MAX_BYTES", 3),
)


@pytest.mark.parametrize(("name", "place", "fault"), FAULTS, ids=[each[1] for each in FAULTS])
def test_a_planted_fault_is_found_by_a_corpus(
    name: str, place: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target,) = [each for each in TARGETS if each.name == name]
    inputs = target.inputs()
    target.fuzz_one(inputs[0])
    monkeypatch.setattr(place, fault)
    with pytest.raises(Exception):  # noqa: B017 (whatever is not documented)
        for data in inputs:
            target.fuzz_one(data)
