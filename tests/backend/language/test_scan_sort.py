"""Scans, sorts, selections of the largest, histograms."""

from __future__ import annotations

from functools import reduce
from itertools import accumulate

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_text import evaluate
from language_values import FLOATS, INTEGERS, equal, sample, to_numpy, to_torch

COMMON = ("int32", "bfloat16", "float32")  # tried in all shapes; the other dtypes in two
SHAPES = [((64,), 0), ((8, 16), 0), ((8, 16), 1), ((4, 8, 2), 1), ((2, 4, 2, 8, 4), 3), ((1, 1024), 1)]


@triton.jit
def first(a, b):
    return a


@triton.jit
def recurrence(a, b, c, d):
    return a * c, b * c + d


@triton.jit
def running_maximum(value, index, other, other_index):
    take = value > other
    return tl.where(take, value, other), tl.where(take, index, other_index)


@triton.jit
def shifted(count, before, here, other_count, other_before, other):
    """Of three operands: ``before`` becomes the element before each."""
    return count + other_count, tl.where(other_count == 1, here, 0) + other_before, other


@triton.jit
def matrix_product(a, b, c, d, e, f, g, h):
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


@triton.jit
def larger_by_branch(a, b):
    if a > b:
        return a
    else:
        return b


@triton.jit
def common_divisor(a, b):
    while b != 0:
        a, b = b, a % b
    return a


def small(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    low = 0 if dtype.startswith("u") else -1
    return torch.from_numpy(np.random.default_rng(2).integers(low, 2, shape)).to(getattr(torch, dtype))


def scanned(values: np.ndarray, axis: int, reverse: bool, function) -> np.ndarray:
    """numpy's accumulate of a function of two arrays."""
    values = np.moveaxis(values, axis, 0)
    values = values[::-1] if reverse else values
    result = np.stack(list(accumulate(values, function)))
    return np.moveaxis(result[::-1] if reverse else result, 0, axis)


@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_sums_and_products_of_every_dtype(name: str) -> None:
    """Exact in every dtype: running sums and products of -1, 0 and 1. Narrow integers are summed in 32 bits."""
    for shape, axis in SHAPES if name in COMMON else SHAPES[1:3]:
        x = small(name, shape)
        wide = "int64" if name in INTEGERS else "float64"
        outputs = {"a": (shape, torch.float64), "b": (shape, x.dtype), "c": (shape, torch.float64)}
        got = evaluate(
            f"""
            a = tl.cumsum(x, {axis})
            b = tl.cumprod(x, {axis - len(shape)})
            c = tl.cumsum(x, {axis}, dtype=tl.{wide})
            a2 = tl.cumsum(x, {axis}, reverse=True)
            b2 = tl.cumprod(x, {axis - len(shape)}, reverse=True)
            c2 = tl.cumsum(x, {axis}, reverse=True, dtype=tl.{wide})
            """,
            {"x": x}, outputs | {f"{key}2": value for key, value in outputs.items()},
        )  # fmt: skip
        v = x.double().numpy()
        wanted = [scanned(v, axis, r, f) for r in (False, True) for f in (np.add, np.multiply, np.add)]
        for one, expected in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(one.double().numpy(), expected, err_msg=str(shape))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape, axis", SHAPES)
def test_combine_functions(shape: tuple[int, ...], axis: int, reverse: bool) -> None:
    """Of one to four operands, in the order of the elements: matrix products do not commute."""
    count = shape[axis]
    x = torch.randint(-50, 50, shape, dtype=torch.int64)
    m = torch.randint(-1, 2, (4, *shape), dtype=torch.int64)
    ramp = [count if i == axis else 1 for i in range(len(shape))]
    got = evaluate(
        f"""
        a = tl.associative_scan(x, {axis}, first, reverse={reverse})
        i = tl.broadcast_to(tl.reshape(tl.arange(0, {count}), {ramp}), {list(shape)})
        v, b = tl.associative_scan((x, i), {axis}, running_maximum, reverse={reverse})
        _, c = tl.associative_scan((p, x), {axis}, recurrence, reverse={reverse})
        _, d, _ = tl.associative_scan((1 + 0 * x, 0 * x, x), {axis}, shifted, reverse={reverse})
        e, f, g, h = tl.associative_scan((p, q, r, s), {axis}, matrix_product, reverse={reverse})
        """,
        {"x": x, "p": m[0].clone(), "q": m[1].clone(), "r": m[2].clone(), "s": m[3].clone()},
        {"a": (shape, x.dtype), "b": (shape, torch.int32), **{name: (shape, x.dtype) for name in "cdefgh"}},
        first=first, running_maximum=running_maximum, recurrence=recurrence, shifted=shifted,
        matrix_product=matrix_product,
    )  # fmt: skip
    order = -1 if reverse else 1

    def rows(values: torch.Tensor) -> np.ndarray:
        return np.moveaxis(values.numpy(), axis, 0)[::order]

    v, p = rows(x), rows(m[0])
    np.testing.assert_array_equal(rows(got[0]), np.broadcast_to(v[:1], v.shape))
    places = np.arange(count)[::order]
    best = [np.flatnonzero(v[: i + 1].reshape(i + 1, -1)[:, 0] == v[: i + 1].reshape(i + 1, -1)[:, 0].max())[-1]
            for i in range(count)]  # fmt: skip
    np.testing.assert_array_equal(rows(got[1]).reshape(count, -1)[:, 0], places[best])  # the later one of equals
    state, recurrent = np.zeros_like(v[0]), []
    for scale, value in zip(p, v, strict=True):
        state = scale * state + value
        recurrent.append(state)
    np.testing.assert_array_equal(rows(got[2]), np.stack(recurrent))
    np.testing.assert_array_equal(rows(got[3]), np.concatenate([np.zeros_like(v[:1]), v[:-1]]))
    matrices = np.stack([rows(one) for one in m], -1).reshape(count, -1, 2, 2)
    products = np.stack(list(accumulate(matrices, np.matmul)))
    found = np.stack([rows(one) for one in got[4:]], -1).reshape(count, -1, 2, 2)
    np.testing.assert_array_equal(found, products)


@pytest.mark.parametrize("axis", [0, 1])
def test_combine_with_control_flow(axis: int) -> None:
    x = torch.randint(1, 99, (16, 32), dtype=torch.int32) * 60
    got = evaluate(
        f"a = tl.associative_scan(x, {axis}, larger)\nb = tl.associative_scan(x, {axis}, divisor, reverse=True)",
        {"x": x}, {"a": (x.shape, x.dtype), "b": (x.shape, x.dtype)}, larger=larger_by_branch, divisor=common_divisor,
    )  # fmt: skip
    np.testing.assert_array_equal(got[0].numpy(), scanned(x.numpy(), axis, False, np.maximum))
    np.testing.assert_array_equal(got[1].numpy(), scanned(x.numpy(), axis, True, np.gcd))


@pytest.mark.parametrize("axis", [0, 1])
def test_float_sums_are_close(axis: int) -> None:
    """Running sums of float32 are kept in float64, those of float16 in float32: each result is rounded once."""
    x = torch.rand(64, 128)
    h = x.half()
    got = evaluate(f"z = tl.cumsum(x, {axis})\nw = tl.cumsum(h, {axis})", {"x": x, "h": h},
                   {"z": (x.shape, x.dtype), "w": (x.shape, h.dtype)})  # fmt: skip
    for one, source, unit in zip(got, (x, h), (2.0**-24, 2.0**-11), strict=True):
        exact = source.double().cumsum(axis)
        assert ((one.double() - exact).abs() <= exact * unit * 1.01).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=64, max_size=64), st.booleans())
