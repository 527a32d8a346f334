"""Operators that are made of others in eager mode: their sizes depend on data, or they have kernels of their own.

A function here returns NotImplemented for arguments that it does not take; the host computes those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from torchport.torch_device import bags, ctc, interpolation, optimizers, scattering, selecting, sorting, transformer

__all__ = ["composed"]

_aten = torch.ops.aten


def _equal(self: torch.Tensor, other: torch.Tensor) -> Any:
    """``aten.equal``, which refuses tensors of two types."""
    if self.dtype != other.dtype or self.device != other.device:
        return NotImplemented
    return self.shape == other.shape and bool((self == other).all())


_COMPOSED: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        **optimizers.COMPOSED, **transformer.COMPOSED, _aten.equal.default: _equal,
        _aten.sort.default: sorting.sort, _aten.sort.stable: sorting.sort_stable, _aten.topk.default: sorting.topk,
        _aten.kthvalue.default: sorting.kthvalue, _aten.mode.default: sorting.mode,
        _aten.median.default: sorting.median, _aten.median.dim: sorting.median_dim,
        _aten.nanmedian.default: sorting.nanmedian, _aten.nanmedian.dim: sorting.nanmedian_dim,
        _aten.nonzero.default: selecting.nonzero, _aten.masked_select.default: selecting.masked_select,
        _aten.repeat_interleave.Tensor: selecting.repeat_interleave, _aten._unique2.default: selecting.unique,
        _aten.unique_dim.default: selecting.unique_dim,
        _aten.unique_consecutive.default: selecting.unique_consecutive,
        _aten.bincount.default: selecting.bincount, _aten.histc.default: selecting.histc,
        _aten.multinomial.default: selecting.multinomial, _aten.scatter_reduce.two: scattering.scatter_reduce,
        _aten._embedding_bag.default: bags.embedding_bag, _aten._embedding_bag_forward_only.default: bags.embedding_bag,
        _aten._embedding_bag_backward.default: bags.embedding_bag_backward,
        _aten._embedding_bag_per_sample_weights_backward.default: bags.weights_backward,
        _aten._ctc_loss.default: ctc.ctc_loss, _aten._ctc_loss.Tensor: ctc.ctc_loss,
        _aten._ctc_loss_backward.default: ctc.ctc_loss_backward,
        _aten._ctc_loss_backward.Tensor: ctc.ctc_loss_backward,
        _aten.upsample_linear1d_backward.default: interpolation.gradient(_aten.upsample_linear1d, 1),
        _aten.upsample_bilinear2d_backward.default: interpolation.gradient(_aten.upsample_bilinear2d, 2),
        _aten.upsample_bicubic2d_backward.default: interpolation.gradient(_aten.upsample_bicubic2d, 2),
        _aten.upsample_trilinear3d_backward.default: interpolation.gradient(_aten.upsample_trilinear3d, 3),
    }
)  # fmt: skip


def composed(operator: Any, functional: Any) -> Callable[..., Any] | None:
    """What computes an operator; one that writes ``functional``'s result into ``self`` is that and a copy."""
    compute = _COMPOSED.get(functional)
    if operator in _COMPOSED or compute is None:
        return _COMPOSED.get(operator)

    def written(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        made = compute(self, *args, **kwargs)
        return NotImplemented if made is NotImplemented else self.copy_(made)

    return written
