"""Compiled kernels on disk, shared by all processes of one user.

The key of a kernel is a hash of its TTIR without source locations, its options, and the target's fingerprint. Triton's
own cache comes first; its key is the kernel's Python source and the fingerprint. On a miss there (the same kernel in
another file, a cleared or disabled Triton cache) Triton's frontend runs, and the object is found here before anything
is lowered. An entry is one file in the format of ``torchport.container``; its checksum is verified before use, and a
damaged file is removed. Files are written under a temporary name and renamed, so readers need no locks. Reading sets a
file's modification time; the least recently used files are removed when the folder exceeds its limit.

The folder holds code that will be run: it must belong to this user and be writable by nobody else. If it is not, or if
the disk is full or read-only, kernels are kept in the memory of the process and one warning says so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torchport.config import config
from torchport.container import CorruptContainer, unpack

__all__ = ["CacheInfo", "ObjectCache", "object_cache"]

_SUFFIX = ".kernel"
_TEMPORARY = re.compile(r"\.[0-9a-f]+\.\d+\.\d+\.tmp")
_STALE_SECONDS = 600.0  # a writer takes milliseconds; older files were left by a killed one
_SWEEP_EVERY = 64  # writes of one process between two checks of the folder's size
_KEY = re.compile(r"[0-9a-f]{16,128}")


@dataclass(frozen=True)
class CacheInfo:
    """The state of the cache.

    directory: its folder.
    entries: kernels on disk.
    size: bytes on disk.
    limit: bytes allowed on disk.
    writable: whether the folder can be used.
    hits: kernels that this process found.
    misses: kernels that this process did not find.
    writes: kernels that this process stored.
    """

    directory: Path
    entries: int
    size: int
    limit: int
    hits: int
    misses: int
    writes: int
    writable: bool


@dataclass
class ObjectCache:
    """Containers by key in the folder ``directory``, up to about ``limit`` bytes (0: in memory only)."""

    directory: Path
    limit: int
    _memory: dict[str, bytes] = field(default_factory=dict)
    _checked: bool = False
    _broken: str | None = None
    _hits: int = 0
    _misses: int = 0
    _writes: int = 0
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def get(self, key: str) -> bytes | None:
        """The verified container under ``key``, or None."""
        path = self._path(key)
        data = self._memory.get(key)
        if data is None and self._usable():
            data = self._read(path)
        if data is None:
            self._misses += 1
        else:
            self._hits += 1
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store a container under ``key``. Never fails: if the disk cannot take it, it stays in memory."""
        path = self._path(key)
        if not self._usable():
            self._memory[key] = data
            return
        temporary = path.with_name(f".{key}.{os.getpid()}.{next(self._serial)}.tmp")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._memory[key] = data
            self._give_up(f"cannot be written: {error.strerror or error}")
            return
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 1:
            self.sweep()

    def sweep(self) -> None:
        """Remove files left by killed writers and, oldest first, entries beyond the limit."""
        now = time.time()
        entries: list[tuple[float, int, Path]] = []
        for path, status in self._files():
            if _TEMPORARY.fullmatch(path.name):
                if now - status.st_mtime > _STALE_SECONDS:
                    _remove(path)
            elif path.suffix == _SUFFIX:
                entries.append((status.st_mtime, status.st_size, path))
        size = sum(bytes_ for _, bytes_, _ in entries)
        if size <= self.limit:
            return
        for _, bytes_, path in sorted(entries):  # down to 90 %, so that the next write does not sweep again
            if size <= self.limit * 0.9:
                break
            _remove(path)
            size -= bytes_

    def info(self) -> CacheInfo:
        """The state of the folder and the counts of this process."""
        sizes = [status.st_size for path, status in self._files() if path.suffix == _SUFFIX]
        return CacheInfo(
            self.directory, len(sizes), sum(sizes), self.limit, self._hits, self._misses, self._writes, self._usable()
        )

    def clear(self) -> int:
        """Remove every entry, in memory and on disk; returns the number of files removed."""
        self._memory.clear()
        removed = 0
        for path, _ in self._files():
            if path.suffix == _SUFFIX or _TEMPORARY.fullmatch(path.name):
                removed += _remove(path)
        return removed

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a cache key is 16 to 128 hexadecimal digits, not {key!r}")
        return self.directory / key[:2] / (key + _SUFFIX)

    def _read(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            unpack(data)
        except CorruptContainer:
            _remove(path)
            return None
        with contextlib.suppress(OSError):  # a read-only folder can still be read
            os.utime(path)
        return data

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in _scan(self.directory):
            if folder.is_dir(follow_symlinks=False) and len(folder.name) == 2:
                for entry in _scan(Path(folder.path)):
                    with contextlib.suppress(OSError):  # another process removed it
                        yield Path(entry.path), entry.stat(follow_symlinks=False)

    def _usable(self) -> bool:
        if not self._checked:
            self._checked = True
            if self.limit == 0:
                self._broken = "is turned off"  # on request, so without a warning
            else:
                try:
                    self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    problem = _unsafe(self.directory.stat())
                except OSError as error:
                    problem = f"cannot be made: {error.strerror or error}"
                if problem is not None:
                    self._give_up(problem)
        return self._broken is None

    def _give_up(self, problem: str) -> None:
        if self._broken is None:
            self._broken = problem
            warnings.warn(
                f"torchport's kernel cache {self.directory} {problem}; kernels are kept in memory and compiled again "
                "by the next process. Point TORCHPORT_CACHE_DIR at a folder that only you can write.",
                RuntimeWarning,
                stacklevel=3,
            )


def _unsafe(status: os.stat_result) -> str | None:
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return "belongs to another user, who could put code there for you to run"
    if status.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o}), who could put code there"
    return None


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


_caches: dict[tuple[Path, int], ObjectCache] = {}


def object_cache() -> ObjectCache:
    """The cache that TORCHPORT_CACHE_DIR and TORCHPORT_CACHE_SIZE select."""
    settings = config()
    key = settings.cache_dir, settings.cache_size
    if key not in _caches:
        _caches[key] = ObjectCache(*key)
    return _caches[key]