def test_integer_sums_wrap(values: list[int], reverse: bool) -> None:
    x = torch.tensor(values, dtype=torch.int32)
    (got,) = evaluate(f"z = tl.cumsum(x, 0, reverse={reverse})", {"x": x}, {"z": ((64,), torch.int32)})
    exact = list(accumulate(values[::-1] if reverse else values))
    wanted = [(v + 2**31) % 2**32 - 2**31 for v in exact]
    assert got.tolist() == (wanted[::-1] if reverse else wanted)


# ---- sorting


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_sort_every_dtype(name: str, descending: bool) -> None:
    """All values, infinities and both zeros too (no NaN); rows of one and of many vectors."""
    for shape in [(8, 64), (64,), (512, 8), (16, 1), (64, 2), (2, 4, 16)] if name in COMMON else [(8, 64)]:
        x = sample(name, int(np.prod(shape)), seed=41).reshape(shape)
        if name in FLOATS:
            x = torch.where(x.isnan(), torch.ones((), dtype=x.dtype), x)
        (got,) = evaluate(f"z = tl.sort(x, descending={descending})", {"x": x}, {"z": (shape, x.dtype)})
        wanted = np.sort(to_numpy(x), axis=-1)
        np.testing.assert_array_equal(to_numpy(got), wanted[..., ::-1] if descending else wanted, err_msg=str(shape))


@pytest.mark.parametrize("count", [2, 8, 32, 512, 4096])
def test_sort_of_every_size(count: int) -> None:
    x = torch.randn(count)
    got = evaluate("a = tl.sort(x)\nb = tl.sort(x, descending=True)\nc = tl.sort(-a)", {"x": x},
                   {name: ((count,), torch.float32) for name in "abc"})  # fmt: skip
    up = x.sort().values
    assert torch.equal(got[0], up) and torch.equal(got[1], up.flip(0)) and torch.equal(got[2], -up.flip(0))


def compare_and_exchange(x: np.ndarray, bit: int, downwards: np.ndarray) -> np.ndarray:
    """A step of the network as Triton defines it: ``where((x > y) != (flip ^ right), y, x)``, y the partner."""
    index = np.arange(len(x))
    y = x[index ^ (1 << bit)]
    with np.errstate(invalid="ignore"):
        return np.where((x > y) != (downwards ^ (index >> bit & 1).astype(bool)), y, x)


