"""The relay's data folder: private, with secrets in 0600 files, and one running relay's."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, Self

from saltline.server.errors import UsageError, why

LOCK_FILE: Final = "relay.lock"
DATABASE_FILE: Final = "relay.db"
LOG_KEY_FILE: Final = "log.key"
LOG_KEY_BYTES: Final = 32
_LOCK_WAIT_S: Final = 0.5
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def open_private(path: Path, flags: int) -> int:
    """Open one of the folder's own files, and close it to others. Raises OSError.

    A link is refused: whoever planted it could have another file read, written or opened up.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would wait for its other end
    try:
        descriptor = os.open(path, flags, _FILE_MODE)
    except OSError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, f"{path.name} is a symbolic link") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is not a file")
        os.fchmod(descriptor, _FILE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_private(path: Path, data: bytes) -> None:
    """Write a 0600 file so that a crash leaves the old one or the new one. Raises OSError."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in it would survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        for made in missing:  # else all that is kept in it could go with its name
            sync_folder(made.parent)
    except OSError as error:
        if os.path.exists(folder) and folder not in missing:
            return  # something else is there, and is refused as that
        reason = why(error)
        if os.path.islink(folder):
            reason = "it is a symbolic link to what is not there"
        elif isinstance(error, FileExistsError):
            reason = f"{folder.parent} is not a folder"
        raise UsageError(
            f"The data folder {folder} cannot be made: {reason}. Name another one with --data."
        ) from None


def _lock_soon(descriptor: int) -> bool:
    """Lock, or wait a moment for a relay that is going, or an admin's command that looks."""
    give_up_s = monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if monotonic() >= give_up_s:
                return False
            sleep(_LOCK_WAIT_S / 10)
        else:
            return True


class DataFolder:
    """An existing, private folder. `lock` makes this process its only relay until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Self:
        """Make the folder (0700) if need be. Raises UsageError."""
        if create:
            _make(path)
        try:
            found = path.stat()
        except FileNotFoundError:
            if os.path.islink(path):
                raise UsageError(
                    f"The data folder {path} is a symbolic link to what is not there."
                ) from None
            raise UsageError(
                f"There is no data folder {path}. `saltline-server run` makes it;"
                " --data names another one."
            ) from None
        except OSError as error:
            raise UsageError(f"The data folder {path} cannot be used: {why(error)}.") from None
        if not stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{path} is not a folder. Name one with --data.")
        if found.st_uid != os.geteuid():
            raise UsageError(
                f"The data folder {path} belongs to another user. Nothing was changed. Run this as"
                " the user who owns it, or name another folder with --data."
            )
        folder = cls(path)
        if found.st_mode & _OTHERS:
            folder._make_private()
        return folder

    def _make_private(self) -> None:
        """Close the folder to others, unless it may be somebody's for another purpose."""
        try:
            names = {entry.name for entry in os.scandir(self.path)} - {"lost+found"}
            if names and LOCK_FILE not in names:
                raise UsageError(
                    f"The data folder {self.path} is open to others and holds files that are not"
                    f" a relay's. Name an empty folder with --data, or: chmod 700 {self.path}"
                )
            self.path.chmod(_FOLDER_MODE)
        except OSError as error:
            raise UsageError(
                f"The data folder {self.path} is open to others and cannot be closed to them:"
                f" {why(error)}."
            ) from None

    @property
    def database(self) -> Path:
        """Where the store is."""
        return self.path / DATABASE_FILE

    def lock(self) -> None:
        """Take the folder for this process; the lock goes with it, whatever kills it.

        Raises UsageError if another relay runs on it.
        """
        path = self.path / LOCK_FILE
        try:
            descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UsageError(f"The lock {path} cannot be opened: {why(error)}.") from None
        if not _lock_soon(descriptor):
            owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise UsageError(
                f"Another relay (process {owner if owner.isdigit() else 'unknown'}) runs on"
                f" {self.path}. Stop it, or name another folder with --data."
            )
        self._lock = descriptor
        with suppress(OSError):  # for the sentence above alone: a full disk is said by who needs it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def is_in_use(self) -> bool:
        """Whether a relay runs on this folder."""
        try:
            descriptor = open_private(self.path / LOCK_FILE, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def log_key_seed(self, random: Callable[[int], bytes] | None) -> bytes:
        """The log key's 32 secret bytes; made at first start, if `random` is given.

        Raises UsageError. A folder with a database and no key is refused: with a new key it would
        be another relay to everyone.
        """
        path = self.path / LOG_KEY_FILE
        try:
            with open(open_private(path, os.O_RDONLY), "rb") as file:
                seed = file.read(LOG_KEY_BYTES + 1)
        except FileNotFoundError:
            if random is None or self.database.exists():
                raise UsageError(
                    f"The log key {path} is missing, and the relay has a database. Restore the"
                    " file from a backup: with another key, clients refuse this relay."
                ) from None
            seed = random(LOG_KEY_BYTES)
            try:
                write_private(path, seed)
            except OSError as error:
                raise UsageError(f"The log key {path} cannot be written: {why(error)}.") from None
        except OSError as error:
            raise UsageError(f"The log key {path} cannot be read: {why(error)}.") from None
        if len(seed) != LOG_KEY_BYTES:
            raise UsageError(
                f"The log key {path} is damaged: {LOG_KEY_BYTES} bytes are expected. Restore the"
                " file from a backup."
            )
        return seed

    def close(self) -> None:
        """Let another relay have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
