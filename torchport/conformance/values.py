"""Inputs of cases: dtypes by Triton's names, and values by distribution, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["FLOATS", "FP8", "INTEGERS", "TORCH", "draw", "exact", "flushed", "is_float", "pointer"]

TORCH: dict[str, torch.dtype] = {
    "int1": torch.bool, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64,
    "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64,
    "fp8e4nv": torch.float8_e4m3fn, "fp8e5": torch.float8_e5m2, "fp8e4b8": torch.float8_e4m3fnuz,
    "fp8e5b16": torch.float8_e5m2fnuz,
}  # fmt: skip
"""PyTorch's types by Triton's names."""

INTEGERS = ("int8", "int16", "int32", "int64")
FLOATS = ("fp16", "bf16", "fp32", "fp64")
FP8 = ("fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16")


def is_float(dtype: str) -> bool:
    """Whether a Triton type is a floating-point type."""
    return "fp" in dtype or dtype == "bf16"


def pointer(tensor: torch.Tensor) -> str:
    """Triton's type of a pointer to a tensor's elements."""
    name = next(name for name, dtype in TORCH.items() if dtype == tensor.dtype)
    return f"*{name.replace('int', 'i')}" if name.startswith("int") else f"*{name}"


def draw(dtype: str, shape: Sequence[int], distribution: str, seed: str = "") -> torch.Tensor:
    """A CPU tensor of ``shape``. ``seed``: distinguishes the inputs of a case.

    Distributions of floats:
    randn: normal
    positive: uniform in [0.1, 4)
    unit: uniform in (-1, 1)
    wide: normal times powers of two
    special: NaN, infinities, both zeros, denormals and extremes among normal numbers

    Distributions of integers:
    small: -9 to 9
    bits: every bit random
    special: least, greatest, -1, 0 and 1 among random bits
    """
    text = f"{dtype} {tuple(shape)} {distribution} {seed}"
    random = np.random.default_rng(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32))
    count = int(np.prod(shape))
    torch_type = TORCH[dtype]
    if dtype == "int1":
        return torch.from_numpy(random.integers(0, 2, count).astype(bool)).reshape(tuple(shape))
    values: Any
    if not is_float(dtype):
        info = np.iinfo(dtype)
        if distribution == "small":
            values = random.integers(-9, 10, count).astype(dtype)
        else:
            values = random.integers(info.min, info.max, count, dtype=dtype, endpoint=True)
            if distribution == "special":
                extremes = np.array([info.min, info.min + 1, -1, 0, 1, 2, info.max - 1, info.max], dtype)[:count]
                values[: extremes.size] = extremes
                values = random.permutation(values)
        return torch.from_numpy(values).reshape(tuple(shape))
    tensor = torch.from_numpy(_floats(random, count, distribution)).to(torch_type)
    if distribution == "special":
        edges = _edges(torch_type)[:count]
        places = torch.from_numpy(random.permutation(count)[: edges.numel()])
        bits = _bits(tensor)
        bits[places] = _bits(edges)
    return tensor.reshape(tuple(shape))


def _floats(random: np.random.Generator, count: int, distribution: str) -> Any:
    if distribution == "positive":
        return random.uniform(0.1, 4.0, count)
    if distribution == "unit":
        return random.uniform(-1.0, 1.0, count)
    normal = random.standard_normal(count)
    return normal * 2.0 ** random.integers(-6, 6, count) if distribution == "wide" else normal


def _edges(dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    least = info.tiny * info.eps
    finite = [0.0, 1.0, 1.5, 3.0, info.max, info.max / 2, info.tiny, info.tiny / 2, least, least * 3, info.eps]
    both = [*finite, *(-value for value in finite), float("nan")]
    if dtype not in (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):  # these have no infinities
        both += [float("inf"), float("-inf")]
    return torch.tensor(both, dtype=torch.float64).to(dtype)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def exact(tensor: torch.Tensor) -> Any:
    """The values in NumPy: floats as float64 (which is exact), integers and booleans unchanged."""
    return tensor.to(torch.float64).numpy() if tensor.dtype.is_floating_point else tensor.numpy()


def flushed(values: Any, dtype: str) -> Any:
    """``values`` (float64) with the denormals of ``dtype`` replaced by zeros of their sign."""
    tiny = torch.finfo(TORCH[dtype]).tiny
    return np.where(np.abs(values) < tiny, np.copysign(0.0, values), values)
