"""Variances of float32 and 16-bit values are computed in float64, as aten's CPU kernels do.

Of up to ``_SHORT`` values in one pass: sums of differences from the first value, and of their squares (Chan, Golub and
LeVeque, "Algorithms for computing the sample variance", 1983, shifted data). The first value is at most sqrt(n)
standard deviations from the mean, so taking one sum from the other loses no more than a factor of n + 1 of float64's
2^53: with 4096 values 2^-29 is left of what sums lose to rounding, well below float32's 2^-24.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from torchport.inductor.shared import Switch

__all__ = ["DECOMPOSITIONS", "NORMALIZATIONS", "normalization"]

_aten = torch.ops.aten
_SHORT = 4096

_in_normalization = Switch("torchport_in_normalization")

NORMALIZATIONS = (
    _aten.native_layer_norm.default,
    _aten.native_group_norm.default,
    _aten.native_batch_norm.default,
    _aten._native_batch_norm_legit.default,
    _aten._native_batch_norm_legit.no_stats,
    _aten._native_batch_norm_legit_functional.default,
    _aten._batch_norm_with_update.default,
    _aten._batch_norm_with_update_functional.default,
)
"""Operations whose decompositions take a variance that aten's own kernels compute in float32."""


@contextmanager
def normalization() -> Iterator[None]:
    """Leave variances to Inductor while the context is open."""
    with _in_normalization.on():
        yield


def _in_float64(operation: Any) -> Callable[..., Any]:
    def decomposition(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not (x.dtype.is_floating_point or x.dtype.is_complex):
            raise RuntimeError(f"{operation} takes floating point and complex numbers, not {x.dtype}")
        if _in_normalization.is_on() or x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return NotImplemented
        short = _in_one_pass(operation, x, *args, **kwargs)
        if short is not None:
            return short
        result = operation(x.double(), *args, **kwargs)
        if isinstance(result, tuple) and x.numel() == 0:  # Inductor's mean of nothing is 0
            result = result[0], torch.full_like(result[1], torch.nan)
        return tuple(y.to(x.dtype) for y in result) if isinstance(result, tuple) else result.to(x.dtype)

    return decomposition


def _in_one_pass(
    operation: Any, x: torch.Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> Any:
    """The operation's result from one pass over its values, None where that is not to be had."""
    dims = sorted({d % x.ndim for d in ([dim] if isinstance(dim, int) else dim or range(x.ndim))}) if x.ndim else []
    sizes = [x.shape[d] for d in dims]
    if not dims or not all(isinstance(size, int) for size in sizes) or not 1 < math.prod(sizes) <= _SHORT:
        return None
    first = x
    for d in dims:
        first = first.narrow(d, 0, 1)
    shifted, count = x.double() - first.double(), math.prod(sizes)
    total, squares = shifted.sum(dims, keepdim=True), (shifted * shifted).sum(dims, keepdim=True)
    variance = (squares - total * (total / count)) / max(0.0, count - (1 if correction is None else correction))
    results = [variance.sqrt() if "std" in str(operation) else variance]
    if "mean" in str(operation):
        results.append(x.double().sum(dims, keepdim=True) / count)  # infinite where a value is
    kept = [y.to(x.dtype) if keepdim else y.squeeze(dims).to(x.dtype) for y in results]
    return tuple(kept) if len(kept) > 1 else kept[0]


DECOMPOSITIONS = {
    "variance-in-float64": {
        operation: _in_float64(operation)
        for operation in (
            _aten.var.correction,
            _aten.std.correction,
            _aten.var_mean.correction,
            _aten.std_mean.correction,
        )
    }
}
