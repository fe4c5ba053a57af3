"""All targets, each with a few honest inputs to begin from and how long its inputs grow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzzing import layout_targets, seeds, session_targets, text_targets, wire_targets
from tests.fuzzing.trees import mutated

CORPORA: Final = Path(__file__).parent / "corpus"
CORPUS_MAX_FILES: Final = 200
CORPORA_MAX_BYTES: Final = 300_000


@dataclass(frozen=True)
class Target:
    """`fuzz_one` raises AssertionError, or anything that is not documented, where it finds fault.

    `lines_max` and `lines_per_byte` bound the work: lines of Python for an input, whatever it says.
    """

    name: str
    fuzz_one: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    max_bytes: int
    lines_max: int = 1_000
    lines_per_byte: int = 20
    mutate: Callable[[bytes, int], bytes | None] | None = None

    @property
    def corpus(self) -> Path:
        """Where the inputs are kept that each reach something that the others do not."""
        return CORPORA / self.name

    def inputs(self) -> list[bytes]:
        """The seeds and the corpus."""
        return [*self.seeds(), *(file.read_bytes() for file in sorted(self.corpus.iterdir()))]


TARGETS: Final = (
    Target("frames", wire_targets.frames, lambda: seeds.FRAMES, 400),
    Target(
        "client_messages",
        wire_targets.client_messages,
        seeds.client_bodies,
        1024,
        mutate=mutated,
    ),
    Target(
        "relay_messages",
        wire_targets.relay_messages,
        seeds.relay_bodies,
        1024,
        mutate=mutated,
    ),
    Target("contents", wire_targets.contents, seeds.contents, 300, mutate=mutated),
    Target("layouts", layout_targets.layouts, seeds.layouts, 2400),
    Target("keylogs", layout_targets.keylogs, seeds.keylogs, 80, lines_max=8_000),
    Target("bundles", layout_targets.bundles, seeds.bundles, 80),
    Target("envelopes", session_targets.envelopes, seeds.envelopes, 4000, lines_max=8_000),
    Target("sessions", session_targets.sessions, seeds.scripts, 120, lines_max=30_000),
    Target("states", session_targets.states, seeds.scripts, 40),
    Target("names", text_targets.names, lambda: seeds.NAMES, 300),
    Target("texts", text_targets.texts, lambda: seeds.TEXTS, 200, lines_per_byte=100),
    Target("configurations", text_targets.configurations, lambda: seeds.CONFIGURATIONS, 600),
    Target("requests", text_targets.requests, lambda: seeds.REQUESTS, 400),
)


def corpus_max_bytes() -> int:
    """What each corpus may take in the repository."""
    return CORPORA_MAX_BYTES // len(TARGETS)
