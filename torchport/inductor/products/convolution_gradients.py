"""Lowers gradients of aten's convolutions of images: by products and convolutions of ours where these win.

With a stride of one the gradient of an image is a convolution of the result's gradient with the weights turned over.
Where a window is one place, it is a product, and so is the gradient of the weights. What is not ours is left to aten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from torchport.inductor.compat import V, ir, lowerings
from torchport.inductor.products import lowering
from torchport.inductor.products.convolution import cast, convolution, is_widened, laid_out, may_lie_last, pair
from torchport.inductor.products.rules import Facts, choose

__all__ = ["LOWERINGS"]

_aten = torch.ops.aten


def _convolution_backward(
    grad: Any,
    x: Any,
    weight: Any,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Any:
    """By our kernels where they are faster; in float32 where aten is slow in a 16-bit type; NotImplemented else."""
    dtype = x.get_dtype()
    shared = bias_sizes, stride, padding, dilation, transposed, output_padding, groups
    again = lowerings[_aten.convolution_backward.default]
    if is_widened(dtype):
        found = again(*(cast(one, torch.float32) for one in (grad, x, weight)), *shared, wanted)
        return tuple(None if one is None else cast(one, dtype) for one in found)
    if transposed or groups != 1:
        return NotImplemented
    call = _Call.of(grad, x, weight, stride, padding, dilation)
    if call is None:
        return NotImplemented
    image = call.gradient_of_image() if wanted[0] else None
    weights = call.gradient_of_weights() if wanted[1] else None
    if image is None and weights is None:
        return NotImplemented
    bias = lowerings[_aten.sum.dim_IntList](grad, [0, 2, 3]) if wanted[2] else None
    left = [wanted[0] and image is None, wanted[1] and weights is None, False]
    if any(left):
        rest = again(grad, x, weight, *shared, left)
        image, weights = (rest[0] if left[0] else image), (rest[1] if left[1] else weights)
    return image, weights, bias


@dataclass(frozen=True)
class _Call:
    """A call whose tensors have their channels last, with sizes that are known.

    grad: [images, outputs, *counts]; x: [images, channels, *sides]; weight: [outputs, channels, *window].
    """

    grad: Any
    x: Any
    weight: Any
    images: int
    channels: int
    outputs: int
    sides: tuple[int, int]
    counts: tuple[int, int]
    window: tuple[int, int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    facts: Facts

    @staticmethod
    def of(
        grad: Any, x: Any, weight: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
    ) -> _Call | None:
        """None where a kernel of ours takes none of it."""
        tensors, dtype, cpu = (grad, x, weight), x.get_dtype(), lowering.limits()
        if cpu is None or any(len(one.get_size()) != 4 or one.get_dtype() != dtype for one in tensors):
            return None
        facts = lowering.facts_of(dtype, cpu)
        if not (facts.pairs or (facts.fast and dtype == torch.float32)):
            return None
        sizes = [V.graph.sizevars.simplify(size) for one in tensors for size in one.get_size()]
        if not all(isinstance(size, sympy.Integer) and size > 0 for size in sizes):
            return None
        images, _, *counts, _, channels, height, width, outputs, inputs, high, wide = map(int, sizes)
        if inputs != channels:
            return None
        for one in (grad, x):
            one.realize()
        if not (may_lie_last(grad) and may_lie_last(x)):  # the library is as fast as ours and a copy of both
            return None
        return _Call(
            grad, x, weight, images, channels, outputs, (height, width), (counts[0], counts[1]), (high, wide),
            pair(stride), pair(padding), pair(dilation), facts,
        )  # fmt: skip

    @property
    def of_points(self) -> bool:
        """Whether each place of the result is a product of one place of the image."""
        return self.window == (1, 1) and not any(self.padding)

    @property
    def places(self) -> int:
        """Of all images of the result."""
        return self.images * self.counts[0] * self.counts[1]

    def gradient_of_image(self) -> Any:
        """[images, channels, *sides]; None where aten's is not slower."""
        if self.of_points:
            return self._spread() if self._wins(self.places, self.channels, self.outputs) else None
        if self.stride != [1, 1]:
            return None
        padding = [
            step * (length - 1) - pad
            for step, length, pad in zip(self.dilation, self.window, self.padding, strict=True)
        ]
        if min(padding) < 0:
            return None
        turned = lowerings[_aten.permute.default](self.weight, [1, 0, 2, 3])
        turned = lowerings[torch.ops.prims.rev.default](turned, [2, 3])
        found = convolution(self.grad, turned, None, [1, 1], padding, self.dilation)
        return None if found is NotImplemented else found

    def _spread(self) -> Any:
        """Rows of the product, each at its place of the image; zeros between them."""
        weight = lowerings[_aten.view.default](laid_out(self.weight), [self.outputs, self.channels])
        rows = lowerings[_aten.mm.default](_rows(self.grad), weight)
        found = lowerings[_aten.view.default](rows, [self.images, *self.counts, self.channels])
        found = lowerings[_aten.permute.default](found, [0, 3, 1, 2])
        for axis, (step, count, side) in enumerate(zip(self.stride, self.counts, self.sides, strict=True), 2):
            if step == 1 and count == side:
                continue
            size = list(found.get_size())
            size[axis] = side
            zeros = lowerings[_aten.full.default](size, 0.0, dtype=found.get_dtype(), device=found.get_device())
            found = lowerings[_aten.slice_scatter.default](zeros, found, axis, 0, side, step)
        return found

    def gradient_of_weights(self) -> Any:
        """[outputs, channels, *window]; None where aten's is not slower."""
        if not self.of_points or not self._wins(self.outputs, self.channels, self.places, turned=True):
            return None
        x = self.x
        for axis, step in enumerate(self.stride, 2):
            if step > 1:
                x = lowerings[_aten.slice.Tensor](x, axis, 0, self.sides[axis - 2], step)
        columns = lowerings[_aten.permute.default](_rows(self.grad), [1, 0])
        found = lowerings[_aten.mm.default](columns, _rows(x))
        return lowerings[_aten.view.default](found, [self.outputs, self.channels, 1, 1])

    def _wins(self, m: int, n: int, k: int, turned: bool = False) -> bool:
        return choose(m, n, k, (n, 1), self.x.get_dtype(), self.facts, turned) is not None


def _rows(image: Any) -> Any:
    """The channels of each place, [places, channels], of an image that has them last."""
    image = ir.ExternKernel.require_channels_last(image)
    images, channels, height, width = image.get_size()
    last = lowerings[_aten.permute.default](image, [0, 2, 3, 1])
    return lowerings[_aten.view.default](last, [images * height * width, channels])


LOWERINGS: dict[Any, Callable[..., Any]] = {_aten.convolution_backward.default: _convolution_backward}
