"""Convolutions as matrix products, for targets without a library of them.

The windows of the input become rows of a matrix, which a product with the weights turns into the result (Chellapilla,
Puri and Simard, "High performance convolutional neural networks for document processing", 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS", "convolution"]

_aten = torch.ops.aten


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> torch.Tensor:
    """``aten.conv1d`` to ``conv3d``: x is [batch, channels, *sizes], or one without ``batch``."""
    dims = weight.dim() - 2
    if x.dim() == dims + 1:
        return convolution(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    stride, dilation = (_each(one, dims) for one in (stride, dilation))
    window = weight.shape[2:]
    pads = _pads(padding, dilation, window)
    if any(width for pad in pads for width in pad):
        x = torch.nn.functional.pad(x, [width for pad in reversed(pads) for width in pad])
    for axis in range(dims):
        x = x.unfold(2 + axis, dilation[axis] * (window[axis] - 1) + 1, stride[axis])[..., :: dilation[axis]]
    batch, channels = x.shape[:2]
    sizes = x.shape[2 : 2 + dims]
    x = x.reshape(batch, groups, channels // groups, *sizes, *window)
    windows = range(3 + dims, 3 + 2 * dims)
    rows = x.permute(1, 0, *range(3, 3 + dims), 2, *windows).reshape(groups, batch * prod(sizes), -1)
    found = torch.bmm(rows, weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2))
    found = found.reshape(groups, batch, *sizes, -1)
    found = found.permute(1, 0, 2 + dims, *range(2, 2 + dims)).reshape(batch, -1, *sizes)
    return found if bias is None else found + bias.reshape(1, -1, *(1,) * dims)


def _each(numbers: Sequence[int], dims: int) -> tuple[int, ...]:
    return tuple(numbers) * dims if len(numbers) == 1 else tuple(numbers)


def _pads(padding: Sequence[int] | str, dilation: Sequence[int], window: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and after, for each dimension."""
    if padding == "valid":
        return [(0, 0)] * len(window)
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilation, window, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    assert not isinstance(padding, str)
    return [(width, width) for width in _each(padding, len(window))]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    getattr(getattr(_aten, f"conv{dims}d"), overload): convolution
    for dims in (1, 2, 3)
    for overload in ("default", "padding")
}
