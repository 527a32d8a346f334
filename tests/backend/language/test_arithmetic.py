"""Operators of Triton's language on every pair of dtypes, against numpy with Triton's promotion rules."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_text import evaluate
from language_values import FLOATS, INTEGERS, SIGNED, equal, promoted, sample, to_numpy, to_torch

COUNT = 64
COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
               ">=": operator.ge}  # fmt: skip
ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def converted(x: torch.Tensor, source: str, target: str) -> np.ndarray:
    """Values in the type that Triton computes in, 16-bit floats as float32 (their operations round once from there)."""
    values = to_numpy(x)
    if target in ("float16", "bfloat16"):
        # integers reach 16-bit floats through float32, as in eager torch
        return to_numpy(to_torch(values.astype(np.float32), target)).astype(np.float32)
    return values.astype(target)


def reference(operation, x: torch.Tensor, a: str, y: torch.Tensor, b: str) -> np.ndarray:
    kind = promoted(a, b)
    with np.errstate(all="ignore"):
        return operation(converted(x, a, kind), converted(y, b, kind))


@pytest.mark.parametrize("a", INTEGERS + FLOATS)
def test_arithmetic_and_comparisons_of_all_pairs(a: str) -> None:
    x = sample(a, COUNT, seed=1)
    inputs, outputs, lines, wanted = {"x": x}, {}, [], {}
    for b in INTEGERS + FLOATS:
        y = inputs[f"y_{b}"] = sample(b, COUNT, seed=2)
        for i, (sign, function) in enumerate(ARITHMETIC.items()):
            name = f"z{i}_{b}"
            lines.append(f"{name} = x {sign} y_{b}")
            outputs[name] = ((COUNT,), getattr(torch, promoted(a, b)))
            wanted[name] = to_torch(reference(function, x, a, y, b), promoted(a, b))
        # six comparisons as the bits of one number
        lines.append(
            f"c_{b} = " + " + ".join(f"((x {s} y_{b}).to(tl.int32) << {i})" for i, s in enumerate(COMPARISONS))
        )
        outputs[f"c_{b}"] = ((COUNT,), torch.int32)
        bits = sum(reference(f, x, a, y, b).astype(np.int32) << i for i, f in enumerate(COMPARISONS.values()))
        wanted[f"c_{b}"] = torch.from_numpy(bits)
    for (name, expected), got in zip(wanted.items(), evaluate("\n".join(lines), inputs, outputs), strict=True):
        assert equal(got, expected), (name, x, inputs["y" + name[name.index("_") :]], got, expected)


@pytest.mark.parametrize("a", INTEGERS)
def test_bit_operations_shifts_and_division(a: str) -> None:
    dtype = getattr(torch, a)
    x, y = sample(a, COUNT, seed=3), sample(a, COUNT, seed=4)
    bits = np.dtype(a).itemsize * 8
    n = torch.from_numpy((np.arange(COUNT) % bits).astype(a))
    divisor = torch.from_numpy(np.where(y.numpy() == 0, np.array(3, a), y.numpy()))
    names = ["and_", "or_", "xor", "not_", "neg", "left", "right", "quotient", "rest", "up"]
    got = evaluate(
        """
        and_ = x & y
        or_ = x | y
        xor = x ^ y
        not_ = ~x
        neg = 0 - x
        left = x << n
        right = x >> n
        quotient = x // d
        rest = x % d
        up = tl.cdiv(x, 3)
        """,
        {"x": x, "y": y, "n": n, "d": divisor},
        dict.fromkeys(names, ((COUNT,), dtype)),
    )
    p, q, k, d = (v.numpy() for v in (x, y, n, divisor))
    with np.errstate(all="ignore"):
        # towards zero, the remainder with the sign of x; the lowest integer divided by -1 wraps
        wide = [int(i) for i in p], [int(i) for i in d]
        quotient = [abs(i) // abs(j) * (1 if (i < 0) == (j < 0) else -1) for i, j in zip(*wide, strict=True)]
        rest = [i - m * j for i, j, m in zip(*wide, quotient, strict=True)]
        limit = 1 << bits
        wrapped = [np.array([v % limit for v in values], np.uint64).astype(a) for values in (quotient, rest)]
        raised = (p + np.array(2, a)).astype(a)
        up = [int(v) for v in raised]
        up = np.array([(abs(v) // 3 * (1 if v >= 0 else -1)) % limit for v in up], np.uint64).astype(a)
        wanted = [p & q, p | q, p ^ q, ~p, (0 - p).astype(a), p << k, p >> k, *wrapped, up]
    for name, one, expected in zip(names, got, wanted, strict=True):
        assert equal(one, torch.from_numpy(expected)), (name, x, one, expected)


@pytest.mark.parametrize("a", FLOATS)
def test_float_division_and_remainder(a: str) -> None:
    x, y = sample(a, COUNT, seed=5), sample(a, COUNT, seed=6)
    kind = "float32" if a in ("float16", "bfloat16") else a
    got = evaluate(
        "q = x / y\nr = x % y\nn = -x\ni = x / 3\nj = 3 / x",
        {"x": x, "y": y},
        {name: ((COUNT,), getattr(torch, a if name == "n" else kind)) for name in "qrnij"},
    )
    p, q = (to_numpy(v).astype(kind) for v in (x, y))
    three = np.array(3, kind)
    with np.errstate(all="ignore"):
        wanted = [p / q, np.fmod(p, q), 0 - p, p / three, three / p]  # Triton's -x is 0 - x
    for name, one, expected in zip("qrnij", got, wanted, strict=True):
        assert equal(one, to_torch(expected, a if name == "n" else kind)), (name, x, y, one, expected)


@pytest.mark.parametrize("a", INTEGERS)
def test_true_division_of_integers_is_one_of_float32(a: str) -> None:
    x, y = sample(a, COUNT, seed=7), sample(a, COUNT, seed=8)
    (got,) = evaluate("z = x / y", {"x": x, "y": y}, {"z": ((COUNT,), torch.float32)})
    with np.errstate(all="ignore"):
        assert equal(got, torch.from_numpy(x.numpy().astype(np.float32) / y.numpy().astype(np.float32)))


@pytest.mark.parametrize("a", FLOATS)
def test_scalars_do_not_widen(a: str) -> None:
    """A Python number takes the tensor's dtype; one loaded from memory is promoted as a tensor is."""
    dtype = getattr(torch, a)
    x, s = sample(a, COUNT, seed=9), torch.tensor(1.5, dtype=torch.float64)
    got = evaluate(
        "p = x * 2\nq = 1.5 - x\nr = x + s", {"x": x, "s": s},
        {"p": ((COUNT,), dtype), "q": ((COUNT,), dtype), "r": ((COUNT,), torch.float64)},
    )  # fmt: skip
    for one, wanted in zip(got, [x * 2, 1.5 - x, x.double() + 1.5], strict=True):
        assert equal(one, wanted)


