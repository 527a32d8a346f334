"""Every environment variable torchport reads, typed, in one frozen object."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
"""TORCHPORT_DEBUG from which IR is written into the dump folder (and no cache is asked)."""

SANITIZER_CHECKS = ("address", "extent", "uninitialized", "race")
"""What the kernel sanitizer can look for (docs/sanitizer.md)."""

DEVICE_CHECKS = ("version", "sample", "all")
"""How much of a tensor is looked at to find whether its copy on a device is still good (torchport.runtime.devices)."""

VALIDATE = ("off", "stats", "full")
"""What is recorded of graphs that are compiled (docs/numerics.md)."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _level(text: str) -> int:
    if text not in ("0", "1", "2", "3", "4", "5"):
        raise ValueError("one of 0, 1, 2, 3, 4, 5")
    return int(text)


def parse_size(text: str) -> int:
    """A number of bytes, with a unit or without. Raises ValueError, saying what is valid."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a number of bytes, or one with a unit: 500M, 2G; 0 keeps nothing on disk")
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_checks(text: str) -> tuple[str, ...]:
    """Names of checks between commas, in a fixed order. Raises ValueError, saying what is valid."""
    names = {name.strip() for name in text.split(",")}
    if not names <= set(SANITIZER_CHECKS):
        raise ValueError(f"one or more of {', '.join(SANITIZER_CHECKS)}, with commas between them")
    return tuple(name for name in SANITIZER_CHECKS if name in names)


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _user_cache_dir() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(home) / "torchport"


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _validate(text: str) -> str:
    if text not in VALIDATE:
        raise ValueError(f"one of {', '.join(VALIDATE)}")
    return text


def _device_check(text: str) -> str:
    if text not in DEVICE_CHECKS:
        raise ValueError(f"one of {', '.join(DEVICE_CHECKS)}")
    return text


@dataclass(frozen=True)
class Variable:
    """One environment variable: where it lands in Config, how it is read, what it means."""

    name: str
    field: str
    parse: Callable[[str], Any]
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "TORCHPORT_DEBUG",
        "debug",
        _level,
        "0 silent; 1 what was compiled, fallbacks and reasons; 2 and the time of each stage; 3 and TTIR and LLVM IR of "
        "each kernel into the dump folder; 4 and the IR after every pass; 5 and the assembly",
    ),
    Variable("TORCHPORT_CACHE_DIR", "cache_dir", _path, "folder of compiled kernels"),
    Variable("TORCHPORT_CACHE_SIZE", "cache_size", parse_size, "bytes the folder of compiled kernels may take"),
    Variable("TORCHPORT_DUMP_DIR", "dump_dir", _path, "folder that TORCHPORT_DEBUG=3 and above writes IR into"),
    Variable(
        "TORCHPORT_COMPILE_AHEAD",
        "compile_ahead",
        _switch,
        "1 (default) compiles kernels in a second process while a graph's code is generated; 0 in one process",
    ),
    Variable("TORCHPORT_QUARANTINE", "quarantine", _path, "file of kernels to avoid (docs/quarantine.md)"),
    Variable("TORCHPORT_TARGET", "target", Target.parse, "target of torch.compile calls that name none"),
    Variable(
        "TORCHPORT_SANITIZE",
        "sanitize",
        parse_checks,
        f"checks of CPU kernels, with commas between them: {', '.join(SANITIZER_CHECKS)}",
    ),
    Variable(
        "TORCHPORT_DEVICE_CHECK",
        "device_check",
        _device_check,
        "how changes of a tensor that a device has a copy of are found: version (its version counter), sample "
        "(default; and 64 of its words), all (and a checksum of all of it)",
    ),
    Variable("TORCHPORT_VALIDATE", "validate", _validate, "the option validate of torch.compile calls that give none"),
    Variable(
        "TORCHPORT_RECORD_DIR", "record_dir", _path, "folder that graphs with the option validate are recorded in"
    ),
)


@dataclass(frozen=True)
class Config:
    """What the environment says. Sizes in bytes."""

    debug: int
    cache_dir: Path
    cache_size: int
    dump_dir: Path
    compile_ahead: bool
    quarantine: Path
    target: Target
    sanitize: tuple[str, ...]
    device_check: str
    validate: str
    record_dir: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read ``environment``; an empty value counts as not set.

        Raises OptionError for a value that is not valid, saying what is.
        """
        values: dict[str, Any] = {
            "debug": 0,
            "cache_dir": _user_cache_dir(),
            "cache_size": 2**30,
            "dump_dir": Path.cwd() / "torchport_dump",
            "compile_ahead": True,
            "quarantine": None,
            "target": Target("cpu"),
            "sanitize": (),
            "device_check": "sample",
            "validate": "off",
            "record_dir": None,
        }
        for variable in VARIABLES:
            text = environment.get(variable.name, "")
            if not text:
                continue
            try:
                values[variable.field] = variable.parse(text)
            except ValueError as error:
                raise OptionError(f"{variable.name}={text!r} is not valid; expected {error}") from error
        values["quarantine"] = values["quarantine"] or values["cache_dir"] / "quarantine.json"
        return cls(**values)


_current: tuple[tuple[str | None, ...], Config] | None = None


def config() -> Config:
    """The configuration of this process; read again whenever one of the variables has changed."""
    global _current
    raw = tuple(os.environ.get(v.name) for v in VARIABLES) + (os.environ.get("XDG_CACHE_HOME"),)
    if _current is None or _current[0] != raw:
        _current = raw, Config.from_environment(os.environ)
    return _current[1]
