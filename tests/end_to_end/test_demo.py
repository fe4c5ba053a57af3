"""`make demo`, as a test: it checks itself what it shows."""

import subprocess
import sys
import tempfile
from pathlib import Path


def test_the_demonstration_works_and_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo.demo"],
        env={"PATH": "", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Searched the mailbox for Alice's name: not found." in done.stdout
    assert "both see" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() not in done.stderr
