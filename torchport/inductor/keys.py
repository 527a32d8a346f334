"""The keys of the installed Triton and torch, parts of Inductor's cache keys, known without reading them again.

Triton's key is a hash of its files, half a gigabyte, which each process computes anew: half a second of a warm start.
It is kept in the folder of compiled kernels, beside the sizes and times of these files. Where it is not there yet, a
child computes it while Dynamo traces.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchport.config import config
from torchport.errors import ArtifactError
from torchport.files import read_json, write_whole
from torchport.inductor.compat import codecache, triton_compat
from torchport.phases import Phase, phase
from torchport.runtime import ranks
from torchport.runtime.cache_folder import fault_of

__all__ = ["begin", "know_torch", "know_triton"]

_File = tuple[str, os.stat_result]


@dataclass(frozen=True)
class _Known:
    """``files``: a digest of names, sizes and times. ``key``: the package's key of files with these."""

    files: str
    key: str


_child: tuple[int, int] | None = None
"""The process that started the one that computes Triton's key, and that."""


def begin() -> None:
    """Have both keys computed by a child, if Triton's is not kept yet and there is a second processor."""
    global _child
    path = _path("triton")
    if path is None or path.exists() or _child is not None or not triton_compat.HAS_TRITON:
        return
    if not (config().compile_ahead and ranks.spare_processor()) or ranks.has_group():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where there are other threads
        pid = os.fork()
    if pid == 0:
        try:
            _kept("torch", _torch, _torch_key)
            _kept("triton", _triton, triton_compat.triton_key)
        finally:
            os._exit(0)
    _child = os.getpid(), pid


def _wait() -> None:
    """Wait for the child."""
    global _child
    child, _child = _child, None
    if child is not None and child[0] == os.getpid():
        with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
            os.waitpid(child[1], 0)


@functools.cache
def know_triton() -> None:
    """Tell torch the key of the installed Triton, or have it computed and kept for the next process."""
    if triton_compat.HAS_TRITON:
        with phase(Phase.KEYS, "triton"):
            _wait()
            key = _kept("triton", _triton, triton_compat.triton_key)
            if key is not None:
                from torchport.triton.compat import triton_cache

                # Inductor's name for it, and Triton's own: each process that compiles a kernel would compute it again.
                triton_compat.triton_key = triton_cache.triton_key = lambda: key


@functools.cache
def know_torch() -> None:
    """The same of torch's own key: a hash of its modules, 0.15 seconds of each process."""
    with phase(Phase.KEYS, "torch"):
        _wait()
        key = _kept("torch", _torch, _torch_key)
        if key is not None:
            # Torch may have it already, as another backend has compiled before. It says so by a RuntimeError, or an
            # AssertionError until 2.12.
            with contextlib.suppress(RuntimeError, AssertionError):
                codecache.torch_key.set(bytes.fromhex(key))


def _torch_key() -> str:
    return str(codecache.torch_key().hex())


def _kept(package: str, files_of: Callable[[Sequence[str]], Iterator[_File]], compute: Callable[[], str]) -> str | None:
    """The key that was kept for the files of ``package``; None if there was none. It is kept now, then."""
    path, files = _path(package), _digest(package, files_of)
    if path is None or files is None:
        return None
    known = _read(path)
    if known is not None and known.files == files:
        return known.key
    with contextlib.suppress(OSError):  # a full disk: the next process computes the key, too
        write_whole(path, json.dumps({"files": files, "key": compute()}).encode())
    return None


def _path(package: str) -> Path | None:
    """Where a package's key is kept; None where nothing may be, or the folder is one that others can write."""
    folder = config().cache_dir
    if folder is None or not config().cache_size:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return None if fault_of(folder.stat()) else folder / f"{package}-key.json"
    except OSError:
        return None  # a place that cannot be written


def _read(path: Path) -> _Known | None:
    try:
        return read_json(path, _Known)
    except ArtifactError:
        return None  # not there, or damaged


def _digest(package: str, files_of: Callable[[Sequence[str]], Iterator[_File]]) -> str | None:
    """A digest of what changes where one of the files does that a package's key is made of; None if it is absent."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    digest = hashlib.sha256()
    for name, status in sorted(files_of(spec.submodule_search_locations)):
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(f"{name}\0{times}\0".encode())
    return digest.hexdigest()


def _triton(folders: Sequence[str]) -> Iterator[_File]:
    for folder in folders:
        yield from _below(folder, (".py", ".so", ".pyd"))


def _torch(folders: Sequence[str]) -> Iterator[_File]:
    """Its packages' modules, and what else is among Inductor's sources."""
    for folder in folders:
        yield from _below(folder, (".py", ".so", ".pyd"), packages=True)
        yield from _below(os.path.join(folder, "_inductor"), (".cpp", ".h", ".ld"))


def _below(folder: str, endings: tuple[str, ...], *, packages: bool = False) -> Iterator[_File]:
    """The files below a folder whose names end so. ``packages``: only those in packages, as Python finds them."""
    with os.scandir(folder) as entries:
        found = list(entries)
    if packages and not any(entry.name == "__init__.py" for entry in found):
        return
    for entry in found:
        if entry.is_dir():
            yield from _below(entry.path, endings, packages=packages)
        elif entry.name.endswith(endings):
            yield entry.path, entry.stat()