def network(x: np.ndarray, descending: bool) -> np.ndarray:
    bits = len(x).bit_length() - 1
    for stage in range(1, bits + 1):
        flip = (np.arange(len(x)) >> stage & 1).astype(bool) if stage < bits else np.full(len(x), descending)
        for bit in reversed(range(stage)):
            x = compare_and_exchange(x, bit, flip)
    return x


@pytest.mark.parametrize("descending", [False, True])
def test_sort_with_nan_and_zeros_is_the_network_of_other_targets(descending: bool) -> None:
    """NaN is neither larger nor smaller, -0 equals 0: where they end is decided by the network, bit for bit."""
    for count in (4, 16, 64, 256):
        x = np.random.default_rng(count).choice(np.array([np.nan, 0.0, -0.0, 1.0, -1.0, np.inf], np.float32), count)
        (got,) = evaluate(f"z = tl.sort(x, descending={descending})", {"x": torch.from_numpy(x)},
                          {"z": ((count,), torch.float32)})  # fmt: skip
        assert equal(got, torch.from_numpy(network(x, descending)))


@pytest.mark.parametrize(
    "name, shape, k",
    [(name, (8, 64), 4) for name in ("int8", "uint32", "int64", "float16", "bfloat16")]
    + [(name, *rest) for name in ("int32", "float32")
       for rest in (((512,), 4), ((8, 64), 1), ((8, 64), 2), ((8, 64), 64), ((4, 1024), 16))],
)  # fmt: skip
def test_topk(name: str, shape: tuple[int, ...], k: int) -> None:
    """The result has 32 bits where the source has fewer and something was selected: Triton's maximum widens."""
    x = sample(name, int(np.prod(shape)), seed=42).reshape(shape)
    if name in FLOATS:
        x = torch.where(x.isnan(), torch.ones((), dtype=x.dtype), x)
    (got,) = evaluate(f"z = tl.topk(x, {k})", {"x": x}, {"z": ((*shape[:-1], k), x.dtype)})
    np.testing.assert_array_equal(to_numpy(got), np.sort(to_numpy(x), axis=-1)[..., ::-1][..., :k])


@pytest.mark.parametrize("descending", [False, True])
def test_bitonic_merge(descending: bool) -> None:
    """An increasing half and a decreasing half."""
    rows = torch.randn(4, 64).sort(1).values
    x = torch.cat([rows[:, ::2], rows[:, 1::2].flip(1)], 1)
    (got,) = evaluate(f"z = tl.bitonic_merge(x, descending={descending})", {"x": x}, {"z": ((4, 64), torch.float32)})
    assert torch.equal(got, rows.flip(1) if descending else rows)


def test_keys_and_indices_packed_into_one_number() -> None:
    """How kernels sort pairs: the index in the low bits. What is left of the key decides first."""
    x = torch.randint(0, 50, (8, 128), dtype=torch.int32)
    (got,) = evaluate("z = tl.sort(x.to(tl.int64) << 32 | tl.arange(0, 128)[None, :]) & 0xFFFFFFFF", {"x": x},
                      {"z": ((8, 128), torch.int64)})  # fmt: skip
    assert torch.equal(got, x.sort(dim=1, stable=True).indices)


# ---- histograms


@pytest.mark.parametrize(
    "name, count, bins",
    [(name, 1024, 128) for name in INTEGERS]
    + [("int32", count, bins) for count, bins in ((2048, 2), (8, 512), (1, 4))],
)
def test_histogram(name: str, count: int, bins: int) -> None:
    limit = min(bins, np.iinfo(name).max + 1)
    x = torch.from_numpy(np.random.default_rng(bins).integers(0, limit, count).astype(name))
    got = evaluate(
        f"a = tl.histogram(x, {bins})\nb = tl.histogram(x, {bins}, mask=(tl.arange(0, {count}) % 3 > 0))", {"x": x},
        {"a": ((bins,), torch.int32), "b": ((bins,), torch.int32)},
    )  # fmt: skip
    v = x.numpy().astype(np.int64)
    assert got[0].tolist() == np.bincount(v, minlength=bins).tolist()
    assert got[1].tolist() == np.bincount(v[np.arange(count) % 3 > 0], minlength=bins).tolist()


def test_a_chain_of_whole_block_operations() -> None:
    """Sorted, summed up, flipped and gathered in one kernel, in a loop."""
    x = torch.randint(0, 100, (64,), dtype=torch.int32)
    (got,) = evaluate(
        """
        z = x
        for i in range(3):
            z = tl.flip(tl.cumsum(tl.sort(z), 0), 0) % 97
            z = tl.gather(z, (tl.arange(0, 64) * 5 + i) % 64, 0)
        """,
        {"x": x}, {"z": ((64,), torch.int32)},
    )  # fmt: skip
    wanted = reduce(lambda v, i: (np.cumsum(np.sort(v))[::-1] % 97)[(np.arange(64) * 5 + i) % 64], range(3), x.numpy())
    assert torch.equal(got, to_torch(wanted, "int32"))
