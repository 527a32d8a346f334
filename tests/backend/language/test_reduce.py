"""Reductions: every dtype and axis, ties, NaN, and combine functions of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from kernel_text import evaluate
from language_values import FLOATS, INTEGERS, SIGNED, equal, sample, to_numpy

COMMON = ("int32", "bfloat16", "float32")  # tried in all shapes; the other dtypes in two
SHAPES = [((64,), 0), ((1, 1024), 1), ((8, 16), 0), ((8, 16), 1), ((4, 8, 2), 1), ((2, 4, 2, 8, 4), 2), ((8192,), 0)]


@triton.jit
def welford(mean_a, square_a, count_a, mean_b, square_b, count_b):
    count = count_a + count_b
    delta = mean_b - mean_a
    share = count_b / count
    return mean_a + delta * share, square_a + square_b + delta * delta * count_a * share, count


@triton.jit
def smaller_by_branch(a, b):
    if a < b:
        return a
    else:
        return b


@triton.jit
def gcd(a, b):
    while b != 0:
        a, b = b, a % b
    return a


def small(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Values whose sums are exact: small integers, for bfloat16 -1, 0 and 1."""
    low, high = (0 if dtype.startswith("u") else -9, 10) if dtype != "bfloat16" else (-1, 2)
    return torch.from_numpy(np.random.default_rng(1).integers(low, high, shape)).to(getattr(torch, dtype))


def sum_dtype(dtype: str) -> torch.dtype:
    """Integers narrower than 32 bits are summed in 32 bits."""
    if dtype in INTEGERS and np.dtype(dtype).itemsize < 4:
        return torch.int32 if dtype in SIGNED else torch.uint32
    return getattr(torch, dtype)


@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_every_dtype_shape_and_axis(name: str) -> None:
    """sum, max, min and the indices of the first largest and smallest element; small values make ties."""
    dtype = getattr(torch, name)
    for shape, axis in SHAPES if name in COMMON else SHAPES[2:4]:
        x = small(name, shape)
        rest = tuple(s for i, s in enumerate(shape) if i != axis)
        kept = tuple(1 if i == axis else s for i, s in enumerate(shape))
        outputs = {
            "total": (rest, torch.float64), "kept": (kept, torch.float64), "high": (rest, dtype), "low": (rest, dtype),
            "at_high": (rest, torch.int32), "at_low": (rest, torch.int32), "high2": (kept, dtype),
            "at_high2": (kept, torch.int32),
        }  # fmt: skip
        got = evaluate(
            f"""
            total = tl.sum(x, {axis})
            kept = tl.sum(x, {axis - len(shape)}, keep_dims=True)
            high = tl.max(x, {axis})
            low = tl.min(x, {axis})
            at_high = tl.argmax(x, {axis})
            at_low = tl.argmin(x, {axis})
            high2, at_high2 = tl.max(x, {axis}, return_indices=True, keep_dims=True)
            """,
            {"x": x}, outputs,
        )  # fmt: skip
        v = x.double().numpy()
        at = v.argmax(axis), v.argmin(axis)
        wanted = [v.sum(axis), v.sum(axis, keepdims=True), v.max(axis), v.min(axis), *at, v.max(axis, keepdims=True),
                  np.expand_dims(at[0], axis)]  # fmt: skip
        for label, one, expected in zip(outputs, got, wanted, strict=True):
            np.testing.assert_array_equal(one.double().numpy(), expected, err_msg=f"{label} {shape} {axis}")


@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_whole_block(name: str) -> None:
    x = small(name, (4, 8, 2))
    dtype = getattr(torch, name)
    body = "a = tl.sum(x)\nb = tl.max(x)\nc = tl.min(x, keep_dims=True)\nd = tl.sum(x, axis=None, keep_dims=True)"
    one, wide = (1, 1, 1), sum_dtype(name)
    got = evaluate(body, {"x": x}, {"a": ((), wide), "b": ((), dtype), "c": (one, dtype), "d": (one, wide)})
    v = x.double()
    assert [t.double().item() for t in got] == [v.sum().item(), v.max().item(), v.min().item(), v.sum().item()]


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_sums_wrap_and_take_a_dtype(name: str) -> None:
    x = sample(name, 256, seed=31)
    dtype = getattr(torch, name)
    body = (
        f"a = tl.sum(x, 0)\nb = tl.sum(x, 0, dtype=tl.{name})\nc = tl.sum(x, 0, dtype=tl.int64)\nd = tl.xor_sum(x, 0)"
    )
    body += "\ne = tl.reduce_or(x, 0)"
    outputs = {"a": ((), sum_dtype(name)), "b": ((), dtype), "c": ((), torch.int64), "d": ((), dtype), "e": ((), dtype)}
    got = evaluate(body, {"x": x}, outputs)
    exact = sum(int(v) for v in x.numpy())
    for one in got[:3]:
        bits = 8 * one.element_size()
        assert (int(one.numpy()) - exact) % (1 << bits) == 0
    assert equal(got[3], torch.from_numpy(np.array(np.bitwise_xor.reduce(x.numpy()))))
    assert equal(got[4], torch.from_numpy(np.array(np.bitwise_or.reduce(x.numpy()))))


