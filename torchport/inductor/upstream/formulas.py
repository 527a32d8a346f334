"""Formulas that come to aten's values where those of Inductor's decompositions do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten
_MEAN = 1
"""The value of ``reduction`` in aten's losses."""


def _soft_margin_gradient(gradient: torch.Tensor, x: torch.Tensor, target: torch.Tensor, reduction: int) -> Any:
    """Stock has sigmoid(z) - 1 for sigmoid(-z): all digits cancel where z is large."""
    result = -target * gradient * torch.sigmoid(-target * x)
    return result / x.numel() if reduction == _MEAN else result


def _linspace(start: Any, end: Any, steps: int, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """Of integers: both ends are made integers first, and each half is computed from its end, in float64.

    See aten/src/ATen/native/cpu/RangeFactoriesKernel.cpp.
    """
    if dtype is None or dtype.is_floating_point or dtype.is_complex or steps < 2:
        return NotImplemented
    start, end = int(start), int(end)
    step = (end - start) / (steps - 1)
    index = torch.arange(steps, **options)
    low = index.to(torch.float64) * step + start
    high = end - (steps - 1 - index).to(torch.float64) * step
    return torch.where(index < steps // 2, low, high).to(dtype)


def _lerp(start: torch.Tensor, end: torch.Tensor, weight: Any) -> Any:
    """With a complex number, which stock compares with 0.5 as a real one."""
    if not isinstance(weight, complex):
        return NotImplemented
    return start + (end - start) * weight if abs(weight) < 0.5 else end - (end - start) * (1 - weight)


def _add(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    """Of no complex elements, whose broadcast real parts stock cannot view as complex again."""
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return NotImplemented
    dtype, shape = torch.result_type(a, b), torch.broadcast_shapes(a.shape, b.shape)
    if not dtype.is_complex or 0 not in shape:
        return NotImplemented
    return torch.empty(shape, dtype=dtype, device=a.device)


def _scaled_add(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    """Of two dimensions: Inductor takes the sum of a matrix product and a tensor for addmm, whatever alpha is."""
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)) or max(a.dim(), b.dim()) != 2:
        return NotImplemented
    if isinstance(alpha, (int, float)) and alpha == 1:  # a symbol may be any number
        return NotImplemented
    dtype = torch.result_type(a, b)
    return NotImplemented if dtype == torch.bool else a + b.to(dtype) * alpha


def _of_number(operation: Any) -> Callable[..., Any]:
    """``softmax`` along the dimension that a tensor without dimensions is taken to have."""

    def decomposition(x: torch.Tensor, dim: int, half_to_float: bool) -> Any:
        return NotImplemented if x.dim() else operation(x.reshape(1), 0, half_to_float).reshape(())

    return decomposition


def _masked_put(x: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False) -> Any:
    """``x[mask] = number`` is a selection. Stock gives the place of ``x`` to the result.

    Writes into ``x`` before that are then writes into the result, and reads through views of ``x`` read the result.
    """
    if len(indices) != 1 or indices[0].dtype not in (torch.bool, torch.uint8) or any(s != 1 for s in values.shape):
        return NotImplemented
    mask = indices[0] != 0
    number = values.reshape(())
    chosen = x + number if accumulate else number
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())), chosen, x)


def _next_after(a: torch.Tensor, b: torch.Tensor) -> Any:
    """Of 16-bit floats, by their bits; stock steps in float32, and rounding loses the step."""
    dtype = torch.result_type(a, b)
    if dtype not in (torch.float16, torch.bfloat16):
        return NotImplemented
    a, b = torch.broadcast_tensors(a.to(dtype), b.to(dtype))
    bits, sign = a.contiguous().view(torch.int16), b.contiguous().view(torch.int16) & -0x8000
    away = (b > a) == (a > 0)
    found = torch.where(a == 0, sign | 1, torch.where(away, bits + 1, bits - 1)).to(torch.int16).view(dtype)
    return torch.where((a == b) | a.isnan() | b.isnan(), torch.where(a.isnan(), a, b), found)


DECOMPOSITIONS: dict[str, dict[Any, Callable[..., Any]]] = {
    "soft-margin-gradient": {_aten.soft_margin_loss_backward.default: _soft_margin_gradient},
    "integer-linspace": {_aten.linspace.default: _linspace},
    "complex-lerp": {_aten.lerp.Scalar: _lerp},
    "masked-puts": dict.fromkeys((_aten.index_put.default, _aten._unsafe_index_put.default), _masked_put),
    "empty-complex": {_aten.add.Tensor: _add},
    "scaled-sums": {_aten.add.Tensor: _scaled_add},
    "narrow-nextafter": {_aten.nextafter.default: _next_after},
    "softmax-of-scalar": {
        operation: _of_number(operation) for operation in (_aten._softmax.default, _aten._log_softmax.default)
    },
}
