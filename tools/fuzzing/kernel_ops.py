"""Elementwise operations of Triton: their text and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzzing.formats import INTEGERS, WIDE_FLOATS, Array, is_float, is_signed, rounded, spacing, width
from fuzzing.values import Unknown, Value, approximate, unsure_zero


@dataclass(frozen=True)
class Elementwise:
    """text: with {0}, {1} ... for operands, {bits} for the width less one. dtypes: of all operands.

    evaluate: takes the operands' dtype and their values, broadcast to one shape."""

    text: str
    dtypes: tuple[str, ...]
    evaluate: Callable[..., Value]
    arity: int = 2


def _linear(dtype: str, a: Value, b: Value, compute: Callable[[Array, Array], Array]) -> Value:
    """Sum or difference, rounded once; errors add up."""
    with np.errstate(all="ignore"):
        wide = np.longdouble if dtype == "fp64" and not (a.is_exact and b.is_exact) else np.float64
        exact = _through_single(dtype, compute(a.data.astype(wide), b.data.astype(wide)))
        return approximate(dtype, exact, a.errors + b.errors)


def _through_single(dtype: str, exact: Array) -> Array:
    """16-bit arithmetic is done in float32, which matters where bfloat16 and float32 both are denormal."""
    return rounded(exact, "fp32") if dtype in ("fp16", "bf16") else exact


def _add(dtype: str, a: Value, b: Value) -> Value:
    if not is_float(dtype):
        return Value(dtype, a.exact + b.exact)
    return _linear(dtype, a, b, np.add)


def _subtract(dtype: str, a: Value, b: Value) -> Value:
    if not is_float(dtype):
        return Value(dtype, a.exact - b.exact)
    return _linear(dtype, a, b, np.subtract)


def _multiply(dtype: str, a: Value, b: Value) -> Value:
    if not is_float(dtype):
        return Value(dtype, a.exact * b.exact)
    with np.errstate(all="ignore"):
        exact = _through_single(dtype, a.data * b.data)
        error = np.abs(a.data) * b.errors + np.abs(b.data) * a.errors + a.errors * b.errors
    inexact = (a.errors > 0) | (b.errors > 0)
    return approximate(dtype, exact, np.where(inexact, np.where(np.isnan(error), np.inf, error), 0.0))


def _negate(dtype: str, a: Value) -> Value:
    if not is_float(dtype):
        return Value(dtype, np.zeros_like(a.exact) - a.exact)
    return Value(dtype, 0.0 - a.data, a.error)


def _absolute(dtype: str, a: Value) -> Value:
    if not is_float(dtype):
        return Value(dtype, np.abs(a.exact))
    return Value(dtype, np.abs(a.data), a.error)


def _divide(dtype: str, a: Value, b: Value) -> Value:
    with np.errstate(all="ignore"):
        result = "fp64" if dtype == "fp64" else "fp32"
        return Value(result, rounded(a.exact / b.exact, result))


def _quotient(dtype: str, a: Value, b: Value) -> Value:
    """Towards zero; x // 0 is x, and the least number // -1 is itself."""
    x, y = a.exact, b.exact
    safe = np.where((y == 0) | (y == _minus_one(y)), np.ones_like(y), y)
    with np.errstate(all="ignore"):
        size = np.where(x % safe != 0, 1, 0).astype(x.dtype) if is_signed(dtype) else np.zeros_like(x)
        below = x // safe
        result = np.where((size == 1) & ((x < 0) != (safe < 0)), below + np.ones_like(x), below)
        result = np.where(y == _minus_one(y), np.zeros_like(x) - x, result) if is_signed(dtype) else result
    return Value(dtype, np.where(y == 0, x, result).astype(x.dtype))


def _minus_one(y: Array) -> Array:
    return np.full_like(y, -1) if y.dtype.kind == "i" else np.zeros_like(y)


def _remainder(dtype: str, a: Value, b: Value) -> Value:
    """With the sign of the dividend; x % 0 is 0."""
    x, y = a.exact, b.exact
    with np.errstate(all="ignore"):
        quotient = _quotient(dtype, a, b).data
        return Value(dtype, np.where(y == 0, np.zeros_like(x), x - quotient * y).astype(x.dtype))


def _float_remainder(dtype: str, a: Value, b: Value) -> Value:
    with np.errstate(all="ignore"):
        return Value("fp64" if dtype == "fp64" else "fp32", np.fmod(a.exact, b.exact))


