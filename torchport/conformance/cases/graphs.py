"""Runs functions and models through torch.compile on a target and compares them with eager float64."""

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
"""Allowed rounding errors of a graph, as a multiple of the effect of a rounding error in each of its inputs."""
_TRIALS = 4


def compiled(bench: Bench, function: Callable[..., Any], fallback: str = "error", **more: Any) -> Callable[..., Any]:
    """``function`` compiled for the target. By default, an operation that the target cannot do is an error."""
    options: dict[str, Any] = {"target": str(bench.target), "fallback": fallback, "bf16_products": bench.bf16_products}
    result: Callable[..., Any] = torch.compile(function, backend="torchport", options=options, **more)
    return result


def _raised(values: Any) -> Any:
    """Floats as float64; tensors that require gradients still do."""

    def one(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        raised = x.detach().to(torch.float64) if x.dtype.is_floating_point else x.clone()
        return raised.requires_grad_(x.requires_grad)

    return _pytree.tree_map(one, values)


def reference_bound(
    function: Callable[..., Any], inputs: Sequence[Any], dtype: str, inner: str
) -> tuple[list[torch.Tensor], list[Any]]:
    """The results of ``function`` in float64, and an error bound for each element.

    The bound of an element is k * (u_out * |y| + u_acc * S). S is the element's sensitivity, at least the average one
    of its tensor: its change (root mean square over a few trials) relative to random relative changes of the inputs.
    A backward stable computation has errors of this size, including cancellation.
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
        for total, result, reference in zip(moved, shaken, wanted, strict=True):
            if reference.dtype.is_floating_point:
                total += ((_wide(result) - reference) / step) ** 2 / _TRIALS
    bounds: list[Any] = []
    for total, reference in zip(moved, wanted, strict=True):
        if not reference.dtype.is_floating_point:
            bounds.append(None)
            continue
        total = torch.nan_to_num(total, 0.0, 0.0, 0.0)
        size = torch.maximum(total.sqrt(), total.mean().sqrt()) if total.numel() else total
        least = torch.finfo(TORCH[dtype]).tiny
        bounds.append((FACTOR * (unit(dtype) * reference.abs() + unit(inner) * size) + least).numpy())
    return wanted, bounds


def _typical(error: torch.Tensor) -> float:
    """The root mean square of the finite errors."""
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

    Eager's own average error in ``dtype`` counts as another rounding error of the graph, because intermediate results
    may cancel in ways that no change of the inputs shows.

    dtype: of the inputs
    run: the compiled function, if it exists already
    inner: the type to compute in, ``dtype`` by default; Inductor, like eager, may round to it between operations

    Raises Wrong if a type or shape is not eager's, or a value is out of its bound.
    """
    before = _pytree.tree_map(_copy, list(inputs))
    eager = _tensors(function(*_pytree.tree_map(_copy, list(inputs))))
    # An in-place function changes only its copies, in float64 as on the target.
    got = _tensors((run or compiled(bench, function, fullgraph=True))(*_pytree.tree_map(_copy, list(inputs))))
    wanted, bounds = reference_bound(function, before, dtype, inner or dtype)
    worst = 0.0
    if len(got) != len(eager):
        raise Wrong(f"{len(got)} results instead of {len(eager)}")
    for index, (result, plain, reference, bound) in enumerate(zip(got, eager, wanted, bounds, strict=True)):
        if result.dtype != plain.dtype or result.shape != plain.shape:
            kinds = [f"{x.dtype} of {tuple(x.shape)}" for x in (result, plain)]
            raise Wrong(f"result {index}: {kinds[0]} instead of {kinds[1]}")
        name = next((n for n, kind in TORCH.items() if kind == result.dtype), "")
        if bound is None:
            equal(result, plain, bench.able)
            continue
        bound = bound + FACTOR * _typical(plain.detach().to(torch.float64) - reference)
        rounding = np.maximum(bound, 2 * unit(name) * np.abs(np.nan_to_num(reference.numpy(), posinf=0, neginf=0)))
        worst = max(worst, within(result.detach(), reference.numpy(), rounding, name, bench.able).worst)
    return Measured(worst)


def _copy(x: Any) -> Any:
    """A tensor with the same strides and storage layout (an expanded one stays expanded)."""
    if not isinstance(x, torch.Tensor):
        return x
    whole = x.untyped_storage().clone()
    copy = torch.empty(0, dtype=x.dtype).set_(whole, x.storage_offset(), x.shape, x.stride())
    return copy.requires_grad_(x.requires_grad)
