"""The list of kernels and block sizes that gave wrong results on a target, in a file that all processes share.

An entry is valid for one target and one version of its compiler and driver. A kernel is identified by its Triton source
without its name, a configuration by its block sizes and SIMD groups.
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

    target: the target's text form.
    kernel: the kernel's ``identity``.
    config: the ``configuration`` to avoid.
    reason: what was wrong.
    versions: the versions of compiler and driver for which the entry is valid.
    name: the kernel's name.
    since: when the entry was added, ISO 8601.
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
        """What identifies an entry."""
        return self.target, self.kernel, self.config, self.versions


def identity(source: str, function: str) -> str:
    """A hash of the Triton function called ``function`` in ``source``: its arguments and body, not its name.

    Sizes that Inductor wrote into the body count; block sizes do not, as they are arguments.
    """
    start = source.find(f"def {function}(")
    text = source[max(start, 0) :].replace(function, "kernel")
    lines = [line.rstrip() for line in text.splitlines()]
    return hashlib.sha256("\n".join(line for line in lines if line and line[0] != "#").encode()).hexdigest()[:16]


def configuration(blocks: Mapping[str, int]) -> str:
    """Block sizes and SIMD groups in a fixed order: ``XBLOCK=1024 num_warps=1``."""
    return " ".join(f"{name}={size}" for name, size in sorted(blocks.items()) if name != "num_stages")


def versions(target: Target) -> str:
    """A hash of the versions of a target's compiler and driver. Raises TargetError if nothing compiles for it."""
    backend = backend_for(target)
    parts = [backend.compiler(target).fingerprint()]
    with contextlib.suppress(TargetError):
        parts.append(str(getattr(backend.driver(target), "version", "")))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def entries() -> tuple[Entry, ...]:
    """All entries, of all targets and versions. A damaged file is renamed with a warning and counts as empty."""
    return _read(config().quarantine)


def active(target: Target) -> dict[tuple[str, str], Entry]:
    """The entries in force on ``target``, by kernel and configuration."""
    mine = [entry for entry in entries() if entry.target == str(target)]
    if not mine:
        return {}
    now = versions(target)
    return {(entry.kernel, entry.config): entry for entry in mine if entry.versions == now}


def digest(target: Target) -> str:
    """A string that changes whenever ``active(target)`` does, empty if that is. Part of cache keys."""
    keys = sorted(active(target))
    return hashlib.sha256(repr(keys).encode()).hexdigest()[:16] if keys else ""


def add(target: Target, kernel: str, config_: str, reason: str, *, name: str = "") -> Entry:
    """Avoid a kernel's configuration on ``target`` from the next compilation on, in all processes of this user.

    Raises TargetError if nothing compiles for ``target``, OSError if the file cannot be written.
    """
    since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    entry = Entry(str(target), kernel, config_, reason, versions(target), name, since)
    with _locked() as path:
        others = [other for other in _read(path) if other.key != entry.key]
        _write(path, [*others, entry])
    return entry


def clear(target: Target | None = None, *, expired: bool = False) -> int:
    """Remove entries: all, those of one target, or (``expired``) those of other versions. Returns how many."""
    with _locked() as path:
        before = _read(path)
        after = [
            entry
            for entry in before
            if (target is not None and entry.target != str(target)) or (expired and _in_force(entry))
        ]
        if len(after) < len(before):
            _write(path, after)
    return len(before) - len(after)


def _in_force(entry: Entry) -> bool:
    """Whether an entry is in force, as far as this machine can tell."""
    try:
        return entry.versions == versions(Target.parse(entry.target))
    except TargetError:
        return True  # its target is of another machine


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """Lock the file against other writers; returns its path."""
    path = config().quarantine
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":  # the last of two writers at the same moment wins
        yield path
        return
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released on close, and at the end of the process
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
        loaded = tuple(Entry(**entry) for entry in content["entries"])
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
    _last = path, stamp, loaded
    return loaded


def _write(path: Path, entries_: list[Entry]) -> None:
    content: dict[str, Any] = {"schema": SCHEMA, "entries": [asdict(entry) for entry in entries_]}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
