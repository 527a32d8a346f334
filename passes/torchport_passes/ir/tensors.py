"""Builds small pieces of TTIR on tensors at the current insertion point."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import element_type
from torchport_passes.ir.types import Type, Value

__all__ = ["bitcast", "constant", "convert", "reshape", "splat_like", "transposed", "transposed_type", "typed"]


def typed(tensor: Value, element: Type) -> Type:
    """The type of ``tensor`` with another element type."""
    return ir.RankedTensorType.get(list(tensor.type.shape), element)


def constant(type_: Type, value: float) -> Value:
    """A scalar constant."""
    return arith.ConstantOp(type_, value).result


def splat_like(type_: Type, scalar: Value) -> Value:
    """A tensor of ``type_`` with the scalar in every lane."""
    return ir.Operation.create("tt.splat", [type_], [scalar]).results[0]


def bitcast(tensor: Value, element: Type) -> Value:
    """The same bits as elements of another type of the same width."""
    return ir.Operation.create("tt.bitcast", [typed(tensor, element)], [tensor]).results[0]


def convert(tensor: Value, element: Type) -> Value:
    """A float tensor in another float type; rounds to nearest even."""
    source = element_type(tensor.type)
    if source == element:
        return tensor
    if "f8" in str(source) or "f8" in str(element):
        attributes = {} if source.width < element.width else {"rounding": ir.StringAttr.get("rtne")}
        return ir.Operation.create("tt.fp_to_fp", [typed(tensor, element)], [tensor], attributes).results[0]
    cast = arith.ExtFOp if source.width < element.width else arith.TruncFOp
    return cast(typed(tensor, element), tensor).result


def reshape(tensor: Value, shape: list[int]) -> Value:
    """The same elements in row-major order in another shape."""
    return ir.Operation.create(
        "tt.reshape", [ir.RankedTensorType.get(shape, element_type(tensor.type))], [tensor]
    ).results[0]


def transposed_type(tensor: Value, order: list[int]) -> Type:
    """The type of the tensor with its dimensions in another order."""
    return ir.RankedTensorType.get([tensor.type.shape[i] for i in order], element_type(tensor.type))


def transposed(tensor: Value, order: list[int]) -> Value:
    """The tensor with its dimensions in another order."""
    attributes = {"order": ir.DenseI32ArrayAttr.get(order)}
    return ir.Operation.create("tt.trans", [transposed_type(tensor, order)], [tensor], attributes).results[0]