def test_booleans() -> None:
    x = torch.arange(64) % 3 == 0
    got = evaluate(
        "x = x.to(tl.int1)\na = tl.sum(x)\nb = tl.xor_sum(x, 0)\nc = tl.reduce_or(x, 0)\nd = tl.sum(x, dtype=tl.int1)",
        {"x": x}, {"a": ((), torch.int32), "b": ((), torch.bool), "c": ((), torch.bool), "d": ((), torch.bool)},
    )  # fmt: skip
    assert [v.item() for v in got] == [22, False, True, False]


@pytest.mark.parametrize("name", FLOATS)
def test_float_sums_are_close(name: str) -> None:
    """16-bit floats are added up in float32 and rounded once; float32 is as good as sums of 4096 terms can be."""
    x = torch.rand(4096, dtype=torch.float64).to(getattr(torch, name))
    (got,) = evaluate("z = tl.sum(x, 0)", {"x": x}, {"z": ((), x.dtype)})
    exact = x.double().sum().item()
    bound = {"float16": 2.0**-11 * 1.01, "bfloat16": 2.0**-8, "float32": 2.0**-22, "float64": 2.0**-50}[name]
    assert abs(got.double().item() - exact) <= bound * exact


@pytest.mark.parametrize("place", [0, 5, 63])
def test_nan_is_ignored_by_max_and_min(place: int) -> None:
    """What Triton's combine functions give: numbers win over NaN; where all are NaN, NaN is left."""
    x = torch.arange(64, dtype=torch.float32) - 20
    x[place] = float("nan")
    rest = x[~x.isnan()]
    nothing = torch.full((64,), float("nan"))
    got = evaluate(
        "a = tl.max(x, 0)\nb = tl.min(x, 0)\nc = tl.max(n, 0)\nd = tl.sum(x, 0)", {"x": x, "n": nothing},
        {name: ((), torch.float32) for name in "abcd"},
    )  # fmt: skip
    assert got[0] == rest.max() and got[1] == rest.min() and got[2].isnan() and got[3].isnan()


def test_ties() -> None:
    """The first of equal elements, wherever in a vector or in which row it stands; also of -0 and 0."""
    x = torch.zeros(4, 64)
    x[0, 37:] = x[1, 5::7] = x[2, 63] = 1.0
    x[3, ::2] = -0.0
    got = evaluate("a = tl.argmax(x, 1)\nb = tl.argmin(-x, 1)\nc = tl.argmax(x.T, 0)", {"x": x},
                   {name: ((4,), torch.int32) for name in "abc"})  # fmt: skip
    for one in got:
        assert one.tolist() == [37, 5, 63, 0]
    most, index = evaluate(
        "a, b = tl.max(x, 1, return_indices=True, return_indices_tie_break_left=False)",
        {"x": x}, {"a": ((4,), torch.float32), "b": ((4,), torch.int32)},
    )  # fmt: skip
    assert torch.equal(x.gather(1, index.long()[:, None])[:, 0], most) and torch.equal(most, x.amax(1))


@pytest.mark.parametrize("axis", [0, 1])
def test_three_operands(axis: int) -> None:
    x = torch.rand(32, 64)
    rest = x.shape[1 - axis]
    mean, square = evaluate(
        f"mean, square, n = tl.reduce((x, tl.zeros_like(x), tl.full(x.shape, 1, tl.float32)), {axis}, welford)",
        {"x": x}, {"mean": ((rest,), torch.float32), "square": ((rest,), torch.float32)}, welford=welford,
    )  # fmt: skip
    torch.testing.assert_close(mean, x.double().mean(axis).float(), rtol=1e-6, atol=0)
    exact = x.double().var(axis, correction=0) * x.shape[axis]
    torch.testing.assert_close(square, exact.float(), rtol=1e-5, atol=0)


def test_operands_of_different_dtypes() -> None:
    x, i = torch.rand(64), torch.arange(64)
    value, index = evaluate(
        "v, i = tl.reduce((x, k), 0, larger)",
        {"x": x, "k": i}, {"v": ((), torch.float32), "i": ((), torch.int64)}, larger=larger,
    )  # fmt: skip
    assert value == x.max() and index == x.argmax()


@triton.jit
def larger(a, i, b, j):
    take = a > b
    return tl.where(take, a, b), tl.where(take, i, j)


