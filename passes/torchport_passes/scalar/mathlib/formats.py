"""Bit-exact conversions between f32/f64 and bf16, f16 and the 8-bit formats, on integers.

What LLVM picks for bf16 is not good enough (x86's vcvtneps2bf16 flushes denormals, f64 to bf16 may round twice), f64
to f16 would call a function of the compiler's runtime library, and there is nothing at all for the 8-bit formats.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlir import ir

from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = [
    "LAYOUTS",
    "FloatLayout",
    "bf16_to_f32",
    "f32_to_bf16",
    "narrow",
    "round_to_odd_f32",
    "widen",
    "without_sign",
]


@dataclass(frozen=True)
class FloatLayout:
    """The bits of a small floating-point format.

    ``exponent``, ``mantissa``: numbers of bits.
    ``bias``: what the exponent field adds to the exponent.
    ``kind``: ``ieee`` (inf and NaNs), ``fn`` (no inf, NaN is all ones) or ``fnuz`` (no inf, no -0, NaN is 0x80).
    """

    exponent: int
    mantissa: int
    bias: int
    kind: str = "ieee"

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def largest(self) -> int:
        """Bits of the largest finite value."""
        top = ((1 << self.exponent) << self.mantissa) - 1
        return {"ieee": top - (1 << self.mantissa), "fn": top - 1, "fnuz": top}[self.kind]

    @property
    def maximum(self) -> float:
        """The largest finite value."""
        exponent, mantissa = divmod(self.largest, 1 << self.mantissa)
        return float((1 + mantissa * 2.0**-self.mantissa) * 2.0 ** (exponent - self.bias))

    @property
    def nan(self) -> int:
        """Bits of the NaN that conversions make (without sign)."""
        if self.kind == "fnuz":
            return 1 << (self.bits - 1)
        top = ((1 << self.exponent) << self.mantissa) - 1
        return top if self.kind == "fn" else top - (1 << self.mantissa) + (1 << (self.mantissa - 1))


LAYOUTS = {
    "f16": FloatLayout(5, 10, 15),
    "bf16": FloatLayout(8, 7, 127),
    "f8E5M2": FloatLayout(5, 2, 15),
    "f8E4M3": FloatLayout(4, 3, 7),
    "f8E4M3FN": FloatLayout(4, 3, 7, "fn"),
    "f8E5M2FNUZ": FloatLayout(5, 2, 16, "fnuz"),
    "f8E4M3FNUZ": FloatLayout(4, 3, 8, "fnuz"),
    "f8E4M3B11FNUZ": FloatLayout(4, 3, 11, "fnuz"),
}


def bf16_to_f32(x: VectorValue) -> VectorValue:
    """Exact: bf16 is the upper half of f32."""
    return (x.to_bits().resize_int(32, signed=False) << 16).cast_bits(ir.F32Type.get())


def f32_to_bf16(x: VectorValue, *, short_nans: bool = False) -> VectorValue:
    """Rounds to nearest even. Denormals stay; NaN becomes the quiet NaN with its sign and upper payload.

    ``short_nans``: a NaN has nothing in its lower 16 bits (``mark-nans``), so that it stays the same.
    """
    bits = x.to_bits()
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    if not short_nans:
        upper = select(x.isnan(), (bits >> 16) | 0x40, upper)
    return upper.resize_int(16).cast_bits(ir.BF16Type.get())


def round_to_odd_f32(x: VectorValue) -> VectorValue:
    """f64 to f32, an inexact result having its last bit set: rounding that again to <= 22 bits rounds only once.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd" (2008).
    """
    near = x.truncate_float(ir.F32Type.get())
    back = near.extend_float(x.element)
    bits = near.to_bits()
    # Step back to the value at or below |x|, then set the last bit where that is not exact.
    above = back.abs().gt(x.abs())
    lower = bits - select(above, bits.const(1), 0)
    odd = lower | 1
    # An overflow to infinity steps back to the largest finite f32, whose last bit is set already.
    inexact = back.ne(x)
    result = select(inexact, odd, bits).cast_bits(ir.F32Type.get())
    return select(x.isnan(), near, result)


def widen(x: VectorValue, format_: FloatLayout) -> VectorValue:
    """A small float, given as integers of its width, to f32. Exact."""
    bits = x.resize_int(32, signed=False)
    sign = (bits >> (format_.bits - 1)) << 31
    magnitude = bits & ((1 << (format_.bits - 1)) - 1)
    # Shifted into f32's fields the value is off by a power of two, denormals included: one exact product corrects it.
    f32 = ir.F32Type.get()
    value = (magnitude << (23 - format_.mantissa)).cast_bits(f32) * 2.0 ** (127 - format_.bias)
    if format_.kind == "ieee":
        special = magnitude.ge(format_.largest + 1)
        full = (magnitude << (23 - format_.mantissa)) | 0x7F800000
        value = select(special, full.cast_bits(f32), value)
    else:
        nan = bits.eq(format_.nan) if format_.kind == "fnuz" else magnitude.eq(format_.nan)
        value = select(nan, float("nan"), value)
    return (value.to_bits() | sign).cast_bits(f32)


def narrow(x: VectorValue, format_: FloatLayout, *, saturate: bool, nearest: bool = True) -> VectorValue:
    """f32 to a small float, as integers of its width; to nearest even, or towards zero.

    Too large values become the largest finite one if ``saturate`` (infinities too) or if rounding goes towards zero,
    else infinity (NaN where the format has none). NaN stays NaN.
    """
    if format_ == LAYOUTS["bf16"] and not nearest:
        cut = x.to_bits() >> 16
        return select(x.isnan(), cut | 0x40, cut).resize_int(16)
    bits = x.to_bits()
    sign = (bits >> 31) << (format_.bits - 1)
    magnitude = bits & 0x7FFFFFFF
    shift = 23 - format_.mantissa
    # Normal results: drop the low mantissa bits, then re-bias.
    rounding = ((magnitude >> shift) & 1) + ((1 << (shift - 1)) - 1)
    rebias = (127 - format_.bias) << format_.mantissa
    normal = ((magnitude + rounding if nearest else magnitude) >> shift) - rebias
    # Denormal results: adding 2^(23 + exponent of the last place) leaves the rounded count of last places in the
    # mantissa.
    last_place = 1 - format_.bias - format_.mantissa
    f32 = ir.F32Type.get()
    absolute = magnitude.cast_bits(f32)
    if nearest:
        denormal = (absolute + 2.0 ** (23 + last_place)).to_bits() - ((23 + last_place + 127) << 23)
    else:
        denormal = (absolute * 2.0**-last_place).to_int(32)
    small = absolute.lt(2.0 ** (1 - format_.bias))
    result = select(small, denormal, normal)
    overflow = (
        format_.largest if saturate or not nearest else format_.largest + 1 if format_.kind == "ieee" else format_.nan
    )
    result = select(result.gt(format_.largest), overflow, result)
    infinite = magnitude.eq(0x7F800000)
    if format_.kind == "ieee" and not saturate:
        result = select(infinite, format_.largest + 1, result)
    elif not saturate:
        result = select(infinite, format_.nan, result)
    if format_.kind == "fnuz":
        # No -0: a zero has no sign. The NaN is the bit pattern -0 would have.
        signed = select(result.eq(0), 0, result | sign)
        return select(magnitude.gt(0x7F800000), format_.nan, signed).resize_int(format_.bits)
    return (select(magnitude.gt(0x7F800000), format_.nan, result) | sign).resize_int(format_.bits)


def without_sign(x: VectorValue) -> VectorValue:
    """The absolute value of a small float, by its bits: infinities stay what they are, NaN stays NaN."""
    bits = x.to_bits()
    format_ = LAYOUTS[str(x.element)]
    magnitude = bits & ((1 << (format_.bits - 1)) - 1)
    if format_.kind == "fnuz":
        magnitude = select(bits.eq(format_.nan), bits, magnitude)
    return magnitude.cast_bits(x.element)
