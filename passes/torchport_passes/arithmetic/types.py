"""The narrow float types that promotion replaces by f64, and conversions to and from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mlir import ir

from torchport_passes.ir.ops import element_type
from torchport_passes.ir.types import Op, Type, Value

__all__ = ["PromotedOp", "from_format", "narrow_float", "promoted", "retype", "retype_function", "shaped", "to_format"]


def narrow_float(type_: Type) -> Type | None:
    """The element of a type if it is a float below f64, else None."""
    element = element_type(type_)
    return element if isinstance(element, ir.FloatType) and element.width < 64 else None


def shaped(type_: Type, element: Type) -> Type:
    """``type_`` with another element: a tensor of its shape, or the element itself."""
    return ir.RankedTensorType.get(list(type_.shape), element) if isinstance(type_, ir.RankedTensorType) else element


def promoted(type_: Type) -> Type:
    """The type that values of ``type_`` have after promotion."""
    return type_ if narrow_float(type_) is None else shaped(type_, ir.F64Type.get())


def retype(op: Op, new: Callable[[Type], Type]) -> None:
    """Give results and arguments of regions the type ``new`` of theirs."""
    for region in op.regions:
        for block in region.blocks:
            for argument in block.arguments:
                argument.set_type(new(argument.type))
    for result in op.results:
        result.set_type(new(result.type))


def retype_function(op: Op, new: Callable[[Type], Type]) -> None:
    """The same for the signature of a function."""
    kind = ir.FunctionType(ir.TypeAttr(op.attributes["function_type"]).value)
    types = ([new(t) for t in side] for side in (kind.inputs, kind.results))
    op.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(*types))


@dataclass
class PromotedOp:
    """An operation while it is promoted.

    ``operands``, ``results``: the narrow float type that each had before, None for other types.
    ``replacement``: the value that replaces its result, if the operation is removed.
    """

    op: Op
    operands: tuple[Type | None, ...]
    results: tuple[Type | None, ...]
    replacement: Value | None = field(default=None, compare=False)

    @classmethod
    def of(cls, op: Op) -> PromotedOp:
        """For an operation whose types have not changed yet."""
        return cls(op, *(tuple(narrow_float(v.type) for v in values) for values in (op.operands, op.results)))


def to_format(value: Value, format_: Type) -> Value:
    """An f64 value rounded to a narrow float type, to nearest even."""
    type_ = shaped(value.type, format_)
    if format_.width > 8:
        return ir.Operation.create("arith.truncf", [type_], [value]).results[0]
    attributes = {"rounding": ir.StringAttr.get("rtne")}
    return ir.Operation.create("tt.fp_to_fp", [type_], [value], attributes).results[0]


def from_format(value: Value) -> Value:
    """A value of a narrow float type as f64."""
    type_ = promoted(value.type)
    name = "arith.extf" if element_type(value.type).width > 8 else "tt.fp_to_fp"
    return ir.Operation.create(name, [type_], [value]).results[0]
