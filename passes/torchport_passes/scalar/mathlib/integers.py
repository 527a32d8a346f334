"""Integer functions of libdevice (CUDA's definitions), on i32 and i64."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import math

from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["INTEGER"]


def _brev(x: VectorValue) -> VectorValue:
    """Reverse the bits: swap neighbours, pairs, nibbles, bytes, ... up to the halves."""
    shift = 1
    while shift < x.bits:
        mask = sum(((1 << shift) - 1) << i for i in range(0, x.bits, 2 * shift))
        x = ((x >> shift) & mask) | ((x & mask) << shift)
        shift *= 2
    return x


def _byte_perm(x: VectorValue, y: VectorValue, selector: VectorValue) -> VectorValue:
    """PRMT: byte i of the result is byte (selector >> 4i) & 7 of the eight bytes y:x."""
    both = x.resize_int(64, signed=False) | (y.resize_int(64, signed=False) << 32)
    total = x.const(0)
    for i in range(4):
        place = ((selector >> (4 * i)) & 7).resize_int(64, signed=False) << 3
        total = total | (((both >> place).resize_int(32) & 0xFF) << (8 * i))
    return total


def _mulhi(signed: bool) -> Callable[[VectorValue, VectorValue], VectorValue]:
    def high(x: VectorValue, y: VectorValue) -> VectorValue:
        if x.bits == 32:
            product = x.resize_int(64, signed=signed) * y.resize_int(64, signed=signed)
            return (product >> 32).resize_int(32)
        unsigned = _mulhi64(x, y)
        if not signed:
            return unsigned
        return unsigned - select(x.lt(0), y, 0) - select(y.lt(0), x, 0)

    return high


def _mulhi64(x: VectorValue, y: VectorValue) -> VectorValue:
    """Upper 64 bits of the unsigned product, from four 32-bit halves: vectors have no 128-bit integers."""
    low = 0xFFFFFFFF
    x0, x1, y0, y1 = x & low, x >> 32, y & low, y >> 32
    middle = x1 * y0 + ((x0 * y0) >> 32)
    other = x0 * y1 + (middle & low)
    return x1 * y1 + (middle >> 32) + (other >> 32)


def _mul24(signed: bool) -> Callable[[VectorValue, VectorValue], VectorValue]:
    def multiply(x: VectorValue, y: VectorValue) -> VectorValue:
        if signed:
            return (x << 8).sar(8) * (y << 8).sar(8)
        return (x & 0xFFFFFF) * (y & 0xFFFFFF)

    return multiply


def _average(signed: bool, up: bool) -> Callable[[VectorValue, VectorValue], VectorValue]:
    def average(x: VectorValue, y: VectorValue) -> VectorValue:
        total = x.resize_int(64, signed=signed) + y.resize_int(64, signed=signed) + int(up)
        return total.sar(1).resize_int(32)

    return average


def _sad(signed: bool) -> Callable[[VectorValue, VectorValue, VectorValue], VectorValue]:
    def sad(x: VectorValue, y: VectorValue, z: VectorValue) -> VectorValue:
        return select(x.lt(y) if signed else x.ult(y), y - x, x - y) + z

    return sad


def _popc(x: VectorValue) -> VectorValue:
    return VectorValue(math.ctpop(x.value)).resize_int(32)


def _clz(x: VectorValue) -> VectorValue:
    return VectorValue(math.ctlz(x.value)).resize_int(32)


def _ffs(x: VectorValue) -> VectorValue:
    """One plus the place of the lowest set bit; 0 for 0."""
    return select(x.eq(0), 0, VectorValue(math.cttz(x.value)) + 1).resize_int(32)


def _hiloint2double(high: VectorValue, low: VectorValue) -> VectorValue:
    bits = (high.resize_int(64) << 32) | low.resize_int(64, signed=False)
    return bits.cast_bits(ir.F64Type.get())


def _as_float(x: VectorValue) -> VectorValue:
    return x.cast_bits(ir.F32Type.get() if x.bits == 32 else ir.F64Type.get())


# function -> expansion; the u-names are the unsigned twins.
INTEGER: dict[str, Callable[..., VectorValue]] = {
    "brev": _brev,
    "byte_perm": _byte_perm,
    "clz": _clz,
    "ffs": _ffs,
    "popc": _popc,
    "hadd": _average(signed=True, up=False),
    "uhadd": _average(signed=False, up=False),
    "rhadd": _average(signed=True, up=True),
    "urhadd": _average(signed=False, up=True),
    "mul24": _mul24(signed=True),
    "umul24": _mul24(signed=False),
    "mulhi": _mulhi(signed=True),
    "umulhi": _mulhi(signed=False),
    "sad": _sad(signed=True),
    "usad": _sad(signed=False),
    "hiloint2double": _hiloint2double,
    "double2loint": lambda x: x.to_bits().resize_int(32),
    "double2hiint": lambda x: (x.to_bits() >> 32).resize_int(32),
    "int_as_float": _as_float,
    "uint_as_float": _as_float,
    "longlong_as_double": _as_float,
    "float_as_int": lambda x: x.to_bits(),
    "float_as_uint": lambda x: x.to_bits(),
    "double_as_longlong": lambda x: x.to_bits(),
}
