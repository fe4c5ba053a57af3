"""Disks that fail and programs that die, at the n-th moment that could matter."""

import re
from collections.abc import Callable
from typing import Any

import apsw

from saltline.client.commands import Command
from saltline.client.vault.database import VaultError
from tests.client.world import Person

_WRITES = re.compile(r"\s*(BEGIN|COMMIT|INSERT|UPDATE|DELETE)")


class Died(Exception):
    """kill -9, in the middle of whatever it was."""


class Disk:
    """Fails the n-th write from now, and as many after it as `times` says."""

    def __init__(
        self, person: Person, nth: int, times: int = 1, error: type[apsw.Error] = apsw.FullError
    ) -> None:
        self._person, self._error = person, error
        self._left, self._times = nth, times
        self.failures = 0
        person.vault.db.exec_trace = self._trace

    def _trace(self, _cursor: Any, sql: str, _bindings: Any) -> bool:
        if _WRITES.match(sql):
            self._left -= 1
            if self._left <= 0 and self.failures < self._times:
                self.failures += 1
                raise self._error("no")
        return True

    def mend(self) -> None:
        self._person.vault.db.exec_trace = None


class Mortal(Person):
    """Dies at the n-th commit: just before it, or before or after its commands are carried out."""

    fuse = 0
    moment = "before the commit"
    commits = 0
    died = 0

    def _begin(self) -> None:
        super()._begin()
        self.vault.db.exec_trace = self._trace

    def _trace(self, _cursor: Any, sql: str, _bindings: Any) -> bool:
        if sql == "COMMIT":
            self.commits += 1
            if self._dies("before the commit"):
                raise Died
        return True

    def _dies(self, moment: str) -> bool:
        if self.moment != moment or self.commits != self.fuse:
            return False
        self.died += 1
        self.fuse = 0
        return True

    def perform(self, commands: list[Command]) -> None:
        if self._dies("before the commands"):
            raise Died
        super().perform(commands)
        if self._dies("after the commands"):
            raise Died


def trying(step: Callable[[], object]) -> bool:
    """Do it; whether the vault let it."""
    try:
        step()
    except VaultError:
        return False
    return True
