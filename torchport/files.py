"""Files that may be damaged, or come from strangers: atomic writes, and one reader for all that is JSON."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from torchport.errors import ArtifactError
from torchport.schema import Mismatch, conform

__all__ = ["parse_json", "read_bytes", "read_json", "write_whole"]

T = TypeVar("T")

_DEPTH = 64
_DIGITS = 20  # of 2**64
_SUSPICIOUS = re.compile(r"\\u(?:00[01]|[dD][89a-fA-F])|[\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # what terminals and file names choke on


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears complete or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # messages name what was asked for
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """A regular file's content. Raises OSError, also for a directory, a pipe or a device, and never waits for one."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        return file.read()


def read_json(path: Path, type_: type[T], error: type[Exception] = ArtifactError) -> T:
    """The JSON in a file, as ``type_`` (see ``parse_json``). Raises ``error``, with one sentence."""
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as problem:  # a name with a NUL is a ValueError
        raise error(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    return parse_json(data, type_, str(path), error)


def parse_json(data: bytes | str, type_: type[T], where: str, error: type[Exception] = ArtifactError) -> T:
    """The value that JSON text holds, as ``type_``: what ``torchport.schema.conform`` takes.

    Not accepted, besides what is no JSON: NaN and infinities, numbers beyond float64 or 20 digits, a key that is there
    twice, control characters in text, and more than 64 levels. ``where``: names the text in the message.

    Raises ``error``, with one sentence.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        value = _DECODER.decode(text)
        _check(value, searched=_SUSPICIOUS.search(text) is not None)
        found: T = conform(value, type_)
    except Mismatch as problem:
        raise error(f"{where} is damaged: {problem}") from problem
    except (ValueError, RecursionError) as problem:
        what = "too many levels" if isinstance(problem, RecursionError) else problem
        raise error(f"{where} cannot be read as JSON: {what}") from problem
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS:
        raise ValueError(f"the number {text[:20]}... is too large")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return found


_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=_float, parse_constant=_no_number, object_pairs_hook=_object
)


def _check(value: Any, *, searched: bool) -> None:
    """Raises ValueError for too many levels and, if ``searched``, for control characters in text."""
    level = [value]
    for _ in range(_DEPTH):
        if searched:
            _check_text(text for one in level for text in (one if isinstance(one, dict) else (one,)))
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if searched or isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"more than {_DEPTH} levels")


def _check_text(values: Iterable[Any]) -> None:
    for text in values:
        if isinstance(text, str) and _CONTROL.search(text):
            raise ValueError(f"the text {text[:40]!r} has control characters")
