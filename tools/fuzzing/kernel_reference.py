"""What Triton's operations on whole blocks compute, by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fuzzing.formats import (
    INTEGERS,
    Array,
    is_float,
    is_signed,
    rounded,
    spacing,
    to_numpy,
    to_torch,
    torch_dtype,
    width,
)
from fuzzing.values import Unknown, Value, approximate, unsure_zero

Attributes = dict[str, Any]


def _axis(array: Array, axis: int | None) -> tuple[Array, int]:
    return (np.ravel(array), 0) if axis is None else (array, axis)


def summed(value: Value, axis: int | None, running: bool = False, reverse: bool = False) -> Value:
    """The sum, or all running sums, in any order: exact where float arithmetic is."""
    source = value.dtype
    if not is_float(source):
        dtype = source if source in INTEGERS and width(source) >= 32 else "int32" if is_signed(source) else "uint32"
        data, at = _axis(value.exact.astype(INTEGERS[dtype]), axis)
        with np.errstate(over="ignore"):
            if not running:
                return Value(dtype, np.asarray(np.add.reduce(data, at, dtype=INTEGERS[dtype])))
            data = np.flip(data, at) if reverse else data
            total = np.cumsum(data, at, dtype=INTEGERS[dtype])
            return Value(dtype, np.flip(total, at) if reverse else total)
    dtype = "fp32" if running and source == "bf16" else source
    accumulator = "fp64" if source == "fp64" else "fp32"
    x, at = _axis(value.data, axis)
    e, _ = _axis(value.errors, axis)

    def total(array: Array) -> Array:
        if not running:
            return np.asarray(np.sum(array.astype(np.longdouble), at))
        array = np.flip(array, at) if reverse else array
        result = np.cumsum(array.astype(np.longdouble), at)
        return np.flip(result, at) if reverse else result

    with np.errstate(all="ignore"):
        exact, size, error = total(x), total(np.abs(x)), total(e)
        n = x.shape[at]
        whole = np.all(np.isfinite(x)) and np.all(x == np.rint(x)) and np.max(size, initial=0) < 2.0**24 and not e.any()
        if source != "fp64" and np.any(np.isfinite(size) & (size > 3e38)):
            raise Unknown("a sum near overflow")
        if source == "fp64" and np.any(np.isfinite(size) & (size > 1e308)):
            raise Unknown("a sum near overflow")
        bound = n * size * (spacing(np.ones(()), accumulator)) + error + n * 5e-324
        bound = np.where(np.isnan(exact) | np.isinf(exact), 0.0 if not e.any() else np.inf, bound)
    if whole:
        bound = np.zeros_like(bound)
    result = approximate(dtype, exact.astype(np.float64), bound.astype(np.float64))
    return unsure_zero(result, np.ones(result.shape, bool))


def extreme(value: Value, axis: int | None, largest: bool) -> Value:
    data, at = _axis(value.data, axis)
    error, _ = _axis(value.errors, axis)
    if not is_float(value.dtype):
        return Value(
            value.dtype, np.asarray((np.max if largest else np.min)(value.exact if axis is not None else data, at))
        )
    result = np.asarray((np.fmax if largest else np.fmin).reduce(data, at))
    worst = np.asarray(np.max(error, at))
    return unsure_zero(Value(value.dtype, result, worst if worst.any() else None), np.ones(result.shape, bool))


def argument(value: Value, axis: int, largest: bool) -> Value:
    if np.any(np.isnan(value.exact)) if is_float(value.dtype) else False:
        raise Unknown("the index of an extremum among NaN")
    return Value("int32", np.asarray((np.argmax if largest else np.argmin)(value.exact, axis)).astype(np.int32))


def running_product(value: Value, axis: int, reverse: bool) -> Value:
    """Running products of integers."""
    dtype = value.dtype
    data = np.flip(value.exact, axis) if reverse else value.exact
    with np.errstate(over="ignore"):
        result = np.cumprod(data, axis, dtype=data.dtype)
    return Value(dtype, np.flip(result, axis) if reverse else result)


def pairs(operands: list[Value], axis: int, combine: Callable[..., tuple[Array, Array]], scan: bool) -> list[Value]:
    """A reduction or scan of two integer blocks, element by element."""
    a, b = (np.moveaxis(o.exact, axis, 0) for o in operands)
    with np.errstate(over="ignore"):
        first, second = a[0], b[0]
        steps = [(first, second)]
        for k in range(1, len(a)):
            first, second = combine(first, second, a[k], b[k])
            steps.append((first, second))
    if scan:
        columns = [np.moveaxis(np.stack(c), 0, axis) for c in zip(*steps, strict=True)]
        return [Value(o.dtype, c) for o, c in zip(operands, columns, strict=True)]
    return [Value(o.dtype, np.asarray(c)) for o, c in zip(operands, steps[-1], strict=True)]


def _first_largest(a: Array, i: Array, b: Array, j: Array) -> tuple[Array, Array]:
    take = (a > b) | ((a == b) & (i < j))
    return np.where(take, a, b), np.where(take, i, j)


COMBINE: dict[str, Callable[..., tuple[Array, Array]]] = {
    "first_largest": _first_largest,
    "sum_and_product": lambda a, p, b, q: (a + b, p * q),
    "largest_and_count": lambda a, m, b, n: (np.where(a > b, a, b), np.where(a == b, m + n, np.where(a > b, m, n))),
    "affine": lambda a, b, c, d: (a * c, b * c + d),
}


def scanned(value: Value, axis: int, function: str, reverse: bool) -> Value:
    data = np.flip(value.exact, axis) if reverse else value.exact
    if is_float(value.dtype) and (np.any(np.isnan(data)) or np.any(data == 0)):
        raise Unknown("a scan with NaN or zeros of both signs")
    result = (np.maximum if function == "larger" else np.bitwise_xor).accumulate(data, axis)
    return Value(value.dtype, np.flip(result, axis) if reverse else result)


def in_order(value: Value, descending: bool, k: int | None) -> Value:
    data = value.exact
    if is_float(value.dtype) and (np.any(np.isnan(data)) or np.any((data == 0) & np.signbit(data))):
        raise Unknown("a sort with NaN or zeros of both signs")
    result = np.sort(data, -1)
    if descending:
        result = np.flip(result, -1)
    return Value(value.dtype, result if k is None else result[..., :k])


def dot(a: Value, b: Value, c: Value | None) -> Value:
    if a.dtype == "int8":
        total = np.matmul(a.exact.astype(np.int32), b.exact.astype(np.int32))
        return Value("int32", total if c is None else (total + c.exact).astype(np.int32))
    dtype = "fp64" if a.dtype == "fp64" else "fp32"
    x, y = a.exact.astype(np.longdouble), b.exact.astype(np.longdouble)
    with np.errstate(all="ignore"):
        exact, size = x @ y, np.abs(x) @ np.abs(y)
        if c is not None:
            exact, size = exact + c.exact, size + np.abs(c.exact)
    if not np.all(np.isfinite(size)) or np.max(size) > 1e38:
        raise Unknown("a product with infinities")
    error = (x.shape[1] + 2) * spacing(np.ones(()), dtype) * size + 5e-324
    tiny = 2.0**-126 if dtype == "fp32" else 0.0  # products below the smallest normal number are rounded coarsely
    return approximate(
        dtype, exact.astype(np.float64), (error + tiny * spacing(np.ones(()), dtype) * 99).astype(np.float64)
    )


def histogram(value: Value, bins: int) -> Value:
    data = value.exact
    counts = np.bincount(data[(data >= 0) & (data < bins)].astype(np.int64), minlength=bins)
    return Value("int32", counts.astype(np.int32))


def bitcast(value: Value, dtype: str) -> Value:
    if is_float(value.dtype) and np.any(np.isnan(value.exact)):
        raise Unknown("the bits of NaN")
    tensor = to_torch(np.atleast_1d(value.exact), value.dtype)
    result = to_numpy(tensor.view(torch_dtype(dtype))).reshape(value.shape)
    if dtype.startswith("fp8"):
        raise Unknown("8-bit floats of arbitrary bits")
    return Value(dtype, result)


def full(attributes: Attributes) -> Value:
    """A block of one value."""
    dtype, value = attributes["dtype"], attributes["value"]
    if is_float(dtype):
        return Value(dtype, np.full(attributes["shape"], float(rounded(np.asarray(value), dtype))))
    return Value(dtype, np.full(attributes["shape"], value, bool if dtype == "int1" else INTEGERS[dtype]))
