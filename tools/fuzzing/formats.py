"""Number formats of Triton as NumPy sees them: floats are float64 arrays of representable values, integers themselves.

Rounding is to nearest even, written on float64 so that it depends on no library that is under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Array = Any


@dataclass(frozen=True)
class FloatFormat:
    """bits: of the significand, the hidden one included. least: exponent of the smallest normal number.
    saturates: values that are too large become `largest` and not infinity."""

    bits: int
    least: int
    largest: float
    torch_dtype: torch.dtype
    saturates: bool = False

    @property
    def tiniest(self) -> float:
        """The smallest number above zero."""
        return float(2.0 ** (self.least - self.bits + 1))


FLOATS = {
    "fp8e4nv": FloatFormat(4, -6, 448.0, torch.float8_e4m3fn, True),
    "fp8e5": FloatFormat(3, -14, 57344.0, torch.float8_e5m2, True),
    "fp16": FloatFormat(11, -14, 65504.0, torch.float16),
    "bf16": FloatFormat(8, -126, float(torch.finfo(torch.bfloat16).max), torch.bfloat16),
    "fp32": FloatFormat(24, -126, float(np.finfo(np.float32).max), torch.float32),
    "fp64": FloatFormat(53, -1022, float(np.finfo(np.float64).max), torch.float64),
}
INTEGERS = {f"{u}int{bits}": np.dtype(f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)}
DTYPES = ("int1", *INTEGERS, *FLOATS)
WIDE_FLOATS = ("fp16", "bf16", "fp32", "fp64")
LANGUAGE = {"fp8e4nv": "float8e4nv", "fp8e5": "float8e5", "fp16": "float16", "bf16": "bfloat16"}
LANGUAGE |= {"fp32": "float32", "fp64": "float64"}


def in_language(dtype: str) -> str:
    """The dtype as Triton's programs write it."""
    return "tl." + LANGUAGE.get(dtype, dtype)


def torch_dtype(dtype: str) -> torch.dtype:
    if dtype in FLOATS:
        return FLOATS[dtype].torch_dtype
    return torch.bool if dtype == "int1" else getattr(torch, dtype)


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def is_signed(dtype: str) -> bool:
    return dtype.startswith("int") and dtype != "int1"


def width(dtype: str) -> int:
    """Bits of a value in memory; of int1, 1."""
    return 1 if dtype == "int1" else torch_dtype(dtype).itemsize * 8


def spacing(values: Array, dtype: str) -> Array:
    """The distance between neighbouring numbers of a float format at `values` (at its ends where there are none)."""
    form = FLOATS[dtype]
    size = np.clip(np.abs(np.where(np.isfinite(values), values, 0.0)), 2.0**form.least, form.largest)
    return np.ldexp(1.0, np.frexp(size)[1] - form.bits)


def rounded(values: Array, dtype: str) -> Array:
    """float64 (or longdouble) rounded once to a float format, in float64."""
    form = FLOATS[dtype]
    if dtype == "fp64":
        return np.asarray(values, np.float64)
    values = np.asarray(values)
    step = spacing(values, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        result = np.where(np.isfinite(values), np.round(np.where(np.isfinite(values), values, 0) / step) * step, values)
        result = np.copysign(result, values)
    beyond = np.abs(result) > form.largest
    limit = form.largest if form.saturates else np.inf
    return np.asarray(np.where(beyond, np.copysign(limit, values), result), np.float64)


def to_torch(values: Array, dtype: str) -> torch.Tensor:
    """A contiguous tensor that holds the values."""
    tensor = torch.from_numpy(np.array(values, order="C"))
    if dtype in ("fp8e4nv", "fp8e5"):
        return tensor.float().to(torch_dtype(dtype))
    return tensor.to(torch_dtype(dtype)) if is_float(dtype) else tensor


def to_numpy(tensor: torch.Tensor) -> Array:
    """The values of a tensor: float64 for floats."""
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def sample(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], kind: str) -> Array:
    """Random values. kind: "plain" (moderate), "small" (little integers, with ties), "edge" (NaN, infinities,
    -0.0, denormals, extremes among others), "bits" (random bit patterns), "positive" (in [0.25, 4))."""
    if dtype == "int1":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype in INTEGERS:
        return _integers(rng, INTEGERS[dtype], shape, kind)
    form = FLOATS[dtype]
    if kind == "small":
        return rng.integers(-4, 5, shape).astype(np.float64)
    if kind == "positive":
        return rounded(rng.uniform(0.25, 3.9, shape), dtype)
    values = rng.standard_normal(shape)
    if kind == "bits":
        values = values * np.exp2(rng.uniform(max(form.least, -300) / 2, np.log2(min(form.largest, 1e90)) / 2, shape))
    if kind == "edge":
        edges = [0.0, -0.0, np.nan, np.inf, -np.inf, form.largest, -form.largest, form.tiniest, -form.tiniest]
        edges += [2.0**form.least, 1.0, -1.0, 2.0 ** (form.bits - 1), 0.5, 1.5, 2.5]
        if form.saturates:  # torch's E4M3FN has no infinity
            edges = [e for e in edges if not np.isinf(e)]
        values = np.where(rng.random(shape) < 0.4, rng.choice(np.array(edges), shape), values)
    return rounded(values, dtype)


def _integers(rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], kind: str) -> Array:
    info = np.iinfo(dtype)
    low = 0 if info.min == 0 else -9
    if kind in ("small", "plain"):
        return rng.integers(low, 10, shape).astype(dtype)
    if kind == "positive":
        return rng.integers(1, 10, shape).astype(dtype)
    values = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    if kind == "edge":
        edges = np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1], dtype)
        values = np.where(rng.random(shape) < 0.4, rng.choice(edges, shape), values)
    return values.copy()
