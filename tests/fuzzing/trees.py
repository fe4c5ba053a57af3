"""Mutates msgpack as a tree: bytes alone would hardly ever hit upon another valid message."""

import random
from typing import Any, Final

import msgspec

_VALUES: Final[tuple[Any, ...]] = (
    None, True, 1.0, -1, 0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1,
    "", "#lobby", "alice", "a\0b", "\u202e", "x" * 33, "x" * 65, b"", b"x", bytes(16), bytes(32),
    bytes(64), bytes(65), [], {}, [1], [b""], msgspec.msgpack.Ext(5, b""),
)  # fmt: skip


def mutated(data: bytes, seed: int) -> bytes | None:
    """`data` with one element replaced, removed, doubled or moved; None if it is not msgpack."""
    try:
        tree = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, TypeError, ValueError):
        return None
    rng = random.Random(seed)
    lists: list[list[Any]] = []
    _find(tree, lists)
    if not lists:
        return None
    chosen = rng.choice(lists)
    at = rng.randrange(len(chosen) + 1)
    match rng.randrange(5):
        case 0:
            chosen.insert(at, rng.choice(_VALUES))
        case 1:
            del chosen[at : at + 1]
        case 2:
            chosen[at:at] = chosen[at : at + 1] * rng.choice((1, 2, 70))
        case 3:
            rng.shuffle(chosen)
        case _:
            chosen[at : at + 1] = [rng.choice(_VALUES)]
    try:
        return msgspec.msgpack.encode(tree)
    except (msgspec.MsgspecError, RecursionError, OverflowError):
        return None


def _find(node: Any, lists: list[list[Any]]) -> None:
    if isinstance(node, list):
        lists.append(node)
        for each in node:
            _find(each, lists)
