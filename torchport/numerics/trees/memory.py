"""Memory of a kernel that is followed: elements are nodes where they are floats, and numbers elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torchport.errors import TorchportError
from torchport.numerics.trees.nodes import LOAD, NONE, Ids, Kind, Nodes, Symbols

__all__ = ["Memory", "NotFollowed", "Region"]

_SHIFT, _MIDDLE = 44, 1 << 43
_WHOLE, _UNKNOWN = -1, -2


class NotFollowed(TorchportError):
    """A kernel, or a target, whose order of operations is not known; the message says why."""


class Region:
    """One storage, or one buffer of a program instance. Its elements have ``bytes`` bytes each.

    number: of the storage; NONE for a buffer.
    type: of its floats, empty for one of integers or pointers.
    cells: nodes or numbers, by ``symbolic``; _WHOLE: as it was before the launch, _UNKNOWN: never written.
    """

    def __init__(self, base: int, count: int, bytes_: int, number: int = NONE, type_: str = "") -> None:
        self.base, self.bytes, self.number, self.type = base, bytes_, number, type_
        symbolic = number != NONE and type_ != ""
        self.cells = np.full(count, _WHOLE if symbolic else _UNKNOWN, np.int64)
        self.symbolic = np.full(count, symbolic)
        self.written = np.zeros(count, bool)


class Memory:
    """All regions. An address is a number: that of a region, and a byte in it."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._regions: list[Region] = []
        self.storages: dict[int, Region] = {}

    def storage(self, number: int, tensor: torch.Tensor, type_: str) -> Region:
        """A region for a whole storage. ``type_``: of its floats, empty for integers, whose numbers are known."""
        region = self._new(tensor.numel(), tensor.element_size(), number, type_)
        if not type_:
            region.cells[:] = tensor.to(torch.int64).numpy()
        self.storages[number] = region
        return region

    def buffer(self, count: int, bytes_: int) -> int:
        """The address of a new buffer."""
        return self._new(count, bytes_, NONE, "").base

    def release(self, kept: int) -> None:
        """Forget all regions but the first ``kept``."""
        del self._regions[kept:]

    def __len__(self) -> int:
        return len(self._regions)

    def _new(self, count: int, bytes_: int, number: int, type_: str) -> Region:
        region = Region((len(self._regions) + 1 << _SHIFT) + _MIDDLE, count, bytes_, number, type_)
        self._regions.append(region)
        return region

    def _place(self, addresses: Ids, bytes_: int) -> tuple[Region, Ids]:
        """The region of addresses, and the elements there."""
        first = int(addresses[0])
        number = (first >> _SHIFT) - 1
        if not 0 <= number < len(self._regions):
            raise NotFollowed("the kernel accesses memory that is no argument's")
        region = self._regions[number]
        offsets = addresses - region.base
        if bytes_ != region.bytes or (offsets % bytes_).any():
            raise NotFollowed("the kernel accesses memory as another type than it has")
        places = offsets // bytes_
        if places.min() < 0 or places.max() >= len(region.cells):
            raise NotFollowed("the kernel leaves its arguments")
        return region, places

    def load(self, addresses: Ids, bytes_: int, type_: str, mask: Any = None, other: Any = None) -> Any:
        """Elements at ``addresses``. ``mask``: booleans; where it is off, elements are those of ``other``."""
        if mask is not None and not mask.any():
            return self._other(addresses, bytes_, type_, other)
        on = addresses if mask is None else addresses[mask]
        region, places = self._place(on, bytes_)
        symbolic = region.symbolic[places]
        if not symbolic.any():
            found = region.cells[places]
            if (found == _UNKNOWN).any() and region.number == NONE and type_.startswith(("f", "bf")):
                found = np.where(found == _UNKNOWN, self._nodes.constant(float("nan"), type_), NONE)
                if (found == NONE).any():
                    raise NotFollowed("a buffer of numbers and of floats")
                return self._merged(Symbols(found), mask, other, addresses, region, type_)
            if mask is None:
                return found
            result = np.array(np.broadcast_to(np.asarray(other, np.int64), mask.shape)) if other is not None else (
                np.zeros(mask.shape, np.int64)
            )  # fmt: skip
            result[mask] = found
            return result
        if not symbolic.all():
            never = ~symbolic
            if region.number != NONE or (region.cells[places[never]] != _UNKNOWN).any():
                raise NotFollowed("a load of floats and of integers at once")
            region.cells[places[never]] = self._nodes.constant(float("nan"), type_)  # lanes that nothing reads
            region.symbolic[places[never]] = True
        whole = region.cells[places] == _WHOLE
        if whole.any():
            fresh = np.unique(places[whole])
            number = np.full(len(fresh), region.number, np.int64)
            region.cells[fresh] = self._nodes.add(Kind(LOAD, region.type), number, fresh)
        return self._merged(Symbols(region.cells[places]), mask, other, addresses, region, type_)

    def _other(self, addresses: Ids, bytes_: int, type_: str, other: Any) -> Any:
        number = (int(addresses[0]) >> _SHIFT) - 1
        region = self._regions[number] if 0 <= number < len(self._regions) else None
        if isinstance(other, Symbols) and region is not None and region.bytes == bytes_:
            empty = Symbols(np.zeros(0, np.int64))
            return self._merged(empty, np.zeros(len(addresses), bool), other, addresses, region, type_)
        return other if other is not None else np.zeros(len(addresses), np.int64)

    def _merged(self, found: Symbols, mask: Any, other: Any, addresses: Ids, region: Region, type_: str) -> Symbols:
        """What was loaded where the mask is on; elsewhere a load that is off, which has its address all the same."""
        if mask is None or mask.all():
            return found
        off = ~mask
        ids = np.empty(len(mask), np.int64)
        ids[mask] = found.ids
        if isinstance(other, Symbols):
            instead = np.broadcast_to(other.ids, mask.shape)[off]
        else:
            instead = np.full(int(off.sum()), self._nodes.constant(0.0, type_), np.int64)
        if region.number == NONE:
            ids[off] = instead
        else:
            places = (addresses[off] - region.base) // region.bytes
            ids[off] = self._nodes.add(
                Kind(LOAD, region.type, detail="off"), np.full(len(places), region.number, np.int64), places, instead
            )
        return Symbols(ids)

    def store(self, value: Any, addresses: Ids, bytes_: int, mask: Any = None) -> None:
        """Write elements where ``mask`` is on."""
        if mask is not None:
            if not mask.any():
                return
            addresses = addresses[mask]
        region, places = self._place(addresses, bytes_)
        known = isinstance(value, Symbols)
        cells = np.asarray(value.ids if known else value, np.int64)
        if mask is not None and cells.ndim and len(cells) == len(mask):
            cells = cells[mask]
        region.cells[places] = cells
        region.symbolic[places] = known
        region.written[places] = True
