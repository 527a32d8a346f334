"""Operators whose results' sizes depend on data: they are counted on the device, and the count is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.torch_device.sorting import order_of

if TYPE_CHECKING:
    import triton.language as tl

__all__ = [
    "bincount",
    "histc",
    "masked_select",
    "multinomial",
    "nonzero",
    "repeat_interleave",
    "unique",
    "without_masks",
]

Tensor = torch.Tensor

_BLOCK = 128
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@Kernel
def _keep(flags, ends, places, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the places of those flags that are set, where ``ends`` counts them."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    chosen = tl.load(flags + i, i < n, 0) != 0
    tl.store(places + tl.load(ends + i, i < n, 1) - 1, i, chosen & (i < n))


def _kept(flags: Tensor) -> Tensor:
    """The places of a contiguous vector of bools that are set."""
    n = flags.numel()
    if n == 0:
        return torch.empty(0, dtype=torch.int64, device=flags.device)
    ends = flags.cumsum(0)
    places = torch.empty(int(ends[-1]), dtype=torch.int64, device=flags.device)
    if places.numel():
        launch(_keep, (-(-n // _BLOCK), 1, 1), (flags, ends, places, n), {"BLOCK": _BLOCK})
    return places


def _flat(mask: Tensor) -> Tensor:
    return (mask if mask.dtype == torch.bool else mask != 0).reshape(-1)


_COLUMNS = 64
"""Rows of more elements are ordered by the host: each takes a sort."""


def nonzero(self: Tensor) -> Tensor:
    """``aten.nonzero``: the coordinates of elements that are not zero, in order, one a row."""
    places = _kept(_flat(self))
    count = places.numel()
    coordinates = torch.empty_strided((count, self.dim()), (1, count), dtype=torch.int64, device=self.device)
    for dim in reversed(range(self.dim())):
        coordinates[:, dim] = places % self.shape[dim]
        places = places // self.shape[dim]
    return coordinates


def masked_select(self: Tensor, mask: Tensor) -> Any:
    """``aten.masked_select``."""
    if mask.dtype != torch.bool:
        return NotImplemented
    self, mask = torch.broadcast_tensors(self, mask)
    return self.reshape(-1).index_select(0, _kept(_flat(mask)))


def without_masks(self: Tensor, indices: Sequence[Tensor | None], values: Tensor | None = None, *rest: Any) -> Any:
    """Indices with each mask replaced by the coordinates of its elements that are set.

    As they are where there is no mask, or one that a value is filled into: that needs no count. NotImplemented if a
    mask's shape is not the tensor's.
    """
    masks = [index for index in indices if index is not None and index.dtype in (torch.bool, torch.uint8)]
    if not masks or (values is not None and values.numel() == 1 and len(masks) == len(indices) == 1):
        return indices
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            found.append(index)
        elif index.dim() == 0 or index.shape != self.shape[len(found) : len(found) + index.dim()]:
            return NotImplemented
        else:
            found += nonzero(index.to(self.device)).unbind(1)
    return found


def repeat_interleave(repeats: Tensor, *, output_size: int | None = None) -> Any:
    """``aten.repeat_interleave.Tensor``: each place as often as ``repeats`` says."""
    if repeats.dim() != 1 or repeats.dtype not in (torch.int32, torch.int64):
        return NotImplemented
    if repeats.numel() == 0:
        return torch.empty_like(repeats)
    ends = repeats.cumsum(0)
    if output_size is None:
        if int(repeats.min()) < 0:
            return NotImplemented
        output_size = int(ends[-1])
    places = torch.arange(output_size, device=repeats.device)
    return torch.searchsorted(ends, places, right=True).to(repeats.dtype)


def unique(self: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """``aten._unique2``: each value once, in order; for each element its place there, and how often each occurs."""
    flat = self.reshape(-1)
    order = order_of(flat)
    if order is NotImplemented:
        return NotImplemented
    values = flat.gather(0, order)
    starts, inverse, counts = _runs(values[:, None], order, return_inverse, return_counts)
    return values.index_select(0, starts), inverse.reshape(self.shape) if return_inverse else inverse, counts


def unique_consecutive(
    self: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """``aten.unique_consecutive``: values, or slices along ``dim``, less those that are equal to the one before."""
    if self.numel() == 0:
        return NotImplemented
    rows = self.reshape(-1, 1) if dim is None else self.movedim(dim, 0).reshape(self.shape[dim], -1)
    places = torch.arange(len(rows), device=self.device)
    starts, inverse, counts = _runs(rows, places, return_inverse, return_counts)
    if dim is not None:
        return self.index_select(dim, starts), inverse, counts
    found = rows[:, 0].index_select(0, starts)
    return found, inverse.reshape(self.shape) if return_inverse else inverse, counts


def unique_dim(
    self: Tensor, dim: int, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """``aten.unique_dim``: each slice along ``dim`` once, in the order of their elements."""
    rows = self.movedim(dim, 0).reshape(self.shape[dim], -1) if self.numel() else self.new_empty(0, _COLUMNS + 1)
    if rows.shape[1] > _COLUMNS:
        return NotImplemented
    order = torch.arange(len(rows), device=self.device)
    for column in reversed(range(rows.shape[1])):  # sorts are stable: the first column is sorted last
        by_column = order_of(rows[:, column].index_select(0, order))
        if by_column is NotImplemented:
            return NotImplemented
        order = order.index_select(0, by_column)
    starts, inverse, counts = _runs(rows.index_select(0, order), order, return_inverse, return_counts)
    return self.index_select(dim, order.index_select(0, starts)), inverse, counts


def _runs(rows: Tensor, order: Tensor, return_inverse: bool, return_counts: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Where each run of equal rows starts, the run of each row in the order before sorting, and the runs' lengths.

    order: the places of the rows before they were sorted.
    """
    first = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    first[1:] = (rows[1:] != rows[:-1]).any(1)
    starts = _kept(first)
    inverse = counts = torch.empty(0, dtype=torch.int64, device=rows.device)
    if return_inverse:
        inverse = torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1)
    if return_counts:
        ends = torch.cat([starts[1:], starts.new_full((1,), len(rows))]) if len(rows) else starts
        counts = ends - starts
    return starts, inverse, counts


