"""Distances between all points of two sets, as sums over differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

__all__ = ["DEFINITIONS"]

Tensor = torch.Tensor
_INFINITY = float("inf")


def _cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: int | None) -> Tensor:
    apart = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(x1.dtype).sum(-1)
    if p == 1:
        return apart.sum(-1)
    if p == 2:
        return apart.square().sum(-1).sqrt()
    if p == _INFINITY:
        return apart.amax(-1)
    return (apart**p).sum(-1) ** (1 / p)


def _cdist_backward(grad: Tensor, x1: Tensor, x2: Tensor, p: float, cdist: Tensor) -> Tensor:
    """With respect to ``x1``. Where a distance is zero, so is its gradient."""
    apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    outer, distance = grad.unsqueeze(-1), cdist.unsqueeze(-1)
    if p == 0:
        return torch.zeros_like(apart).sum(-2)
    if p == 1:
        return (outer * apart.sign()).sum(-2)
    if p == _INFINITY:
        return (outer * apart.sign() * (apart.abs() == distance)).sum(-2)
    if p == 2:
        slope = apart / distance
    else:
        slope = apart.sign() * apart.abs() ** (p - 1) / distance ** (p - 1)
    return torch.where((distance == 0) | (apart == 0), 0, outer * slope).sum(-2)


DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        torch.ops.aten._cdist_forward.default: _cdist,
        torch.ops.aten._cdist_backward.default: _cdist_backward,
    }
)
