"""Sums, means and maxima of bags of embeddings, and their gradients."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["embedding_bag", "embedding_bag_backward", "weights_backward"]

Tensor = torch.Tensor

_SUM, _MEAN, _MAX = 0, 1, 2


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """``aten._embedding_bag``: the bags, the bag of each index, the bags' sizes, which embeddings the maxima are."""
    if scale_grad_by_freq or sparse or indices.dim() != 1 or not indices.numel() or (mode == _MAX and padding_idx >= 0):
        return NotImplemented
    starts = offsets[:-1] if include_last_offset else offsets
    if not starts.numel():
        return NotImplemented
    places = torch.arange(indices.numel(), dtype=starts.dtype, device=weight.device)
    bag = torch.searchsorted(starts.contiguous(), places, right=True) - 1
    rows = _weighted(weight[indices], indices, per_sample_weights, padding_idx)
    out = weight.new_zeros(starts.numel(), weight.shape[1])
    kind = indices.dtype
    maxima = torch.empty(0, dtype=kind, device=weight.device)
    if mode == _MAX:
        out, maxima = _maxima(out, rows, bag, indices)
    else:
        out = out.index_add(0, bag, rows)
    counted = (indices != padding_idx).to(torch.int32)  # atomics have 32 bits on all targets
    sizes = counted.new_zeros(starts.numel()).index_add(0, bag, counted)
    if mode == _MEAN:
        out = out / sizes.clamp(min=1)[:, None]
    return out, bag.to(kind), sizes.to(kind), maxima


def embedding_bag_backward(
    grad: Tensor,
    indices: Tensor,
    offsets: Tensor,
    offset2bag: Tensor,
    bag_size: Tensor,
    maximum_indices: Tensor,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    padding_idx: int = -1,
) -> Any:
    """``aten._embedding_bag_backward``: the gradient by the embeddings."""
    if scale_grad_by_freq or sparse or offset2bag.shape != indices.shape:
        return NotImplemented  # the host's own form
    if mode == _MAX:
        grad = torch.where(bag_size[:, None] > 0, grad, 0)
        return grad.new_zeros(num_weights, grad.shape[1]).scatter_add(0, maximum_indices.to(torch.int64), grad)
    if mode == _MEAN:
        grad = grad / bag_size.clamp(min=1)[:, None]
    rows = _weighted(grad[offset2bag], indices, per_sample_weights, padding_idx)
    return grad.new_zeros(num_weights, grad.shape[1]).index_add(0, indices, rows)


def weights_backward(
    grad: Tensor, weight: Tensor, indices: Tensor, offsets: Tensor, offset2bag: Tensor, mode: int, padding_idx: int = -1
) -> Any:
    """``aten._embedding_bag_per_sample_weights_backward``."""
    if mode != _SUM:
        return NotImplemented
    products = (grad[offset2bag] * weight[indices]).sum(1)
    return torch.where(indices == padding_idx, 0, products)


def _maxima(out: Tensor, rows: Tensor, bag: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each bag's elements, and the first index that has it; 0 for empty bags."""
    bags = bag.to(torch.int64)[:, None].expand_as(rows)
    out = out.scatter_reduce(0, bags, rows, "amax", include_self=False)
    places = torch.arange(indices.numel(), device=rows.device)[:, None]
    found = torch.where(rows == out.gather(0, bags), places, indices.numel())
    first = torch.full_like(out, indices.numel(), dtype=torch.int64).scatter_reduce(0, bags, found, "amin")
    return out, torch.where(first < indices.numel(), indices[first.clamp(max=indices.numel() - 1)], 0)


def _weighted(rows: Tensor, indices: Tensor, weights: Tensor | None, padding_idx: int) -> Tensor:
    """Rows times their weights; 0 for those that only fill up."""
    rows = rows if weights is None else rows * weights[:, None]
    return rows if padding_idx < 0 else torch.where(indices[:, None] == padding_idx, 0, rows)
