"""Reductions of elements that indices send to one place, in the order of the elements: no atomics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.torch_device.sorting import order_of

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["scatter_reduce"]

Tensor = torch.Tensor

_BLOCK = 128
_TYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.int64,
)  # fmt: skip
_HOW = {"sum": 0, "mean": 0, "prod": 1, "amax": 2, "amin": 3}


@Kernel
def _first(places, order, row, n, wanted, inside, steps):  # type: ignore[no-untyped-def]
    """How many of a row's places, looked at in ``order``, are below ``wanted``."""
    low = tl.zeros_like(wanted)
    high = low + n
    for _ in range(0, steps):
        middle = (low + high) // 2
        open_ = inside & (low < high)
        at = tl.load(order + row + middle, open_, 0)
        below = tl.load(places + row + at, open_, 0) < wanted
        low = tl.where(open_ & below, middle + 1, low)
        high = tl.where(open_ & (below == 0), middle, high)
    return low


@Kernel
def _reduce(source, places, order, result, counts, n, size, blocks, steps, HOW: tl.constexpr,  # type: ignore[no-untyped-def]
            WITH_SELF: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Reduce into each place of a row of ``result`` the elements that go there."""
    line = (tl.program_id(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    row = line * n
    least, most = tl.load(places + row + tl.load(order + row)), tl.load(places + row + tl.load(order + row + n - 1))
    tl.device_assert((least >= 0) & (most < size), "an index is out of bounds")
    begin = _first(places, order, row, n, i, inside, steps)
    end = _first(places, order, row, n, i + 1, inside, steps)
    kind = result.dtype.element_ty
    total = tl.load(result + line * size + i, inside, 0)
    for step in range(0, tl.max(end - begin)):
        there = inside & (begin + step < end)
        at = tl.load(order + row + begin + step, there, 0)
        value = tl.load(source + row + at, there, 0).to(kind)
        if HOW == 0:
            joined = total + value
        elif HOW == 1:
            joined = total * value
        elif HOW == 2:
            joined = tl.where((total > value) | (total != total), total, value)
        else:
            joined = tl.where((total < value) | (total != total), total, value)
        if not WITH_SELF:
            joined = tl.where(step == 0, value, joined)
        total = tl.where(there, joined, total)
    tl.store(result + line * size + i, total, inside)
    if counts is not None:
        tl.store(counts + line * size + i, (end - begin).to(tl.int64), inside)


def scatter_reduce(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    """``aten.scatter_reduce.two``."""
    if self.dtype not in _TYPES or src.dtype != self.dtype or index.dtype != torch.int64 or reduce not in _HOW:
        return NotImplemented
    if self.dim() == 0 or index.dim() != self.dim() or src.dim() != self.dim():
        return NotImplemented
    if any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
        return NotImplemented
    dim %= self.dim()
    result = self.clone(memory_format=torch.contiguous_format)
    if index.numel() == 0:
        return result
    region = result
    for d in range(self.dim()):
        src = src.narrow(d, 0, index.shape[d])
        if d != dim:
            if index.shape[d] > self.shape[d]:
                return NotImplemented
            region = region.narrow(d, 0, index.shape[d])
    rows = region.movedim(dim, -1).contiguous()
    counts = _into(rows, index.movedim(dim, -1), src.movedim(dim, -1), reduce, include_self)
    if counts is not None:
        counts = (counts + include_self).clamp(min=1)
        rows = rows / counts if rows.is_floating_point() else torch.div(rows, counts, rounding_mode="floor")
    region.copy_(rows.movedim(-1, dim))
    return result


def _into(rows: Tensor, places: Tensor, source: Tensor, reduce: str, include_self: bool) -> Tensor | None:
    """Reduce into the last dimension of ``rows``, which is contiguous. Returns the counts that a mean needs."""
    size, n = rows.shape[-1], places.shape[-1]
    order = order_of(places)
    counts = torch.empty(rows.shape, dtype=torch.int64, device=rows.device) if reduce == "mean" else None
    half = rows.dtype in (torch.float16, torch.bfloat16)
    work = rows.to(torch.float32) if half else rows
    blocks = -(-size // _BLOCK)
    args = (source.contiguous(), places.contiguous(), order, work, counts, n, size, blocks, n.bit_length())
    constants = {"HOW": _HOW[reduce], "WITH_SELF": include_self, "BLOCK": _BLOCK}
    launch(_reduce, (blocks * (rows.numel() // size), 1, 1), args, constants)
    if half:
        rows.copy_(work)
    return counts
