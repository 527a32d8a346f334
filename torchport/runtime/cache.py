"""Compiled kernels on disk, shared by all processes of one user.

The key of a kernel is a hash of its TTIR without source locations, its options, and the target's fingerprint. Triton's
own cache comes first; its key is the kernel's Python source and the fingerprint. On a miss there (the same kernel in
another file, a cleared or disabled Triton cache) Triton's frontend runs, and the object is found here before anything
is lowered. ``torchport.runtime.cache_folder`` has the files.

The folder holds code that will be run: it must belong to this user and be writable by nobody else. If it is not, or if
there is none, kernels are kept in the memory of the process. If the disk is full or read-only, what is there is read,
and new kernels are kept in memory. One warning says so.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torchport.config import config
from torchport.runtime.cache_folder import CacheFolder, fault_of

__all__ = ["CacheInfo", "ObjectCache", "object_cache"]

_PATIENCE = 120.0  # seconds after which a process that makes a kernel is taken to be stopped
_KEY = re.compile(r"[0-9a-f]{16,128}")


@dataclass(frozen=True)
class CacheInfo:
    """The state of the cache.

    directory: its folder; None if there is none.
    entries: kernels on disk.
    size: bytes on disk.
    limit: bytes allowed on disk.
    writable: whether kernels are stored in the folder.
    hits: kernels that this process found.
    misses: kernels that this process did not find.
    writes: kernels that this process stored.
    """

    directory: Path | None
    entries: int
    size: int
    limit: int
    hits: int
    misses: int
    writes: int
    writable: bool


@dataclass
class ObjectCache:
    """Containers by key in the folder ``directory``, at most ``limit`` bytes; in memory only if either is nothing."""

    directory: Path | None
    limit: int
    _memory: dict[str, bytes] = field(default_factory=dict)
    _folder: CacheFolder | None = None
    _checked: bool = False
    _writes_refused: bool = False
    _warned: bool = False
    _hits: int = 0
    _misses: int = 0
    _writes: int = 0

    def get(self, key: str) -> bytes | None:
        """The container that was put under ``key``, or None."""
        folder = self._folder_for(key)
        data = self._memory.get(key)
        if data is None and folder is not None:
            data = folder.read(key)
        if data is None:
            self._misses += 1
        else:
            self._hits += 1
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store a container under ``key``. Never fails: if the disk cannot take it, it stays in memory."""
        folder = self._folder_for(key)
        if folder is not None and not self._writes_refused:
            try:
                folder.write(key, data)
            except IsADirectoryError:
                pass  # something is in this entry's place; others can be written
            except OSError as error:
                self._writes_refused = True
                self._warn(f"cannot be written: {error.strerror or error}")
            else:
                self._writes += 1
                return
        self._memory[key] = data

    def keep(self, key: str, data: bytes) -> None:
        """Store a container under ``key``, unless another process has stored it."""
        folder = self._folder_for(key)
        if folder is None or not folder.file(key).exists():
            self.put(key, data)

    def made_once(self, key: str, make: Callable[[], bytes], *, wait: bool = True) -> bytes | None:
        """The container under ``key``; if there is none, ``make`` makes it, in one of the processes that want it.

        The others wait. Without ``wait``, None if another process is making it. Raises what ``make`` raises.
        """
        folder = self._folder_for(key)
        if folder is None or self._writes_refused:
            self.put(key, made := make())
            return made
        with folder.making(key, _PATIENCE if wait else 0.0) as mine:
            if not mine and not wait:
                return None
            data = folder.read(key)
            if data is None:
                self.put(key, data := make())
            return data

    @property
    def writes(self) -> int:
        """How many kernels this process stored."""
        return self._writes

    def sweep(self) -> None:
        """Remove files left by killed writers and, oldest first, entries beyond the limit."""
        folder = self._usable()
        if folder is not None:
            folder.sweep()

    def info(self) -> CacheInfo:
        """The state of the folder and the counts of this process."""
        folder = self._usable()
        sizes = folder.sizes() if folder is not None else []
        writable = folder is not None and not self._writes_refused
        return CacheInfo(
            self.directory, len(sizes), sum(sizes), self.limit, self._hits, self._misses, self._writes, writable
        )

    def keys(self) -> list[str]:
        """The keys of all entries."""
        folder = self._usable()
        return [*self._memory, *(folder.keys() if folder is not None else ())]

    def clear(self) -> int:
        """Remove every entry, in memory and on disk; returns the number of files removed."""
        self._memory.clear()
        folder = self._usable()
        return folder.clear() if folder is not None else 0

    def _folder_for(self, key: str) -> CacheFolder | None:
        """The folder if it can be trusted with ``key``. Raises ValueError for what is no key."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"a cache key is 16 to 128 hexadecimal digits, not {key!r}")
        folder = self._usable()
        fault = folder.fault(key) if folder is not None else None
        if fault is not None:
            self._warn(fault)
            return None
        return folder

    def _usable(self) -> CacheFolder | None:
        if not self._checked:
            self._checked = True
            if self.directory is None:
                self._warn("has no place: there is no home folder")
            elif self.limit > 0:  # 0 turns it off on request, so without a warning
                try:
                    self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    problem = fault_of(self.directory.stat())
                except OSError as error:
                    problem = f"cannot be made: {error.strerror or error}"
                if problem is None:
                    self._folder = CacheFolder(self.directory, self.limit)
                else:
                    self._warn(problem)
        return self._folder

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            where = "" if self.directory is None else f" {self.directory}"
            warnings.warn(
                f"torchport's kernel cache{where} {problem}; new kernels are kept in memory and compiled again by the "
                "next process. Point TORCHPORT_CACHE_DIR at a folder that only you can write.",
                RuntimeWarning,
                stacklevel=4,
            )


_caches: dict[tuple[Path | None, int], ObjectCache] = {}


def object_cache() -> ObjectCache:
    """The cache that TORCHPORT_CACHE_DIR and TORCHPORT_CACHE_SIZE select."""
    settings = config()
    key = settings.cache_dir, settings.cache_size
    if key not in _caches:
        _caches[key] = ObjectCache(*key)
    return _caches[key]
