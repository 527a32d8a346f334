"""Gradients of interpolations, which are linear and separable: products with each dimension's matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["gradient"]


def gradient(forward: Any, rank: int) -> Callable[..., Any]:
    """``aten.upsample_*_backward`` of an interpolation in ``rank`` dimensions."""

    def backward(
        grad: torch.Tensor, output_size: Sequence[int], input_size: Sequence[int], align_corners: bool, *scales: Any
    ) -> torch.Tensor:
        last = rank == 2 and grad.is_contiguous(memory_format=torch.channels_last) and not grad.is_contiguous()
        for d in range(rank):
            matrix = _matrix(forward, grad, input_size[2 + d], (*output_size,), d, align_corners, (*scales,))
            grad = torch.matmul(grad.movedim(2 + d, -1), matrix.t()).movedim(-1, 2 + d)
        return grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    return backward


def _matrix(
    forward: Any, like: torch.Tensor, n: int, sizes: tuple[int, ...], d: int, corners: bool, scales: tuple[Any, ...]
) -> torch.Tensor:
    """What the interpolation makes of each unit vector along dimension ``d``: [n, its size after it]."""
    rank = len(sizes)
    shape, alone = [1, n, *[1] * rank], [1] * rank
    shape[2 + d], alone[d] = n, sizes[d]
    steps = [scale if place == d else None for place, scale in enumerate(scales)]
    units = torch.eye(n, dtype=like.dtype, device=like.device).reshape(shape)
    result: torch.Tensor = forward(units, alone, corners, *steps)
    return result.reshape(n, sizes[d])
