"""What a page compares its results with: those of the model in float64, and how far float32 on the CPU is from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from torchport.errors import CompilationError
from torchport.packages.containers import plain, rebuilt

__all__ = ["Expected", "expected"]

_FLOOR = 2e-6
"""Relative errors below are rounding noise of float32: 2**-24 a step, a few dozen steps deep."""
_SMALL = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Expected:
    """One result.

    value: in float64, or as it is if it is no float.
    eager: the largest error of the model on the CPU, in its own type; 0 for integers.
    bound: the largest error that passes: twice eager's, or rounding noise of the type.
    """

    value: torch.Tensor
    eager: float
    bound: float


class _InFloat64(TorchDispatchMode):
    """Run operations that ask for a smaller float type in float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(torch.dtype, _wide_type, (args, kwargs or {}))
        return func(*args, **kwargs)


def expected(model: Callable[..., Any], args: Sequence[Any]) -> list[Expected]:
    """The results of ``model`` for ``args``: tensors in the order of the export's. The model is not changed."""
    with torch.no_grad():
        own = _leaves(_copied(model)(*copy.deepcopy(args)))
        wide_model = _copied(model)
        if isinstance(wide_model, torch.nn.Module):
            wide_model = wide_model.double()
        with _InFloat64():  # type: ignore[no-untyped-call]
            wide = _leaves(wide_model(*(rebuilt(one, _wide(one)) for one in copy.deepcopy(args))))
    return [_expected(number, a, b) for number, (a, b) in enumerate(zip(own, wide, strict=True))]


def _expected(number: int, own: Any, wide: Any) -> Expected:
    if not isinstance(own, torch.Tensor):
        raise CompilationError(f"result {number} is a {type(own).__name__}; a page computes tensors")
    if not own.is_floating_point():
        if own.is_complex():
            raise CompilationError(f"result {number} is of {own.dtype}, which a page cannot compare")
        return Expected(own, 0.0, 0.0)
    exact = wide.to(torch.float64)
    finite = torch.isfinite(exact) & torch.isfinite(own)
    error = (own.double() - exact)[finite].abs()
    largest = float(exact[finite].abs().max()) if finite.any() else 0.0
    eager = float(error.max()) if finite.any() else 0.0
    noise = max(_FLOOR, 4 * torch.finfo(own.dtype).eps)
    return Expected(exact, eager, max(2 * eager, noise * largest))


def _leaves(value: Any) -> list[Any]:
    return list(tree_leaves(plain(value, "the result").value))


def _wide(value: Any) -> Any:
    """The tensors of an input in float64, in plain containers."""
    return tree_map_only(torch.Tensor, _widened, plain(value, "an input").value)


def _copied(model: Callable[..., Any]) -> Any:
    return copy.deepcopy(model) if isinstance(model, torch.nn.Module) else model


def _wide_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in _SMALL else dtype


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.dtype in _SMALL else tensor
