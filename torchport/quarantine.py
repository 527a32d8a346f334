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
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from torchport.config import config
from torchport.errors import ArtifactError, OptionError, TargetError
from torchport.files import read_json, write_whole
from torchport.locks import locked
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["SCHEMA", "Entry", "active", "add", "clear", "configuration", "digest", "entries", "identity", "versions"]

SCHEMA = "torchport.quarantine/1"

_MOST_BYTES = 16 * 2**20  # of the file: 40,000 entries
_CONFIGURATION = re.compile(r"(?:\w{1,64}=\d{1,10}(?: (?=\w)|$))*")


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
    config: Annotated[str, _CONFIGURATION]
    reason: str
    versions: str
    name: str = ""
    since: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies an entry."""
        return self.target, self.kernel, self.config, self.versions


@dataclass(frozen=True)
class _File:
    schema: Literal["torchport.quarantine/1"]
    entries: tuple[Entry, ...]


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
    """All entries, of all targets and versions.

    What is not such a file counts as empty, and is renamed with a warning, if it can be.
    """
    path = config().quarantine
    return () if path is None else _read(path)


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

    Raises TargetError if nothing compiles for ``target``, OSError if the file cannot be written, OptionError if there
    is no folder for it.
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
    if path is None:
        raise OptionError(
            "there is no home folder for the list of kernels to avoid; set TORCHPORT_QUARANTINE to a file"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path.with_name(path.name + ".lock")):
        yield path


_last: tuple[Path, tuple[int, ...], tuple[Entry, ...]] | None = None


def _read(path: Path) -> tuple[Entry, ...]:
    global _last
    stamp: tuple[int, ...] = ()
    found: tuple[Entry, ...] = ()
    try:
        status = path.stat()
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        if _last is not None and _last[:2] == (path, stamp):
            return _last[2]
        if status.st_size > _MOST_BYTES:
            raise ArtifactError(f"{path} has {status.st_size} bytes, more than {_MOST_BYTES}")
        found = read_json(path, _File).entries
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ArtifactError) as error:
        if _last is None or _last[:2] != (path, stamp):
            _put_aside(path, error)
    _last = path, stamp, found
    return found


def _put_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.damaged-{os.getpid()}")
    try:
        path.replace(aside)
        remedy = f"it is kept as {aside.name}"
    except OSError:
        remedy = "it cannot be renamed; remove it, or set TORCHPORT_QUARANTINE to another file"
    warnings.warn(
        f"torchport's list of kernels to avoid cannot be read, and no kernel is avoided: {error}; {remedy}",
        RuntimeWarning,
        stacklevel=5,
    )


def _write(path: Path, entries_: list[Entry]) -> None:
    content: dict[str, Any] = {"schema": SCHEMA, "entries": [asdict(entry) for entry in entries_]}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
