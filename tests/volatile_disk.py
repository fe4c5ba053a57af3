"""A disk in memory that forgets: what was written and not synced, a power cut may take back.

    disk = VolatileDisk()
    store = SqliteStore(disk.path("relay.db"), relay_id, vfs=disk.vfs)
    vault = Vault.create(disk.path("vault.db"), key, vfs=disk.cipher_vfs)
    ...
    disk.cut(random)          # the power is gone and back: now open everything anew
    disk.kill()               # the process is gone, the kernel keeps what it wrote
    disk.cut_after(7)         # all ends at the seventh operation from now; then cut() or kill()

What a cut leaves is no better than what ext4 (data=ordered) leaves, and often worse: of unsynced
writes any part, in pieces of a sector and in any order, or garbage in their place; holes read as
zeros; a truncation is forgotten or not, as are a creation, a deletion and the rest of the
directory, until it is synced. What was synced stays. SQLite is told that a write spoils no
neighbouring bytes (SQLITE_IOCAP_POWERSAFE_OVERWRITE), as on Unix, and that holds.

WAL needs `locking_mode = EXCLUSIVE` here: there is no shared memory.
"""

import itertools
import random as randomness
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

_NAME: Final = "volatile"
_numbers: Final = itertools.count(1)
_JOURNALS: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL

# A piece of a write, with where it begins; or the size to which the file was cut.
Change = tuple[int, bytes] | int


@dataclass(slots=True)
class _Inode:
    """A file's bytes, whatever its name: as programs see them, and as the platters have them."""

    live: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Change] = field(default_factory=list)
    shared: int = 0  # how many handles have a lock
    locker: "VolatileFile | None" = None  # whoever has more than a shared lock

    def copy(self) -> "_Inode":
        return _Inode(bytearray(self.live), bytearray(self.durable), list(self.unsynced))


