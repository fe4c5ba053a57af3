"""What a run needs besides Python: C programs, a certificate, and a folder on a real disk."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from saltline.server.certificates import Certificate, load_or_make

SOURCES: Final = Path(__file__).parent / "load"
ROOT: Final = Path(__file__).parent.parent.parent
_FLAGS: Final = ("-O2", "-Wall", "-Wextra", f"-I{SOURCES}")
_LIBRARIES: Final = ("-lssl", "-lcrypto", "-lsqlite3", "-lpthread")
_PROGRAMS: Final = {
    "lg": ("lg/*.c", "common/*.c"),
    "blast": ("blast.c", "common/*.c"),
    "durable": ("durable.c", "common/*.c"),
    "raw_relay": ("raw_relay.c",),
}
_HEADERS: Final = {
    "openssl/ssl.h": "libssl-dev",
    "sqlite3.h": "libsqlite3-dev",
}


class Missing(Exception):
    """Something is not on this machine; the text names it with the package that brings it."""


@dataclass(frozen=True, slots=True)
class Built:
    """Where everything is."""

    folder: Path
    certificate_file: Path
    key_file: Path
    certificate: Certificate

    def program(self, name: str) -> str:
        """One of the C programs."""
        return str(self.folder / name)

    def fresh(self, name: str) -> Path:
        """An empty folder for one run of a server."""
        path = self.folder / "run" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, mode=0o700)
        return path


def build(folder: Path) -> Built:
    """Compile what changed, and make a certificate. Raises Missing."""
    folder.mkdir(parents=True, exist_ok=True)
    _check_disk(folder)
    check_compiler()
    for name in _PROGRAMS:
        compile_program(name, folder)
    (folder / "certificate").mkdir(exist_ok=True)
    certificate = load_or_make(folder / "certificate", ("localhost",), datetime.now(UTC))
    files = (folder / "certificate" / "certificate.pem", folder / "certificate" / "certificate.key")
    return Built(folder, *files, certificate)


def compile_program(name: str, folder: Path) -> str:
    """One of the C programs, if its sources changed. Raises CalledProcessError."""
    program = folder / name
    sources = [path for pattern in _PROGRAMS[name] for path in sorted(SOURCES.glob(pattern))]
    newest = max(path.stat().st_mtime for path in (*sources, *SOURCES.rglob("*.h")))
    if not program.exists() or program.stat().st_mtime <= newest:
        command = ["gcc", *_FLAGS, "-o", str(program), *map(str, sources), *_LIBRARIES]
        subprocess.run(command, check=True)
    return str(program)


def check_compiler() -> None:
    """Raises Missing if the C programs cannot be compiled here."""
    if shutil.which("gcc") is None:
        raise Missing("There is no gcc, which compiles the load generator: apt install gcc.")
    for header, package in _HEADERS.items():
        probe = ["gcc", "-E", "-x", "c", "-"]
        source = f"#include <{header}>\n".encode()
        if subprocess.run(probe, input=source, capture_output=True).returncode:
            raise Missing(f"There is no {header}: apt install {package}.")


def _check_disk(folder: Path) -> None:
    """An fsync on a file system in memory costs nothing, and says nothing."""
    if not sys.platform.startswith("linux"):
        return  # only there is /tmp in memory on many computers
    here = str(folder.resolve())
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    above = [
        mount
        for mount in mounts
        if mount[1] == "/" or here == mount[1] or here.startswith(mount[1] + os.sep)
    ]
    kind = max(above, key=lambda mount: len(mount[1]))[2]
    if kind in ("tmpfs", "ramfs"):
        raise Missing(f"{folder} is in memory ({kind}); name one on a disk with --folder.")
