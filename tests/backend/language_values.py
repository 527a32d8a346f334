"""Dtypes of Triton's language, values that break things in each, and Triton's promotion rules, for numpy references."""

from __future__ import annotations

import numpy as np
import torch

__all__ = [
    "FLOATS",
    "INTEGERS",
    "SIGNED",
    "UNSIGNED",
    "equal",
    "extremes",
    "promoted",
    "sample",
    "to_numpy",
    "to_torch",
]

SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
FLOATS = ("float16", "bfloat16", "float32", "float64")
_TINY = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 5e-324}


def extremes(dtype: str) -> list[float]:
    """Zeros, ones, limits, denormals, infinities and NaN, as Python numbers."""
    if dtype in INTEGERS:
        info = torch.iinfo(getattr(torch, dtype))
        return [v for v in (info.min, info.min + 1, -7, -1, 0, 1, 2, 7, info.max - 1, info.max) if v >= info.min]
    info = torch.finfo(getattr(torch, dtype))
    finite = [0.0, 1.0, 1.5, 3.0, info.max, info.tiny, _TINY[dtype], info.eps]
    return [*finite, *(-v for v in finite), float("inf"), float("-inf"), float("nan")]


def sample(dtype: str, count: int, seed: int = 0) -> torch.Tensor:
    """``count`` values: the extremes, then random bits for integers, normal numbers of many sizes for floats."""
    random = np.random.default_rng([seed, *dtype.encode()])
    special = extremes(dtype)[:count]
    rest = count - len(special)
    if dtype in INTEGERS:
        info = np.iinfo(dtype)
        drawn = random.integers(info.min, info.max, rest, dtype=dtype, endpoint=True)
        values = np.concatenate([np.array(special, dtype), drawn])
        return torch.from_numpy(random.permutation(values))
    drawn = random.standard_normal(rest) * 2.0 ** random.integers(-6, 6, rest)
    values = random.permutation(np.concatenate([np.array(special), drawn]))
    return torch.from_numpy(values).to(getattr(torch, dtype))


def promoted(a: str, b: str) -> str:
    """The dtype of ``a + b``: as C for integers; the float's with an integer; f16 with bf16 gives f16."""
    for kind in ("float64", "float32", "float16"):
        if kind in (a, b):
            return kind
    if "bfloat16" in (a, b):
        return "bfloat16" if a == b else "float32"
    bits = {name: np.dtype(name).itemsize for name in (a, b)}
    if a.startswith("u") == b.startswith("u"):
        return a if bits[a] > bits[b] else b
    unsigned, signed = (a, b) if a.startswith("u") else (b, a)
    return unsigned if bits[unsigned] >= bits[signed] else signed


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The values; bfloat16 as float32."""
    return x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy()


def to_torch(values: np.ndarray, dtype: str) -> torch.Tensor:
    """numpy values in ``dtype``: wrapped in integers, rounded once to nearest in floats of up to 32 bits."""
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":
            return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)
        return torch.from_numpy(np.ascontiguousarray(values.astype(dtype)))


def equal(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal values with equal signs of zero; every NaN is the same."""
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return False
    if not got.dtype.is_floating_point:
        return bool(np.array_equal(got.numpy(), wanted.numpy()))
    a, b = to_numpy(got), to_numpy(wanted)
    same = (a == b) & (np.signbit(a) == np.signbit(b))
    return bool(np.all(same | (np.isnan(a) & np.isnan(b))))
