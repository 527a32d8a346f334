"""Emits elementwise operations on scalars or on vectors."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm, math

from torchport_passes.ir.build import as_integer, constant_like, is_pointer, zero_of
from torchport_passes.ir.ops import element_type, text_attribute
from torchport_passes.ir.types import Op, Type, Value

__all__ = ["elementwise"]


def elementwise(op: Op, operands: list[Value], type_: Type) -> Value:
    """Emit the elementwise operation ``op`` on scalars or vectors at the current insertion point.

    ``type_``: the type of the result. ``arith`` and ``math`` operations keep their name and attributes. ``tt`` ones
    become upstream operations, or ``tp.extern`` and ``tp.fp_to_fp`` for the passes lower-math and lower-casts.
    """
    name = op.name
    special = _SPECIAL.get(name)
    if special is not None:
        return special(op, operands, type_)
    if name == "arith.select" and is_pointer(element_type(op.results[0].type)) and is_pointer(operands[1].type):
        return ir.Operation.create(name, [operands[1].type], operands).results[0]
    return ir.Operation.create(name, [type_], operands, dict(op.attributes.items())).results[0]


def _bitcast(op: Op, operands: list[Value], type_: Type) -> Value:
    if is_pointer(element_type(op.results[0].type)) or operands[0].type == type_:
        return operands[0]
    return arith.BitcastOp(type_, operands[0]).result


def _extern(op: Op, operands: list[Value], type_: Type) -> Value:
    return ir.Operation.create("tp.extern", [type_], operands, {"symbol": op.attributes["symbol"]}).results[0]


def _fp_to_fp(op: Op, operands: list[Value], type_: Type) -> Value:
    return ir.Operation.create("tp.fp_to_fp", [type_], operands, dict(op.attributes.items())).results[0]


def _mulhi(op: Op, operands: list[Value], type_: Type) -> Value:
    """High half of an unsigned product: through twice the width if a machine has that."""
    width = element_type(type_).width
    if width > 32:
        return arith.MulUIExtendedOp(operands[0], operands[1]).results[1]
    double = ir.IntegerType.get_signless(2 * width)
    wide = ir.VectorType.get(list(ir.VectorType(type_).shape), double) if isinstance(type_, ir.VectorType) else double
    a, b = (arith.ExtUIOp(wide, v).result for v in operands)
    shift = constant_like(wide, ir.IntegerAttr.get(double, width))
    return arith.TruncIOp(type_, arith.ShRUIOp(arith.MulIOp(a, b).result, shift).result).result


def _clamp(op: Op, operands: list[Value], type_: Type) -> Value:
    x, low, high = operands
    if "propagate_nan" in op.attributes and text_attribute(op, "propagate_nan") == "all":
        return arith.MinimumFOp(arith.MaximumFOp(x, low).result, high).result
    return arith.MinNumFOp(arith.MaxNumFOp(x, low).result, high).result


def _sqrt(op: Op, operands: list[Value], type_: Type) -> Value:
    return math.SqrtOp(operands[0]).result


def _divide(op: Op, operands: list[Value], type_: Type) -> Value:
    return arith.DivFOp(operands[0], operands[1]).result


def _pointer_to_int(op: Op, operands: list[Value], type_: Type) -> Value:
    return operands[0] if not is_pointer(operands[0].type) else as_integer(operands[0])


def _int_to_pointer(op: Op, operands: list[Value], type_: Type) -> Value:
    return llvm.IntToPtrOp(type_, operands[0]).result if is_pointer(type_) else operands[0]


def _poison(op: Op, operands: list[Value], type_: Type) -> Value:
    """Any value would do; zero keeps results the same in every run."""
    return zero_of(type_)


_SPECIAL = {
    "tt.bitcast": _bitcast, "tt.extern_elementwise": _extern, "tt.fp_to_fp": _fp_to_fp, "tt.mulhiui": _mulhi,
    "tt.clampf": _clamp, "tt.precise_sqrt": _sqrt, "tt.precise_divf": _divide, "tt.ptr_to_int": _pointer_to_int,
    "tt.int_to_ptr": _int_to_pointer, "ub.poison": _poison,
}  # fmt: skip
