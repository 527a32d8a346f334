"""Convolutions on the device, as matrix products over windows.

The windows of the padded input are a view with strides; copied out, they are the columns of one product for each group
(im2col: Chellapilla, Puri, Simard, High Performance Convolutional Neural Networks for Document Processing, 2006). A
transposed convolution and the gradient by the input are convolutions of the gradient, spread by the stride, with the
weights flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchport.torch_device.host import refuse

__all__ = ["convolution", "convolution_backward"]

Ints = Sequence[int]


def convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> torch.Tensor:
    """``aten.convolution``: ``[batch, channels, *sizes]`` and ``[out, channels / groups, *window]``, 1-D to 3-D."""
    rank = weight.dim() - 2
    if not _fits(input, weight, padding, dilation, transposed, groups):
        named = input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
        refuse(torch.ops.aten.convolution.default, named, {})
    stride, padding, dilation, output_padding = (_each(v, rank) for v in (stride, padding, dilation, output_padding))
    if transposed:
        out = _transposed(input, weight, stride, padding, dilation, output_padding, groups)
    else:
        ends = [(p, p) for p in padding]
        out = _convolve(_padded(input, ends), weight, stride, dilation, groups)
    return out if bias is None else out + bias.reshape(1, -1, *[1] * rank)


def _fits(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    groups: int,
) -> bool:
    """Whether channels are as many as weights are for, and no window is larger than the padded input."""
    rank = weight.dim() - 2
    if input.dim() != weight.dim() or weight.shape[0] % groups:
        return False
    if transposed:
        return input.shape[1] == weight.shape[0]
    windows = zip(input.shape[2:], weight.shape[2:], _each(padding, rank), _each(dilation, rank), strict=True)
    return input.shape[1] == weight.shape[1] * groups and all(n + 2 * p > d * (k - 1) for n, k, p, d in windows)


def convolution_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Ints | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """``aten.convolution_backward``: gradients by input, weight and bias, those that ``output_mask`` asks for."""
    rank = weight.dim() - 2
    stride, padding, dilation = (_each(v, rank) for v in (stride, padding, dilation))
    by_input = by_weight = by_bias = None
    window = weight.shape[2:]
    if output_mask[0]:
        if transposed:
            ends = [(p, p) for p in padding]
            grown = _padded(grad_output, ends)
            by_input = _cut(_convolve(grown, weight, stride, dilation, groups), input.shape[2:])
        else:
            rest = [
                n - ((g - 1) * s - 2 * p + d * (k - 1) + 1)
                for n, g, s, p, d, k in zip(
                    input.shape[2:], grad_output.shape[2:], stride, padding, dilation, window, strict=True
                )
            ]
            by_input = _transposed(grad_output, weight, stride, padding, dilation, rest, groups)
    if output_mask[1]:
        data, gradient = (grad_output, input) if transposed else (input, grad_output)
        padded = _padded(data, [(p, p) for p in padding])
        columns = _columns(padded, window, gradient.shape[2:], stride, dilation, groups)
        batch = data.shape[0]
        flat = gradient.reshape(batch, groups, -1, gradient.shape[2:].numel())
        by_weight = torch.matmul(flat, columns.transpose(2, 3)).sum(0).reshape(weight.shape)
    if output_mask[2]:
        by_bias = grad_output.sum([0, *range(2, rank + 2)])
    return by_input, by_weight, by_bias


def _each(values: Ints, rank: int) -> list[int]:
    return list(values) * rank if len(values) == 1 and rank > 1 else list(values)


def _padded(tensor: torch.Tensor, ends: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Zeros around the sizes; negative ends cut."""
    flat = [end for pair in reversed(ends) for end in pair]
    return torch.constant_pad_nd(tensor, flat, 0) if any(flat) else tensor


def _windows(size: int, window: int, stride: int, dilation: int) -> int:
    return (size - dilation * (window - 1) - 1) // stride + 1


def _columns(
    padded: torch.Tensor, window: Ints, counts: Ints, stride: Ints, dilation: Ints, groups: int
) -> torch.Tensor:
    """The first ``counts`` windows of a tensor: ``[batch, groups, channels / groups * window, places]``."""
    batch, channels, *sizes = padded.shape
    rank = len(sizes)
    steps = padded.stride()
    view = padded.as_strided(
        [batch, groups, channels // groups, *window, *counts],
        [steps[0], steps[1] * (channels // groups), steps[1]]
        + [steps[2 + i] * dilation[i] for i in range(rank)]
        + [steps[2 + i] * stride[i] for i in range(rank)],
        padded.storage_offset(),
    )
    rows = channels // groups * torch.Size(window).numel()
    return view.reshape(batch, groups, rows, torch.Size(counts).numel())


def _convolve(padded: torch.Tensor, weight: torch.Tensor, stride: Ints, dilation: Ints, groups: int) -> torch.Tensor:
    window = weight.shape[2:]
    counts = [_windows(n, k, s, d) for n, k, s, d in zip(padded.shape[2:], window, stride, dilation, strict=True)]
    columns = _columns(padded, window, counts, stride, dilation, groups)
    out = torch.matmul(weight.reshape(groups, weight.shape[0] // groups, -1), columns)
    return out.reshape(padded.shape[0], weight.shape[0], *counts)


def _transposed(
    gradient: torch.Tensor,
    weight: torch.Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    rest: Ints,
    groups: int,
) -> torch.Tensor:
    """The gradient of a convolution by its input. ``rest``: the input's sizes beyond the last window."""
    window = weight.shape[2:]
    spread = _spread(gradient, stride)
    reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    ends = [(n - p, n - p + r) for n, p, r in zip(reach, padding, rest, strict=True)]
    inner = weight.shape[1]
    flipped = weight.flip(list(range(2, weight.dim()))) if any(k > 1 for k in window) else weight
    turned = flipped.reshape(groups, weight.shape[0] // groups, inner, *window).transpose(1, 2)
    turned = turned.reshape(groups * inner, weight.shape[0] // groups, *window)
    return _convolve(_padded(spread, ends), turned, [1] * len(window), dilation, groups)


def _spread(tensor: torch.Tensor, stride: Ints) -> torch.Tensor:
    """Zeros between the elements, ``stride - 1`` of them."""
    if all(step == 1 for step in stride):
        return tensor
    sizes = [(n - 1) * s + 1 for n, s in zip(tensor.shape[2:], stride, strict=True)]
    out = tensor.new_zeros([*tensor.shape[:2], *sizes])
    places: list[Any] = [slice(None), slice(None), *(slice(None, None, step) for step in stride)]
    out[tuple(places)] = tensor
    return out


def _cut(tensor: torch.Tensor, sizes: Ints) -> torch.Tensor:
    for dim, size in enumerate(sizes):
        tensor = tensor.narrow(dim + 2, 0, size)
    return tensor.contiguous()