@pytest.mark.parametrize("axis", [0, 1])
def test_combine_with_control_flow(axis: int) -> None:
    x = torch.randint(-99, 99, (8, 32), dtype=torch.int32)
    rest = x.shape[1 - axis]
    body = f"a = tl.reduce(x, {axis}, smaller)\nb = tl.reduce(tl.abs(x) * 6 + 6, {axis}, gcd)"
    got = evaluate(
        body, {"x": x}, {"a": ((rest,), x.dtype), "b": ((rest,), x.dtype)}, smaller=smaller_by_branch, gcd=gcd
    )
    assert torch.equal(got[0], x.amin(axis))
    assert np.array_equal(got[1].numpy(), np.gcd.reduce(x.abs().numpy() * 6 + 6, axis))


@triton.jit
def checked_sum(a, b):
    total = a.to(tl.int64) + b.to(tl.int64)
    tl.device_assert((total >= -(2**31)) & (total < 2**31), "sum out of range")
    return a + b


@triton.jit
def checked_sums(x_ptr, total_ptr, running_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    tl.store(total_ptr, tl.reduce(x, 0, checked_sum))
    tl.store(running_ptr + i, tl.associative_scan(x, 0, checked_sum))


def test_assertions_in_combine_functions() -> None:
    """Each step is checked, and no step that the result does not need."""
    x = torch.arange(64, dtype=torch.int32)
    total, running = torch.empty(1, dtype=torch.int32), torch.empty_like(x)
    checked_sums[(1,)](x, total, running, BLOCK=64, debug=True)
    assert total.item() == x.sum() and torch.equal(running, x.cumsum(0).int())
    with pytest.raises(RuntimeError, match="sum out of range"):
        checked_sums[(1,)](x * 2**26, total, running, BLOCK=64, debug=True)


def test_chained_reductions() -> None:
    x = torch.randint(0, 1000, (4, 32, 32, 4, 2), dtype=torch.int32)
    (got,) = evaluate("r = tl.sum(tl.sum(tl.sum(tl.permute(x, (2, 1, 0, 3, 4)), 3), 1), 0)", {"x": x},
                      {"r": ((4, 2), torch.int32)})  # fmt: skip
    assert torch.equal(got, x.permute(2, 1, 0, 3, 4).sum(3).sum(1).sum(0).int())


def test_softmax() -> None:
    x = torch.randn(16, 64)
    got = evaluate(
        "a = tl.softmax(x, 1, keep_dims=True)\nb = x.softmax(0)\nc = tl.softmax(tl.reshape(x, (1024,)))", {"x": x},
        {"a": (x.shape, x.dtype), "b": (x.shape, x.dtype), "c": ((1024,), x.dtype)},
    )  # fmt: skip
    v = x.double()
    for one, wanted in zip(got, [v.softmax(1), v.softmax(0), v.flatten().softmax(0)], strict=True):
        torch.testing.assert_close(one, wanted.float(), rtol=2e-6, atol=0)


def test_one_element_blocks() -> None:
    """Blocks of one element, reduced, scanned, split off, and carried by a loop."""
    x = torch.tensor([[[3.0]], [[-2.0]]])
    got = evaluate(
        """
        a = tl.max(x, 0)
        b = a
        for i in range(3):
            b = b + tl.max(b, 1, keep_dims=True)
        c = tl.cumsum(tl.sum(x, 0), 1) + tl.argmax(a, 0)[:, None]
        d, e = tl.split(tl.reshape(x, (1, 2)))
        """,
        {"x": x}, {"b": ((1, 1), x.dtype), "c": ((1, 1), x.dtype), "d": ((1,), x.dtype), "e": ((1,), x.dtype)},
    )  # fmt: skip
    assert [v.item() for v in got] == [24, 1, 3, -2]


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_tails_through_masks(count: int) -> None:
    x = sample("float32", count, seed=32)
    x = torch.where(x.isfinite(), x, torch.zeros(()))

    @triton.jit
    def kernel(x_ptr, z_ptr, n, BLOCK: tl.constexpr):
        i = tl.arange(0, BLOCK)
        x = tl.load(x_ptr + i, mask=i < n, other=0.0)
        low = tl.load(x_ptr + i, mask=i < n, other=float("inf"))
        tl.store(z_ptr, tl.sum(tl.abs(x) > 1, 0))
        tl.store(z_ptr + 1, tl.min(low, 0))
        tl.store(z_ptr + 2, tl.argmin(low, 0))

    z = torch.empty(3)
    kernel[(1,)](x, z, count, BLOCK=1024)
    v = to_numpy(x)
    assert z.tolist() == [float((np.abs(v) > 1).sum()), float(v.min()), float(v.argmin())]
