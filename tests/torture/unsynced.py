"""A relay whose commits do not wait for the disk, which must be seen to lose what it acknowledged.

python -m tests.torture.unsynced run …    as saltline-server, with `synchronous = NORMAL`

kill -9 cannot tell the two apart: the kernel keeps what the process wrote. A power cut can.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import apsw

from saltline.server.cli import main
from saltline.server.store.sqlite import SqliteStore


@contextmanager
def unsynced_stores() -> Iterator[None]:
    """Every store that is opened in this block."""
    prepare = SqliteStore._prepare

    def prepare_carelessly(self: SqliteStore, database: apsw.Connection, relay_id: bytes) -> None:
        prepare(self, database, relay_id)
        database.execute("PRAGMA synchronous = NORMAL").fetchall()

    with patch.object(SqliteStore, "_prepare", prepare_carelessly):
        yield


if __name__ == "__main__":
    with unsynced_stores():
        main()
