"""Arithmetic and conversions rounded to nearest (rn), towards zero (rz), down (rd) or up (ru).

Each result is computed to nearest together with (the sign of) what that rounding lost, and moved to its neighbour where
the direction asks for it. The lost part is exact: by TwoSum (Knuth) for sums, by fma for products, quotients and roots;
f32 works in f64. Only f64 products and quotients near the smallest denormals can lose it.
"""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir

from torchport_passes.scalar.mathlib.conversions import to_int
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select, with_element

__all__ = ["DIRECTED", "away", "nearest_integer", "towards"]

_MODES = ("rn", "rz", "rd", "ru")


def away(x: VectorValue, up: bool) -> VectorValue:
    """The next float above (``up``) or below a number; x must not be NaN or the infinity in that direction."""
    bits = x.to_bits()
    step = select(bits.lt(0), bits.const(-1 if up else 1), 1 if up else -1)
    smallest = bits.const(1 if up else (1 << (x.bits - 1)) | 1)
    return select(x.eq(0.0), smallest, bits + step).cast_bits(x.element)


def towards(near: VectorValue, lost: VectorValue, mode: str) -> VectorValue:
    """``near + lost`` rounded in ``mode``, where ``near`` is the sum to nearest and only the sign of ``lost``
    counts."""
    if mode == "rn":
        return near
    # A finite result that overflowed lost minus (the rest): stepping back gives the largest finite number.
    lost = select(near.abs().eq(float("inf")), select(lost.isnan(), lost, -near), lost)
    down = lost.lt(0.0)
    up = lost.gt(0.0)
    result = near
    if mode in ("rz", "rd"):
        take = down if mode == "rd" else down & near.gt(0.0)
        result = select(take, away(near, up=False), result)
    if mode in ("rz", "ru"):
        take = up if mode == "ru" else up & near.lt(0.0)
        result = select(take, away(near, up=True), result)
    return result


def _f64(*args: VectorValue) -> list[VectorValue]:
    return [a.extend_float(ir.F64Type.get()) for a in args]


def _settle(value: VectorValue, rest: VectorValue, element: ir.Type, mode: str, exact: VectorValue) -> VectorValue:
    """``value + rest`` (f64) in ``element``; ``exact``: i1, true where infinite or NaN operands make the result
    exact."""
    near = value.truncate_float(element)
    lost = value - near.extend_float(value.element) if element != value.element else value.const(0.0)
    lost = select(lost.eq(0.0), rest, lost)
    sign = select(lost.gt(0.0), value.const(1.0), select(lost.lt(0.0), value.const(-1.0), 0.0))
    sign = select(exact, 0.0, sign)
    directed = towards(near, sign.truncate_float(element), mode)
    return select(exact, near, directed)


def _special(*args: VectorValue) -> VectorValue:
    """True where any argument is infinite or NaN."""
    flags = [~a.abs().lt(float("inf")) for a in args]
    total = flags[0]
    for flag in flags[1:]:
        total = total | flag
    return total


def _add(mode: str, sign: float = 1.0) -> Callable[..., VectorValue]:
    def add(x: VectorValue, y: VectorValue) -> VectorValue:
        a, b = _f64(x, y * sign)
        total = a + b
        part = total - a
        rest = (a - (total - part)) + (b - part)
        result = _settle(total, rest, x.element, mode, _special(x, y))
        # An exact zero from x - x is -0 when rounding down.
        cancelled = total.eq(0.0) & a.ne(0.0) if mode == "rd" else None
        return result if cancelled is None else select(cancelled, -0.0, result)

    return add


def _multiply(mode: str) -> Callable[..., VectorValue]:
    def multiply(x: VectorValue, y: VectorValue) -> VectorValue:
        a, b = _f64(x, y)
        product = a * b
        return _settle(product, a.fma(b, -product), x.element, mode, _special(x, y))

    return multiply


