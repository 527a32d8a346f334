"""Element-wise arithmetic on MLIR scalars, 1-D vectors and tensors, written as Python expressions.

``VectorValue`` wraps one SSA value; its operators insert ``arith``/``math`` operations at the current insertion point.
Python numbers become constants (splats for vectors). No operation carries fast-math flags: what is written is what is
computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from mlir import ir
from mlir.dialects import arith, math, vector

__all__ = ["Number", "VectorValue", "element_type", "select", "with_element"]

Number: TypeAlias = "VectorValue | float | int"

_FLOAT_BITS = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}
_F = arith.CmpFPredicate
_I = arith.CmpIPredicate


def element_type(type_: ir.Type) -> ir.Type:
    """The element type of a vector or tensor type, or the scalar type itself."""
    return type_.element_type if isinstance(type_, (ir.VectorType, ir.RankedTensorType)) else type_


def with_element(type_: ir.Type, element: ir.Type) -> ir.Type:
    """``type_`` with its elements replaced: same shape, or a scalar."""
    if isinstance(type_, ir.VectorType):
        return ir.VectorType.get(ir.VectorType(type_).shape, element)
    if isinstance(type_, ir.RankedTensorType):
        return ir.RankedTensorType.get(list(type_.shape), element)
    return element


def _constant(type_: ir.Type, number: float | int) -> ir.Value:
    element = element_type(type_)
    is_integer = isinstance(element, ir.IntegerType)
    if is_integer:
        width = ir.IntegerType(element).width
        number = int(number) & ((1 << width) - 1)
        if number >> (width - 1):
            number -= 1 << width
    scalar = ir.IntegerAttr.get(element, int(number)) if is_integer else ir.FloatAttr.get(element, float(number))
    if isinstance(type_, (ir.VectorType, ir.RankedTensorType)):
        return arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, scalar)).result
    return arith.ConstantOp(type_, scalar).result


class VectorValue:
    """One value of type ``T``, ``vector<nxT>`` or ``tensor<..xT>`` (T: a float or an integer), with its operators."""

    __slots__ = ("value",)

    def __init__(self, value: ir.Value) -> None:
        self.value = value

    @property
    def type(self) -> ir.Type:
        return self.value.type

    @property
    def element(self) -> ir.Type:
        return element_type(self.value.type)

    @property
    def is_float(self) -> bool:
        kind = str(self.element)
        return kind in _FLOAT_BITS or kind.startswith("f8")

    @property
    def bits(self) -> int:
        """Width of one element in bits."""
        kind = str(self.element)
        return 8 if kind.startswith("f8") else _FLOAT_BITS.get(kind) or ir.IntegerType(self.element).width

    def const(self, number: float | int) -> VectorValue:
        """``number`` in this value's type; integers are taken modulo two to the width."""
        return VectorValue(_constant(self.type, number))

    def _binary(
        self, other: Number, floating: Callable[..., Any] | None, integer: Callable[..., Any] | None, swap: bool = False
    ) -> VectorValue:
        right = other if isinstance(other, VectorValue) else self.const(other)
        build = floating if self.is_float else integer
        assert build is not None, f"operator not defined on {self.type}"
        return VectorValue(build(right.value, self.value) if swap else build(self.value, right.value))

    def __add__(self, other: Number) -> VectorValue:
        return self._binary(other, arith.addf, arith.addi)

    __radd__ = __add__

    def __sub__(self, other: Number) -> VectorValue:
        return self._binary(other, arith.subf, arith.subi)

    def __rsub__(self, other: Number) -> VectorValue:
        return self._binary(other, arith.subf, arith.subi, swap=True)

    def __mul__(self, other: Number) -> VectorValue:
        return self._binary(other, arith.mulf, arith.muli)

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> VectorValue:
        return self._binary(other, arith.divf, None)

    def __rtruediv__(self, other: Number) -> VectorValue:
        return self._binary(other, arith.divf, None, swap=True)

    def __and__(self, other: Number) -> VectorValue:
        return self._binary(other, None, arith.andi)

    def __or__(self, other: Number) -> VectorValue:
        return self._binary(other, None, arith.ori)

    def __xor__(self, other: Number) -> VectorValue:
        return self._binary(other, None, arith.xori)

    def __invert__(self) -> VectorValue:
        return self ^ -1

    def __lshift__(self, other: Number) -> VectorValue:
        return self._binary(other, None, arith.shli)

    def __rshift__(self, other: Number) -> VectorValue:
        """Logical shift right (``sar`` is the arithmetic one)."""
        return self._binary(other, None, arith.shrui)

    def sar(self, other: Number) -> VectorValue:
        return self._binary(other, None, arith.shrsi)

    def __neg__(self) -> VectorValue:
        return VectorValue(arith.negf(self.value)) if self.is_float else 0 - self

    def _compare(self, other: Number, floating: int, integer: int) -> VectorValue:
        return self._binary(other, lambda a, b: arith.cmpf(floating, a, b), lambda a, b: arith.cmpi(integer, a, b))

    def lt(self, other: Number) -> VectorValue:
        """Ordered, signed less-than: an i1 (vector)."""
        return self._compare(other, _F.OLT, _I.slt)

    def le(self, other: Number) -> VectorValue:
        return self._compare(other, _F.OLE, _I.sle)

    def gt(self, other: Number) -> VectorValue:
        return self._compare(other, _F.OGT, _I.sgt)

    def ge(self, other: Number) -> VectorValue:
        return self._compare(other, _F.OGE, _I.sge)

    def eq(self, other: Number) -> VectorValue:
        return self._compare(other, _F.OEQ, _I.eq)

    def ne(self, other: Number) -> VectorValue:
        """Unordered not-equal: true when either is NaN."""
        return self._compare(other, _F.UNE, _I.ne)

    def ult(self, other: Number) -> VectorValue:
        """Unsigned integer less-than."""
        return self._binary(other, None, lambda a, b: arith.cmpi(_I.ult, a, b))

    def ugt(self, other: Number) -> VectorValue:
        """Unsigned integer greater-than."""
        return self._binary(other, None, lambda a, b: arith.cmpi(_I.ugt, a, b))

    def isnan(self) -> VectorValue:
        return VectorValue(arith.cmpf(_F.UNO, self.value, self.value))

    def fma(self, factor: Number, addend: Number) -> VectorValue:
        """``self * factor + addend`` with one rounding."""
        factor = factor if isinstance(factor, VectorValue) else self.const(factor)
        addend = addend if isinstance(addend, VectorValue) else self.const(addend)
        return VectorValue(math.fma(self.value, factor.value, addend.value))

    def abs(self) -> VectorValue:
        return VectorValue(math.absf(self.value) if self.is_float else math.absi(self.value))

    def sqrt(self) -> VectorValue:
        return VectorValue(math.sqrt(self.value))

    def trunc(self) -> VectorValue:
        """Rounded to an integer, towards zero."""
        return VectorValue(math.trunc(self.value))

    def copysign(self, sign: VectorValue) -> VectorValue:
        return VectorValue(math.copysign(self.value, sign.value))

    def cast_bits(self, element: ir.Type) -> VectorValue:
        """Reinterpret every element as ``element`` (same width)."""
        return VectorValue(arith.bitcast(with_element(self.type, element), self.value))

    def to_bits(self) -> VectorValue:
        """The elements' bits as integers of the same width."""
        return self.cast_bits(ir.IntegerType.get_signless(self.bits))

    def extend_float(self, element: ir.Type) -> VectorValue:
        """Exact conversion to a wider float type (no operation when it is the same)."""
        if self.element == element:
            return self
        return VectorValue(arith.extf(with_element(self.type, element), self.value))

    def truncate_float(self, element: ir.Type) -> VectorValue:
        """Conversion to a narrower float type, rounding to nearest even."""
        if self.element == element:
            return self
        return VectorValue(arith.truncf(with_element(self.type, element), self.value))

    def resize_int(self, width: int, *, signed: bool = True) -> VectorValue:
        """Truncate or extend every integer to ``width`` bits."""
        if width == self.bits:
            return self
        out = with_element(self.type, ir.IntegerType.get_signless(width))
        if width < self.bits:
            return VectorValue(arith.trunci(out, self.value))
        return VectorValue((arith.extsi if signed else arith.extui)(out, self.value))

    def to_float(self, element: ir.Type, *, signed: bool = True) -> VectorValue:
        """Integer to float, rounding to nearest even."""
        return VectorValue((arith.sitofp if signed else arith.uitofp)(with_element(self.type, element), self.value))

    def to_int(self, width: int, *, signed: bool = True) -> VectorValue:
        """Float to integer, towards zero. Out-of-range values are what lower-casts defines for arith.fptosi/fptoui."""
        out = with_element(self.type, ir.IntegerType.get_signless(width))
        return VectorValue((arith.fptosi if signed else arith.fptoui)(out, self.value))

    def any(self) -> ir.Value:
        """True (a scalar i1) when any element of this i1 value is set."""
        if not isinstance(self.type, ir.VectorType):
            return self.value
        return vector.reduction(self.element, vector.CombiningKind.OR, self.value)


def select(condition: VectorValue, if_true: Number, if_false: Number) -> VectorValue:
    """Element-wise ``condition ? if_true : if_false``; at least one branch is a ``VectorValue``."""
    like = if_true if isinstance(if_true, VectorValue) else if_false
    assert isinstance(like, VectorValue), "select needs one operand that carries a type"
    yes = if_true if isinstance(if_true, VectorValue) else like.const(if_true)
    no = if_false if isinstance(if_false, VectorValue) else like.const(if_false)
    return VectorValue(arith.select(condition.value, yes.value, no.value))
