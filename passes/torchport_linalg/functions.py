"""Functions of ``tl.extra.libdevice``, written in ``math`` and ``arith`` or as calls of C's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.bits import BITS, applied
from torchport_linalg.floats import to_integer
from torchport_linalg.text import Value, Writer

__all__ = ["extern"]

_SYMBOL = re.compile(r"tp_(\w+)_([fiu]\d+)")
_MATH = MappingProxyType(
    {name: name for name in
     "acos acosh asin asinh atan atanh atan2 cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 floor fma log log10 "
     "log1p log2 round rsqrt sin sinh sqrt tan tanh trunc".split()}
    | {"rint": "roundeven", "nearbyint": "roundeven", "pow": "powf", "fma_rn": "fma", "sqrt_rn": "sqrt"}
    | {f"fast_{name}f": name for name in "cos exp log10 log2 log sin tan tanh".split()}
    | {"rsqrt_rn": "rsqrt", "fast_powf": "powf"}
)  # fmt: skip
_ARITH = MappingProxyType(
    {"fmod": "remf", "add_rn": "addf", "sub_rn": "subf", "mul_rn": "mulf", "div_rn": "divf", "fast_dividef": "divf"}
)
_LIBM = frozenset("exp10 fdim hypot j0 j1 lgamma logb nextafter remainder tgamma y0 y1".split())


def extern(w: Writer, op: Any, args: Sequence[Value]) -> list[Value]:
    """The function that a ``tt.extern_elementwise`` names. Raises UnsupportedOperation for others than are listed."""
    symbol = ir.StringAttr(op.attributes["symbol"]).value
    found = _SYMBOL.fullmatch(symbol)
    if found is None:
        raise UnsupportedOperation("tt.extern_elementwise", f"{symbol} is no function that torchport knows")
    function, kind = found.groups()
    e = args[0].element
    names = ", ".join(a.name for a in args)
    one_type = all(a.element == e for a in args)
    if function in _MATH and one_type and kind.startswith("f"):
        return [w.value(e, f"math.{_MATH[function]} {names} : {e}")]
    if function in _ARITH and one_type:
        return [w.value(e, f"arith.{_ARITH[function]} {names} : {e}")]
    written = _WRITTEN.get(function) or BITS.get(function)
    if written is not None:
        return [written(w, args)]
    if function in _LIBM and one_type:
        called = function + ("f" if e == "f32" else "")
        w.declare(called, f"({', '.join([e] * len(args))}) -> {e}")
        return [w.value(e, f"func.call @{called}({names}) : ({', '.join([e] * len(args))}) -> {e}")]
    raise UnsupportedOperation("tt.extern_elementwise", f"{function} is not written in arith and math yet")


def _abs(w: Writer, args: Sequence[Value]) -> Value:
    e = args[0].element
    return w.value(e, f"math.{'absi' if e.startswith('i') else 'absf'} {args[0].name} : {e}")


def _powi(w: Writer, args: Sequence[Value]) -> Value:
    base, power = args
    return w.value(base.element, f"math.fpowi {base.name}, {power.name} : {base.element}, {power.element}")


def _is_nan(w: Writer, args: Sequence[Value]) -> Value:
    return w.value("i1", f"arith.cmpf uno, {args[0].name}, {args[0].name} : {args[0].element}")


def _size(word: str) -> Callable[[Writer, Sequence[Value]], Value]:
    """|x| compared with infinity. (Upstream's ``math.isinf`` has no lowering to LLVM.)"""

    def write(w: Writer, args: Sequence[Value]) -> Value:
        e = args[0].element
        size, infinity = applied(w, "math.absf", args[0]), _infinity(w, e)
        return w.value("i1", f"arith.cmpf {word}, {size.name}, {infinity.name} : {e}")

    return write


def _infinity(w: Writer, element: str) -> Value:
    return w.constant("0x7F800000" if element == "f32" else "0x7FF0000000000000", element)


def _norm(w: Writer, args: Sequence[Value]) -> Value:
    """The length of a vector: infinite if an element is, without overflow on the way. Computed in f64."""
    to = args[0].element
    xs = [applied(w, "arith.extf", a, to="f64") if to == "f32" else a for a in args]
    sizes = [applied(w, "math.absf", x) for x in xs]
    top = sizes[0]
    for size in sizes[1:]:
        top = applied(w, "arith.maxnumf", top, size)
    scale, back = (_scale(w, top, sign) for sign in (1, -1))
    total = w.constant("0.0", "f64")
    for x in xs:
        scaled = applied(w, "arith.mulf", x, scale)
        total = applied(w, "math.fma", scaled, scaled, total)
    length = applied(w, "arith.mulf", applied(w, "math.sqrt", total), back)
    infinity = _infinity(w, "f64")
    large = w.value("i1", f"arith.cmpf oeq, {top.name}, {infinity.name} : f64")
    length = w.value("f64", f"arith.select {large.name}, {infinity.name}, {length.name} : f64")
    return applied(w, "arith.truncf", length, to="f32") if to == "f32" else length


def _scale(w: Writer, top: Value, sign: int) -> Value:
    """2^-600 above 2^500, 2^600 below 2^-500, 1 between them; ``sign`` -1: what undoes it."""
    powers = [w.constant(repr(2.0 ** (sign * n)), "f64") for n in (-600, 600)]
    chosen = w.constant("1.0", "f64")
    for power, word, limit in zip(powers, ("ogt", "olt"), (2.0**500, 2.0**-500), strict=True):
        beyond = w.value("i1", f"arith.cmpf {word}, {top.name}, {w.constant(repr(limit), 'f64').name} : f64")
        chosen = w.value("f64", f"arith.select {beyond.name}, {power.name}, {chosen.name} : f64")
    return chosen


def _reciprocal_norm(w: Writer, args: Sequence[Value]) -> Value:
    return _reciprocal(w, [_norm(w, args)])


def _reciprocal(w: Writer, args: Sequence[Value]) -> Value:
    e = args[0].element
    return w.value(e, f"arith.divf {w.constant('1.0', e).name}, {args[0].name} : {e}")


def _rhypot(w: Writer, args: Sequence[Value]) -> Value:
    """1 over the length of a vector of two numbers."""
    e = args[0].element
    called = "hypotf" if e == "f32" else "hypot"
    w.declare(called, f"({e}, {e}) -> {e}")
    length = w.value(e, f"func.call @{called}({args[0].name}, {args[1].name}) : ({e}, {e}) -> {e}")
    return _reciprocal(w, [length])


def _saturate(w: Writer, args: Sequence[Value]) -> Value:
    """Between 0 and 1; NaN is 0."""
    e = args[0].element
    zero, one = w.constant("0.0", e), w.constant("1.0", e)
    return applied(w, "arith.minnumf", applied(w, "arith.maxnumf", args[0], zero), one)


_WHOLE = MappingProxyType({"rn": "roundeven", "rz": "trunc", "rd": "floor", "ru": "ceil"})
_INTO = MappingProxyType({"int": "i32", "uint": "i32", "ll": "i64", "ull": "i64"})


def _to_integer(mode: str, into: str) -> Callable[[Writer, Sequence[Value]], Value]:
    """A float as an integer, rounded as ``mode`` says."""

    def write(w: Writer, args: Sequence[Value]) -> Value:
        whole = applied(w, f"math.{_WHOLE[mode]}", args[0])
        return to_integer(w, whole, _INTO[into], signed=not into.startswith("u"))

    return write


def _from_integer(source: str, to: str) -> Callable[[Writer, Sequence[Value]], Value]:
    """An integer as a float, rounded to nearest."""
    word = "arith.uitofp" if source.startswith("u") else "arith.sitofp"
    return lambda w, args: applied(w, word, args[0], to=to)


_WRITTEN: Mapping[str, Callable[[Writer, Sequence[Value]], Value]] = MappingProxyType(
    {
        "abs": _abs,
        "pow": _powi,
        "isnan": _is_nan,
        "isinf": _size("oeq"),
        "finitef": _size("olt"),
        "isfinited": _size("olt"),
        "rcp_rn": _reciprocal,
        "rhypot": _rhypot,
        **dict.fromkeys(("norm3d", "norm4d"), _norm),
        **dict.fromkeys(("rnorm3d", "rnorm4d"), _reciprocal_norm),
        "saturatef": _saturate,
        "double2float_rn": lambda w, args: applied(w, "arith.truncf", args[0], to="f32"),
        **{f"{f}2{i}_{mode}": _to_integer(mode, i) for f in ("float", "double") for i in _INTO for mode in _WHOLE},
        **{f"{i}2{f}_rn": _from_integer(i, to) for i in _INTO for f, to in (("float", "f32"), ("double", "f64"))},
    }
)
