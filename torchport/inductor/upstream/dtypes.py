"""Dtypes of results: those that eager gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten


def _of_bytes(reduction: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """``any`` or ``all``, which give uint8 for uint8."""

    def decomposition(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return reduction(x != 0, *args, **kwargs).to(torch.uint8) if x.dtype == torch.uint8 else NotImplemented

    return decomposition


def _ldexp(x: torch.Tensor, exponent: torch.Tensor) -> Any:
    """As aten: a product with a power of the Python number 2.0, which has no part in the promotion of both operands."""
    dtype = torch.result_type(x, exponent)
    if not (dtype.is_floating_point or dtype.is_complex):
        dtype = torch.get_default_dtype()
    return (x * torch.pow(2.0, exponent)).to(dtype)


def _threshold(x: torch.Tensor, threshold: float, value: float) -> Any:
    """``F.threshold`` of integers: aten's numbers are of the tensor's dtype, where Inductor's make floats of it."""
    if x.dtype.is_floating_point or x.dtype == torch.bool:
        return NotImplemented
    return torch.where(x <= int(threshold), torch.scalar_tensor(int(value), dtype=x.dtype, device=x.device), x)


def _of_bools(operation: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """``minimum`` or ``maximum``, which Inductor asks sympy for where the bools are known."""

    def decomposition(a: torch.Tensor, b: torch.Tensor) -> Any:
        return operation(a, b) if a.dtype == b.dtype == torch.bool else NotImplemented

    return decomposition


def _promoted(operation: Any) -> Any:
    """``operation`` of tensors that are floats already, where it makes floats of integers."""

    def decomposition(a: Any, b: Any) -> Any:
        integers = [x for x in (a, b) if isinstance(x, torch.Tensor) and not (x.is_floating_point() or x.is_complex())]
        if not integers:
            return NotImplemented
        dtype = torch.result_type(a, b)
        if not dtype.is_floating_point:
            if operation is not _aten.div.Tensor:
                return NotImplemented
            dtype = torch.get_default_dtype()
        return operation(*(x.to(dtype) if any(x is y for y in integers) else x for x in (a, b)))

    return decomposition


DECOMPOSITIONS = {
    "scaled-integers": {
        _aten.mul.Tensor: _promoted(_aten.mul.Tensor),
        _aten.div.Tensor: _promoted(_aten.div.Tensor),
    },
    "any-of-uint8": {
        **dict.fromkeys((_aten.any.default, _aten.any.dim, _aten.any.dims), _of_bytes(torch.any)),
        **dict.fromkeys((_aten.all.default, _aten.all.dim, _aten.all.dims), _of_bytes(torch.all)),
    },
    "known-bools": {
        _aten.minimum.default: _of_bools(torch.logical_and),
        _aten.maximum.default: _of_bools(torch.logical_or),
    },
    "integer-thresholds": {_aten.threshold.default: _threshold},
    "ldexp-dtype": {_aten.ldexp.Tensor: _ldexp},
}
