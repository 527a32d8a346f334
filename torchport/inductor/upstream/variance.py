"""Variances of float32 and 16-bit values are computed in float64, as aten's CPU kernels do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS", "NORMALIZATIONS", "normalization"]

_aten = torch.ops.aten
_in_normalization: ContextVar[bool] = ContextVar("torchport_in_normalization", default=False)

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
    token = _in_normalization.set(True)
    try:
        yield
    finally:
        _in_normalization.reset(token)


def _in_float64(operation: Any) -> Callable[..., Any]:
    def decomposition(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not (x.dtype.is_floating_point or x.dtype.is_complex):
            raise RuntimeError(f"{operation} takes floating point and complex numbers, not {x.dtype}")
        if _in_normalization.get() or x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return NotImplemented
        result = operation(x.double(), *args, **kwargs)
        if isinstance(result, tuple) and x.numel() == 0:  # Inductor's mean of nothing is 0
            result = result[0], torch.full_like(result[1], torch.nan)
        return tuple(y.to(x.dtype) for y in result) if isinstance(result, tuple) else result.to(x.dtype)

    return decomposition


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
