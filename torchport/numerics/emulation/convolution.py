"""Convolutions of CPU tensors, forward, transposed and backward, as matrix products in another chip's arithmetic.

They are the products of implicit GEMMs (CUTLASS, docs "Implicit GEMM convolution"): each result is one sum, over
channels and taps (images and positions for weights) in the order of memory. Gradients of inputs are taken for each
phase of the strides apart, so that no sum has terms that the stride makes zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Convolution", "Multiply", "convolution", "convolution_backward"]

Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""[batch, m, k] and [batch, k, n] to [batch, m, n], of their type."""
_WHOLE = (slice(None), slice(None))
"""Of images and channels."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of n >= 1 dimensions. It is not transposed: a transposed one is the gradient of an input.

    multiply: does the products.
    stride, padding, dilation: one number for each dimension.
    """

    multiply: Multiply
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def forward(self, x: torch.Tensor, weight: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """``x``: [n, channels, *positions], ``weight``: [outputs, channels / groups, *taps]; [n, outputs, *size]."""
        images, outputs, groups = x.shape[0], weight.shape[0], self.groups
        right = self._columns(x, weight.shape[2:], size).reshape(
            images * groups, math.prod(weight.shape[1:]), math.prod(size)
        )
        left = weight.reshape(1, groups, outputs // groups, -1).expand(images, -1, -1, -1)
        found = self.multiply(left.reshape(images * groups, outputs // groups, -1), right)
        return found.reshape(images, outputs, *size)

    def grad_weight(self, grad: torch.Tensor, x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The gradient with respect to a weight of ``shape``; ``grad``: of the result."""
        images, groups, positions = x.shape[0], self.groups, math.prod(grad.shape[2:])
        columns = self._columns(x, shape[2:], grad.shape[2:]).reshape(images, groups, math.prod(shape[1:]), positions)
        left = grad.reshape(images, groups, shape[0] // groups, positions).permute(1, 2, 0, 3)
        right = columns.permute(1, 0, 3, 2).reshape(groups, images * positions, -1)
        return self.multiply(left.reshape(groups, -1, images * positions), right).reshape(shape)

    def grad_input(self, grad: torch.Tensor, weight: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The gradient with respect to an input whose positions are ``size``; ``grad``: of the result."""
        images, groups = grad.shape[0], self.groups
        weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        found = grad.new_zeros(images, groups * weight.shape[2], *size)
        for phase in itertools.product(*(range(stride) for stride in self.stride)):
            places = [self._places(axis, one, size[axis], weight.shape[3 + axis]) for axis, one in enumerate(phase)]
            if not all(place.taps and place.count > 0 for place in places):
                continue
            taken = [_shifted(grad, [place.first[i] for place, i in zip(places, tap, strict=True)],
                              [place.count for place in places])
                     for tap in itertools.product(*(range(len(place.taps)) for place in places))]  # fmt: skip
            count = math.prod(place.count for place in places)
            right = torch.stack(taken, 2).reshape(images * groups, -1, count)  # outputs and taps, positions
            kept = weight
            for axis, place in enumerate(places):
                kept = kept.index_select(3 + axis, torch.tensor(place.taps))
            left = kept.transpose(1, 2).reshape(1, groups, weight.shape[2], -1).expand(images, -1, -1, -1)
            part = self.multiply(left.reshape(images * groups, weight.shape[2], -1), right)
            at = [slice(place.start, None, stride) for place, stride in zip(places, self.stride, strict=True)]
            found[_WHOLE + tuple(at)] = part.reshape(images, -1, *(place.count for place in places))
        return found

    def _columns(self, x: torch.Tensor, taps: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """[n, channels, *taps, *size]: what each tap meets at each position of the result, a view of the padded x."""
        around = [side for padding in reversed(self.padding) for side in (padding, padding)]
        padded = torch.nn.functional.pad(x, around)
        strides = padded.stride()[2:]
        steps = [stride * dilation for stride, dilation in zip(strides, self.dilation, strict=True)]
        jumps = [stride * step for stride, step in zip(strides, self.stride, strict=True)]
        return padded.as_strided((*x.shape[:2], *taps, *size), (*padded.stride()[:2], *steps, *jumps))

    def _places(self, axis: int, phase: int, size: int, taps: int) -> _Places:
        """Positions p of the input with (p + padding) mod stride = ``phase``; what they get tap t's share from is the
        result at (p + padding - dilation t) / stride."""
        stride, padding, dilation = self.stride[axis], self.padding[axis], self.dilation[axis]
        start = (phase - padding) % stride
        meeting = [tap for tap in range(taps) if (phase - dilation * tap) % stride == 0]
        first = [(start + padding - dilation * tap) // stride for tap in meeting]
        return _Places(start, len(range(start, size, stride)), meeting, first)


def convolution(
    multiply: Multiply, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> torch.Tensor | None:  # fmt: skip
    """``aten.convolution`` without its layout in memory; None for types or sizes that are not emulated."""
    if not _takes(x, weight):
        return None
    made = Convolution(multiply, stride, padding, dilation, groups)
    reach = [step * (count - 1) for step, count in zip(dilation, weight.shape[2:], strict=True)]
    sides = list(zip(x.shape[2:], stride, padding, reach, strict=True))
    if transposed:
        size = [(n - 1) * step - 2 * p + r + e + 1 for (n, step, p, r), e in zip(sides, output_padding, strict=True)]
        found = made.grad_input(x, weight, size)
    else:
        found = made.forward(x, weight, [(n + 2 * p - r - 1) // step + 1 for n, step, p, r in sides])
    return found if bias is None else found + bias.reshape(1, -1, *[1] * len(stride))


def convolution_backward(
    multiply: Multiply, grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias_sizes: Sequence[int] | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int, output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...] | None:  # fmt: skip
    """``aten.convolution_backward`` without its layouts in memory: gradients of input, weight and bias.

    A gradient that ``output_mask`` does not ask for is None. That of the bias is the CPU's own sum. None for types or
    sizes that are not emulated.
    """
    if not _takes(x, weight) or grad.dtype != x.dtype or grad.numel() == 0:
        return None
    made = Convolution(multiply, stride, padding, dilation, groups)
    of_x = of_weight = None
    if output_mask[0]:
        size = x.shape[2:]
        of_x = made.forward(grad, weight, size) if transposed else made.grad_input(grad, weight, size)
    if output_mask[1]:
        of_weight = made.grad_weight(*((x, grad) if transposed else (grad, x)), weight.shape)
    return of_x, of_weight, grad.sum([0, *range(2, grad.dim())]) if output_mask[2] else None


def _takes(x: torch.Tensor, weight: torch.Tensor) -> bool:
    batched = x.dim() == weight.dim() and x.numel() > 0 and weight.numel() > 0
    return batched and weight.dtype == x.dtype


@dataclass(frozen=True)
class _Places:
    """The positions of one axis in one phase.

    start: the first one.
    count: how many there are.
    taps: those that contribute there.
    first: the first result that each tap takes.
    """

    start: int
    count: int
    taps: list[int]
    first: list[int]


def _shifted(grad: torch.Tensor, first: Sequence[int], count: Sequence[int]) -> torch.Tensor:
    """``grad`` from position ``first`` on, ``count`` positions; 0 outside of it."""
    found = grad.new_zeros(*grad.shape[:2], *count)
    low = [max(begin, 0) for begin in first]
    high = [min(begin + number, have) for begin, number, have in zip(first, count, grad.shape[2:], strict=True)]
    if all(one < other for one, other in zip(low, high, strict=True)):
        inside = tuple(slice(a - begin, b - begin) for a, b, begin in zip(low, high, first, strict=True))
        kept = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        found[_WHOLE + inside] = grad[_WHOLE + kept]
    return found
