"""One cursor for all of a connection's statements.

apsw 3.54 leaks each cursor that is alive while another one of its connection ends: it counts one
reference too many for every entry of its list of cursors that it passes (seen with Python 3.11).
A store that opened a cursor for each query grew with every login, and so did the time for each.
With one cursor, kept, there is nothing to leak; and a query costs a third less.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apsw

Bindings = Sequence[Any]


class Rows(list[Any]):
    """All rows of a query, as tuples."""

    __slots__ = ()

    @property
    def get(self) -> Any:
        """The first row, or its value if it has only one; None if there is no row."""
        if not self:
            return None
        row = self[0]
        return row[0] if len(row) == 1 else row


class Queries:
    """Runs statements on a connection, by one thread. Raises what apsw raises."""

    def __init__(self, database: apsw.Connection) -> None:
        self._cursor = database.cursor()
        # One statement that returns nothing.
        self.command: Callable[[str], object] = self._cursor.execute

    def execute(self, sql: str, bindings: Bindings = ()) -> Rows:
        """One statement, or several without bindings."""
        return Rows(self._cursor.execute(sql, bindings))

    def stream(self, sql: str, bindings: Bindings = ()) -> Iterator[Any]:
        """The rows one by one, for who stops when it has enough bytes.

        No other statement may run before the last row is taken or the iterator is given up.
        """
        return self._cursor.execute(sql, bindings)

    def executemany(self, sql: str, bindings: Iterable[Bindings]) -> None:
        """One statement that returns nothing, once for each of the bindings."""
        self._cursor.executemany(sql, bindings)
