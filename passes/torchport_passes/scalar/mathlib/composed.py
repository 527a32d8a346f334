"""Functions that are composed of others: exact operations on bits, and f32 by f64 if that rounds only once.

Each takes ``(externals, arguments)``. "By f64" means: the f32 function is the f64 formula, rounded; its error is then
0.5 ULP plus a part in 10^7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlir import ir
from mlir.dialects import math

from torchport_passes.scalar.mathlib.calls import Externals, Implementation
from torchport_passes.scalar.mathlib.remainders import fmod_f32
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["COMPOSED", "by_f64", "plain", "sleef"]

_INF = float("inf")


def by_f64(function: Implementation) -> Implementation:
    """A function of f32 or f64 that computes ``function``, which takes f64."""

    def wrapped(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        floats = next(a for a in args if a.is_float)
        wide = [a.extend_float(ir.F64Type.get()) if a.is_float else a for a in args]
        return function(externals, wide).truncate_float(floats.element)

    return wrapped


def _isinf(x: VectorValue) -> VectorValue:
    return x.abs().eq(_INF)


def _largest(x: VectorValue, y: VectorValue) -> VectorValue:
    return select(x.lt(y), y, x)


def _mantissa(x: VectorValue) -> int:
    return {32: 23, 64: 52}[x.bits]


def _ilogb(x: VectorValue) -> VectorValue:
    """The exponent as i32; 0 and NaN give the most negative i32, infinity the most positive one (CUDA, glibc on
    x86)."""
    bias, m = (1 << (x.bits - 2 - _mantissa(x))) - 1, _mantissa(x)
    tiny = x.abs().lt(2.0 ** (1 - bias))
    scaled = select(tiny, x * 2.0**m, x)
    exponent = ((scaled.to_bits() << 1) >> (m + 1)).resize_int(32) - bias
    exponent = select(tiny, exponent - m, exponent)
    exponent = select(_isinf(x), (1 << 31) - 1, exponent)
    return select(x.isnan() | x.eq(0.0), -(1 << 31), exponent)


def _logb(x: VectorValue) -> VectorValue:
    value = _ilogb(x).to_float(x.element)
    value = select(x.eq(0.0), -_INF, value)
    return select(x.isnan() | _isinf(x), x * x, value)


def _ldexp(x: VectorValue, n: VectorValue) -> VectorValue:
    """x * 2^n with one rounding: at most two exact steps up, or two steps down that stay normal before the last."""
    f64 = ir.F64Type.get()

    def power(k: VectorValue) -> VectorValue:
        return ((k.resize_int(64) + 1023) << 52).cast_bits(f64)

    def clamp(k: VectorValue, low: int, high: int) -> VectorValue:
        k = select(k.lt(low), low, k)
        return select(k.gt(high), high, k)

    if x.bits == 32:
        return (x.extend_float(f64) * power(clamp(n, -400, 400))).truncate_float(x.element)
    n = clamp(n, -2200, 2200)
    # musl's scalbn: steps of 2^1023 up, of 2^-969 (-1022 + 53) down: no step before the last can round.
    for _ in range(2):
        up, down = n.gt(1023), n.lt(-1022)
        x = select(up, x * 2.0**1023, select(down, x * 2.0**-969, x))
        n = select(up, n - 1023, select(down, n + 969, n))
    return x * power(clamp(n, -1022, 1023))


def _nextafter(x: VectorValue, y: VectorValue) -> VectorValue:
    bits = x.to_bits()
    outward = x.lt(y) ^ bits.lt(0)
    stepped = bits + select(outward, bits.const(1), -1)
    from_zero = (y.to_bits() & (1 << (x.bits - 1))) | 1
    result = select(x.eq(0.0), from_zero, stepped).cast_bits(x.element)
    result = select(x.eq(y), y, result)
    return select(x.isnan() | y.isnan(), x + y, result)


def _norm(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    """sqrt of the sum of squares without overflow; infinite when any argument is."""
    top = args[0].abs()
    for a in args[1:]:
        top = _largest(top, a.abs())
    down, up = top.gt(2.0**500), top.lt(2.0**-500)
    scale = select(down, top.const(2.0**-600), select(up, top.const(2.0**600), 1.0))
    unscale = select(down, top.const(2.0**600), select(up, top.const(2.0**-600), 1.0))
    total = top.const(0.0)
    for a in args:
        total = (a * scale).fma(a * scale, total)
    result = total.sqrt() * unscale
    for a in args:
        result = select(_isinf(a), _INF, result)
    return result


def _reciprocal(function: Implementation) -> Implementation:
    return lambda externals, args: 1.0 / function(externals, args)


def _pow(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    x, y = args
    if y.is_float:
        return externals.call("pow", args)
    # Integer exponents: exact in f64, where i32 is.
    wide = x.extend_float(ir.F64Type.get())
    return externals.call("pow", [wide, y.to_float(ir.F64Type.get())]).truncate_float(x.element)


def _arc_hyperbolic(name: str) -> Implementation:
    """asinh or acosh: Sleef's square the argument, so that a large one gives infinity; log(2x) is right there."""

    def function(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        (x,) = args
        far = (externals.call("log", [x.abs()]) + 0.6931471805599453).copysign(x)
        return select((x.abs() if name == "asinh" else x).gt(2.0**500), far, externals.call(name, args))

    return function


def _round_to_integer(name: str) -> Callable[[VectorValue], VectorValue]:
    return lambda x: VectorValue(getattr(math, name)(x.value))


def _to_i64(name: str) -> Callable[[VectorValue], VectorValue]:
    return lambda x: _round_to_integer(name)(x).to_int(64)


def _rcp64h(x: VectorValue) -> VectorValue:
    """The upper word of 1 / x, the lower word zero."""
    return ((1.0 / x).to_bits() & (0xFFFFFFFF << 32)).cast_bits(x.element)


def plain(function: Callable[..., VectorValue]) -> Implementation:
    """A function of values that needs no externals."""
    return lambda externals, args: function(*args)


def sleef(name: str) -> Implementation:
    """A call of Sleef's function, for the types it has."""
    return lambda externals, args: externals.call(name, args)


def _libm(name: str) -> Implementation:
    return lambda externals, args: externals.call_libm(name, args)


def _exact_remainder(name: str) -> Implementation:
    wide = by_f64(sleef(name))
    narrow = fmod_f32(wide) if name == "fmod" else wide
    return lambda externals, args: (narrow if args[0].bits == 32 else _libm(name))(externals, args)


_DIRECT: dict[str, Callable[..., VectorValue]] = {
    "abs": lambda x: x.abs(),
    "copysign": lambda x, y: x.copysign(y),
    "fast_dividef": lambda x, y: x / y,
    "fdim": lambda x, y: select(x.le(y), 0.0, x - y),
    "fma": lambda x, y, z: x.fma(y, z),
    "ilogb": _ilogb,
    "isfinite": lambda x: x.abs().lt(_INF),
    "isinf": _isinf,
    "isnan": lambda x: x.isnan(),
    "ldexp": _ldexp,
    "llrint": _to_i64("roundeven"),
    "llround": _to_i64("round"),
    "logb": _logb,
    "nextafter": _nextafter,
    "rcp64h": _rcp64h,
    "saturatef": lambda x: select(x.gt(0.0), select(x.gt(1.0), 1.0, x), 0.0),
    "scalbn": _ldexp,
    "signbit": lambda x: x.to_bits().lt(0),
    "sqrt": lambda x: x.sqrt(),
}

COMPOSED: dict[str, Implementation] = {
    **{name: plain(function) for name, function in _DIRECT.items()},
    **{
        name: plain(_round_to_integer(op))
        for name, op in {
            "ceil": "ceil", "floor": "floor", "nearbyint": "roundeven", "rint": "roundeven", "round": "round",
            "trunc": "trunc",
        }.items()
    },
    **{name: _libm(name) for name in ("j0", "j1", "jn", "y0", "y1", "yn")},
    # Sleef's f32 versions of these give infinity before the result overflows, or lose digits at zeros and denormals.
    **{name: by_f64(sleef(name)) for name in ("cosh", "lgamma", "sinh", "tgamma")},
    "acosh": by_f64(_arc_hyperbolic("acosh")),
    "asinh": by_f64(_arc_hyperbolic("asinh")),
    # Exact; Sleef's gives NaN when the divisor is denormal, which an f32 is not in f64.
    **{name: _exact_remainder(name) for name in ("fmod", "remainder")},
    "pow": _pow,
    "norm3d": by_f64(_norm),
    "norm4d": by_f64(_norm),
    "rnorm3d": by_f64(_reciprocal(_norm)),
    "rnorm4d": by_f64(_reciprocal(_norm)),
    "rhypot": by_f64(_reciprocal(_norm)),
    "rcbrt": by_f64(_reciprocal(sleef("cbrt"))),
    "rsqrt_rn": by_f64(lambda externals, args: 1.0 / args[0].sqrt()),
}  # fmt: skip
COMPOSED["finitef"] = COMPOSED["isfinited"] = COMPOSED["isfinite"]
