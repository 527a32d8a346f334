"""The user's line of an operation that is refused. It is looked up when it is needed: kernels have no locations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath

from torchport.errors import UnsupportedOperation
from torchport_passes.frontend.importer import to_generic
from torchport_passes.frontend.locations import Frame, operation_locations

__all__ = ["naming_the_line"]

_KERNEL = re.compile(r"tt\.func public @([\w.$]+|\"[^\"]+\")")
_PLACE = re.compile(r'"-":(\d+):\d+')
_LOWERED = {"llvm.inttoptr": "tt.int_to_ptr", "llvm.ptrtoint": "tt.ptr_to_int", "tl.device_print": "tt.print"}
"""Operations that are refused under another name than Triton's."""
_FUNCTION = re.compile(r"(\w+) of f\d+")
_MOST = 3


@contextmanager
def naming_the_line(ttir: str, located: Callable[[], str], *, barriers: bool = False) -> Iterator[None]:
    """Raise a refusal again that names the kernel and the user's line, in place of one that names neither.

    ``ttir``: what is lowered, without locations. ``located``: gives the same with locations, as Triton prints it.
    ``barriers``: the importer keeps them (``import_ttir``).
    """
    try:
        yield
    except UnsupportedOperation as error:
        kernel = _KERNEL.search(ttir)
        name = error.kernel or (kernel and kernel[1].strip('"'))
        location = _line(error, ttir, located(), barriers=barriers)
        raise UnsupportedOperation(error.operation, error.reason, kernel=name, location=location) from error


def _line(error: UnsupportedOperation, ttir: str, located: str, *, barriers: bool) -> str | None:
    """``kernel.py:12``: of the operation at the error's place, or of all of its name."""
    operations = operation_locations(located)
    place = _PLACE.search(error.location or "")
    if place is not None:
        number = _number(ttir, int(place[1]), barriers=barriers)
        return _shown(operations[number][1]) if number is not None and number < len(operations) else None
    name = _LOWERED.get(error.operation, error.operation)
    if (function := _FUNCTION.fullmatch(name)) is not None:
        calls = re.compile(rf'\bmath\.{function[1]} |"tp_{function[1]}_\w+"')
        texts = [line for line in located.splitlines() if line.strip() and not line.startswith("#loc")]
        found = [frames for text, (_, frames) in zip(texts, operations, strict=True) if calls.search(text)]
    else:
        found = [frames for operation, frames in operations if operation == name]
    lines = [_shown(frames) for frames in found]
    distinct = list(dict.fromkeys(line for line in lines if line))
    if not distinct:
        return None
    return " or ".join(distinct[:_MOST]) + (f" or {len(distinct) - _MOST} more" if len(distinct) > _MOST else "")


def _number(ttir: str, wanted: int, *, barriers: bool) -> int | None:
    """Which line of the TTIR, from 0 and without empty ones, a line of the generic text was written from."""
    reached = number = 0
    for line in ttir.splitlines():
        generic = to_generic(line, keep_barriers=barriers, keep_pointees=True)
        reached += generic.count("\n") + 1 if generic or not line.strip() else 0
        if reached >= wanted:
            return number
        number += bool(line.strip())
    return None


def _shown(frames: list[Frame]) -> str | None:
    """The line, and the one it was called from where it stands in another function."""
    if not frames:
        return None
    lines = [f"{PurePath(file).name}:{line}" for file, line, _ in (frames[0], frames[-1])]
    return lines[0] if lines[0] == lines[1] else f"{lines[0]}, called from {lines[1]}"
