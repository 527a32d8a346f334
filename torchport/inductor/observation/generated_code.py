"""Parses Inductor's generated code: lines that launch, and the source of kernels."""

from __future__ import annotations

import linecache
import re
from types import CodeType, FrameType
from typing import Any

from torchport.runtime.operators import is_plain

__all__ = [
    "adds_atomically",
    "buffer_names",
    "infinities_in",
    "is_fresh",
    "launch_number",
    "launched_name",
    "mutated_arguments",
    "only_stored",
    "results_named",
]

_LAUNCH = re.compile(r"\s*(\w+)\.(?:launch|run)\(")
_NEW = re.compile(r"empty_strided\w*\(")
_REUSED = re.compile(r"\w+; del \w+\s*# reuse")
_MUTATED = re.compile(r"'mutated_arg_names': \[([^\]]*)\]")
_ATOMIC = re.compile(r"'atomic_add_found': True|\btl\.atomic_")
_INFINITIES = {'float("-inf")': "neginf", 'float("inf")': "posinf"}


def buffer_names(frame: FrameType, tensors: list[Any]) -> list[str | None]:
    """The variables of ``frame`` that hold the tensors, or else tensors in the same storage."""
    exact: dict[int, str] = {}
    shared: dict[int, str] = {}
    for name, value in frame.f_locals.items():
        if is_plain(value) and name != "self":
            exact[id(value)] = name
            shared[value.untyped_storage()._cdata] = name
    return [
        exact.get(id(value)) or shared.get(value.untyped_storage()._cdata) if is_plain(value) else None
        for value in tensors
    ]


def launched_name(code: CodeType, line: int) -> str | None:
    """The name of the kernel that ``line`` of generated code launches."""
    launch = _LAUNCH.match(linecache.getline(code.co_filename, line))
    return None if launch is None else launch[1]


def launch_number(code: CodeType, line: int, kernel: str) -> int:
    """How many lines of generated code before ``line`` launch ``kernel``."""
    before = linecache.getlines(code.co_filename)[: line - 1]
    return sum(launch[1] == kernel for text in before if (launch := _LAUNCH.match(text)) is not None)


def is_fresh(code: CodeType, line: int, name: str) -> bool:
    """Whether a buffer holds nothing of use before ``line``.

    It was allocated there, or reuses the memory of a dead buffer, and no line between mentions it.
    """
    before = linecache.getlines(code.co_filename)[code.co_firstlineno : line - 1]
    word = re.compile(rf"\b{re.escape(name)}\b")
    mentions = [text.strip() for text in before if word.search(text)]
    if len(mentions) != 1 or not mentions[0].startswith(f"{name} = "):
        return False
    value = mentions[0].removeprefix(f"{name} = ")
    return bool(_NEW.match(value) or _REUSED.match(value))


def results_named(code: CodeType, line: int, count: int) -> list[str | None]:
    """The variables that hold the results of the operator called at ``line``: of the call, or of its elements."""
    lines = linecache.getlines(code.co_filename)
    assignment = re.match(r"\s*(\w+) = ", lines[line - 1] if line <= len(lines) else "")
    if assignment is None:
        return [None] * count
    name = assignment[1]
    names: list[str | None] = [None] * count
    for text in lines[line:]:
        element = re.match(rf"\s*(\w+) = {name}\[(\d+)\]\s*$", text)
        if element is not None and int(element[2]) < count:
            names[int(element[2])] = element[1]
    return names if any(names) else [name, *names[1:]]


def mutated_arguments(source: str) -> set[str]:
    """The arguments that a kernel of Inductor's declares as mutated."""
    declared = _MUTATED.search(source)
    return set(re.findall(r"'(\w+)'", declared[1])) if declared else set()


def only_stored(source: str, name: str) -> bool:
    """Whether a kernel of Inductor's does nothing with an argument but store into it."""
    uses = re.findall(rf"(\S+?)\(\s*{name}\b", source.split("@triton.jit", 1)[-1])
    return bool(uses) and all(use == "tl.store" or use.startswith("triton_") for use in uses)


def adds_atomically(source: str) -> bool:
    """Whether the order of a kernel's additions may differ between launches."""
    return _ATOMIC.search(source) is not None


def infinities_in(source: str) -> frozenset[str]:
    """The infinities that a kernel's source contains, ``neginf`` or ``posinf``."""
    return frozenset(name for text, name in _INFINITIES.items() if text in source)
