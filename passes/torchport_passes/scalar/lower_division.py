"""Lowers integer division to code that never traps and runs on vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, math

from torchport_passes.ir.build import constant_like
from torchport_passes.ir.ops import constant_splat, element_type, matching, owner_of
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["LowerDivision"]

_SIGNED = {"arith.divsi": True, "arith.remsi": True, "arith.divui": False, "arith.remui": False}


@dataclass(frozen=True)
class LowerDivision:
    """Make ``arith.divsi``, ``remsi``, ``divui`` and ``remui`` total and vectorisable.

    Takes scalars and vectors. Masked lanes may have any divisor, so division by zero must not trap: ``x / 0`` is ``x``
    and ``x % 0`` is 0 (Triton leaves both open). The lowest integer divided by -1 wraps. Vectors of up to 32 bits
    divide in floating point. With p bits of mantissa and integers of b bits, a quotient that is no integer is at least
    1/divisor away from one, and the rounding error is at most 2^(b-p)/divisor, so truncation is exact for i16 in f32
    and i32 in f64. Division by a constant does not change: LLVM multiplies.
    """

    name: ClassVar[str] = "lower-division"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, _SIGNED.__contains__):
                if not _safe_constant(op.operands[1]):
                    with ir.InsertionPoint(op):
                        op.results[0].replace_all_uses_with(_total(op))
                    op.erase()


def _safe_constant(value: Value) -> bool:
    """Whether every lane is the same constant, neither 0 nor -1."""
    op = owner_of(value)
    if op is not None and op.name == "vector.broadcast":
        return _safe_constant(op.operands[0])
    attribute = None if op is None else constant_splat(op)
    return attribute is not None and int(ir.IntegerAttr(attribute).value) not in (0, -1)


def _total(op: Op) -> Value:
    """Emit the quotient or remainder of any two numbers."""
    a, b = op.operands
    type_ = a.type
    element = element_type(type_)
    signed, remainder = _SIGNED[op.name], op.name in ("arith.remsi", "arith.remui")

    def constant(value: int) -> Value:
        return constant_like(type_, ir.IntegerAttr.get(element, value))

    zero, one = constant(0), constant(1)
    safe = arith.SelectOp(arith.CmpIOp(arith.CmpIPredicate.eq, b, zero).result, one, b).result
    negate = None
    if signed and element.width > 1:
        negate = arith.CmpIOp(arith.CmpIPredicate.eq, b, constant(-1)).result
        safe = arith.SelectOp(negate, one, safe).result
    vector = isinstance(type_, ir.VectorType) and element.width <= 32
    if vector:
        quotient = _in_float(a, safe, signed)
    else:
        quotient = (arith.DivSIOp(a, safe) if signed else arith.DivUIOp(a, safe)).result
    if remainder:
        # for a divisor of -1 the safe one is 1, and the remainder 0 either way
        return arith.SubIOp(a, arith.MulIOp(quotient, safe).result).result
    if negate is not None:
        quotient = arith.SelectOp(negate, arith.SubIOp(zero, a).result, quotient).result
    return quotient


def _in_float(a: Value, b: Value, signed: bool) -> Value:
    """Exact quotients of integer vectors of up to 32 bits, truncated."""
    type_ = ir.VectorType(a.type)
    width = type_.element_type.width
    wide = ir.VectorType.get(list(type_.shape), ir.F32Type.get() if width <= 16 else ir.F64Type.get())
    into, back = (arith.SIToFPOp, arith.FPToSIOp) if signed else (arith.UIToFPOp, arith.FPToUIOp)
    quotient = math.TruncOp(arith.DivFOp(into(wide, a).result, into(wide, b).result).result).result
    return back(type_, quotient).result
