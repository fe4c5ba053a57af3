"""Reads tests/crypto/vectors."""

import functools
import json
from typing import Any

from tests.crypto.vector_conversations import VECTORS


class Case(dict[str, Any]):
    """One formula: its inputs by name, and its "output"."""


@functools.cache
def read(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    assert vector["source"]
    return vector


def cases(name: str, step: str) -> list[Case]:
    found = [
        Case(case["inputs"]) | {"output": case["output"]}
        for case in read(name)["cases"]
        if case["step"] == step
    ]
    assert found, f"no vector for {step}"
    return [Case(case) for case in found]
