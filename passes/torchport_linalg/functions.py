"""Functions of ``tl.extra.libdevice``, written in ``math`` and ``arith`` or as calls of C's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
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
    if function in _WRITTEN:
        return [_WRITTEN[function](w, args)]
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


def _asked(name: str) -> Callable[[Writer, Sequence[Value]], Value]:
    return lambda w, args: w.value("i1", f"math.{name} {args[0].name} : {args[0].element}")


def _bits(to: str) -> Callable[[Writer, Sequence[Value]], Value]:
    return lambda w, args: w.value(to, f"arith.bitcast {args[0].name} : {args[0].element} to {to}")


def _signbit(w: Writer, args: Sequence[Value]) -> Value:
    e = "i" + args[0].element[1:]
    bits, zero = _bits(e)(w, args), w.constant("0", e)
    return w.value("i1", f"arith.cmpi slt, {bits.name}, {zero.name} : {e}")


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


def _counted(name: str) -> Callable[[Writer, Sequence[Value]], Value]:
    def write(w: Writer, args: Sequence[Value]) -> Value:
        e = args[0].element
        count = w.value(e, f"math.{name} {args[0].name} : {e}")
        return count if e == "i32" else w.value("i32", f"arith.trunci {count.name} : {e} to i32")

    return write


def _ffs(w: Writer, args: Sequence[Value]) -> Value:
    """The number of the lowest bit that is set, from 1; 0 if none is."""
    e = args[0].element
    zero, one = w.constant("0", e), w.constant("1", e)
    low = w.value(e, f"math.cttz {args[0].name} : {e}")
    number = w.value(e, f"arith.addi {low.name}, {one.name} : {e}")
    none = w.value("i1", f"arith.cmpi eq, {args[0].name}, {zero.name} : {e}")
    chosen = w.value(e, f"arith.select {none.name}, {zero.name}, {number.name} : {e}")
    return chosen if e == "i32" else w.value("i32", f"arith.trunci {chosen.name} : {e} to i32")


def _mulhi(word: str) -> Callable[[Writer, Sequence[Value]], Value]:
    def write(w: Writer, args: Sequence[Value]) -> Value:
        e = args[0].element
        return w.values([(e, None)] * 2, f"arith.{word} {args[0].name}, {args[1].name} : {e}")[1]

    return write


_WRITTEN: Mapping[str, Callable[[Writer, Sequence[Value]], Value]] = MappingProxyType(
    {
        "abs": _abs,
        "pow": _powi,
        "isnan": _asked("isnan"),
        "isinf": _asked("isinf"),
        "finitef": _asked("isfinite"),
        "isfinited": _asked("isfinite"),
        "int_as_float": _bits("f32"),
        "uint_as_float": _bits("f32"),
        "float_as_int": _bits("i32"),
        "float_as_uint": _bits("i32"),
        "longlong_as_double": _bits("f64"),
        "double_as_longlong": _bits("i64"),
        "signbit": _signbit,
        "rcp_rn": _reciprocal,
        "rhypot": _rhypot,
        "clz": _counted("ctlz"),
        "popc": _counted("ctpop"),
        "ffs": _ffs,
        "mulhi": _mulhi("mulsi_extended"),
        "umulhi": _mulhi("mului_extended"),
    }
)
