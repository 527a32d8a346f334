"""Every environment variable that torchport reads, typed, in one frozen object."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torchport.errors import OptionError
from torchport.target import Target

__all__ = [
    "DEVICE_CHECKS",
    "DUMP_LEVEL",
    "SANITIZER_CHECKS",
    "VALIDATE",
    "VARIABLES",
    "Config",
    "Variable",
    "config",
    "parse_checks",
    "parse_size",
]

DUMP_LEVEL = 3
"""The TORCHPORT_DEBUG level from which IR is written to the dump folder and caches are not read."""

_VERIFY_LEVEL = 4

SANITIZER_CHECKS = ("address", "extent", "uninitialized", "race")
"""The checks of the kernel sanitizer (docs/sanitizer.md)."""

DEVICE_CHECKS = ("version", "sample", "all")
"""How much of a tensor is compared to find whether its copy on a device is still valid (torchport.runtime.devices)."""

DEVICE_FALLBACKS = ("host", "error")
"""Where operators run that the device of their tensors has no kernel for (torchport.torch_device)."""

VALIDATE = ("off", "stats", "full")
"""How much is recorded of compiled graphs (docs/numerics/recording.md)."""

_HOMES = ("XDG_CACHE_HOME", "HOME")  # read by _user_cache_dir

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _level(text: str) -> int:
    if text not in ("0", "1", "2", "3", "4", "5"):
        raise ValueError("one of 0, 1, 2, 3, 4, 5")
    return int(text)


def parse_size(text: str) -> int:
    """Read a number of bytes, with or without a unit. Raises ValueError, saying what is valid."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a number of bytes, or one with a unit: 500M, 2G; 0 keeps nothing on disk")
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_checks(text: str) -> tuple[str, ...]:
    """Read comma-separated names of checks; returns them in a fixed order. Raises ValueError, saying what is valid."""
    names = {name.strip() for name in text.split(",")}
    if not names <= set(SANITIZER_CHECKS):
        raise ValueError(f"one or more of {', '.join(SANITIZER_CHECKS)}, with commas between them")
    return tuple(name for name in SANITIZER_CHECKS if name in names)


def _path(text: str) -> Path:
    try:
        return _absolute(Path(text).expanduser())
    except RuntimeError as error:
        raise ValueError("a path without ~: there is no home folder") from error


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except FileNotFoundError:  # the working directory was removed; using the path will say so
        return path


