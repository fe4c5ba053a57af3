"""File systems of a trial's own: an ext4 in a file, which can lose power; a small one in memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tests.torture.trial import Lacking

# The file system's own clock must not write what a power cut is meant to find unwritten.
_COMMIT_S: Final = 300
_IMAGE_BYTES: Final = 256 * 1024 * 1024


def _run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


def _need(*programs: str) -> None:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise Lacking("mounts, which need root on Linux")
    for program in programs:
        if shutil.which(program) is None:
            raise Lacking(program)


class Ext4:
    """An ext4 file system in a file of `folder`, mounted at `path`. Raises Lacking."""

    def __init__(self, folder: Path) -> None:
        _need("mount", "umount", "mkfs.ext4")
        self.path = folder / "mounted"
        self.path.mkdir(parents=True)
        self._image, self._copy = folder / "image", folder / "copy"
        self._is_mounted = False
        with open(self._image, "wb") as image:
            image.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", self._image)

    def __enter__(self) -> Self:
        try:
            self._mount()
        except OSError as error:
            raise Lacking(f"loop mounts ({error})") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_mounted:
            self._unmount()

    def lose_power(self) -> None:
        """From here on it is what lay on the disk below; what waited in its cache is gone."""
        # Read below the mounted file system: only what that has written out is there.
        _run("cp", "--sparse=always", self._image, self._copy)
        self._unmount()
        self._copy.replace(self._image)
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", f"loop,commit={_COMMIT_S}", self._image, self.path)
        self._is_mounted = True

    def _unmount(self) -> None:
        _run("umount", self.path)
        self._is_mounted = False


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """A file system in memory that holds so much and no more. Raises Lacking."""
    _need("mount", "umount")
    path.mkdir(parents=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", path)
    except OSError as error:
        raise Lacking(f"mounts ({error})") from None
    try:
        yield path
    finally:
        _run("umount", path)
