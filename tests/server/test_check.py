"""What `check` says of a data folder that no relay would start on."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from saltline.server.check import check_relay
from saltline.server.errors import UsageError
from tests.server.edge import config_in


def check(data: Path) -> list[str]:
    return list(check_relay(config_in(data.parent), datetime.now(UTC)))


def test_a_link_to_nowhere_is_no_folder_that_a_start_would_make(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a symbolic link to what is not there"):
        check(data)


def test_a_log_without_its_database_is_no_first_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    assert check(data)[-1].startswith("Database: none yet.")
    (data / "relay.db-wal").write_bytes(b"x")
    with pytest.raises(UsageError, match="relay.db is missing or empty, and its log"):
        check(data)
