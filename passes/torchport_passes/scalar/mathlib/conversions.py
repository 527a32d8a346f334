"""Conversions between any two of torchport's number types, with defined results for every input."""

from __future__ import annotations

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.scalar.mathlib.formats import LAYOUTS, bf16_to_f32, f32_to_bf16, narrow, round_to_odd_f32, widen
from torchport_passes.scalar.mathlib.vector_value import VectorValue, element_type, select

__all__ = ["from_int", "holds", "round_to", "to_f32", "to_int"]

_SIGNIFICANDS = {"bf16": 8, "f16": 11}
"""Bits, the hidden one included."""


def holds(target: ir.Type, bits: int, *, signed: bool) -> bool:
    """Whether a 16-bit float has each integer of so many bits."""
    return bits - signed <= _SIGNIFICANDS.get(str(target), 0)


def to_f32(x: VectorValue) -> VectorValue:
    """A 16- or 8-bit float as f32, exactly."""
    kind = str(x.element)
    if kind == "f16":
        return x.extend_float(ir.F32Type.get())
    if kind == "bf16":
        return bf16_to_f32(x)
    if kind not in LAYOUTS:
        raise UnsupportedOperation("arith.extf", f"unknown float type {kind}")
    return widen(x.to_bits(), LAYOUTS[kind])


def round_to(x: VectorValue, target: ir.Type, *, nearest: bool = True, short_nans: bool = False) -> VectorValue:
    """f32 or f64 ``x`` in ``target`` with one rounding (to nearest even, or towards zero); 8-bit floats saturate.

    ``short_nans``: as for ``f32_to_bf16``.
    """
    kind = str(target)
    f32 = ir.F32Type.get()
    if target == x.element:
        return x
    if kind == "f64":
        return x.extend_float(target)
    if kind == "f32":
        return x.truncate_float(f32) if nearest else _towards_zero_f32(x)
    if kind not in LAYOUTS:
        raise UnsupportedOperation("arith.truncf", f"unknown float type {kind}")
    if x.bits == 64:
        x = round_to_odd_f32(x) if nearest else _towards_zero_f32(x)
    if nearest and kind == "bf16":
        return f32_to_bf16(x, short_nans=short_nans)
    if nearest and kind == "f16":
        return x.truncate_float(target)  # vcvtps2ph, fcvtn: correctly rounded, denormals kept
    saturate = LAYOUTS[kind].bits == 8
    return narrow(x, LAYOUTS[kind], saturate=saturate, nearest=nearest).cast_bits(target)


def _towards_zero_f32(x: VectorValue) -> VectorValue:
    near = x.truncate_float(ir.F32Type.get())
    away = near.extend_float(x.element).abs().gt(x.abs())
    return select(away, near.to_bits() - 1, near.to_bits()).cast_bits(near.element)


def to_int(x: VectorValue, result: ir.Type, *, signed: bool, saturate: bool) -> VectorValue:
    """f32 or f64 ``x`` towards zero in the integer type ``result``.

    What does not fit: with ``saturate`` the nearest integer, NaN giving 0 (aarch64). Without, what C compilers make of
    it with x86's cvtt instructions: for signed and for narrow results the most negative 32-bit (64-bit) integer, cut
    to the width of the result; u32 and u64 take values from half their range on by subtracting that half before.
    """
    width = ir.IntegerType(element_type(result)).width
    if saturate:
        return _saturated(x, width, signed=signed)
    if signed or width < 32:
        return _cvtt(x, max(width, 32)).resize_int(width)
    half = 2.0 ** (width - 1)
    return select(x.ge(half), _cvtt(x - half, width) ^ (1 << (width - 1)), _cvtt(x, width))


def _cvtt(x: VectorValue, width: int) -> VectorValue:
    """x86's cvtt: the most negative integer for NaN and for what does not fit. -2^(width-1) itself is that, too."""
    return select(x.abs().lt(2.0 ** (width - 1)), x.to_int(width), -(1 << (width - 1)))


def _saturated(x: VectorValue, width: int, *, signed: bool) -> VectorValue:
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    plain = x.to_int(width, signed=signed)
    # high + 1 is a power of two, exact; every float above -1 (unsigned) or at least low (signed) truncates into range.
    result = select(x.ge(float(high + 1)), high, plain)
    result = select(x.lt(float(low)) if signed else x.le(-1.0), low, result)
    return select(x.isnan(), 0, result)


def from_int(x: VectorValue, target: ir.Type, *, signed: bool) -> VectorValue | None:
    """Integer to float to nearest even; 16-bit floats by way of f32, as torch does. None: the plain operation is
    right."""
    f32 = ir.F32Type.get()
    wide = target if str(target) in ("f32", "f64") else f32
    if x.bits == 1:
        one = VectorValue(_splat(x, wide, -1.0 if signed else 1.0))
        value = select(x, one, 0.0)
    elif wide == target:
        return None
    else:
        value = x.to_float(wide, signed=signed)
    if str(target) == "bf16" and holds(target, x.bits, signed=signed):
        return (value.to_bits() >> 16).resize_int(16).cast_bits(target)  # the rest of the bits are 0
    return round_to(value, target)


def _splat(like: VectorValue, element: ir.Type, number: float) -> ir.Value:
    from mlir.dialects import arith

    from torchport_passes.scalar.mathlib.vector_value import with_element

    type_ = with_element(like.type, element)
    attribute = ir.FloatAttr.get(element, number)
    if isinstance(type_, ir.VectorType):
        return arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, attribute)).result
    return arith.ConstantOp(type_, attribute).result
