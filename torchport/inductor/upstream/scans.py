"""Scans of tensors without dimensions, which Inductor does not expect, and logarithms of sums in float64, as aten's."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten


def _sum(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    if x.ndim:
        return NotImplemented
    integers = not (x.dtype.is_floating_point or x.dtype.is_complex)
    return x.clone().to(dtype or (torch.int64 if integers else x.dtype))


def _extreme(x: torch.Tensor, dim: int) -> Any:
    return NotImplemented if x.ndim else (x.clone(), torch.zeros_like(x, dtype=torch.int64))


def _logarithm(x: torch.Tensor, dim: int) -> Any:
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return NotImplemented
    return torch.logcumsumexp(x.double(), dim).to(x.dtype)


DECOMPOSITIONS = {
    "logcumsumexp-in-float64": {_aten.logcumsumexp.default: _logarithm},
    "scan-of-scalar": {
        _aten.cumsum.default: _sum,
        _aten.cumprod.default: _sum,
        _aten.cummax.default: _extreme,
        _aten.cummin.default: _extreme,
    },
}
