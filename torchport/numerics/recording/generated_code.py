"""Parses launch sites in Inductor's generated code."""

from __future__ import annotations

import linecache
import re
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from torchport.numerics.recording.memory import is_plain

__all__ = ["buffer_names", "is_fresh", "launch_number", "launched_name", "results_named"]

_LAUNCH = re.compile(r"\s*(\w+)\.(?:launch|run)\(")
_NEW = re.compile(r"empty_strided\w*\(")
_REUSED = re.compile(r"\w+; del \w+\s*# reuse")


def buffer_names(frame: FrameType, tensors: list[Any]) -> list[str | None]:
    """The names that the variables of ``frame`` give to tensors: to the tensor itself, or to one in the same memory."""
    exact: dict[int, str] = {}
    shared: dict[int, str] = {}
    for name, value in frame.f_locals.items():
        if is_plain(value) and name != "self":
            exact[id(value)] = name
            shared[value.untyped_storage()._cdata] = name
    return [
        exact.get(id(one)) or shared.get(one.untyped_storage()._cdata) if is_plain(one) else None for one in tensors
    ]


@dataclass(frozen=True)
class _Source:
    lines: list[str]
    first: int


def _source(code: CodeType) -> _Source:
    return _Source(linecache.getlines(code.co_filename), code.co_firstlineno)


def launched_name(code: CodeType, line: int) -> str | None:
    """The name of the kernel that ``line`` of generated code launches."""
    found = _LAUNCH.match(linecache.getline(code.co_filename, line))
    return None if found is None else found[1]


def launch_number(code: CodeType, line: int, kernel: str) -> int:
    """How many calls of ``kernel`` stand before ``line`` in generated code."""
    before = linecache.getlines(code.co_filename)[: line - 1]
    return sum(found[1] == kernel for text in before if (found := _LAUNCH.match(text)) is not None)


def is_fresh(code: CodeType, line: int, name: str) -> bool:
    """Whether nothing of what the buffer holds before ``line`` is of use: it was allocated, or taken over from a buffer
    that nobody needs any more, and nothing stands between there and the line that names it.
    """
    source = _source(code)
    before = source.lines[source.first : line - 1]
    word = re.compile(rf"\b{re.escape(name)}\b")
    named = [text.strip() for text in before if word.search(text)]
    if len(named) != 1 or not named[0].startswith(f"{name} = "):
        return False
    value = named[0].removeprefix(f"{name} = ")
    return bool(_NEW.match(value) or _REUSED.match(value))


def results_named(code: CodeType, line: int, count: int) -> list[str | None]:
    """The names given to the results of the operation that is called at ``line``: one, or those taken out of it."""
    lines = linecache.getlines(code.co_filename)
    found = re.match(r"\s*(\w+) = ", lines[line - 1] if line <= len(lines) else "")
    if found is None:
        return [None] * count
    name = found[1]
    names: list[str | None] = [None] * count
    for text in lines[line:]:
        taken = re.match(rf"\s*(\w+) = {name}\[(\d+)\]\s*$", text)
        if taken is not None and int(taken[2]) < count:
            names[int(taken[2])] = taken[1]
    return names if any(names) else [name, *names[1:]]