def _divide(mode: str) -> Callable[..., VectorValue]:
    def divide(x: VectorValue, y: VectorValue) -> VectorValue:
        a, b = _f64(x, y)
        quotient = a / b
        rest = (-quotient).fma(b, a) * b.const(1.0).copysign(b)
        return _settle(quotient, rest, x.element, mode, _special(x, y) | y.eq(0.0))

    return divide


def _reciprocal(mode: str) -> Callable[..., VectorValue]:
    divide = _divide(mode)
    return lambda x: divide(x.const(1.0), x)


def _root(mode: str) -> Callable[..., VectorValue]:
    def root(x: VectorValue) -> VectorValue:
        (a,) = _f64(x)
        s = a.sqrt()
        return _settle(s, (-s).fma(s, a), x.element, mode, _special(x) | ~x.gt(0.0))

    return root


def _fma(mode: str) -> Callable[..., VectorValue]:
    def fma(x: VectorValue, y: VectorValue, z: VectorValue) -> VectorValue:
        if mode == "rn":
            return x.fma(y, z)
        a, b, c = _f64(x, y, z)
        product = a * b
        tail = a.fma(b, -product)
        near = a.fma(b, c)
        total = product + c
        part = total - product
        rest = (product - (total - part)) + (c - part)
        return _settle(near, (total - near) + (rest + tail), x.element, mode, _special(x, y, z))

    return fma


def _to_f32(mode: str) -> Callable[..., VectorValue]:
    return lambda x: _settle(x, x.const(0.0), ir.F32Type.get(), mode, _special(x))


def nearest_integer(x: VectorValue, mode: str) -> VectorValue:
    """x rounded to an integral value in its own type."""
    from mlir.dialects import math

    return VectorValue({"rn": math.roundeven, "rz": math.trunc, "rd": math.floor, "ru": math.ceil}[mode](x.value))


def _float_to_int(mode: str, width: int, signed: bool) -> Callable[..., VectorValue]:
    def convert(x: VectorValue) -> VectorValue:
        result = with_element(x.type, ir.IntegerType.get_signless(width))
        return to_int(nearest_integer(x, mode), result, signed=signed, saturate=True)

    return convert


def _int_to_float(mode: str, double: bool, signed: bool) -> Callable[..., VectorValue]:
    def convert(x: VectorValue) -> VectorValue:
        f64 = ir.F64Type.get()
        target = f64 if double else ir.F32Type.get()
        if mode == "rn":
            return x.to_float(target, signed=signed)
        # Two exact halves in f64: the upper one a multiple of 2^32.
        high = ((x.sar(16) if signed else x >> 16) if x.bits == 32 else (x.sar(32) if signed else x >> 32)).to_float(
            f64
        )
        half = x.bits // 2
        a, b = high * 2.0**half, (x & ((1 << half) - 1)).to_float(f64)
        total = a + b
        rest = b - (total - a)
        return _settle(total, rest, target, mode, total.lt(0.0) & total.gt(0.0))

    return convert


DIRECTED: dict[str, Callable[..., VectorValue]] = {}
for _mode in _MODES:
    DIRECTED[f"add_{_mode}"] = _add(_mode)
    DIRECTED[f"sub_{_mode}"] = _add(_mode, -1.0)
    DIRECTED[f"mul_{_mode}"] = _multiply(_mode)
    DIRECTED[f"div_{_mode}"] = _divide(_mode)
    DIRECTED[f"sqrt_{_mode}"] = _root(_mode)
    DIRECTED[f"fma_{_mode}"] = _fma(_mode)
    DIRECTED[f"rcp_{_mode}"] = _reciprocal(_mode)
    DIRECTED[f"double2float_{_mode}"] = _to_f32(_mode)
    for _from in ("float", "double"):
        for _name, _width, _signed in (("int", 32, True), ("uint", 32, False), ("ll", 64, True), ("ull", 64, False)):
            DIRECTED[f"{_from}2{_name}_{_mode}"] = _float_to_int(_mode, _width, _signed)
            DIRECTED[f"{_name}2{_from}_{_mode}"] = _int_to_float(_mode, _from == "double", _signed)
