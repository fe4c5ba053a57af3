"""The profile folder: who may look into it, which process owns it, and the key of its vault."""

import fcntl
import os
import resource
import stat
from contextlib import suppress
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Final

from saltline.client.model import ExitCode, Refused
from saltline.client.vault.folder import sync_folder

ENVIRONMENT_VARIABLE: Final = "SALTLINE_PROFILE"
LOCK_FILE: Final = "lock"
VAULT_FILE: Final = "vault.db"
KEY_FILE: Final = "vault.key"
SALT_FILE: Final = "vault.salt"

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
PASSPHRASE_MAX_BYTES: Final = 4096
_SALT_HEADER: Final = "saltline argon2id-moderate 1 "
_FILE_MAX_BYTES: Final = 256
_OTHERS: Final = 0o077


class Busy(Refused):
    """Another process owns the profile."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        owner = "another saltline" if pid is None else f"another saltline (process {pid})"
        super().__init__(
            f"The profile {folder} is in use by {owner}. Nothing was changed; close it first."
        )
        self.pid = pid


class KeyKind(Enum):
    """What opens the vault."""

    MISSING = "missing"  # not set up yet
    PASSPHRASE = "passphrase"
    KEY_FILE = "key file"


def default_folder() -> Path:
    """SALTLINE_PROFILE, or the platform's place for a program's data."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if chosen:
        return Path(chosen)
    import platformdirs

    return platformdirs.user_data_path("saltline", appauthor=False) / "profile"


