"""Functions and models through torch.compile on a target, compared with float64 in eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree

from torchport.conformance.bounds import equal, unit, within
from torchport.conformance.case import Bench, Measured, Wrong
from torchport.conformance.values import TORCH

__all__ = ["FACTOR", "compiled", "reference_bound", "same_as_float64"]

FACTOR = 8.0
"""Rounding errors of a graph, in the change of its result when its inputs change by a rounding error each."""
_TRIALS = 4


def compiled(bench: Bench, function: Callable[..., Any], fallback: str = "error", **more: Any) -> Callable[..., Any]:
    """``function`` compiled for the target; an operation the target cannot do is an error with the default."""
    options: dict[str, Any] = {"target": str(bench.target), "fallback": fallback}
    result: Callable[..., Any] = torch.compile(function, backend="torchport", options=options, **more)
    return result


def _raised(values: Any) -> Any:
    """Floats as float64, with their gradients required where they were."""

    def one(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        raised = x.detach().to(torch.float64) if x.dtype.is_floating_point else x.clone()
        return raised.requires_grad_(x.requires_grad)

    return _pytree.tree_map(one, values)


def reference_bound(
    function: Callable[..., Any], inputs: Sequence[Any], dtype: str, inner: str
) -> tuple[list[torch.Tensor], list[Any]]:
    """``function`` in float64, and how far each element of its results may be from it.

    The bound of an element is k * (u_out * |y| + u_acc * S): S is how much it, or at least the average element of its
    tensor, moves (root mean square over a few trials) per relative change of the inputs, each by its own random amount.
    That is what errors of a backward stable computation amount to, cancellation included.
    """
    wanted = [_wide(x) for x in _tensors(function(*_raised(inputs)))]
    generator = torch.Generator().manual_seed(20261125)
    moved: list[torch.Tensor] = [torch.zeros_like(x) for x in wanted]
    step = 2.0**-26

    def shake(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point:
            return x
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return (x.detach() * (1 + step * noise)).requires_grad_(x.requires_grad)

    for _ in range(_TRIALS):
        shaken = _tensors(function(*_pytree.tree_map(shake, _raised(inputs))))
        for total, one, exact in zip(moved, shaken, wanted, strict=True):
            if exact.dtype.is_floating_point:
                total += ((_wide(one) - exact) / step) ** 2 / _TRIALS
    bounds: list[Any] = []
    for total, exact in zip(moved, wanted, strict=True):
        if not exact.dtype.is_floating_point:
            bounds.append(None)
            continue
        total = torch.nan_to_num(total, 0.0, 0.0, 0.0)
        size = torch.maximum(total.sqrt(), total.mean().sqrt()) if total.numel() else total
        least = torch.finfo(TORCH[dtype]).tiny
        bounds.append((FACTOR * (unit(dtype) * exact.abs() + unit(inner) * size) + least).numpy())
    return wanted, bounds


def _typical(error: torch.Tensor) -> float:
    """The root mean square of the errors that are finite."""
    finite = error[torch.isfinite(error)]
    return float(finite.square().mean().sqrt()) if finite.numel() else 0.0


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to(torch.float64) if x.dtype.is_floating_point else x.detach()


def _tensors(values: Any) -> list[torch.Tensor]:
    return [x for x in _pytree.tree_leaves(values) if isinstance(x, torch.Tensor)]


def same_as_float64(
    bench: Bench,
    function: Callable[..., Any],
    inputs: Sequence[Any],
    dtype: str,
    *,
    run: Callable[..., Any] | None = None,
    inner: str | None = None,
) -> Measured:
    """Run ``function`` on the target and compare with float64: floats within ``reference_bound``, the rest exactly.

    What eager itself errs by in ``dtype``, on average over a tensor, counts as another rounding error of the graph:
    some cancel intermediate results that no change of the inputs shows.

    ``dtype``: of the inputs; ``inner``: in which it may be computed, the same by default: Inductor, like eager, may
    round to it between operations. ``run``: the compiled function, where it exists already. Raises Wrong for another
    dtype or shape than eager's, and for an input that was changed.
    """
    before = _pytree.tree_map(_copy, list(inputs))
    eager = _tensors(function(*_pytree.tree_map(_copy, list(inputs))))
    # An in-place function changes its copies, in float64 as in the target
    got = _tensors((run or compiled(bench, function, fullgraph=True))(*_pytree.tree_map(_copy, list(inputs))))
    wanted, bounds = reference_bound(function, before, dtype, inner or dtype)
    worst = 0.0
    if len(got) != len(eager):
        raise Wrong(f"{len(got)} results instead of {len(eager)}")
    for place, (one, plain, exact, bound) in enumerate(zip(got, eager, wanted, bounds, strict=True)):
        if one.dtype != plain.dtype or one.shape != plain.shape:
            raise Wrong(f"result {place}: {one.dtype} of {tuple(one.shape)} instead of {plain.dtype} of {plain.shape}")
        name = next((n for n, kind in TORCH.items() if kind == one.dtype), "")
        if bound is None:
            equal(one, plain, bench.able)
            continue
        bound = bound + FACTOR * _typical(plain.detach().to(torch.float64) - exact)
        rounding = np.maximum(bound, 2 * unit(name) * np.abs(np.nan_to_num(exact.numpy(), posinf=0, neginf=0)))
        worst = max(worst, within(one.detach(), exact.numpy(), rounding, name, bench.able).worst)
    return Measured(worst)


def _copy(x: Any) -> Any:
    """A tensor with the same strides and storage layout (an expanded one stays expanded)."""
    if not isinstance(x, torch.Tensor):
        return x
    whole = x.untyped_storage().clone()
    copy = torch.empty(0, dtype=x.dtype).set_(whole, x.storage_offset(), x.shape, x.stride())
    return copy.requires_grad_(x.requires_grad)
