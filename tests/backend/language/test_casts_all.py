"""Casts between every two dtypes of Triton's language, and bitcasts."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from kernel_text import evaluate
from language_values import FLOATS, INTEGERS, equal, sample, to_numpy, to_torch

COUNT = 64
FLOAT8 = {
    "float8e4nv": torch.float8_e4m3fn, "float8e5": torch.float8_e5m2, "float8e4b8": torch.float8_e4m3fnuz,
    "float8e5b16": torch.float8_e5m2fnuz,
}  # fmt: skip


def torch_dtype(name: str) -> torch.dtype:
    return FLOAT8.get(name) or getattr(torch, name)


@pytest.mark.parametrize("a", INTEGERS + FLOATS)
def test_all_pairs(a: str) -> None:
    """One kernel from each dtype to all others; float to integer as eager torch has it on this machine."""
    x = sample(a, COUNT, seed=21)
    targets = [b for b in INTEGERS + FLOATS if b != a]
    outputs = {f"z_{b}": ((COUNT,), getattr(torch, b)) for b in targets} | {"z_int1": ((COUNT,), torch.bool)}
    body = "\n".join(f"{name} = x.to(tl.{name[2:]})" for name in outputs)
    got = dict(zip(outputs, evaluate(body, {"x": x}, outputs), strict=True))
    assert torch.equal(got["z_int1"], torch.from_numpy(x.double().numpy() != 0) if a in FLOATS else x.to(torch.bool))
    for b in targets:
        if a in INTEGERS and b in INTEGERS:
            wanted = torch.from_numpy(x.numpy().astype(b))
        elif a in INTEGERS or b in ("float16", "bfloat16"):
            wanted = to_torch(_once(x, a, b), b)
        elif b in FLOATS:
            wanted = x.to(getattr(torch, b))
        else:
            wide = x.double() if a == "float64" else x.float()
            wanted = wide.to(getattr(torch, b)) if b != "uint64" else _to_uint64(x)
        assert equal(got[f"z_{b}"], wanted), (b, x, got[f"z_{b}"], wanted)


def _once(x: torch.Tensor, a: str, b: str) -> np.ndarray:
    """What one rounding to ``b`` gives, as numbers that ``b`` holds. Integers reach 16 bits through float32."""
    if a in INTEGERS:
        with np.errstate(all="ignore"):
            return x.numpy().astype(np.float32 if b in ("float16", "bfloat16") else b)
    if a != "float64" or b == "float16":
        return to_numpy(x)  # numpy rounds float64 to float16 once
    return np.array([_nearest_bfloat16(v) for v in x.tolist()])


def _nearest_bfloat16(v: float) -> float:
    if v == 0 or not math.isfinite(v):
        return v
    unit = 2.0 ** (max(math.frexp(v)[1] - 8, -133))
    return math.copysign(round(v / unit) * unit if abs(v) < 3.4e38 else math.inf, v)


def _to_uint64(x: torch.Tensor) -> torch.Tensor:
    """torch has no cast to uint64 for every source: values from 2^63 on, less 2^63, then put back."""
    values = x.double()
    high = values >= 2.0**63
    low = torch.where(high, values - 2.0**63, values).to(torch.int64).numpy().astype(np.uint64)
    return torch.from_numpy(np.where(high.numpy(), low ^ np.uint64(1 << 63), low))


@pytest.mark.parametrize("name", FLOAT8)
def test_float8_to_wider_types(name: str) -> None:
    """All 256 bytes."""
    x = torch.arange(256, dtype=torch.uint8).view(FLOAT8[name])
    outputs = {f"z_{b}": ((256,), getattr(torch, b)) for b in FLOATS}
    got = evaluate("\n".join(f"{z} = x.to(tl.{z[2:]})" for z in outputs), {"x": x}, outputs)
    for one in got:
        assert equal(one, x.float().to(one.dtype))


@pytest.mark.parametrize("rounding", ["rtne", "rtz"])
@pytest.mark.parametrize("name", FLOAT8)
def test_wider_types_to_float8(name: str, rounding: str) -> None:
    """The nearest value (ties to even) or the next one towards zero; too large ones saturate, NaN stays."""
    values = torch.arange(256, dtype=torch.uint8).view(FLOAT8[name]).float()
    finite = np.unique(values[values.isfinite()].double().numpy())
    middle = np.array([(p + q) / 2 for p, q in pairwise(finite)])
    near = [np.nextafter(v, side) for v in (middle, finite) for side in (-np.inf, np.inf)]
    edges = np.concatenate([finite, middle, *near, [1e6, -1e6, np.inf, -np.inf, np.nan, 1e-9, -1e-9, -0.0]])
    x = np.resize(edges, 2048).astype(np.float32).astype(np.float64)
    for source in FLOATS:
        y = torch.from_numpy(x).to(getattr(torch, source))
        (got,) = evaluate(
            f"z = x.to(tl.{name}, fp_downcast_rounding='{rounding}')", {"x": y}, {"z": ((2048,), FLOAT8[name])}
        )
        exact = y.double().numpy()
        wanted = np.array([_rounded(v, finite, FLOAT8[name], rounding) for v in exact])
        np.testing.assert_array_equal(got.float().numpy(), wanted, err_msg=source)


def _rounded(v: float, finite: np.ndarray, dtype: torch.dtype, rounding: str) -> float:
    """``v`` among the values ``finite``: the nearer neighbour, the one of even byte at the same distance."""
    if math.isnan(v):
        return v
    v = min(max(v, finite[0]), finite[-1])
    above = int(np.searchsorted(finite, v))
    high, low = finite[above], finite[max(above - 1, 0)]
    if v == high:
        return high
    if rounding == "rtz":
        return low if v > 0 else high
    if v - low != high - v:
        return low if v - low < high - v else high
    even = torch.tensor(float(low)).to(dtype).view(torch.uint8).item() % 2 == 0
    return low if even else high


@pytest.mark.parametrize("b", ["float16", "bfloat16", "float32"])
def test_round_towards_zero(b: str) -> None:
    """``fp_downcast_rounding="rtz"`` gives the neighbour that is not larger in size; overflow the largest number."""
    source = "float64" if b == "float32" else "float32"
    x = sample(source, 1024, seed=22)
    (got,) = evaluate(f"z = x.to(tl.{b}, fp_downcast_rounding='rtz')", {"x": x}, {"z": ((1024,), getattr(torch, b))})
    largest = torch.finfo(got.dtype).max
    for v, z in zip(x.tolist(), got.tolist(), strict=True):
        if math.isnan(v):
            assert math.isnan(z)
        elif math.isinf(v):
            assert z in (v, math.copysign(largest, v))
        else:
            assert abs(z) <= abs(v) and math.copysign(1, z) == math.copysign(1, v)
            if abs(v) < largest:
                beyond = np.float64(abs(z)) + _unit(abs(z), b)
                assert abs(v) < beyond, (v, z)
            else:
                assert abs(z) == largest


def _unit(v: float, dtype: str) -> float:
    """The distance from ``v`` to the next larger number of ``dtype``."""
    mantissa, least = {"float16": (10, -24), "bfloat16": (7, -133), "float32": (23, -149)}[dtype]
    return 2.0 ** max(math.frexp(v)[1] - 1 - mantissa, least) if v else 2.0**least


@pytest.mark.cpu_only("other targets do not have the type")
def test_float8e4b15() -> None:
    """Triton's own format: bias 15, no NaN, at most 1.75; float16 is rounded to it with ties away from zero."""
    codes = torch.arange(256, dtype=torch.uint8)
    outputs = {name: ((256,), getattr(torch, name)) for name in ("float16", "float32")}
    body = "y = x.to(tl.float8e4b15, bitcast=True)\nfloat16 = y.to(tl.float16)\nfloat32 = y.to(tl.float32)"
    for got in evaluate(body, {"x": codes}, outputs):
        exponent, mantissa = (codes >> 3) & 15, codes & 7
        exact = torch.where(exponent == 0, mantissa / 8 * 2.0**-14, (1 + mantissa / 8) * 2.0 ** (exponent.float() - 15))
        assert equal(got, torch.where(codes > 127, -exact, exact).to(got.dtype))
    x = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.float16)[::8]
    (got,) = evaluate(
        "z = x.to(tl.float8e4b15).to(tl.uint8, bitcast=True)", {"x": x.contiguous()}, {"z": ((8192,), torch.uint8)}
    )
    bits = x.view(torch.uint16).int()
    size = (bits & 0x7FFF).clamp(max=0x3F00)
    assert torch.equal(got.int(), (size + 0x40 >> 7) | ((bits >> 8) & 0x80))