def _apply(content: bytearray, change: Change) -> None:
    if isinstance(change, int):
        if change < len(content):
            del content[change:]
        else:
            content.extend(bytes(change - len(content)))
        return
    offset, data = change
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class VolatileDisk:
    """The files of one machine, which loses power as a whole. `sector_bytes`: 512 or 4,096.

    `room_bytes` bounds what all files together may hold (None: no bound). Nothing here belongs to
    one thread, and nothing is locked: cut when the store is quiet, or with `cut_after`.
    """

    def __init__(self, sector_bytes: int = 512) -> None:
        self.sector_bytes = sector_bytes
        self.room_bytes: int | None = None
        self.is_down = False
        self.syncs = 0
        self.failed_syncs = 0
        self.operations = 0  # writes, truncations, deletions and syncs
        self._cut_at: int | None = None
        self._sync_fails: randomness.Random | None = None
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._era = 0
        self._number = next(_numbers)
        self.vfs = _NAME
        self.cipher_vfs = f"multipleciphers-{_NAME}"  # sqlite3mc makes it when it is first asked
        _vfs().disks[self._number] = self

    def path(self, name: str) -> Path:
        """What to give as the path of a file here; another one after every cut and kill."""
        return Path(f"/{_NAME}/{self._number}/{self._era}/{name}")

    def forget(self) -> None:
        """The disk is not needed any more."""
        self.kill()
        _vfs().disks.pop(self._number, None)

    # --- faults --------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process is gone in the middle of it; what it wrote, the kernel has."""
        self._era += 1
        self.is_down, self._cut_at, self._sync_fails = False, None, None
        copies = {id(inode): inode.copy() for inode in self._names.values()}
        self._names = {name: copies[id(inode)] for name, inode in self._names.items()}
        self._durable_names = {
            name: copies.get(id(inode), inode) for name, inode in self._durable_names.items()
        }

    def cut(self, random: randomness.Random) -> None:
        """The power is gone and back; `random` decides what of the unsynced is left."""
        self.kill()
        left: dict[str, _Inode] = {}
        for name in sorted(self._names.keys() | self._durable_names.keys()):
            before, after = self._durable_names.get(name), self._names.get(name)
            inode = after if before is after or random.random() < 0.5 else before
            if inode is not None:
                left[name] = inode
        for name, inode in left.items():
            left[name] = self._survivor(inode, random)
        self._names, self._durable_names = left, dict(left)

    def cut_after(self, operations: int) -> None:
        """The power goes at this operation from now (1: the next); `is_down` tells when it has."""
        self._cut_at = self.operations + operations

    def fail_next_sync(self, random: randomness.Random) -> None:
        """It raises, and the kernel forgets that what it had to write was unwritten."""
        self._sync_fails = random

    def mend(self) -> None:
        """No fault that was set is to come any more, and there is room."""
        self._cut_at, self._sync_fails, self.room_bytes = None, None, None

    # --- what is there -------------------------------------------------------------------------

    def files(self) -> dict[str, bytes]:
        """What a program would read, by name."""
        return {name: bytes(inode.live) for name, inode in sorted(self._names.items())}

    def least(self) -> dict[str, bytes]:
        """What the worst cut would leave, by name: the synced alone."""
        return {name: bytes(inode.durable) for name, inode in sorted(self._durable_names.items())}

    @property
    def is_synced(self) -> bool:
        """Whether a cut would take nothing: the platters have what programs read."""
        names, durable = self._names, self._durable_names
        return names.keys() == durable.keys() and all(
            inode is durable[name] and inode.live == inode.durable for name, inode in names.items()
        )

    def put(self, files: dict[str, bytes]) -> None:
        """Have these files, durably, and no others."""
        self.kill()
        self._names = {
            name: _Inode(bytearray(content), bytearray(content)) for name, content in files.items()
        }
        self._durable_names = dict(self._names)

    # --- for the VFS ---------------------------------------------------------------------------

    def _survivor(self, inode: _Inode, random: randomness.Random) -> _Inode:
        content = bytearray(inode.durable)
        for change in inode.unsynced:
            if isinstance(change, int):
                if random.random() < 0.5:
                    _apply(content, change)
                continue
            for piece in self._sectors(*change):
                fate = random.random()
                if fate < 0.45:
                    _apply(content, piece)
                elif fate < 0.55:
                    _apply(content, (piece[0], random.randbytes(len(piece[1]))))
        return _Inode(content, bytearray(content))

    def _sectors(self, offset: int, data: bytes) -> list[tuple[int, bytes]]:
        size, end = self.sector_bytes, offset + len(data)
        edges = [offset, *range((offset // size + 1) * size, end, size), end]
        return [(a, data[a - offset : b - offset]) for a, b in itertools.pairwise(edges)]

    def _begin(self) -> bool:
        """Count an operation. Whether the power goes in the middle of it."""
        self._require_power()
        self.operations += 1
        if self.operations == self._cut_at:
            self.is_down = True
        return self.is_down

    def _require_power(self) -> None:
        if self.is_down:
            raise apsw.IOError("the power is gone")

    def _require_room(self, more_bytes: int) -> None:
        if self.room_bytes is not None and more_bytes > 0:
            used = sum(len(inode.live) for inode in self._names.values())
            if used + more_bytes > self.room_bytes:
                raise apsw.FullError("the disk is full")

    def _sync_directory(self) -> None:
        self._durable_names = dict(self._names)

    def _open(self, name: str, flags: list[int]) -> "VolatileFile":
        self._require_power()
        inode = self._names.get(name)
        if inode is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(f"{name} is not there")
            inode = self._names[name] = _Inode()
        flags[1] = flags[0]
        # SQLite on Unix syncs the directory with the first sync of a journal that it may have made.
        may_be_new = bool(flags[0] & _JOURNALS and flags[0] & apsw.SQLITE_OPEN_CREATE)
        return VolatileFile(self, inode, may_be_new)

    def _delete(self, name: str, and_sync: bool) -> None:
        if name not in self._names:
            raise apsw.IOError("the file to delete is not there")
        is_torn = self._begin()
        del self._names[name]
        if is_torn:
            self._require_power()
        if and_sync:
            self._sync_directory()

    def _has(self, name: str) -> bool:
        self._require_power()
        return name in self._names


class VolatileFile:
    """An open file of a `VolatileDisk`.

    After a cut or a kill it belongs to a ghost, whose reads and writes reach nothing but itself:
    what was opened before can be closed in peace.
    """

    def __init__(self, disk: VolatileDisk, inode: _Inode, syncs_directory: bool) -> None:
        self._disk = disk
        self._inode = inode
        self._era = disk._era
        self._syncs_directory = syncs_directory
        self._level = apsw.SQLITE_LOCK_NONE

    @property
    def _is_ghost(self) -> bool:
        return self._era != self._disk._era

    def _require_power(self) -> None:
        if not self._is_ghost:
            self._disk._require_power()

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._require_power()
        return bytes(self._inode.live[offset : offset + amount])

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if not self._is_ghost:
            self._disk._require_room(offset + len(data) - len(self._inode.live))
        self._change((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._change(newsize)

    def _change(self, change: Change) -> None:
        is_torn = not self._is_ghost and self._disk._begin()
        _apply(self._inode.live, change)
        self._inode.unsynced.append(change)
        if is_torn:
            self._disk._require_power()

    def xSync(self, flags: int) -> None:  # noqa: N802
        disk, inode = self._disk, self._inode
        if self._is_ghost:
            return
        disk.syncs += 1
        if disk._begin():
            disk._require_power()
        if disk._sync_fails is not None:
            inode.durable = disk._survivor(inode, disk._sync_fails).durable
            inode.unsynced.clear()
            disk._sync_fails = None
            disk.failed_syncs += 1
            raise apsw.IOError("the sync failed")
        for change in inode.unsynced:
            _apply(inode.durable, change)
        inode.unsynced.clear()
        if self._syncs_directory:
            self._syncs_directory = False
            disk._sync_directory()

    def xFileSize(self) -> int:  # noqa: N802
        self._require_power()
        return len(self._inode.live)

    def xLock(self, level: int) -> None:  # noqa: N802
        inode = self._inode
        if self._is_ghost or level <= self._level:
            return
        if inode.locker not in (None, self):
            raise apsw.BusyError("another has the lock")
        if level > apsw.SQLITE_LOCK_SHARED:
            others = inode.shared - (self._level >= apsw.SQLITE_LOCK_SHARED)
            inode.locker = self
            if level == apsw.SQLITE_LOCK_EXCLUSIVE and others:
                raise apsw.BusyError("others are reading")
        if self._level < apsw.SQLITE_LOCK_SHARED:
            inode.shared += 1
        self._level = level

    def xUnlock(self, level: int) -> None:  # noqa: N802
        if self._is_ghost or level >= self._level:
            return
        inode = self._inode
        if inode.locker is self and level < apsw.SQLITE_LOCK_RESERVED:
            inode.locker = None
        if level < apsw.SQLITE_LOCK_SHARED:
            inode.shared -= 1
        self._level = level

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return self._inode.locker is not None

    def xClose(self) -> None:  # noqa: N802
        self.xUnlock(apsw.SQLITE_LOCK_NONE)

    def xSectorSize(self) -> int:  # noqa: N802
        return self._disk.sector_bytes

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False


class _Vfs(apsw.VFS):
    """All volatile disks, each a folder. One, never unregistered: the cipher's stands on it."""

    def __init__(self) -> None:
        self.disks: dict[int, VolatileDisk] = {}
        super().__init__(_NAME, "")

    def _find(self, path: str) -> tuple[VolatileDisk | None, str]:
        """The disk, None for ghosts; and the name there."""
        _, _, number, era, name = path.split("/", 4)
        disk = self.disks.get(int(number))
        return (disk if disk is not None and disk._era == int(era) else None), name

    def xOpen(  # type: ignore[override]  # noqa: N802  # apsw takes anything with these methods
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> VolatileFile:
        if name is None:
            raise apsw.CantOpenError("no temporary files here")
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        disk, plain = self._find(path)
        if disk is None:
            raise apsw.CantOpenError("a path from before a cut or a kill: ask the disk anew")
        return disk._open(plain, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        disk, name = self._find(filename)
        if disk is not None:
            disk._delete(name, syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        disk, name = self._find(pathname)
        return disk is not None and disk._has(name)

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name


_registered: list[_Vfs] = []


def _vfs() -> _Vfs:
    if not _registered:
        _registered.append(_Vfs())
    return _registered[0]
