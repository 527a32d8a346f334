"""The files of the object cache: what is read is what was written under its key, by this user, within a size.

An entry is one file, ``KEY[:2]/KEY.kernel``: a container (``torchport.container``) that is bound to its key, so that a
file which was damaged or copied over another's name is no entry. Files are written under a temporary name and renamed,
so readers need no locks. Who makes an entry that several want holds a lock of its key, which its end frees. Reading
sets a file's modification time, to the hour.

A writer knows the bytes in each of the 256 subfolders, and counts those again whose modification time has changed. It
counts no longer than a write may take. Keys are hashes, so those counted tell the size of all. If that exceeds the
limit, the least recently used entries go.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from torchport.container import CorruptContainer, bind, unbind
from torchport.files import read_bytes
from torchport.locks import claimed, locked

__all__ = ["CacheFolder", "fault_of"]

_SUFFIX = ".kernel"
_TEMPORARY = re.compile(r"\.[0-9a-f]+\.(?:\d+\.\d+\.tmp|lock)")
_STALE_SECONDS = 600.0  # a writer takes milliseconds; older files were left by a killed one
_USED_SECONDS = 3600.0  # a time of use is this exact: many ranks of a job read the same files
_COUNTING_SECONDS = 0.02  # the longest that one write counts
_TICK_NANOSECONDS = 100_000_000  # two changes of a folder within this time may give it the same modification time
_LOCK_SECONDS = 1.0


def fault_of(status: os.stat_result) -> str | None:
    """Why a folder cannot be trusted with code that this process will run; None if it can."""
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return "belongs to another user, who could put code there for you to run"
    if status.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o}), who could put code there"
    return None


class CacheFolder:
    """Entries by key below ``path``, at most ``limit`` bytes of them. Keys are hexadecimal."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self._subfolders = [path / f"{number:02x}" for number in range(256)]
        self._counts: dict[Path, tuple[int, int]] = {}  # modification time in ns and bytes of subfolders
        self._serial = itertools.count()

    def file(self, key: str) -> Path:
        """Where the entry ``key`` is."""
        return self.path / key[:2] / (key + _SUFFIX)

    def fault(self, key: str) -> str | None:
        """What is wrong with the subfolder of ``key``; None if nothing is, or there is none."""
        subfolder = self.file(key).parent
        try:
            fault = fault_of(subfolder.lstat())
        except OSError:
            return None
        return None if fault is None else f"has a subfolder, {subfolder.name}, that {fault}"

    def read(self, key: str) -> bytes | None:
        """The container written under ``key``; None if there is none. A file of other content is removed."""
        path = self.file(key)
        try:
            status = path.stat()
            if status.st_size > self.limit:
                return None
            data = unbind(read_bytes(path), key)
        except OSError:
            return None
        except CorruptContainer:
            _remove(path)
            return None
        if time.time() - status.st_mtime > _USED_SECONDS:
            with contextlib.suppress(OSError):  # a read-only folder can still be read
                os.utime(path)
        return data

    def write(self, key: str, data: bytes) -> None:
        """Store a container under ``key``, and remove old entries if there is no room for it. Raises OSError."""
        path = self.file(key)
        temporary = path.with_name(f".{key}.{os.getpid()}.{next(self._serial)}.tmp")
        try:
            for folder in (self.path, path.parent):  # both may have been removed meanwhile
                folder.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(bind(data, key))
            with locked(self.path, _LOCK_SECONDS):
                if self._estimate(path.parent) > self.limit:
                    self._sweep()
                os.replace(temporary, path)
        except OSError:
            _remove(temporary)
            raise

    @contextlib.contextmanager
    def making(self, key: str, patience: float) -> Iterator[bool]:
        """Keep other processes from making the entry ``key`` meanwhile; False if one makes it for longer than that."""
        path = self.file(key).with_name(f".{key}.lock")
        with contextlib.suppress(OSError):  # there is no lock, then
            for folder in (self.path, path.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
        with claimed(path, patience) as mine:
            yield mine

    def sweep(self) -> None:
        """Remove files left by killed writers and, oldest first, entries beyond the limit. Raises OSError."""
        with locked(self.path, _LOCK_SECONDS):
            self._sweep()

    def sizes(self) -> list[int]:
        """Bytes of each entry."""
        found = (file for folder in self._subfolders for file in _files(folder))
        return [status.st_size for path, status in found if path.endswith(_SUFFIX)]

    def keys(self) -> list[str]:
        """The keys of all entries."""
        found = (Path(file).name for folder in self._subfolders for file, _ in _files(folder))
        return [name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)]

    def clear(self) -> int:
        """Remove every entry; returns how many files that were."""
        return sum(_remove(path) for folder in self._subfolders for path, _ in _files(folder))

    def _estimate(self, written: Path) -> int:
        """Bytes in all subfolders, from those that could be counted in the time there is; ``written`` is one."""
        start = int(written.name, 16)
        deadline = time.monotonic() + _COUNTING_SECONDS
        own = self._count(written) or 0
        others: list[int] = []
        for folder in (*self._subfolders[start + 1 :], *self._subfolders[:start]):
            size = self._count(folder, known_only=bool(others) and time.monotonic() > deadline)
            if size is not None:
                others.append(size)
        return own + sum(others) * (len(self._subfolders) - 1) // len(others)

    def _count(self, folder: Path, *, known_only: bool = False) -> int | None:
        """Bytes in a subfolder; None if it must be counted and may not."""
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:  # there is none
            return 0
        before, size = self._counts.get(folder, (None, 0))
        if before != changed:
            if known_only:
                return None
            size = sum(size for _, size, _ in _tidied(folder))
            if time.time_ns() - changed > _TICK_NANOSECONDS:
                self._counts[folder] = changed, size
        return size

    def _sweep(self) -> None:
        files = [file for folder in self._subfolders for file in _tidied(folder)]
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return
        for _, size, path in sorted(files):  # down to 90 %, so that the next write does not sweep again
            if total <= self.limit * 0.9:
                break
            if path.endswith(_SUFFIX) and _remove(path):
                total -= size


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path and status of the entries and temporary files in a subfolder."""
    try:
        with os.scandir(folder) as found:
            files = [file for file in found if file.name.endswith(_SUFFIX) or _TEMPORARY.fullmatch(file.name)]
    except OSError:
        return
    for file in files:
        with contextlib.suppress(OSError):  # another process removed it
            status = file.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield file.path, status


def _tidied(folder: Path) -> list[tuple[float, int, str]]:
    """Modification time, bytes and path of the files in a subfolder, without those that a killed writer left."""
    stale = time.time() - _STALE_SECONDS
    found = []
    for path, status in _files(folder):
        if path.endswith(_SUFFIX) or status.st_mtime > stale or not _remove(path):
            found.append((status.st_mtime, status.st_size, path))
    return found


def _remove(path: str | Path) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
