"""Facts about the combine functions of reductions and scans: identity elements, and accumulators of scans."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport_passes.ir.ops import int_attribute
from torchport_passes.ir.types import Attribute, Block, Op, Type

__all__ = ["WIDE_FOR_SCANS", "identities"]

WIDE_FOR_SCANS: Mapping[str, Any] = MappingProxyType({"f32": ir.F64Type, "f16": ir.F32Type, "bf16": ir.F32Type})
"""The type in which running sums and products are computed, so that each result is rounded once.

For f32 it is the type that eager PyTorch takes on CPUs.
"""

_INF, _NINF, _NAN, _LOW, _HIGH = "inf", "-inf", "nan", "low", "high"

# One operation between the two arguments -> its identity. maxnumf and minnumf prefer any number to NaN, which is
# therefore their identity.
_SIMPLE: dict[str, Any] = {
    "arith.addf": 0.0, "arith.addi": 0, "arith.ori": 0, "arith.xori": 0, "arith.andi": -1, "arith.mulf": 1.0,
    "arith.muli": 1, "arith.maximumf": _NINF, "arith.maxnumf": _NAN, "arith.minimumf": _INF, "arith.minnumf": _NAN,
    "arith.maxsi": _LOW, "arith.minsi": _HIGH, "arith.maxui": 0, "arith.minui": -1,
}  # fmt: skip


def _shape_of_region(block: Block) -> list[tuple[Any, ...]]:
    """The operations as (name, predicate, operand numbers), to be compared with patterns."""
    number = {argument: i for i, argument in enumerate(block.arguments)}
    shape: list[tuple[Any, ...]] = []
    for op in block.operations:
        predicate = None
        if "predicate" in op.operation.attributes:
            predicate = int_attribute(op.operation, "predicate")
        shape.append((op.operation.name, predicate, *(number.get(v, -1) for v in op.operation.operands)))
        for result in op.operation.results:
            number[result] = len(number)
    return shape


def _nan_propagating(predicate: int) -> list[tuple[Any, ...]]:
    """``select(a > b or a != a, a, b)``: Inductor's maximum (ogt) or minimum (olt) that keeps NaN."""
    return [("arith.cmpf", predicate, 0, 1), ("arith.cmpf", 13, 0, 0), ("arith.ori", None, 2, 3),
            ("arith.select", None, 4, 0, 1)]  # fmt: skip


def _compare_select(predicate: int) -> list[tuple[Any, ...]]:
    return [("arith.cmpi", predicate, 0, 1), ("arith.select", None, 2, 0, 1)]


_PATTERNS: list[tuple[list[tuple[Any, ...]], Any]] = [
    (_nan_propagating(2), _NINF), (_nan_propagating(4), _INF),
    (_compare_select(4), _LOW), (_compare_select(2), _HIGH), (_compare_select(8), 0), (_compare_select(6), -1),
]  # fmt: skip


def identities(op: Op) -> list[Attribute] | None:
    """For each operand of a reduction the attribute of its identity element; None if they are not known."""
    block = op.regions[0].blocks[0]
    shape = _shape_of_region(block)
    if len(op.operands) != 1:
        return None
    value = None
    if len(shape) == 2 and shape[0][2:] in ((0, 1), (1, 0)):
        value = _SIMPLE.get(shape[0][0])
    for pattern, identity in _PATTERNS:
        if shape[:-1] == pattern:
            value = identity
    return None if value is None else [_attribute(value, block.arguments[0].type)]


def _attribute(value: Any, type_: Type) -> Attribute:
    if isinstance(type_, ir.IntegerType):
        width = type_.width
        value = {_LOW: -(1 << (width - 1)), _HIGH: (1 << (width - 1)) - 1}.get(value, value)
        if width == 1:
            value = {-1: 1, 0: 0, 1: 1}.get(value, value & 1)
        return ir.IntegerAttr.get(type_, value)
    return ir.FloatAttr.get(type_, float(value))
