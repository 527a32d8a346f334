"""Sums and means of bags of embeddings, and their gradients."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["embedding_bag", "embedding_bag_backward", "weights_backward"]

Tensor = torch.Tensor

_SUM, _MEAN = 0, 1


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
    """``aten._embedding_bag``: the bags, the bag of each index, the bags' sizes, and nothing for their maxima."""
    if mode not in (_SUM, _MEAN) or scale_grad_by_freq or sparse or indices.dim() != 1 or not indices.numel():
        return NotImplemented
    starts = offsets[:-1] if include_last_offset else offsets
    if not starts.numel():
        return NotImplemented
    places = torch.arange(indices.numel(), dtype=starts.dtype, device=weight.device)
    bag = torch.searchsorted(starts.contiguous(), places, right=True) - 1
    rows = _weighted(weight[indices], indices, per_sample_weights, padding_idx)
    out = weight.new_zeros(starts.numel(), weight.shape[1]).index_add(0, bag, rows)
    counted = (indices != padding_idx).to(torch.int32)  # atomics have 32 bits on all targets
    sizes = counted.new_zeros(starts.numel()).index_add(0, bag, counted)
    if mode == _MEAN:
        out = out / sizes.clamp(min=1)[:, None]
    return (
        out,
        bag.to(indices.dtype),
        sizes.to(indices.dtype),
        torch.empty(0, dtype=indices.dtype, device=weight.device),
    )


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
    if mode not in (_SUM, _MEAN) or scale_grad_by_freq or sparse:
        return NotImplemented
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


def _weighted(rows: Tensor, indices: Tensor, weights: Tensor | None, padding_idx: int) -> Tensor:
    """Rows times their weights; 0 for those that only fill up."""
    rows = rows if weights is None else rows * weights[:, None]
    return rows if padding_idx < 0 else torch.where(indices[:, None] == padding_idx, 0, rows)
