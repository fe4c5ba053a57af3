"""A planted bug: a mutation of the product's code, for as long as a run lasts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock


class Patches:
    """Replaces attributes until the block ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def put(self, owner: Any, name: str, value: Any) -> None:
        """In place of what is there; it has to be there."""
        self._stack.enter_context(mock.patch.object(owner, name, value))


@dataclass(frozen=True)
class Bug:
    """Its function's name says what is wrong."""

    plant: Callable[[Patches], None]

    @property
    def name(self) -> str:
        return self.plant.__name__

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While the block lasts, the product has this bug."""
        with ExitStack() as stack:
            self.plant(Patches(stack))
            yield