def _extremum(pick: Any, propagates: bool) -> Callable[..., Value]:
    """The smaller or larger; a number wins over NaN unless NaN propagates. Which zero wins is open without it.

    Triton's functions give float32 for bfloat16."""

    def evaluate(dtype: str, a: Value, b: Value) -> Value:
        dtype = "fp32" if dtype == "bf16" else dtype
        if not is_float(dtype):
            return Value(dtype, pick(a.exact, b.exact))
        error = np.maximum(a.errors, b.errors)
        if propagates:
            data = pick(a.data, b.data)
            zeros = (a.data == 0) & (b.data == 0)
            negative = pick is np.minimum
            sign = np.signbit(a.data) | np.signbit(b.data) if negative else np.signbit(a.data) & np.signbit(b.data)
            data = np.where(zeros, np.where(sign, -0.0, 0.0), data)
            return Value(dtype, data, error if error.any() else None)
        data = (np.fmin if pick is np.minimum else np.fmax)(a.data, b.data)
        value = Value(dtype, data, error if error.any() else None)
        return unsure_zero(value, np.signbit(a.data) != np.signbit(b.data))

    return evaluate


def _compare(compute: Any) -> Callable[..., Value]:
    def evaluate(dtype: str, a: Value, b: Value) -> Value:
        return Value("int1", compute(a.exact, b.exact))

    return evaluate


def _bits(compute: Any) -> Callable[..., Value]:
    def evaluate(dtype: str, *operands: Value) -> Value:
        return Value(dtype, compute(*(o.exact for o in operands)))

    return evaluate


def _shift(compute: Any) -> Callable[..., Value]:
    def evaluate(dtype: str, a: Value, b: Value) -> Value:
        amount = b.exact & b.exact.dtype.type(width(dtype) - 1)
        return Value(dtype, compute(a.exact, amount))

    return evaluate


def _high_product(dtype: str, a: Value, b: Value) -> Value:
    bits = width(dtype)
    product = a.exact.astype(object) * b.exact.astype(object)
    return Value(
        dtype, np.asarray([int(p) >> bits for p in np.ravel(product)], a.data.dtype).reshape(np.shape(product))
    )


def _where(dtype: str, condition: Value, a: Value, b: Value) -> Value:
    chosen = condition.exact
    error = np.where(chosen, a.errors, b.errors)
    return Value(dtype, np.where(chosen, a.data, b.data), error if error.any() else None)


def _exactly(compute: Any) -> Callable[..., Value]:
    """A function that every target rounds correctly."""

    def evaluate(dtype: str, a: Value) -> Value:
        with np.errstate(all="ignore"):
            return Value(dtype, rounded(compute(a.exact), dtype))

    return evaluate


def _within(compute: Any, ulp: float) -> Callable[..., Value]:
    """A function known within `ulp` units in the last place."""

    def evaluate(dtype: str, a: Value) -> Value:
        wide = a.exact.astype(np.longdouble) if dtype == "fp64" else a.exact
        with np.errstate(all="ignore"):
            exact = compute(wide)
            return approximate(dtype, exact, np.where(np.isnan(exact), 0.0, ulp * spacing(exact, dtype)))

    return evaluate


def _fma(dtype: str, a: Value, b: Value, c: Value) -> Value:
    """Rounded once: the float64 sum is rounded to odd before it becomes float32."""
    x, y, z = a.exact, b.exact, c.exact
    with np.errstate(all="ignore"):
        product = x * y
        total = product + z
        back = total - product
        left = (product - (total - back)) + (z - back)
        odd = total.astype(np.float64).view(np.int64) & 1
        towards = np.where(left > 0, np.inf, -np.inf)
        fixed = np.where((left != 0) & np.isfinite(left) & (odd == 0), np.nextafter(total, towards), total)
    return Value(dtype, rounded(fixed, dtype))


def _clamp(dtype: str, x: Value, low: Value, high: Value) -> Value:
    if np.any(~(low.exact <= high.exact)):
        raise Unknown("clamp needs ordered bounds that are numbers")
    return _extremum(np.minimum, False)(dtype, _extremum(np.maximum, False)(dtype, x, low), high)


_INTS = tuple(INTEGERS)
_NUMBERS = (*_INTS, *WIDE_FLOATS)
_ANY = ("int1", *_NUMBERS)
_REAL = ("fp32", "fp64")
_PROPAGATE = ", propagate_nan=tl.PropagateNan.ALL)"

