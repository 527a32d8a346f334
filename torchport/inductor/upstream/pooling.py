"""Gradients of average pooling where the last window hangs over the end (``ceil_mode``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten


def _backward(operation: Any, dims: int) -> Callable[..., Any]:
    """Divide the gradient by each window's elements; what is left is pooling by sums.

    aten counts a window's padding but not what lies beyond it (aten/src/ATen/native/cpu/AvgPoolKernel.cpp).
    """

    def decomposition(
        grad: torch.Tensor,
        x: torch.Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:
        given = (kernel, stride, padding)
        kernel, padding = _each(kernel, dims), _each(padding, dims)
        stride = _each(stride, dims) if stride else kernel
        if not (ceil_mode and count_include_pad and divisor_override is None):
            if all(len(numbers) == dims for numbers in given):
                return NotImplemented
            # Inductor's lowering does not take one number for all dimensions.
            return operation(grad, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
        compute = torch.float32 if grad.dtype.itemsize < 4 else grad.dtype
        scaled = grad.to(compute)
        for axis in range(dims):
            size, windows = x.shape[axis - dims], grad.shape[axis - dims]
            start = torch.arange(windows, device=grad.device) * stride[axis] - padding[axis]
            end = (start + kernel[axis]).clamp_max(size + padding[axis])
            scaled = scaled / (end - start).reshape(-1, *[1] * (dims - 1 - axis))
        result = operation(scaled, x.to(compute), kernel, stride, padding, ceil_mode, count_include_pad, 1)
        return result.to(grad.dtype)

    return decomposition


def _each(values: Sequence[int], dims: int) -> list[int]:
    return list(values) if len(values) == dims else [values[0]] * dims


DECOMPOSITIONS = {
    "average-pooling-gradient": {
        _aten.avg_pool2d_backward.default: _backward(_aten.avg_pool2d_backward.default, 2),
        _aten.avg_pool3d_backward.default: _backward(_aten.avg_pool3d_backward.default, 3),
    }
}
