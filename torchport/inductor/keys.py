"""The key of the installed Triton, which is part of Inductor's cache keys, known without reading Triton again.

Triton's key is a hash of its files, half a gigabyte, which each process computes anew: half a second of a warm start.
It is kept in the folder of compiled kernels, beside the sizes and times of these files.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchport.config import config
from torchport.errors import ArtifactError
from torchport.files import read_json, write_whole
from torchport.inductor.compat import triton_compat
from torchport.phases import Phase, phase
from torchport.runtime.cache_folder import fault_of

__all__ = ["know_triton"]

_FILE = "triton-key.json"


@dataclass(frozen=True)
class _Known:
    """``files``: a digest of names, sizes and times. ``key``: Triton's key of files with these."""

    files: str
    key: str


@functools.cache
def know_triton() -> None:
    """Tell torch the key of the installed Triton, or have it computed and kept for the next process."""
    if not triton_compat.HAS_TRITON:
        return
    with phase(Phase.KEYS, "triton"):
        path, files = _path(), _files()
        if path is None or files is None:
            return
        known = _read(path)
        if known is not None and known.files == files:
            key = known.key
            triton_compat.triton_key = lambda: key
            return
        key = triton_compat.triton_key()
        with contextlib.suppress(OSError):  # a full disk: the next process computes the key, too
            write_whole(path, json.dumps({"files": files, "key": key}).encode())


def _path() -> Path | None:
    """Where the key is kept; None where nothing may be, or the folder is one that others can write."""
    folder = config().cache_dir
    if folder is None or not config().cache_size:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return None if fault_of(folder.stat()) else folder / _FILE
    except OSError:
        return None  # a place that cannot be written


def _read(path: Path) -> _Known | None:
    try:
        return read_json(path, _Known)
    except ArtifactError:
        return None  # not there, or damaged


def _files() -> str | None:
    """A digest of what changes where one of Triton's files does; None without Triton."""
    spec = importlib.util.find_spec("triton")
    if spec is None or not spec.submodule_search_locations:
        return None
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations:
        for name, status in sorted(_below(folder)):
            times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            digest.update(f"{name}\0{times}\0".encode())
    return digest.hexdigest()


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """The Python files and libraries below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _below(entry.path)
            elif entry.name.endswith((".py", ".so", ".pyd")):
                yield entry.path, entry.stat()
