"""Lowers convolutions to few channels, as an image's three, to one product for the whole window and a sum of its rows.

A library fills vectors with output channels: of three it computes sixteen. Here the product has a row for each output
channel and element of the window, [window * outputs, inputs] @ [inputs, places]; a place of the result is the sum of
as many numbers of it, each of another row, and shifted as the window says. Neighbours of a row are neighbouring places.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from torchport.inductor.compat import ir, lowerings
from torchport.inductor.products.lowering import is_one

__all__ = ["convolution", "is_narrow"]

_aten = torch.ops.aten

_LEAST = 1 << 17
"""Multiplications from which two kernels take less time than one call of aten's."""
_MOST_BYTES = 32 << 20
"""Of the product: it is written and read once more."""


def is_narrow(images: int, channels: int, sides: Sequence[int], outputs: int, window: int, lanes: int) -> bool:
    """Whether the library leaves half of its vectors empty, and the product is neither tiny nor large.

    ``sides``: of the input. ``lanes``: float32 elements of a vector.
    """
    numbers = outputs * window * images * sides[0] * sides[1]
    enough = numbers * channels >= _LEAST and channels >= lanes and window > 1
    return outputs * 2 <= lanes and enough and 4 * numbers <= _MOST_BYTES


def convolution(
    x: Any, weight: Any, bias: Any, padding: Sequence[int], dilation: Sequence[int], counts: Sequence[int]
) -> Any:
    """Of x [N, C, H, W] of any strides and weight [O, C, h, w] with stride 1; ``counts``: places of the result."""
    images, channels, *sides = (int(size) for size in x.get_size())
    outputs, _, *window = (int(size) for size in weight.get_size())
    rows = window[0] * window[1] * outputs
    left = lowerings[_aten.reshape.default](lowerings[_aten.permute.default](weight, [2, 3, 0, 1]), [rows, channels])
    parts = _product(left, x, images, channels, sides[0] * sides[1])
    parts = lowerings[_aten.view.default](parts, [rows // outputs, outputs, images, *sides])
    total = None
    for at, tap in enumerate(product(*map(range, window))):
        shifts = [pad - step * length for pad, step, length in zip(padding, tap, dilation, strict=True)]
        borders = [(shift, count - side - shift) for shift, count, side in zip(shifts, counts, sides, strict=True)]
        if any(-first >= side or -last >= side for (first, last), side in zip(borders, sides, strict=True)):
            continue  # it reads nothing but borders
        one = lowerings[_aten.select.int](parts, 0, at)
        flat = [number for pair in reversed(borders) for number in pair]
        one = lowerings[_aten.constant_pad_nd.default](one, flat, 0.0) if any(flat) else one
        total = one if total is None else lowerings[_aten.add.Tensor](total, one)
    if bias is not None:
        total = lowerings[_aten.add.Tensor](total, lowerings[_aten.reshape.default](bias, [outputs, 1, 1, 1]))
    found = lowerings[_aten.permute.default](total, [1, 0, 2, 3])
    found = lowerings[_aten.clone.default](found, memory_format=torch.contiguous_format)
    found.realize()
    return found


def _product(left: Any, x: Any, images: int, channels: int, places: int) -> Any:
    """[rows, channels] @ [channels, images * places]: the channels of x lie last, or apart in one image alone."""
    if images == 1 and not is_one(x.get_stride()[1]):
        right = lowerings[_aten.reshape.default](x, [channels, places])
    else:
        x = ir.ExternKernel.require_channels_last(x)
        last = lowerings[_aten.permute.default](x, [0, 2, 3, 1])
        last = lowerings[_aten.reshape.default](last, [images * places, channels])
        right = lowerings[_aten.permute.default](last, [1, 0])
    return lowerings[_aten.mm.default](left, right)
