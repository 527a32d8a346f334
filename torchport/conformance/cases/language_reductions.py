"""Cases of Triton's language: reductions, scans, sort, histogram, gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from torchport.capabilities import Capabilities
from torchport.conformance.bounds import accumulated, equal, within
from torchport.conformance.case import Bench, Case, Measured
from torchport.conformance.kernels import evaluate
from torchport.conformance.values import FLOATS, INTEGERS, TORCH, draw, exact

__all__ = ["cases"]

_ROWS, _COLUMNS = 8, 128


def cases() -> Iterator[Case]:
    """All cases of this file."""
    yield from _reductions()
    yield from _scans()


def _case(op: str, dtype: str, shape: tuple[int, ...], distribution: str, run: Any, *types: str, **more: Any) -> Case:
    return Case("language", op, dtype, shape, distribution, run, tuple(dict.fromkeys((dtype, *types))), **more)


def _all_equal(got: list[torch.Tensor], wanted: list[torch.Tensor], able: Capabilities, signs: bool = True) -> Measured:
    for one, other in zip(got, wanted, strict=True):
        equal(one, other, able, signs)
    return Measured()


def _reductions() -> Iterator[Case]:
    shape = (_ROWS, _COLUMNS)
    for dtype in FLOATS:
        for axis in (0, 1):
            for distribution in ("randn", "positive"):
                run = _sum(dtype, axis, distribution)
                yield _case(f"sum_axis{axis}", dtype, shape, distribution, run, required=True)
        for op, function in (("max", torch.amax), ("min", torch.amin)):
            yield _case(op, dtype, shape, "wide", _extreme(op, function, dtype), required=True)
        for op in ("argmax", "argmin"):
            yield _case(op, dtype, shape, "ties", _argument(op, dtype), "int32")
    for dtype in INTEGERS:
        for op, function in (("max", torch.amax), ("min", torch.amin)):
            yield _case(op, dtype, shape, "special", _extreme(op, function, dtype), required=True)
        yield _case("sum_axis1", dtype, shape, "small", _integer_sum(dtype), "int32")
        yield _case("argmax", dtype, shape, "small", _argument("argmax", dtype), "int32", level="full")
    yield _case("xor_sum", "int32", shape, "special", _xor)
    yield _case("reduce_user_function", "fp32", shape, "randn", _product_of_pairs)
    yield _case("max_nan", "fp32", shape, "special", _nan_maximum)


def _sum(dtype: str, axis: int, distribution: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (_ROWS, _COLUMNS), distribution)
        wanted = exact(x).sum(axis)
        (got,) = evaluate(bench, f"z = tl.sum(x, {axis})", {"x": x}, {"z": (wanted.shape, x.dtype)})
        # Triton adds in the type itself: what a target promotes is rounded after each addition
        bound = accumulated(wanted, np.abs(exact(x)).sum(axis), x.shape[axis], dtype, bench.able, inner=dtype)
        return within(got, wanted, bound, dtype, bench.able)

    return run


def _extreme(op: str, function: Callable[..., Any], dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (_ROWS, _COLUMNS), "special" if dtype in INTEGERS else "wide")
        wanted = [function(x, (1,)), function(x, (0,))]
        body = f"a = tl.{op}(x, 1)\nb = tl.{op}(x, 0)"
        kind = TORCH[dtype]
        if dtype in ("int8", "int16"):  # Triton widens these
            body += f"\na = a.to(tl.{dtype})\nb = b.to(tl.{dtype})"
        got = evaluate(bench, body, {"x": x}, {"a": ((_ROWS,), kind), "b": ((_COLUMNS,), kind)})
        return _all_equal(got, wanted, bench.able, signs=False)

    return run


def _argument(op: str, dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw("int8", (_ROWS, _COLUMNS), "small").to(TORCH[dtype])  # few values: ties go to the first
        values = exact(x).astype(np.float64)
        wanted = torch.from_numpy(getattr(np, op)(values, 1).astype(np.int32))
        (got,) = evaluate(bench, f"z = tl.{op}(x, 1)", {"x": x}, {"z": ((_ROWS,), torch.int32)})
        return equal(got, wanted, bench.able)

    return run


def _integer_sum(dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (_ROWS, _COLUMNS), "small")
        out = torch.int64 if dtype == "int64" else torch.int32
        (got,) = evaluate(bench, "z = tl.sum(x, 1)", {"x": x}, {"z": ((_ROWS,), out)})
        return equal(got, x.to(torch.int64).sum(1).to(out), bench.able)

    return run


def _xor(bench: Bench) -> Measured:
    x = draw("int32", (_ROWS, _COLUMNS), "special")
    wanted = torch.from_numpy(np.bitwise_xor.reduce(x.numpy(), 1))
    (got,) = evaluate(bench, "z = tl.xor_sum(x, 1)", {"x": x}, {"z": ((_ROWS,), torch.int32)})
    return equal(got, wanted, bench.able)


def _product_of_pairs(bench: Bench) -> Measured:
    """Two values at once through a function of the kernel's own: how Inductor writes Welford."""
    x, y = (draw("fp32", (_ROWS, _COLUMNS), "randn", name) for name in "xy")
    helpers = "@triton.jit\ndef both(a, b, c, d):\n    return a + c, tl.maximum(b, d)\n"
    shapes = {"a": ((_ROWS,), torch.float32), "b": ((_ROWS,), torch.float32)}
    a, b = evaluate(bench, "a, b = tl.reduce((x, y), 1, both)", {"x": x, "y": y}, shapes, helpers)
    equal(b, y.amax(1), bench.able)
    wanted = exact(x).sum(1)
    bound = accumulated(wanted, np.abs(exact(x)).sum(1), _COLUMNS, "fp32", bench.able)
    return within(a, wanted, bound, "fp32", bench.able)


