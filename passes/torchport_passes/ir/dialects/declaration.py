"""Declarations of operations, and the check of an operation against its declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlir import ir

__all__ = ["Declaration", "attribute_problem"]


def _element(value: Any) -> Any:
    type_ = value.type
    return type_.element_type if isinstance(type_, (ir.RankedTensorType, ir.VectorType)) else type_


def _shape(value: Any) -> tuple[int, ...]:
    type_ = value.type
    return tuple(type_.shape) if isinstance(type_, (ir.RankedTensorType, ir.VectorType)) else ()


def _is_pointer(value: Any) -> bool:
    """A pointer or a tensor of them; ``lower-nests`` has vectors of addresses as i64."""
    element = str(_element(value))
    return element == "!llvm.ptr" or (isinstance(value.type, ir.VectorType) and element == "i64")


_VALUES: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "boolean": lambda value: str(_element(value)) == "i1",
    "buffer": lambda value: str(value.type) == "!llvm.ptr",
    "float": lambda value: isinstance(_element(value), ir.FloatType),
    "index": lambda value: str(value.type) in ("i32", "i64"),
    "integer": lambda value: isinstance(_element(value), ir.IntegerType),
    "pointer": _is_pointer,
    "scalar": lambda value: not isinstance(value.type, (ir.RankedTensorType, ir.VectorType)),
    "tensor": lambda value: isinstance(value.type, ir.RankedTensorType),
}
_ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda attribute: isinstance(attribute, ir.BoolAttr),
    "float": lambda attribute: isinstance(attribute, ir.FloatAttr),
    "integer": lambda attribute: isinstance(attribute, ir.IntegerAttr),
    "integers": lambda attribute: isinstance(attribute, (ir.DenseI32ArrayAttr, ir.DenseI64ArrayAttr)),
    "records": lambda attribute: _is_array(attribute, ir.DictAttr),
    "string": lambda attribute: isinstance(attribute, ir.StringAttr),
    "strings": lambda attribute: _is_array(attribute, ir.StringAttr),
    "symbol": lambda attribute: isinstance(attribute, ir.FlatSymbolRefAttr),
    "type": lambda attribute: isinstance(attribute, ir.TypeAttr),
    "types": lambda attribute: _is_array(attribute, ir.TypeAttr),
    "unit": lambda attribute: isinstance(attribute, ir.UnitAttr),
}
_VALUE = re.compile(r"(\w+)([?*+]?)$")


def _is_array(attribute: Any, kind: type) -> bool:
    return isinstance(attribute, ir.ArrayAttr) and all(isinstance(element, kind) for element in attribute)


def attribute_problem(name: str, attribute: Any, kind: str) -> str | None:
    """What is wrong with an attribute of some kind, in words; None if nothing is."""
    return None if _ATTRIBUTES[kind](attribute) else f"its attribute {name!r} is {attribute}, which is no {kind}"


@dataclass(frozen=True)
class Declaration:
    """What an operation takes and gives.

    ``operands``, ``results``: kinds in order; with ``?`` one that may be missing, ``+`` one or more, ``*`` any number.
    ``attributes``: ``name: kind`` of each, separated by commas, with ``?`` behind the name if it may be missing.
    ``one_shape``: all operands and results have the same shape.
    ``ends``: the operation that ends its only region; empty for an operation without regions.
    """

    operands: str = ""
    results: str = ""
    attributes: str = ""
    one_shape: bool = False
    ends: str = ""

    @cached_property
    def _operands(self) -> list[tuple[str, str]]:
        return _parse(self.operands)

    @cached_property
    def _results(self) -> list[tuple[str, str]]:
        return _parse(self.results)

    @cached_property
    def _attributes(self) -> dict[str, tuple[str, bool]]:
        """Kind of each attribute, and whether the operation must have it."""
        pairs = [text.split(": ") for text in self.attributes.split(", ") if text]
        return {name.rstrip("?"): (kind, not name.endswith("?")) for name, kind in pairs}

    def problem(self, op: Any) -> str | None:
        """What is wrong with an operation, in words; None if nothing is."""
        for what, kinds, values in (("operands", self._operands, op.operands), ("results", self._results, op.results)):
            if (wrong := _mismatch(kinds, list(values))) is not None:
                return f"its {what} must be ({getattr(self, what)}): {wrong}"
        if self.one_shape and len(shapes := {_shape(value) for value in (*op.operands, *op.results)}) > 1:
            return f"its operands and results have the shapes {', '.join(map(str, sorted(shapes)))}"
        return self._attributes_problem(op) or self._region_problem(op)

    def _attributes_problem(self, op: Any) -> str | None:
        for name, (kind, required) in self._attributes.items():
            if name in op.attributes:
                if (wrong := attribute_problem(name, op.attributes[name], kind)) is not None:
                    return wrong
            elif required:
                return f"it has no attribute {name!r}"
        if op.name.startswith("tp."):  # Triton's operations may have attributes that no pass asks for
            for name in op.attributes:
                if name not in self._attributes:
                    return f"its attribute {name!r} is not declared"
        return None

    def _region_problem(self, op: Any) -> str | None:
        if len(op.regions) != bool(self.ends):
            return f"it has {len(op.regions)} regions in place of {int(bool(self.ends))}"
        if self.ends and self.ends not in (block.operations[-1].name for block in op.regions[0] if block.operations):
            return f"its region does not end in {self.ends}"
        return None


def _parse(text: str) -> list[tuple[str, str]]:
    found = [_VALUE.match(word) for word in text.split()]
    return [(match[1], match[2]) for match in found if match is not None]


def _mismatch(kinds: Sequence[tuple[str, str]], values: list[Any]) -> str | None:
    position = 0
    for kind, how in kinds:
        most = {"": 1, "?": 1}.get(how, len(values))
        taken = 0
        while taken < most and position < len(values) and (how in ("", "?") or _VALUES[kind](values[position])):
            if not _VALUES[kind](values[position]):
                return f"number {position} is {values[position].type}, which is no {kind}"
            position += 1
            taken += 1
        if taken == 0 and how in ("", "+"):
            return f"the {kind} at position {position} is missing"
    return None if position == len(values) else f"there are {len(values)}"
