"""Scans of tensors without dimensions, which Inductor does not expect, of types that it overlooks, and in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten


def _sum(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    if x.ndim:
        return NotImplemented
    integers = not (x.dtype.is_floating_point or x.dtype.is_complex)
    return x.clone().to(dtype or (torch.int64 if integers else x.dtype))


def _typed_sum(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """Inductor takes the sums of a constant for a product, in the constant's type; those of integers are int64."""
    return NotImplemented if dtype is None or not x.ndim else x.to(dtype).cumsum(dim).to(dtype)


def _extreme(x: torch.Tensor, dim: int) -> Any:
    return NotImplemented if x.ndim else (x.clone(), torch.zeros_like(x, dtype=torch.int64))


def _logarithm(x: torch.Tensor, dim: int) -> Any:
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return NotImplemented
    return torch.logcumsumexp(x.double(), dim).to(x.dtype)


DECOMPOSITIONS: dict[str, dict[Any, Callable[..., Any]]] = {
    "typed-sums": {_aten.cumsum.default: _typed_sum},
    "logcumsumexp-in-float64": {_aten.logcumsumexp.default: _logarithm},
    "scan-of-scalar": {
        _aten.cumsum.default: _sum,
        _aten.cumprod.default: _sum,
        _aten.cummax.default: _extreme,
        _aten.cummin.default: _extreme,
    },
}
