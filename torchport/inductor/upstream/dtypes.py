"""Dtypes of results: those that eager gives."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten


def _any(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if x.dtype != torch.uint8:
        return NotImplemented
    return torch.any(x != 0, *args, **kwargs).to(torch.uint8)


def _all(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if x.dtype != torch.uint8:
        return NotImplemented
    return torch.all(x != 0, *args, **kwargs).to(torch.uint8)


def _ldexp(x: torch.Tensor, exponent: torch.Tensor) -> Any:
    """As aten computes it: a product with a power of the Python number 2.0, which takes part in no promotion."""
    return x * torch.pow(2.0, exponent)


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
        _aten.any.default: _any,
        _aten.any.dim: _any,
        _aten.any.dims: _any,
        _aten.all.default: _all,
        _aten.all.dim: _all,
        _aten.all.dims: _all,
    },
    "ldexp-dtype": {_aten.ldexp.Tensor: _ldexp},
}
