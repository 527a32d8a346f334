"""Sorting on the device, and what is made of it.

A merge sort by ranks: in each round an element's new place is its place in its own run, and how many elements of the
neighbour run go before it, found by bisection (Satish, Harris, Garland, Designing Efficient Sorting Algorithms for
Manycore GPUs, 2009, section 5). It is stable. NaN is the largest number, as in torch; -0 and 0 are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch

if TYPE_CHECKING:
    import triton.language as tl

__all__ = [
    "kthvalue",
    "median",
    "median_dim",
    "mode",
    "nanmedian",
    "nanmedian_dim",
    "order_of",
    "sort",
    "sort_stable",
    "topk",
]

Tensor = torch.Tensor

_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_RUN = 64
"""Elements that are ranked by comparing each with all."""
_BLOCK = 128


@Kernel
def _keys(values, FLOAT: tl.constexpr, WIDE: tl.constexpr, DESCENDING: tl.constexpr):  # type: ignore[no-untyped-def]
    """Integers in the order of ``values``."""
    if FLOAT:
        if WIDE:
            number = values.to(tl.float64)
            bits = tl.where(number == 0, 0.0, number).to(tl.int64, bitcast=True)
            keys = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
            keys = tl.where(number == number, keys, 0x7FFFFFFFFFFFFFFF)
        else:
            number = values.to(tl.float32)
            bits = tl.where(number == 0, 0.0, number).to(tl.int32, bitcast=True)
            keys = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
            keys = tl.where(number == number, keys, 0x7FFFFFFF)
    elif WIDE:
        keys = values.to(tl.int64)
    else:
        keys = values.to(tl.int32)
    if DESCENDING:
        keys = -1 - keys
    return keys


@Kernel
def _rank(values, keys, order, n, blocks, FLOAT: tl.constexpr, WIDE: tl.constexpr, DESCENDING: tl.constexpr,  # type: ignore[no-untyped-def]
          RUN: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Sort each run of RUN elements of a row."""
    row = (tl.program_id(0) // blocks).to(tl.int64) * n
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    mine = _keys(tl.load(values + row + i, inside, 0), FLOAT, WIDE, DESCENDING)
    start = i // RUN * RUN
    rank = start
    for step in range(0, RUN):
        other = start + step
        there = inside & (other < n)
        theirs = _keys(tl.load(values + row + other, there, 0), FLOAT, WIDE, DESCENDING)
        before = (theirs < mine) | ((theirs == mine) & (other < i))
        rank += tl.where(there & before, 1, 0)
    tl.store(keys + row + rank, mine, inside)
    tl.store(order + row + rank, i.to(tl.int64), inside)


@Kernel
def _merge(keys, order, new_keys, new_order, n, blocks, run, steps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Merge pairs of neighbour runs of ``run`` sorted elements. ``steps``: of a bisection of ``run`` elements."""
    row = (tl.program_id(0) // blocks).to(tl.int64) * n
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    mine = tl.load(keys + row + i, inside, 0)
    start = i // (2 * run) * (2 * run)
    middle = start + run
    left = i < middle
    begin = tl.where(left, tl.minimum(middle, n), start)
    low = begin
    high = tl.where(left, tl.minimum(middle + run, n), middle)
    for _ in range(0, steps):
        probe = (low + high) // 2
        open_ = inside & (low < high)
        theirs = tl.load(keys + row + probe, open_, 0)
        before = (theirs < mine) | ((theirs == mine) & (i >= middle))
        low = tl.where(open_ & before, probe + 1, low)
        high = tl.where(open_ & (before == 0), probe, high)
    place = tl.where(left, i, i - run) + low - begin
    tl.store(new_keys + row + place, mine, inside)
    tl.store(new_order + row + place, tl.load(order + row + i, inside, 0), inside)


def order_of(values: Tensor, descending: bool = False) -> Any:
    """For each row of a tensor, along its last dimension, the places of its elements in ascending order, stably.

    NotImplemented if its type has no order here.
    """
    if values.dtype not in (*_INTEGERS, *_FLOATS):
        return NotImplemented
    values = values.contiguous()
    n = values.shape[-1] if values.dim() else 1
    order = torch.empty(values.shape, dtype=torch.int64, device=values.device)
    if values.numel() == 0:
        return order
    wide = values.dtype in (torch.int64, torch.float64)
    keys = torch.empty(values.shape, dtype=torch.int64 if wide else torch.int32, device=values.device)
    blocks = -(-n // _BLOCK)
    grid = (blocks * (values.numel() // n), 1, 1)
    constants: dict[str, Any] = {"FLOAT": values.dtype in _FLOATS, "WIDE": wide, "DESCENDING": descending}
    launch(_rank, grid, (values, keys, order, n, blocks), {**constants, "RUN": _RUN, "BLOCK": _BLOCK})
    spare = torch.empty_like(keys), torch.empty_like(order)
    run = _RUN
    while run < n:
        launch(_merge, grid, (keys, order, *spare, n, blocks, run, run.bit_length()), {"BLOCK": _BLOCK})
        (keys, order), spare = spare, (keys, order)
        run *= 2
    return order


def _sorted(self: Tensor, dim: int, descending: bool = False) -> Any:
    """The elements in order, and their places, with ``dim`` as the last dimension."""
    rows = self.movedim(dim, -1) if self.dim() else self
    order = order_of(rows, descending)
    return NotImplemented if order is NotImplemented else (rows.gather(-1, order), order)


def sort_stable(self: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort.stable``."""
    return sort(self, dim, descending)


def sort(self: Tensor, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort``; stable."""
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    made = _sorted(self, dim, descending)
    if made is NotImplemented:
        return NotImplemented
    values, order = (part.movedim(-1, dim) for part in made)
    like = torch.empty_like(self)  # its strides are those that a graph expects
    if values.stride() == like.stride():
        return values, order
    return like.copy_(values), torch.empty_like(self, dtype=torch.int64).copy_(order)


def topk(self: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """``aten.topk``; of equal elements the first ones."""
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    made = NotImplemented if k > self.shape[dim] else _sorted(self, dim, largest)
    if made is NotImplemented:
        return NotImplemented
    return tuple(part[..., :k].movedim(-1, dim).clone(memory_format=torch.contiguous_format) for part in made)


def kthvalue(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """``aten.kthvalue``."""
    made = NotImplemented if self.dim() == 0 or not 0 < k <= self.shape[dim] else _sorted(self, dim)
    if made is NotImplemented:
        return NotImplemented
    return tuple(_placed(part[..., k - 1 : k], dim, keepdim) for part in made)


def median(self: Tensor) -> Any:
    """``aten.median``: of all elements; NaN if one is."""
    return NotImplemented if self.numel() == 0 else median_dim(self.reshape(-1), 0, False)[0]


def nanmedian(self: Tensor) -> Any:
    """``aten.nanmedian``: of all elements that are not NaN."""
    return NotImplemented if self.numel() == 0 else nanmedian_dim(self.reshape(-1), 0, False)[0]


def median_dim(self: Tensor, dim: int, keepdim: bool = False) -> Any:
    """``aten.median.dim``: the lower median; the first NaN of a row that has one."""
    return _middle(self, dim, keepdim, skip=False)


def nanmedian_dim(self: Tensor, dim: int, keepdim: bool = False) -> Any:
    """``aten.nanmedian.dim``: the lower median of the elements that are not NaN."""
    return _middle(self, dim, keepdim, skip=True)


def _middle(self: Tensor, dim: int, keepdim: bool, skip: bool) -> Any:
    made = NotImplemented if self.dim() == 0 or self.shape[dim] == 0 else _sorted(self, dim)
    if made is NotImplemented:
        return NotImplemented
    values, order = made
    numbers = (values == values).sum(-1, keepdim=True)
    middle = (numbers - 1).clamp(min=0) // 2
    if not skip:
        middle = torch.where(numbers < values.shape[-1], numbers, middle)
    return tuple(_placed(part.gather(-1, middle), dim, keepdim) for part in (values, order))


def mode(self: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """``aten.mode``: the least of the most frequent elements, and the last place that has it."""
    made = NotImplemented if self.dim() == 0 or self.shape[dim] == 0 else _sorted(self, dim)
    if made is NotImplemented:
        return NotImplemented
    values, order = made
    places = torch.ones_like(order).cumsum(-1)
    first = torch.ones_like(values, dtype=torch.bool)
    first[..., 1:] = values[..., 1:] != values[..., :-1]
    lengths = places - torch.where(first, places, 0).cummax(-1)[0]
    last = lengths.argmax(-1, keepdim=True)
    return tuple(_placed(part.gather(-1, last), dim, keepdim) for part in (values, order))


def _placed(part: Tensor, dim: int, keepdim: bool) -> Tensor:
    """A result of one element a row, with that dimension where it was, or without it."""
    result = part.movedim(-1, dim) if keepdim else part.squeeze(-1)
    return result.clone(memory_format=torch.contiguous_format)
