"""float64 values of grouped products and of Inductor's pooling with offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

__all__ = ["RULES"]


def _spans(ends: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """Groups that are not empty: number and members."""
    start = 0
    for group, end in enumerate(ends.tolist()):
        if end > start:
            yield group, slice(start, end)
        start = end


def _grouped_mm(
    node: Mapping[str, Any],
    a: torch.Tensor,
    b: torch.Tensor,
    ends: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """One product for each group; group g ends at ``ends[g]``. Results outside all groups are 0.

    Groups are of a's rows (b has a matrix for each), of b's columns (a has a matrix for each), or of the terms of both.
    """
    if ends is None:
        product = a @ b
    elif a.dim() == 2 and b.dim() == 3:
        product = a.new_zeros(a.shape[0], b.shape[2])
        for group, rows in _spans(ends):
            product[rows] = a[rows] @ b[group]
    elif a.dim() == 3:
        product = a.new_zeros(a.shape[1], b.shape[1])
        for group, columns in _spans(ends):
            product[:, columns] = a[group] @ b[:, columns]
    else:
        product = a.new_zeros(len(ends), a.shape[0], b.shape[1])
        for group, terms in _spans(ends):
            product[group] = a[:, terms] @ b[terms]
    return product if bias is None else product + bias


def _grouped_mm_backward(
    node: Mapping[str, Any], x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and of weight, of ``_grouped_mm(x, weight, ends)``."""
    return _grouped_mm(node, grad, weight.transpose(1, 2), ends), _grouped_mm(node, x.T, grad, ends)


def _corners(shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Iterator[torch.Tensor]:
    """For every axis, the positions in the input where the windows of a result of this shape begin."""
    for axis, (count, step, before) in enumerate(zip(shape, stride, padding, strict=True)):
        around = [1] * len(shape)
        around[axis] = count
        yield (torch.arange(count) * step - before).reshape(around)


def _flattened(places: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    flat = places[0]
    for place, size in zip(places[1:], shape[1:], strict=True):
        flat = flat * size + place
    return flat


def _max_pool_with_offsets(
    node: Mapping[str, Any],
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima, and the position of each in its window (int8)."""
    axes = len(kernel)
    pool = torch.ops.aten.max_pool2d_with_indices if axes == 2 else torch.ops.aten.max_pool3d_with_indices
    values, indices = pool(x, kernel, stride, padding, dilation, ceil_mode)
    places = torch.unravel_index(indices, tuple(x.shape[-axes:]))
    corners = _corners(values.shape[-axes:], stride, padding)
    within = [(p - c).div(d, rounding_mode="floor") for p, c, d in zip(places, corners, dilation, strict=True)]
    return values, _flattened(within, kernel).to(torch.int8)


def _offsets_to_indices(
    node: Mapping[str, Any],
    offsets: torch.Tensor,
    kernel: Sequence[int],
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """Positions in windows as positions in the input, flat over its last axes."""
    within = torch.unravel_index(offsets.long(), tuple(kernel))
    corners = _corners(offsets.shape[-len(kernel) :], stride, padding)
    return _flattened([c + w * d for c, w, d in zip(corners, within, dilation, strict=True)], input_size)


RULES: Mapping[str, Callable[..., Any]] = {
    "aten._grouped_mm.default": _grouped_mm,
    "transformers.grouped_mm_fallback.default": _grouped_mm,
    "transformers.grouped_mm_fallback_backward.default": _grouped_mm_backward,
    "prims._low_memory_max_pool_with_offsets.default": _max_pool_with_offsets,
    "prims._low_memory_max_pool_offsets_to_indices.default": _offsets_to_indices,
}
"""Rows of ``torchport.numerics.graphs.special.RULES``."""