def bincount(self: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Any:
    """``aten.bincount``."""
    if self.dim() != 1 or minlength < 0 or self.dtype not in _INTEGERS:
        return NotImplemented
    size = minlength
    if self.numel():
        if int(self.min()) < 0:
            return NotImplemented
        size = max(size, int(self.max()) + 1)
    if weights is None:
        return _counted(self, size)
    kind = weights.dtype if weights.dtype == torch.float32 else torch.float64
    return torch.zeros(size, dtype=kind, device=self.device).index_add(0, self.to(torch.int64), weights.to(kind))


def histc(self: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """``aten.histc``; of integers too, which the CPU's does not take."""
    if bins < 1 or not min <= max or not (self.is_floating_point() or self.dtype in _INTEGERS):
        return NotImplemented
    flat = self.reshape(-1)
    low, high = min, max
    if low == high and flat.numel():
        low, high = flat.min().item(), flat.max().item()
    if low == high:
        low, high = low - 1, high + 1
    if not float("-inf") < low <= high < float("inf"):
        return NotImplemented
    if self.is_floating_point():
        place = ((flat - low) * bins / (high - low)).to(torch.int64)
    else:
        place = (flat.to(torch.int64) - int(low)) * bins // (int(high) - int(low))
    place = place.clamp(max=bins - 1)  # the last bin has its upper limit
    inside = (flat >= low) & (flat <= high)
    return _counted(torch.where(inside, place, bins), bins + 1)[:bins].to(self.dtype)


def _counted(places: Tensor, size: int) -> Tensor:
    """How often each number below ``size`` occurs."""
    ones = torch.ones(places.shape, dtype=torch.int32, device=places.device)  # atomics have 32 bits on all targets
    return ones.new_zeros(size).index_add(0, places.to(torch.int64), ones).to(torch.int64)


def multinomial(self: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Any:
    """``aten.multinomial``: places drawn with the probabilities of each row.

    Without replacement the largest of the probabilities divided by exponential numbers (Efraimidis, Spirakis, Weighted
    random sampling with a reservoir, 2006), as in torch.
    """
    if self.dim() not in (1, 2) or not self.is_floating_point() or num_samples < 1 or self.numel() == 0:
        return NotImplemented
    if generator is not None or not (replacement or num_samples <= self.shape[-1]):
        return NotImplemented
    if not bool(((self >= 0) & (self < float("inf"))).all() & (self.sum(-1) > 0).all()):
        return NotImplemented
    if not replacement:
        waits = torch.empty_like(self).exponential_().clamp(min=torch.finfo(self.dtype).tiny)
        return torch.topk(self / waits, num_samples, -1)[1]
    sums = self.to(torch.float32).cumsum(-1)
    whole = sums[..., -1:].contiguous()
    wanted = torch.rand(*self.shape[:-1], num_samples, device=self.device) * whole
    last = torch.searchsorted(sums, whole)  # where rounding makes ``wanted`` the whole
    return torch.minimum(torch.searchsorted(sums, wanted, right=True), last)
