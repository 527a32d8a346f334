"""Which buffers of a program are its own, and which inputs nobody else sees through it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch

from torchport.program.operators import find, written_values
from torchport.program.steps import Call, Let, Program
from torchport.program.values import names_in

__all__ = ["exposed_inputs", "private_buffers"]


def private_buffers(program: Program, namespaces: Collection[str]) -> dict[int, int]:
    """The steps that allocate a buffer whose memory no result shares, and the buffers' bytes.

    Buffers of sizes that change are left out. Raises ``operators.Refused`` for an operator that is not permitted.
    """
    groups = _Groups.of(program, namespaces)
    shared = {groups.first(name) for result in program.results for name in names_in(result)}
    return {
        index: size
        for index, step in enumerate(program.steps)
        if isinstance(step, Let) and groups.first(step.name) not in shared and (size := _bytes(step.value)) is not None
    }


def exposed_inputs(program: Program, namespaces: Collection[str]) -> set[str]:
    """The inputs whose memory a result may share, that an operator writes, or whose values may not be in memory.

    Results that are inputs as they are given do not count. Nor do kernels that write one: a kernel counts no writes.
    """
    groups = _Groups.of(program, namespaces)
    inputs = set(program.inputs)
    values = [result for result in program.results if not (isinstance(result, str) and result in inputs)]
    for step in program.steps:
        if isinstance(step, Let) and isinstance(step.value, list) and step.value[0] == "in_memory":
            values.append(step.value)
        elif isinstance(step, Call):
            values += written_values(find(step.operator, namespaces)._schema, step.args, step.kwargs)
    shared = {groups.first(name) for value in values for name in names_in(value)}
    return {name for name in inputs if groups.first(name) in shared}


def _shares(operator: str, namespaces: Collection[str]) -> bool:
    """Whether what an operator returns may share memory with what it takes. Those called unsafe do not say so."""
    schema = find(operator, namespaces)._schema
    return "unsafe" in schema.name or any(one.alias_info is not None for one in schema.returns)


def _bytes(value: Any) -> int | None:
    """The size of a buffer, if ``value`` allocates one of a known size."""
    match value:
        case ["empty", ["tuple", *sizes], ["tuple", *strides], ["dtype", str(dtype)]]:
            if not all(isinstance(number, int) for number in (*sizes, *strides)):
                return None
            element: int = getattr(torch, dtype).itemsize
            if math.prod(sizes) == 0:
                return 0
            last: int = sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
            return element * (last + 1)
    return None


class _Groups:
    """Names that may stand for the same memory."""

    def __init__(self) -> None:
        self._next: dict[str, str] = {}

    @classmethod
    def of(cls, program: Program, namespaces: Collection[str]) -> _Groups:
        groups = cls()
        for step in program.steps:
            if isinstance(step, Let):
                groups.join(step.name, names_in(step.value))
            elif isinstance(step, Call) and step.name is not None and _shares(step.operator, namespaces):
                values = (*step.args, *step.kwargs.values())
                groups.join(step.name, {name for value in values for name in names_in(value)})
        return groups

    def first(self, name: str) -> str:
        while (following := self._next.get(name, name)) != name:
            name = following
        return name

    def join(self, name: str, others: Collection[str]) -> None:
        for other in others:
            one, two = self.first(name), self.first(other)
            if one != two:
                self._next[two] = one