@pytest.mark.parametrize(
    "a, b",
    [("float32", "int32"), ("int32", "float32"), ("float16", "int16"), ("bfloat16", "float16"), ("int64", "float64"),
     ("uint8", "float8e5"), ("float8e4nv", "int8"), ("uint16", "bfloat16"), ("uint64", "int64"), ("int8", "uint8")],
)  # fmt: skip
def test_bitcast(a: str, b: str) -> None:
    x = torch.from_numpy(np.random.default_rng(5).integers(0, 256, COUNT * torch_dtype(a).itemsize, dtype=np.uint8))
    x = x.view(torch_dtype(a))
    (got,) = evaluate(f"z = x.to(tl.{b}, bitcast=True)", {"x": x}, {"z": ((COUNT,), torch_dtype(b))})
    assert torch.equal(got.view(torch.uint8), x.view(torch.uint8))


@pytest.mark.parametrize("name", FLOAT8)
def test_operations_on_float8(name: str) -> None:
    """Sums and products are rounded once and saturate; an absolute value keeps infinities and NaN."""
    x = torch.arange(256, dtype=torch.uint8).view(FLOAT8[name])
    y = x.view(torch.uint8).flip(0).contiguous().view(FLOAT8[name])
    outputs = {**{key: ((256,), FLOAT8[name]) for key in "abcd"}, "e": ((256,), torch.bool)}
    body = "a = tl.abs(x)\nb = x + y\nc = x * y\nd = tl.where(x > y, x, y)\ne = x <= y"
    got = evaluate(body, {"x": x, "y": y}, outputs)
    p, q = x.double().numpy(), y.double().numpy()
    values = torch.arange(256, dtype=torch.uint8).view(FLOAT8[name]).double()
    finite = np.unique(values[values.isfinite()].numpy())
    with np.errstate(invalid="ignore"):
        sums, products = ([_rounded(v, finite, FLOAT8[name], "rtne") for v in z] for z in (p + q, p * q))
        wanted = [np.abs(p), sums, products, np.where(p > q, p, q), p <= q]
    for one, expected in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one.double().numpy(), np.array(expected, np.float64))