ELEMENTWISE: dict[str, Elementwise] = {
    "add": Elementwise("{0} + {1}", _NUMBERS, _add),
    "sub": Elementwise("{0} - {1}", _NUMBERS, _subtract),
    "mul": Elementwise("{0} * {1}", _NUMBERS, _multiply),
    "neg": Elementwise("-{0}", tuple(n for n in _NUMBERS), _negate, 1),
    "abs": Elementwise("tl.abs({0})", _NUMBERS, _absolute, 1),
    "div": Elementwise("{0} / {1}", WIDE_FLOATS, _divide),
    "quotient": Elementwise("{0} // {1}", _INTS, _quotient),
    "remainder": Elementwise("{0} % {1}", _INTS, _remainder),
    "float_remainder": Elementwise("{0} % {1}", WIDE_FLOATS, _float_remainder),
    "minimum": Elementwise("tl.minimum({0}, {1})", _NUMBERS, _extremum(np.minimum, False)),
    "maximum": Elementwise("tl.maximum({0}, {1})", _NUMBERS, _extremum(np.maximum, False)),
    "minimum_nan": Elementwise("tl.minimum({0}, {1}" + _PROPAGATE, _REAL, _extremum(np.minimum, True)),
    "maximum_nan": Elementwise("tl.maximum({0}, {1}" + _PROPAGATE, _REAL, _extremum(np.maximum, True)),
    "clamp": Elementwise("tl.clamp({0}, {1}, {2})", WIDE_FLOATS, _clamp, 3),
    "less": Elementwise("{0} < {1}", _NUMBERS, _compare(np.less)),
    "at_least": Elementwise("{0} >= {1}", _NUMBERS, _compare(np.greater_equal)),
    "equal": Elementwise("{0} == {1}", _NUMBERS, _compare(np.equal)),
    "unequal": Elementwise("{0} != {1}", _NUMBERS, _compare(np.not_equal)),
    "and": Elementwise("{0} & {1}", ("int1", *_INTS), _bits(np.bitwise_and)),
    "or": Elementwise("{0} | {1}", ("int1", *_INTS), _bits(np.bitwise_or)),
    "xor": Elementwise("{0} ^ {1}", ("int1", *_INTS), _bits(np.bitwise_xor)),
    "not": Elementwise("~{0}", ("int1", *_INTS), _bits(np.invert), 1),
    "left": Elementwise("{0} << ({1} & {bits})", _INTS, _shift(np.left_shift)),
    "right": Elementwise("{0} >> ({1} & {bits})", _INTS, _shift(np.right_shift)),
    "umulhi": Elementwise("tl.umulhi({0}, {1})", ("uint32", "uint64"), _high_product),
    "where": Elementwise("tl.where({0}, {1}, {2})", _ANY, _where, 3),
    "fma": Elementwise("tl.fma({0}, {1}, {2})", ("fp32",), _fma, 3),
    "floor": Elementwise("tl.floor({0})", _REAL, _exactly(np.floor), 1),
    "ceil": Elementwise("tl.ceil({0})", _REAL, _exactly(np.ceil), 1),
    "sqrt": Elementwise("tl.sqrt({0})", _REAL, _exactly(np.sqrt), 1),
    "trunc": Elementwise("libdevice.trunc({0})", _REAL, _exactly(np.trunc), 1),
    "rint": Elementwise("libdevice.rint({0})", _REAL, _exactly(np.rint), 1),
    "exp": Elementwise("tl.exp({0})", _REAL, _within(np.exp, 3), 1),
    "exp2": Elementwise("tl.exp2({0})", _REAL, _within(np.exp2, 3), 1),
    "log": Elementwise("tl.log({0})", _REAL, _within(np.log, 3), 1),
    "log2": Elementwise("tl.log2({0})", _REAL, _within(np.log2, 3), 1),
    "rsqrt": Elementwise("tl.rsqrt({0})", _REAL, _within(lambda x: 1 / np.sqrt(x), 2), 1),
    "sin": Elementwise("tl.sin({0})", _REAL, _within(np.sin, 4), 1),
    "cos": Elementwise("tl.cos({0})", _REAL, _within(np.cos, 4), 1),
    "tanh": Elementwise("libdevice.tanh({0})", _REAL, _within(np.tanh, 5), 1),
    "log1p": Elementwise("libdevice.log1p({0})", _REAL, _within(np.log1p, 2), 1),
    "expm1": Elementwise("libdevice.expm1({0})", _REAL, _within(np.expm1, 3), 1),
}


def cast(value: Value, dtype: str) -> Value:
    """`x.to(dtype)`. Raises Unknown where targets differ: floats out of an integer's range, infinities in 8 bits."""
    source = value.dtype
    if dtype == "int1":
        return Value(dtype, np.asarray(value.exact != 0))
    if not is_float(dtype):
        data = value.exact
        if is_float(source):
            info = np.iinfo(INTEGERS[dtype])
            data = np.trunc(data)
            # 2^63 and 2^64 are floats, the largest integers are not
            if not np.all((data >= float(info.min)) & (data < float(info.max) + (1.0 if width(dtype) < 64 else 0.0))):
                raise Unknown("a float out of the integer's range")
        return Value(dtype, data.astype(INTEGERS[dtype]))
    if not is_float(source):
        if dtype == "fp64":
            return Value(dtype, value.exact.astype(np.float64))
        single = value.exact.astype(np.float32).astype(np.float64)
        return Value(dtype, rounded(single, dtype))
    if dtype.startswith("fp8") and (np.any(np.isinf(value.data)) or not value.is_exact):
        raise Unknown("8-bit floats of infinities")
    return approximate(dtype, value.data, value.errors)