def harden_process() -> None:
    """No core dumps: they would hold keys and messages."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


class Profile:
    """A profile folder, private to this user. Raises Refused where others could look in.

    Anyone of this user's processes may hold a Profile; `acquire` makes this process its owner.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._lock: int | None = None
        self._folder_lock: int | None = None
        self._aside: dict[Path, Path] | None = None  # since a key was made: what was there before
        if create:
            _make_folder(self.folder)
        _check_folder(self.folder)

    def __repr__(self) -> str:
        return f"Profile({str(self.folder)!r})"

    @property
    def vault_path(self) -> Path:
        """Where the vault is, or will be."""
        return self.folder / VAULT_FILE

    # --- one owner -----------------------------------------------------------------------------

    @property
    def owned(self) -> bool:
        """Whether this process owns the profile."""
        return self._lock is not None

    def acquire(self) -> None:
        """Own the profile until `release` or the end of the process. Raises Busy."""
        if self._lock is not None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            lock = os.open(self.folder / LOCK_FILE, flags, 0o600)
        except OSError as error:
            raise _unusable(self.folder, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._folder_lock = _lock_folder(self.folder)
        except OSError:
            pid = _read_pid(lock)
            os.close(lock)
            raise Busy(self.folder, pid) from None
        with suppress(OSError):  # the number is for people only
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Let another process own the profile."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None

    # --- the vault's key -----------------------------------------------------------------------

    @property
    def key_kind(self) -> KeyKind:
        """What the vault's key comes from."""
        if os.path.lexists(self.folder / KEY_FILE):
            return KeyKind.KEY_FILE
        if os.path.lexists(self.folder / SALT_FILE):
            return KeyKind.PASSPHRASE
        return KeyKind.MISSING

    @property
    def is_set_up(self) -> bool:
        """Whether there is a vault to open."""
        return os.path.lexists(self.vault_path)

    def create_key(self, passphrase: str | None) -> bytes:
        """Choose what opens the vault, before there is one; None: a key file. 32 bytes.

        A set-up that was broken off is begun again; what it left is put aside, not removed: it may
        be the key of a vault that is elsewhere for a while.
        """
        if self.is_set_up:
            raise Refused(f"The profile {self.folder} is set up already. Nothing was changed.")
        paths = [self.folder / name for name in (KEY_FILE, SALT_FILE)]
        self._aside = {path: _put_aside(path) for path in paths if os.path.lexists(path)}
        if passphrase is None:
            key = os.urandom(KEY_BYTES)
            self._write(KEY_FILE, key.hex() + "\n")
            return key
        salt = os.urandom(SALT_BYTES)
        self._write(SALT_FILE, f"{_SALT_HEADER}{salt.hex()}\n")
        return _derive(passphrase, salt)

    def discard_set_up(self) -> None:
        """Remove the vault and its key, where a set-up came to nothing. Only the owner may.

        What was put aside for it is put back. Without a vault, a key that this set-up has not made
        is that of a vault that is elsewhere.
        """
        if not self.owned:
            raise ValueError("only the owner of a profile may remove its vault")
        if self._aside is None and not self.is_set_up:
            return
        names = [KEY_FILE, SALT_FILE, *(VAULT_FILE + end for end in ("", "-wal", "-shm"))]
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        aside, self._aside = self._aside or {}, None
        for path, other in aside.items():
            other.rename(path)

    def unlock(self, passphrase: str | None) -> bytes:
        """The vault's key, 32 bytes. `passphrase` is needed where `key_kind` says so."""
        match self.key_kind:
            case KeyKind.KEY_FILE:
                return self._read_hex(KEY_FILE, "", KEY_BYTES)
            case KeyKind.PASSPHRASE:
                if passphrase is None:
                    raise Refused("This profile has a passphrase, and none was given.")
                return _derive(passphrase, self._read_hex(SALT_FILE, _SALT_HEADER, SALT_BYTES))
            case KeyKind.MISSING:
                raise Refused(
                    f"The profile {self.folder} has neither {KEY_FILE} nor {SALT_FILE}, so its"
                    " vault cannot be opened. Put the file back from a copy of the folder."
                )

    def _read_hex(self, name: str, header: str, size_bytes: int) -> bytes:
        path = self.folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if name == KEY_FILE and status.st_mode & _OTHERS:
                    raise Refused(
                        f"Others can read the key file {path}. It was not used:"
                        f" if nobody has copied it, chmod 600 {path}"
                    )
                data = file.read(_FILE_MAX_BYTES)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            text = data.decode("ascii").removesuffix("\n")
            value = bytes.fromhex(text.removeprefix(header))
        except ValueError:
            value = b""
        if not text_is(header, value, data) or len(value) != size_bytes:
            raise Refused(
                f"The file {path} is damaged or from a newer version. Nothing was changed;"
                " put it back from a copy of the folder."
            )
        return value

    def _write(self, name: str, text: str) -> None:
        """All of it or nothing, for this user alone, and on disk when the call returns."""
        path, unfinished = self.folder / name, self.folder / (name + ".new")
        try:
            unfinished.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(unfinished, flags, 0o600), "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            sync_folder(self.folder)
        except OSError as error:
            raise _unusable(path, error) from None


def text_is(header: str, value: bytes, data: bytes) -> bool:
    """Whether `data` is exactly what is written for `value`: no second spelling is read."""
    return data == f"{header}{value.hex()}\n".encode("ascii")


def _put_aside(path: Path) -> Path:
    """Under the first free name, which is returned: vault.key.1, vault.key.2 …"""
    others = (Path(f"{path}.{number}") for number in count(1))
    other = next(other for other in others if not os.path.lexists(other))
    try:
        return path.rename(other)
    except OSError as error:
        raise _unusable(path, error) from None


def read_passphrase_file(path: Path) -> tuple[str, bool]:
    """The first line of a file, without its end; and whether others can read it too.

    Raises Refused.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(PASSPHRASE_MAX_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise _unusable(path, error) from None
    line = data.partition(b"\n")[0].removesuffix(b"\r")
    if len(line) > PASSPHRASE_MAX_BYTES:
        raise Refused(f"The passphrase in {path} is longer than {PASSPHRASE_MAX_BYTES} bytes.")
    try:
        passphrase = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"The passphrase in {path} is not valid UTF-8.") from None
    if not passphrase:
        raise Refused(f"The first line of {path} is empty; the passphrase stands there.")
    return passphrase, bool(mode & _OTHERS and stat.S_ISREG(mode))


def _derive(passphrase: str, salt: bytes) -> bytes:
    from saltline.crypto.passphrase import derive_key

    try:
        return derive_key(passphrase, salt)
    except UnicodeEncodeError:
        raise Refused("The passphrase is not valid text. Nothing was changed.") from None
    except ValueError:
        raise Refused("An empty passphrase protects nothing. Nothing was changed.") from None
    except MemoryError:
        raise Refused(
            "The passphrase needs 256 MiB of memory to be checked, and they are not to be had."
            " Nothing was changed; close something and try again.",
            ExitCode.INTERNAL,
        ) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None


def _check_folder(folder: Path) -> None:
    try:
        status = folder.stat()
    except FileNotFoundError:
        raise Refused(
            f"There is no profile at {folder}. Make one with: saltline register"
        ) from None
    except OSError as error:
        raise _unusable(folder, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(f"The profile {folder} is not a folder.")
    if status.st_uid != os.geteuid():
        raise Refused(f"The profile {folder} belongs to another user. It was not used.")
    if status.st_mode & _OTHERS:
        raise Refused(
            f"Others can look into the profile {folder}. It was not used: chmod 700 {folder}"
        )


def _lock_folder(folder: Path) -> int | None:
    """The folder's own lock, for whoever finds no lock file: somebody may have removed it.

    None where only files can be locked. Raises BlockingIOError where another holds it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _read_pid(lock: int) -> int | None:
    with suppress(OSError, ValueError):
        return int(os.pread(lock, 16, 0))
    return None


def _unusable(path: Path, error: OSError) -> Refused:
    reason = error.strerror or type(error).__name__
    return Refused(f"Cannot use {path}: {reason}. Nothing was changed.")