def _nan_maximum(bench: Bench) -> Measured:
    """NaN goes through a maximum that asks for it, as torch.amax does, and a sum."""
    x = draw("fp32", (_ROWS, _COLUMNS), "special")
    x[3:] = draw("fp32", (_ROWS - 3, _COLUMNS), "randn", "more")
    x[0, 5] = float("nan")
    helpers = "@triton.jit\ndef larger(a, b):\n    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)\n"
    (got,) = evaluate(bench, "z = tl.reduce(x, 1, larger)", {"x": x}, {"z": ((_ROWS,), torch.float32)}, helpers)
    return equal(got, x.amax(1), bench.able, signs=False)


def _scans() -> Iterator[Case]:
    shape = (_ROWS, _COLUMNS)
    for dtype in ("int32", "int64", "fp32", "fp64"):
        for reverse in (False, True):
            op = "cumsum_reverse" if reverse else "cumsum"
            values = "small" if dtype in INTEGERS else "randn"
            yield _case(op, dtype, shape, values, _cumulative(dtype, reverse))
    yield _case("cumprod", "fp32", shape, "positive", _cumulative_product)
    yield _case("sort", "int32", shape, "special", _sorted("int32", False))
    yield _case("sort_descending", "fp32", shape, "wide", _sorted("fp32", True))
    yield _case("histogram", "int32", (256,), "bits", _histogram)
    yield _case("gather", "fp32", shape, "randn", _gather, "int32")


def _cumulative(dtype: str, reverse: bool) -> Any:
    def run(bench: Bench) -> Measured:
        integer = dtype in INTEGERS
        x = draw(dtype, (_ROWS, _COLUMNS), "small" if integer else "randn")
        body = f"z = tl.cumsum(x, 1, reverse={reverse})"
        (got,) = evaluate(bench, body, {"x": x}, {"z": (x.shape, x.dtype)})

        def total(values: Any) -> Any:
            return values[:, ::-1].cumsum(1)[:, ::-1] if reverse else values.cumsum(1)

        wanted = np.ascontiguousarray(total(exact(x)))
        if integer:
            return equal(got, torch.from_numpy(wanted).to(x.dtype), bench.able)
        bound = accumulated(wanted, total(np.abs(exact(x))), _COLUMNS, dtype, bench.able)
        return within(got, wanted, bound, dtype, bench.able)

    return run


def _cumulative_product(bench: Bench) -> Measured:
    x = draw("fp32", (_ROWS, _COLUMNS), "positive") / 4 + 0.75
    (got,) = evaluate(bench, "z = tl.cumprod(x, 1)", {"x": x}, {"z": (x.shape, x.dtype)})
    wanted = exact(x).cumprod(1)
    return within(got, wanted, accumulated(wanted, wanted, _COLUMNS, "fp32", bench.able), "fp32", bench.able)


def _sorted(dtype: str, descending: bool) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (_ROWS, _COLUMNS), "special" if dtype in INTEGERS else "wide")
        body = f"z = tl.sort(x, 1, descending={descending})"
        (got,) = evaluate(bench, body, {"x": x}, {"z": (x.shape, x.dtype)})
        return equal(got, x.sort(1, descending=descending).values, bench.able)

    return run


def _histogram(bench: Bench) -> Measured:
    x = draw("int32", (256,), "bits") & 31
    (got,) = evaluate(bench, "z = tl.histogram(x, 32)", {"x": x}, {"z": ((32,), torch.int32)})
    return equal(got, torch.bincount(x, minlength=32).to(torch.int32), bench.able)


def _gather(bench: Bench) -> Measured:
    x = draw("fp32", (_ROWS, _COLUMNS), "randn")
    index = draw("int32", (_ROWS, _COLUMNS), "bits") & (_COLUMNS - 1)
    (got,) = evaluate(bench, "z = tl.gather(x, i, 1)", {"x": x, "i": index}, {"z": (x.shape, x.dtype)})
    return equal(got, x.gather(1, index.to(torch.int64)), bench.able)