def _user_cache_dir() -> Path | None:
    """The folder of compiled kernels; None if this user has no home folder, as in a container."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return _absolute(Path(home).expanduser()) / "torchport"
    except RuntimeError:
        return None


def _has_cursor() -> bool:
    return os.environ.get("TERM") != "dumb"


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return text

    return parse


def _variable(name: str, parse: Callable[[str], Any], meaning: str) -> dict[str, Any]:
    return {"name": name, "parse": parse, "meaning": meaning}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a process, read from the environment. Sizes are in bytes."""

    debug: int = field(
        default=0,
        metadata=_variable(
            "TORCHPORT_DEBUG",
            _level,
            "0 prints nothing; 1 prints what was compiled and each fallback with its reason; 2 adds the time of each "
            "stage, and of each compilation by phase; 3 writes each kernel's TTIR and LLVM IR to the dump folder; 4 "
            "adds the IR after every pass and checks it against the declared dialects; 5 adds assembly",
        ),
    )
    cache_dir: Path | None = field(
        default_factory=_user_cache_dir,
        metadata=_variable("TORCHPORT_CACHE_DIR", _path, "folder of compiled kernels"),
    )
    cache_size: int = field(
        default=2**30,
        metadata=_variable("TORCHPORT_CACHE_SIZE", parse_size, "limit on the size of the folder of compiled kernels"),
    )
    dump_dir: Path = field(
        default_factory=lambda: _absolute(Path("torchport_dump")),
        metadata=_variable("TORCHPORT_DUMP_DIR", _path, "folder for the IR that TORCHPORT_DEBUG=3 and above writes"),
    )
    compile_ahead: bool = field(
        default=True,
        metadata=_variable(
            "TORCHPORT_COMPILE_AHEAD",
            _switch,
            "1 (default) compiles kernels in a second process while a graph's code is generated; 0 uses one process",
        ),
    )
    quarantine: Path | None = field(
        metadata=_variable(
            "TORCHPORT_QUARANTINE",
            _path,
            "file of kernels to avoid (docs/quarantine.md); by default in the folder of compiled kernels",
        ),
    )
    progress: bool = field(
        default_factory=_has_cursor,
        metadata=_variable(
            "TORCHPORT_PROGRESS",
            _switch,
            "1 (default) shows what is being compiled in a line on the terminal, if standard error is one; 0 does not",
        ),
    )
    target: Target = field(
        default=Target("cpu"),
        metadata=_variable("TORCHPORT_TARGET", Target.parse, "target of torch.compile calls that name none"),
    )
    sanitize: tuple[str, ...] = field(
        default=(),
        metadata=_variable(
            "TORCHPORT_SANITIZE",
            parse_checks,
            f"comma-separated checks of CPU kernels: {', '.join(SANITIZER_CHECKS)}",
        ),
    )
    device_check: str = field(
        default="sample",
        metadata=_variable(
            "TORCHPORT_DEVICE_CHECK",
            _one_of(DEVICE_CHECKS),
            "how a change to a tensor that has a copy on a device is detected: version (its version counter), sample "
            "(default; adds 64 of its words, and copies what the host may have changed in a process group), all (adds "
            "a checksum of the whole tensor)",
        ),
    )
    device: bool = field(
        default=False,
        metadata=_variable(
            "TORCHPORT_DEVICE",
            _switch,
            "1 makes the torch device torchport known when PyTorch is imported; 0 (default) when torchport.device() is "
            "called",
        ),
    )
    device_fallback: str = field(
        default="host",
        metadata=_variable(
            "TORCHPORT_DEVICE_FALLBACK",
            _one_of(DEVICE_FALLBACKS),
            "what an operator does that a device has no kernel for: host (default; it runs on the CPU and is counted) "
            "or error",
        ),
    )
    validate: str = field(
        default="off",
        metadata=_variable(
            "TORCHPORT_VALIDATE", _one_of(VALIDATE), "option validate of torch.compile calls that do not set it"
        ),
    )
    record_dir: Path | None = field(
        default=None,
        metadata=_variable("TORCHPORT_RECORD_DIR", _path, "folder for recordings of graphs with the option validate"),
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read ``environment``; an empty value counts as not set.

        Raises OptionError for an invalid value, naming the variable and what is valid.
        """
        values: dict[str, Any] = {}
        for variable in VARIABLES:
            text = environment.get(variable.name, "")
            if not text:
                continue
            try:
                values[variable.field] = variable.parse(text)
            except ValueError as error:
                raise OptionError(f"{variable.name}={text!r} is not valid; expected {error}") from error
        folder = values.setdefault("cache_dir", _user_cache_dir())
        values.setdefault("quarantine", folder / "quarantine.json" if folder is not None else None)
        return cls(**values)

    @property
    def dumps_to(self) -> Path | None:
        """Folder for the IR of kernels, None where none is written."""
        return self.dump_dir if self.debug >= DUMP_LEVEL else None

    @property
    def verifies(self) -> bool:
        """Whether IR is checked against the declarations of ``tt`` and ``tp`` after each pass."""
        return self.debug >= _VERIFY_LEVEL


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    name: the variable's name.
    field: the field of Config that it sets.
    parse: reads its text; raises ValueError, saying what is valid.
    meaning: what it sets, for help texts.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    meaning: str


VARIABLES = tuple(Variable(field=setting.name, **setting.metadata) for setting in fields(Config))


_current: tuple[tuple[str | None, ...], Config] | None = None


def config() -> Config:
    """The configuration of this process, read again after a change of the variables."""
    global _current
    raw = tuple(os.environ.get(v.name) for v in VARIABLES) + tuple(map(os.environ.get, _HOMES))
    if _current is None or _current[0] != raw:
        _current = raw, Config.from_environment(os.environ)
    return _current[1]
