"""Rounds f64 values to other formats, as the emulation of matrix units and functions needs it."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, math

from torchport.arithmetic.formats import FORMATS
from torchport_passes.ir.types import Value
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = [
    "HIDDEN", "at_least", "at_most", "cut_to_tf32", "exponent", "flushed", "rounded", "scaled_inverse", "uniform",
]  # fmt: skip

HIDDEN = 2.0**-480
"""Stands for the power of two of a zero: below that of any product of f32 numbers, also if multiplied by one of them.
Its square is a normal number, and so is the inverse of that."""

_EXPONENT = 0x7FF << 52
_ROUND = {"rne": math.roundeven, "rz": math.trunc, "rd": math.floor}


def at_most(a: VectorValue, b: VectorValue) -> VectorValue:
    """The larger of two values that are not NaN."""
    return select(a.gt(b), a, b)


def at_least(a: VectorValue, b: VectorValue) -> VectorValue:
    """The smaller of two values that are not NaN."""
    return select(a.lt(b), a, b)


def exponent(x: VectorValue, least: int, *, zero: float | None = HIDDEN) -> VectorValue:
    """2 to the exponent of x (f64).

    For subnormals the exponent is ``least``; for inf and NaN the result is inf, for zeros ``zero``.
    """
    power = (x.to_bits() & _EXPONENT).cast_bits(x.element)
    power = at_most(power, power.const(2.0**least))
    return power if zero is None else select(x.eq(0.0), power.const(zero), power)


def scaled_inverse(power: VectorValue, bits: int) -> VectorValue:
    """2^bits / power for a power of two, by a subtraction of exponent fields. Without meaning for inf."""
    return (((2046 + bits) << 52) - power.to_bits()).cast_bits(power.element)


def flushed(x: VectorValue, least: int, *, signed: bool = True) -> VectorValue:
    """x, or a zero of its sign if it is below 2^least; +0 if not ``signed``, also for -0."""
    return select(x.abs().lt(2.0**least), x * 0.0 if signed else x.const(0.0), x)


def rounded(x: VectorValue, format_: str, rounding: str) -> VectorValue:
    """x (f64) rounded to a format of FORMATS (``rne``, ``rz`` or ``rd``); larger numbers become infinite."""
    if format_ == "f64":
        return x
    f32 = ir.F32Type.get()
    if (format_, rounding) == ("f32", "rne"):
        return x.truncate_float(f32).extend_float(x.element)
    narrow = FORMATS[format_]
    power = exponent(x, narrow.least, zero=None)
    units = VectorValue(_ROUND[rounding]((x * scaled_inverse(power, narrow.fraction)).value))
    result = units * (power * 2.0**-narrow.fraction)
    result = select(result.abs().ge(2.0 ** (2 - narrow.least)), x.const(float("inf")).copysign(x), result)
    return select(power.eq(float("inf")), x, result)


def cut_to_tf32(x: Value) -> Value:
    """A tensor of f32 without the low 13 bits of the fraction; NaN stays NaN."""
    lanes = VectorValue(x)
    cut = (lanes.to_bits() & -(1 << 13)).cast_bits(lanes.element)
    return arith.select(lanes.isnan().value, x, cut.value)


def uniform(x: VectorValue) -> VectorValue:
    """Numbers in [-1, 1), a hash of the bits of x (f64): splitmix64 (Steele, Lea and Flood, 2014)."""
    bits = x.to_bits()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> shift)) * factor
    bits = bits ^ (bits >> 31)
    return ((bits >> 12) | (0x400 << 52)).cast_bits(x.element) - 3.0
