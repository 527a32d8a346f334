"""Kernels with block sizes that gave wrong results on a target, in a file that every process reads.

An entry holds for one target and the versions of what compiles and runs kernels there: with others it says nothing. A
kernel is known by its Triton source without its name, a configuration by its block sizes and SIMD groups.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchport.config import config
from torchport.errors import TargetError
from torchport.files import write_whole
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["SCHEMA", "Entry", "active", "add", "clear", "configuration", "digest", "entries", "identity", "versions"]

SCHEMA = "torchport.quarantine/1"

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Entry:
    """A kernel and a configuration to avoid on a target.

    ``kernel``: what ``identity`` gives; ``config``: what ``configuration`` gives; ``versions``: of compiler and driver,
    for which it holds; ``name``: what the kernel was called; ``since``: when it was added, ISO 8601.
    """

    target: str
    kernel: str
    config: str
    reason: str
    versions: str
    name: str = ""
    since: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two entries cannot both have."""
        return self.target, self.kernel, self.config, self.versions


def identity(source: str, function: str) -> str:
    """A hash of the Triton function called ``function`` in ``source``: its arguments and body, not its name.

    Sizes that Inductor wrote into the body are part of it, block sizes are not, as those are arguments.
    """
    start = source.find(f"def {function}(")
    text = source[max(start, 0) :].replace(function, "kernel")
    lines = [line.rstrip() for line in text.splitlines()]
    return hashlib.sha256("\n".join(line for line in lines if line and line[0] != "#").encode()).hexdigest()[:16]


def configuration(blocks: Mapping[str, int]) -> str:
    """Block sizes and SIMD groups in one order: ``XBLOCK=1024 num_warps=1``."""
    return " ".join(f"{name}={size}" for name, size in sorted(blocks.items()) if name != "num_stages")


def versions(target: Target) -> str:
    """A hash of what compiles for ``target`` here and what runs it. Raises TargetError where nothing compiles."""
    backend = backend_for(target)
    parts = [backend.compiler(target).fingerprint()]
    with contextlib.suppress(TargetError):
        parts.append(str(getattr(backend.driver(target), "version", "")))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def entries() -> tuple[Entry, ...]:
    """All of them, of every target and version. A file that is damaged is put aside with a warning, and empty."""
    return _read(config().quarantine)


def active(target: Target) -> dict[tuple[str, str], Entry]:
    """What is to be avoided on ``target`` now, by kernel and configuration."""
    mine = [entry for entry in entries() if entry.target == str(target)]
    if not mine:
        return {}
    now = versions(target)
    return {(entry.kernel, entry.config): entry for entry in mine if entry.versions == now}


def digest(target: Target) -> str:
    """A string that changes whenever ``active(target)`` does; empty where that is. Part of cache keys."""
    found = sorted(active(target))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""


def add(target: Target, kernel: str, config_: str, reason: str, *, name: str = "") -> Entry:
    """Avoid a kernel with a configuration on ``target``, in every process of this user's, from the next compilation on.

    Raises TargetError where nothing compiles for ``target``, OSError where the file cannot be written.
    """
    since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    entry = Entry(str(target), kernel, config_, reason, versions(target), name, since)
    with _locked() as path:
        others = [one for one in _read(path) if one.key != entry.key]
        _write(path, [*others, entry])
    return entry


def clear(target: Target | None = None, *, expired: bool = False) -> int:
    """Forget entries: all, or those of one target, or (``expired``) what other versions left. Returns how many."""
    with _locked() as path:
        found = _read(path)
        kept = [one for one in found if (target is not None and one.target != str(target)) or (expired and _holds(one))]
        if len(kept) < len(found):
            _write(path, kept)
    return len(found) - len(kept)


def _holds(entry: Entry) -> bool:
    """Whether an entry is in force, as far as this machine can say."""
    try:
        return entry.versions == versions(Target.parse(entry.target))
    except TargetError:
        return True  # its target is of another machine


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """The file's path, with other writers kept out."""
    path = config().quarantine
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":  # the last of two writers at the same moment wins
        yield path
        return
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing gives it back, and so does the end of the process
        yield path


_last: tuple[Path, tuple[int, int, int], tuple[Entry, ...]] | None = None


def _read(path: Path) -> tuple[Entry, ...]:
    global _last
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if _last is not None and _last[:2] == (path, stamp):
            return _last[2]
        text = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}, not {SCHEMA!r}")
        found = tuple(Entry(**entry) for entry in content["entries"])
    except (ValueError, TypeError, LookupError) as error:
        aside = path.with_name(f"{path.name}.damaged-{os.getpid()}")
        with contextlib.suppress(OSError):
            path.replace(aside)
        warnings.warn(
            f"torchport's list of kernels to avoid, {path}, cannot be read ({error}); it is kept as {aside.name}, "
            "and no kernel is avoided",
            RuntimeWarning,
            stacklevel=3,
        )
        return ()
    _last = path, stamp, found
    return found


def _write(path: Path, found: list[Entry]) -> None:
    content: dict[str, Any] = {"schema": SCHEMA, "entries": [asdict(entry) for entry in found]}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
