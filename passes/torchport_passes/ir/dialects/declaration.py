"""Declarations of operations, and the check of an operation against its declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlir import ir

__all__ = ["Declaration", "declared"]


def _element(value: Any) -> Any:
    type_ = value.type
    return type_.element_type if isinstance(type_, (ir.RankedTensorType, ir.VectorType)) else type_


def _is_pointer(value: Any) -> bool:
    """A pointer or a tensor of them; ``lower-nests`` has vectors of addresses as i64."""
    element = str(_element(value))
    return element == "!llvm.ptr" or (isinstance(value.type, ir.VectorType) and element == "i64")


_KINDS: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "boolean": lambda value: str(_element(value)) == "i1",
    "buffer": lambda value: str(value.type) == "!llvm.ptr",
    "float": lambda value: isinstance(_element(value), ir.FloatType),
    "index": lambda value: str(value.type) in ("i32", "i64"),
    "integer": lambda value: isinstance(_element(value), ir.IntegerType),
    "number": lambda value: isinstance(_element(value), (ir.IntegerType, ir.FloatType)),
    "pointer": _is_pointer,
    "scalar": lambda value: not isinstance(value.type, (ir.RankedTensorType, ir.VectorType)),
    "tensor": lambda value: isinstance(value.type, ir.RankedTensorType),
}
_VALUE = re.compile(r"(\w+)([?*+]?)$")


@dataclass(frozen=True)
class Declaration:
    """What an operation takes and gives.

    ``operands``, ``results``: kinds in order; with ``?`` one that may be missing, ``+`` one or more, ``*`` any number.
    ``attributes``: names of attributes that it must have; others are allowed.
    ``regions``: how many regions it has.
    """

    operands: str = ""
    results: str = ""
    attributes: tuple[str, ...] = ()
    regions: int = 0

    @cached_property
    def _operands(self) -> list[tuple[str, str]]:
        return _parse(self.operands)

    @cached_property
    def _results(self) -> list[tuple[str, str]]:
        return _parse(self.results)

    def problem(self, op: Any) -> str | None:
        """What is wrong with an operation, in words; None if nothing is."""
        for what, kinds, values in (("operands", self._operands, op.operands), ("results", self._results, op.results)):
            if (wrong := _mismatch(kinds, list(values))) is not None:
                return f"its {what} must be ({getattr(self, what)}): {wrong}"
        missing = [name for name in self.attributes if name not in op.attributes]
        if missing:
            return f"it has no attribute {missing[0]!r}"
        if len(op.regions) != self.regions:
            return f"it has {len(op.regions)} regions in place of {self.regions}"
        return None


def declared(operands: str = "", results: str = "", *attributes: str, regions: int = 0) -> Declaration:
    """A Declaration, spelled short for tables."""
    return Declaration(operands, results, attributes, regions)


def _parse(text: str) -> list[tuple[str, str]]:
    found = [_VALUE.match(word) for word in text.split()]
    return [(match[1], match[2]) for match in found if match is not None]


def _mismatch(kinds: Sequence[tuple[str, str]], values: list[Any]) -> str | None:
    position = 0
    for kind, how in kinds:
        most = {"": 1, "?": 1}.get(how, len(values))
        taken = 0
        while taken < most and position < len(values) and (how in ("", "?") or _KINDS[kind](values[position])):
            if not _KINDS[kind](values[position]):
                return f"number {position} is {values[position].type}, which is no {kind}"
            position += 1
            taken += 1
        if taken == 0 and how in ("", "+"):
            return f"the {kind} at position {position} is missing"
    return None if position == len(values) else f"there are {len(values)}"