@pytest.mark.parametrize("a", INTEGERS + FLOATS)
def test_minimum_maximum_abs(a: str) -> None:
    """NaN loses against a number by default and wins with PropagateNan.ALL; -0 and 0 may be either."""
    dtype = getattr(torch, a)
    x, y = sample(a, COUNT, seed=10), sample(a, COUNT, seed=11)
    body = "low = tl.minimum(x, y)\nhigh = tl.maximum(x, y)\nsize = tl.abs(x)"
    names = ["low", "high", "size"]
    if a in FLOATS:
        body += "\nlow_nan = tl.minimum(x, y, tl.PropagateNan.ALL)\nhigh_nan = tl.maximum(x, y, tl.PropagateNan.ALL)"
        names += ["low_nan", "high_nan"]
    got = [to_numpy(v) for v in evaluate(body, {"x": x, "y": y}, dict.fromkeys(names, ((COUNT,), dtype)))]
    p, q = to_numpy(x), to_numpy(y)
    with np.errstate(all="ignore"):
        size = p if a.startswith("u") else np.abs(p)
        wanted = [np.fmin(p, q), np.fmax(p, q), size, np.minimum(p, q), np.maximum(p, q)]
    for name, one, expected in zip(names, got, wanted, strict=False):
        np.testing.assert_array_equal(one, expected, err_msg=name)


