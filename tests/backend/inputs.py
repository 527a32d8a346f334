"""Inputs of the operation tests: special values, every magnitude, and layouts that are not contiguous."""

from __future__ import annotations

import math

import pytest
import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
INTEGERS = (torch.uint8, *SIGNED)
# The arguments of a test over FLOATS. Kernels compute float16 in float32 as they do bfloat16; what differs are the
# conversions, and test_casts has every pair of dtypes.
FLOAT_CASES = [pytest.param(dtype, marks=pytest.mark.slow if dtype == torch.float16 else ()) for dtype in FLOATS]
PRIME = 1009  # no multiple of a vector width or of a block size


def dtype_id(value: object) -> str:
    """Test id of a dtype."""
    return str(value).removeprefix("torch.")


def special(dtype: torch.dtype) -> torch.Tensor:
    """Zeros of both signs, ones, subnormals, the smallest normal, the largest number, infinities, NaN."""
    info = torch.finfo(dtype)
    positive = [0.0, info.tiny * info.eps, info.tiny / 2, info.tiny, info.eps, 0.5, 1.0, 1.5, 2.0, 2.5, info.max]
    values = [*positive, math.inf]
    return torch.tensor([*values, *(-v for v in values), math.nan], dtype=torch.float64).to(dtype)


def every_magnitude(dtype: torch.dtype, count: int = PRIME) -> torch.Tensor:
    """`special`, then numbers of both signs with exponents over the whole range of the dtype, then normal ones."""
    info = torch.finfo(dtype)
    low, high = math.log2(info.tiny), math.log2(info.max)
    fixed = special(dtype)
    half = (count - fixed.numel()) // 2
    magnitude = torch.exp2(torch.empty(half, dtype=torch.float64).uniform_(low, high - 1))
    sign = torch.randint(0, 2, (half,), dtype=torch.float64) * 2 - 1
    rest = 3 * torch.randn(count - fixed.numel() - half, dtype=torch.float64)
    return torch.cat([fixed, (sign * magnitude).to(dtype), rest.to(dtype)])


def pairs(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair of `values`, as two vectors."""
    return values.repeat_interleave(values.numel()), values.repeat(values.numel())


def integers(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Random integers over the whole range of the dtype; the range's ends, 0 and (signed) -1 lead."""
    info = torch.iinfo(dtype)
    x = torch.randint(info.min, info.max, shape, dtype=dtype)
    flat = x.view(-1)
    edges = [info.min, info.max, 0, 1, info.min + 1, max(-1, info.min)]
    flat[: len(edges)] = torch.tensor(edges[: flat.numel()], dtype=dtype)
    return x
