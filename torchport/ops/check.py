"""Compares an operator with its float64 reference, element by element, within its bound."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.ops.registry import Operator, Sample, Tensors

__all__ = ["elsewhere", "errors"]

_UNIT = 2.0**-24
_LEAST = 2.0**-149  # float32's smallest number: what an operation that underflows is off by, twice


def errors(operator: Operator, sample: Sample, call: Callable[..., Any] | None = None) -> dict[str, float]:
    """The largest error of each result and gradient, in units of its bound: at most 1 if the operator is right.

    call: what is called in the place of the operator, as a compiled function that calls it.
    An error is infinite where the result is NaN or infinite and the reference is not, or the other way round, and where
    integers differ that have a bound of 0. A result of another shape or dtype than it should have raises ValueError.
    """
    names = list(inspect.signature(operator.call).parameters)
    wanted = [name for name in operator.differentiable if _is_float(sample.args[names.index(name)])]
    places = [names.index(name) for name in wanted]
    written = [names.index(name) for name in operator.mutates]
    args = [_own(value, index in places) for index, value in enumerate(sample.args)]
    returned = _tensors((call or operator.call)(*args))
    results = [*(one for index in written for one in _tensors(args[index])), *returned]
    wide_args = [_wide(value, index in places) for index, value in enumerate(sample.args)]
    wide = _tensors(operator.reference(*wide_args))
    floats = [result for result in results if result.is_floating_point()]
    grads = tuple(torch.randn(result.shape).to(result.dtype) for result in floats)
    found: list[torch.Tensor] = list(results)
    references: list[torch.Tensor] = list(wide)
    labels = [f"result {index}" for index in range(len(results))]
    if places:
        found += torch.autograd.grad(floats, [args[index] for index in places], grads)
        wide_floats = [result for result in wide if result.is_floating_point()]
        inputs = [wide_args[index] for index in places]
        references += torch.autograd.grad(wide_floats, inputs, [grad.double() for grad in grads])
        labels += [f"gradient of {name}" for name in wanted]
    with torch.no_grad():
        given = next((one.dtype for one in _flat(sample.args) if one.is_floating_point()), torch.float32)
        rounded = torch.finfo(given).eps / 2 / _UNIT
        plain = [_wide(value, False) for value in sample.args]
        bounds = operator.bound(tuple(plain), tuple(grad.double() for grad in grads), rounded)
        return {
            label: _largest(got, reference, units, label)
            for label, got, reference, units in zip(labels, found, references, bounds, strict=True)
        }


def elsewhere(operator: Operator, device: torch.device) -> Callable[..., Any]:
    """The operator, called with CPU tensors and computed on ``device``; what it writes is brought back."""
    names = list(inspect.signature(operator.call).parameters)

    def call(*args: Any) -> Any:
        given = [_moved(value, device) for value in args]
        returned = operator.call(*given)
        for name in operator.mutates:
            place = names.index(name)
            for here, there in zip(_tensors(args[place]), _tensors(given[place]), strict=True):
                here.copy_(there)
        return _moved(returned, torch.device("cpu"))

    return call


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (list, tuple)):
        return [_moved(one, device) for one in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _own(value: Any, differentiable: bool) -> Any:
    """A tensor that may be written to or differentiated, with the same layout."""
    if isinstance(value, list):
        return [_own(one, differentiable) for one in value]
    if not isinstance(value, torch.Tensor):
        return value
    storage = value.detach().untyped_storage().clone()
    return (
        value.new_empty(0)
        .set_(storage, value.storage_offset(), value.shape, value.stride())
        .requires_grad_(differentiable)
    )


def _wide(value: Any, differentiable: bool) -> Any:
    if isinstance(value, list):
        return [_wide(one, differentiable) for one in value]
    if not isinstance(value, torch.Tensor):
        return value
    copy = value.detach().double() if value.is_floating_point() else value.clone()
    return copy.clone().requires_grad_(differentiable)


def _flat(values: Sequence[Any]) -> Tensors:
    """The tensors among ``values`` and in lists among them."""
    lists = (value if isinstance(value, list) else [value] for value in values)
    return tuple(one for each in lists for one in each if isinstance(one, torch.Tensor))


def _tensors(results: Any) -> Tensors:
    if results is None:
        return ()
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def _largest(found: torch.Tensor, reference: torch.Tensor, units: torch.Tensor, label: str) -> float:
    if found.shape != reference.shape:
        raise ValueError(f"{label} has shape {tuple(found.shape)}, not {tuple(reference.shape)}")
    if found.numel() == 0:
        return 0.0
    if not found.is_floating_point():
        off = (found.double() - reference.double()).abs()
        return float(torch.where(off == 0, 0.0, off / (units * _UNIT)).max())
    rounded = reference.to(found.dtype).double()
    got, regular = found.detach().double(), torch.isfinite(rounded)
    same = (got == rounded) | (torch.isnan(got) & torch.isnan(rounded))
    limit = units.expand(found.shape) * _UNIT + _spacing(reference, found.dtype) / 2 + 4 * _LEAST
    error = torch.where(regular, (got - reference).abs() / limit, math.inf)
    return float(torch.where(same, 0.0, torch.nan_to_num(error, nan=math.inf, posinf=math.inf)).max())


def _spacing(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance between neighbouring numbers of ``dtype`` at the magnitude of ``values``."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(values.abs().clamp(info.tiny, info.max))
    return torch.ldexp(torch.full_like(values, info.eps), exponent - 1)