@pytest.mark.parametrize("a", FLOATS)
def test_clamp(a: str) -> None:
    dtype = getattr(torch, a)
    x = sample(a, COUNT, seed=12)
    got = evaluate(
        "p = tl.clamp(x, -1.5, 2.0)\nq = tl.clamp(x, -1.5, 2.0, propagate_nan=tl.PropagateNan.ALL)",
        {"x": x}, {"p": ((COUNT,), dtype), "q": ((COUNT,), dtype)},
    )  # fmt: skip
    assert equal(got[0], torch.where(x.isnan(), torch.tensor(-1.5, dtype=dtype), x.clamp(-1.5, 2.0)))
    assert equal(got[1], x.clamp(-1.5, 2.0))


@pytest.mark.parametrize("a", ["float32", "float64"])
def test_fma_rounds_once(a: str) -> None:
    """Products of numbers with full mantissas, most of which the addend cancels: rounding twice gives zero."""
    dtype = getattr(torch, a)
    x, y = 1 + torch.rand(COUNT, dtype=dtype), 1 + torch.rand(COUNT, dtype=dtype)
    z = -(x * y)
    (got,) = evaluate("r = tl.fma(x, y, z)", {"x": x, "y": y, "z": z}, {"r": ((COUNT,), dtype)})
    from fractions import Fraction

    exact = [Fraction(p.item()) * Fraction(q.item()) + Fraction(r.item()) for p, q, r in zip(x, y, z, strict=True)]
    assert got.tolist() == [float(v) for v in exact]  # exact: what is left of a product fits
    assert any(got.tolist())


@pytest.mark.parametrize("a", ["int32", "uint32", "int64", "uint64"])
def test_umulhi(a: str) -> None:
    x, y = sample(a, COUNT, seed=13), sample(a, COUNT, seed=14)
    (got,) = evaluate("z = tl.umulhi(x, y)", {"x": x, "y": y}, {"z": ((COUNT,), getattr(torch, a))})
    bits = np.dtype(a).itemsize * 8
    unsigned = [[int(v) % (1 << bits) for v in t.numpy()] for t in (x, y)]
    wanted = np.array([p * q >> bits for p, q in zip(*unsigned, strict=True)], f"uint{bits}").astype(a)
    assert equal(got, torch.from_numpy(wanted))


@pytest.mark.parametrize("a", INTEGERS + FLOATS)
def test_where(a: str) -> None:
    """A condition of a tensor, of one element for all, of another shape; values of NaN and -0 pass unchanged."""
    dtype = getattr(torch, a)
    x, y = sample(a, COUNT, seed=15).reshape(8, 8), sample(a, COUNT, seed=16).reshape(8, 8)
    c = torch.arange(8) % 3 == 0
    got = evaluate(
        "p = tl.where(c[None, :], x, y)\nq = tl.where(c[:, None], x, y)\nr = tl.where(False, x, y)",
        {"x": x, "y": y, "c": c}, {name: ((8, 8), dtype) for name in "pqr"},
    )  # fmt: skip
    columns, rows = c[None, :].expand(8, 8), c[:, None].expand(8, 8)
    for one, mask in zip(got, [columns, rows, torch.zeros(8, 8, dtype=torch.bool)], strict=True):
        wanted = torch.from_numpy(np.where(mask.numpy(), to_numpy(x), to_numpy(y)))
        assert equal(one, wanted.to(dtype))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(SIGNED).flatmap(
        lambda a: st.tuples(
            st.just(a), *[st.lists(st.integers(np.iinfo(a).min, np.iinfo(a).max), min_size=16, max_size=16)] * 2
        )
    )
)
def test_sums_and_products_wrap(case: tuple[str, list[int], list[int]]) -> None:
    a, p, q = case
    x, y = (torch.tensor(v, dtype=getattr(torch, a)) for v in (p, q))
    got = evaluate("s = x + y\nd = x - y\nm = x * y", {"x": x, "y": y}, {name: ((16,), x.dtype) for name in "sdm"})
    limit = 1 << (8 * x.element_size())
    for one, function in zip(got, ARITHMETIC.values(), strict=True):
        exact = [function(i, j) % limit for i, j in zip(p, q, strict=True)]
        assert one.tolist() == [v - limit if v >= limit // 2 else v for v in exact]
