"""Where max pooling found a window's maximum.

Inductor takes the first NaN and the first of equal elements, padding included: the index of a window without a larger
number than the padding's was negative. aten takes the last NaN, and of equal elements the first of the tensor itself
(aten/src/ATen/native/cpu/MaxPoolKernel.cpp).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.inductor.compat import ir, lowering_module, ops
from torchport.inductor.shared import Switch

__all__ = ["placed_maxima"]

_ours = Switch("torchport_placed_maxima")


@_ours.installed
def placed_maxima() -> None:
    """Compile max pooling with aten's indices while the context is open, in this thread."""
    pooled: Callable[..., Any] = lowering_module._max_pool_with_offsets
    adapted: Callable[..., Any] = lowering_module._adaptive_pooling_fn_with_idx

    @functools.wraps(pooled)
    def pool(*args: Any, **kwargs: Any) -> Any:
        maxima, offsets = pooled(*args, **kwargs)
        return maxima, _offsets(maxima, *args, **kwargs) if _ours.is_on() else offsets

    @functools.wraps(adapted)
    def adapt(*args: Any, **kwargs: Any) -> Any:
        return _last_nan(*args, **kwargs) if _ours.is_on() else adapted(*args, **kwargs)

    lowering_module._max_pool_with_offsets = pool
    lowering_module._adaptive_pooling_fn_with_idx = adapt


def _offsets(
    maxima: Any,
    x: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    *,
    n_dim: int,
) -> Any:
    """Each maximum's number in its window: the smallest of the numbers k with the maximum and of -1 - k with NaN."""
    load, largest, sizes = x.make_loader(), maxima.make_loader(), x.get_size()[-n_dim:]
    floating, elements = x.get_dtype().is_floating_point, math.prod(kernel)

    def number(index: Sequence[Any], offset: Sequence[Any]) -> Any:
        places = [
            i * s + o * d - p for i, s, o, d, p in zip(index[-n_dim:], stride, offset, dilation, padding, strict=True)
        ]
        k = ops.index_expr(
            functools.reduce(lambda k, axis: k * kernel[axis] + offset[axis], range(n_dim), 0), torch.int32
        )
        nowhere = ops.constant(elements, torch.int32)

        def inside() -> Any:
            value = load([*index[:-n_dim], *places])
            found = ops.where(ops.eq(value, largest(index)), k, nowhere)
            return ops.where(ops.isnan(value), ops.sub(ops.constant(-1, torch.int32), k), found) if floating else found

        within = [lowering_module.range_mask(place, size, 0) for place, size in zip(places, sizes, strict=True)]
        return ops.masked(functools.reduce(ops.and_, within), inside, elements)

    smallest = ir.Reduction.create(
        reduction_type="min",
        input_node=x,
        device=x.get_device(),
        dst_dtype=torch.int32,
        src_dtype=torch.int32,
        inner_fn=number,
        ranges=maxima.get_size(),
        reduction_ranges=kernel,
    )
    if isinstance(smallest.data.data, ir.Reduction):
        smallest.realize()
    load_smallest = smallest.make_loader()

    def decoded(index: Sequence[Any]) -> Any:
        found = load_smallest(index)
        number = ops.where(
            ops.lt(found, ops.constant(0, torch.int32)), ops.sub(ops.constant(-1, torch.int32), found), found
        )
        return ops.to_dtype(number, torch.int64)

    return ir.Pointwise.create(device=x.get_device(), dtype=torch.int64, inner_fn=decoded, ranges=maxima.get_size())


def _last_nan(
    start_index: Callable[..., Any],
    end_index: Callable[..., Any],
    kernel_maxes: Sequence[int],
    in_sizes: Sequence[int],
    out_sizes: Sequence[int],
    pooling_fn: Callable[..., Any],
) -> Callable[..., Any]:
    """Inductor's ``_adaptive_pooling_fn_with_idx``, of a larger number or a NaN."""
    rows, columns = in_sizes
    bounds = lowering_module.compute_indices_adaptive_pooling(start_index, end_index, rows, columns, *out_sizes)
    first_row, end_row, first_column, end_column = bounds

    def index(place: Sequence[Any], load: Callable[..., Any]) -> Any:
        *prefix, row, column = place
        start, end = [first_row(row), first_column(column)], [end_row(row), end_column(column)]
        largest = found = None
        for i, j in itertools.product(*map(range, kernel_maxes)):
            value = load(prefix, [i, j], start, end)
            here = ops.index_expr((start[0] + i) * columns + start[1] + j, torch.int64)
            if found is None:
                largest, found = value, here
                continue
            found = ops.where(ops.or_(ops.gt(value, largest), ops.isnan(value)), here, found)
            largest = pooling_fn(value, largest)
        return found

    return index
