"""What trials read in a log of strace: which call failed, and whether that was made good."""

from pathlib import Path

import pytest

from tests.torture.straced import logged
from tests.torture.vault_disk_errors import Fate

FAILED = "-1 EIO (Input/output error) (INJECTED)"


def log_of(folder: Path, *lines: str, file: str = "vault.db-wal") -> Path:
    """`write 56`, `sync`, each failing with a ! before it."""
    path = folder / "calls"
    with path.open("w") as log:
        for line in lines:
            call, _, offset = line.lstrip("!").partition(" ")
            result = FAILED if line.startswith("!") else "0"
            if call == "write":
                log.write(f'31 pwrite64(5</p/{file}>, ""..., 24, {offset}) = {result}\n')
            else:
                log.write(f"31 fdatasync(5</p/{file}>)    = {result}\n")
    return path


def test_a_call_that_another_thread_interrupts_is_one_call(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    path.write_text(
        "31 fdatasync(5</p/a> <unfinished ...>\n"
        '32 pwrite64(6</p/b>, ""..., 24, 4152 <unfinished ...>\n'
        f"31 <... fdatasync resumed>) = {FAILED}\n"
        "33 fsync(7</p/c> <unfinished ...>\n"
        "32 <... pwrite64 resumed>) = 24\n"
        "33 +++ killed by SIGKILL +++\n"
    )
    sync, write, unfinished = logged(path)
    assert (sync.thread, sync.name, sync.file) == (31, "fdatasync", "/p/a")
    assert sync.was_injected and sync.has_failed
    assert (write.file, write.offset) == ("/p/b", 4152)
    assert not write.was_injected and not write.has_failed
    assert unfinished.file == "/p/c" and unfinished.has_failed


@pytest.mark.parametrize(
    ("lines", "owes"),
    [
        (("write 0", "sync", "write 32", "sync"), False),
        (("write 0", "sync", "write 32", "!sync"), True),
        (("write 0", "sync", "write 32", "!sync", "write 32", "write 56", "sync"), False),
        (("write 0", "sync", "write 32", "!sync", "write 32", "!sync"), True),
        (("write 0", "sync", "write 32", "!sync", "sync"), True),
        (("write 0", "sync", "write 32", "!write 56"), True),
        (("write 0", "sync", "write 32", "!write 56", "write 32", "write 56", "sync"), False),
        (("write 0", "sync", "!sync"), False),
    ],
)
def test_what_failed_is_made_good_by_writing_and_syncing_it_again(
    tmp_path: Path, lines: tuple[str, ...], owes: bool
) -> None:
    assert Fate.read(log_of(tmp_path, *lines)).owes is owes


def test_a_log_that_goes_on_behind_what_failed_is_noticed(tmp_path: Path) -> None:
    lines = ("write 0", "write 32", "!sync", "write 56", "sync")
    with pytest.raises(AssertionError, match="stands on 0, which failed"):
        Fate.read(log_of(tmp_path, *lines))
    assert Fate.read(log_of(tmp_path, *lines, file="vault.db")).owes
