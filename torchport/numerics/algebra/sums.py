"""Sums, products and extremes of payloads over dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torchport.arithmetic.payload.field import FINITE, HIGH, INFINITY, MINUS_INFINITY, NAN, NEGATIVE, P, Q
from torchport.numerics.algebra.lanes import compute

__all__ = ["added_up", "extreme", "matrix_product", "multiplied", "running_sum"]

_LIMB = 16  # bits of a factor that are multiplied at a time, so that sums of 2^16 products stay below 2^63


def added_up(x: torch.Tensor, dims: Sequence[int], keepdim: bool = False) -> torch.Tensor:
    """The sum over dimensions; over all if none is given."""
    dims = [dim % max(x.ndim, 1) for dim in dims] or list(range(x.ndim))
    if not dims:
        return x
    finite = _is_finite(x)
    known = torch.where(finite, x, 0)
    total = ((known & 0xFFFFFFFF).sum(dims, keepdim) % P) | (_high(known).sum(dims, keepdim) % Q) << 32
    total |= ((known & NEGATIVE) >> 62).sum(dims, keepdim) % 2 << 62
    if finite.all():
        return total
    up, down, nan = ((x == special).sum(dims, keepdim) > 0 for special in (INFINITY, MINUS_INFINITY, NAN))
    total = torch.where(up, INFINITY, torch.where(down, MINUS_INFINITY, total))
    return torch.where(nan | (up & down), NAN, total)


def running_sum(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The sums of all elements up to each."""
    if not _is_plain(x):
        return _scanned("add", x, dim)
    return ((x & 0xFFFFFFFF).cumsum(dim) % P) | (_high(x).cumsum(dim) % Q) << 32


def _scanned(name: str, x: torch.Tensor, dim: int) -> torch.Tensor:
    parts = list(x.unbind(dim))
    for i in range(1, len(parts)):
        parts[i] = compute(name, parts[i - 1], parts[i])
    return torch.stack(parts, dim) if parts else x


def multiplied(x: torch.Tensor, dim: int, keepdim: bool) -> torch.Tensor:
    """The product over a dimension."""
    result = _scanned("mul", x, dim).select(dim, -1)
    return result.unsqueeze(dim) if keepdim else result


def matrix_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a @ b`` for [.., m, k] and [.., k, n] with the same leading dimensions."""
    if not (_is_plain(a) and _is_plain(b)):
        return added_up(compute("mul", a.unsqueeze(-1), b.unsqueeze(-3)), [-2])
    low = _product(a & 0xFFFFFFFF, b & 0xFFFFFFFF, P)
    return low | _product(_high(a), _high(b), Q) << 32


def _product(a: torch.Tensor, b: torch.Tensor, modulus: int) -> torch.Tensor:
    low, high = a & ((1 << _LIMB) - 1), a >> _LIMB
    return ((low @ b) % modulus + ((high @ b) % modulus << _LIMB)) % modulus


def extreme(x: torch.Tensor, dim: int, keepdim: bool, *, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The maximum or minimum over a dimension, NaN where there is one, and where it is."""
    order = compute("order", x)
    if largest:
        order = torch.where(x == NAN, 1 << 62, order)
    place = (order.argmax if largest else order.argmin)(dim, keepdim=True)
    value = x.gather(dim, place)
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def _high(x: torch.Tensor) -> torch.Tensor:
    return (x >> 32) & HIGH


def _is_plain(x: torch.Tensor) -> bool:
    """Whether all are finite, and none is the logarithm of a negative number."""
    return bool((_is_finite(x) & (x & NEGATIVE == 0)).all())


def _is_finite(x: torch.Tensor) -> torch.Tensor:
    return (x >= 0) & (x < FINITE)
