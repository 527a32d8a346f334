"""Makes a case smaller while its verdict's class stays the same: fewer programs, and zeros where inputs do not matter.

This is delta debugging (Zeller and Hildebrandt 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.errors import TorchportError
from torchport.precision.case import KernelCase, execute, judge_case

__all__ = ["Shrinker", "Size", "size_of"]

_PARTS = 32
"""Into how many parts a storage is split at most; each is tried as zeros."""


@dataclass(frozen=True)
class Size:
    """How large a case is.

    programs: of the grid.
    elements: nonzero ones of all storages.
    bytes: of all storages, up to the last nonzero element.
    """

    programs: int
    elements: int
    bytes: int


def size_of(case: KernelCase) -> Size:
    """The size of a case."""
    x, y, z = case.grid
    storages = case.storages
    kept = sum(trimmed(storage).numel() * storage.element_size() for storage in storages.values())
    return Size(x * y * z, sum(int(torch.count_nonzero(one)) for one in storages.values()), kept)


def trimmed(storage: torch.Tensor) -> torch.Tensor:
    """A storage (1-D) up to its last byte that is not zero, in whole elements."""
    used = storage.contiguous().view(torch.uint8).view(storage.numel(), -1).any(1).nonzero()
    return storage[: int(used[-1]) + 1 if len(used) else 0]


def _read(case: KernelCase) -> list[int]:
    written = {one.storage for one in case.written}
    return [number for number in case.storages if number not in written]


class Shrinker:
    """Shrinks cases.

    target: where a case is run. None if its recorded results are judged, so that inputs may change only where no
        result depends on them.
    left: trials that are left.
    """

    def __init__(
        self,
        wanted: tuple[str, str],
        target: str | None,
        trials: int,
        advance: Callable[[], None] = lambda: None,
        run: Callable[[KernelCase, str], Mapping[int, torch.Tensor]] = execute,
    ) -> None:
        self.wanted, self.target, self.left = wanted, target, trials
        self._advance, self._run = advance, run

    def shrink(self, case: KernelCase) -> KernelCase:
        """The smallest case found."""
        for axis in (2, 1, 0):
            case = self._programs(case, axis)
        # Recorded results stand in storages that are written, too: those stay as they are.
        for number in _read(case) if self.target is None else case.storages:
            for low, high in _parts(case.storages[number].numel()):
                if not self.left:
                    return case
                case = self._zero(case, number, low, high)
        return case

    def _programs(self, case: KernelCase, axis: int) -> KernelCase:
        """The fewest programs along an axis, the first ones, by bisection."""
        low, high = 0, case.grid[axis]  # high keeps the class
        while high - low > 1 and self.left:
            middle = (low + high) // 2
            grid = list(case.grid)
            grid[axis] = middle
            smaller = self._fewer(case, (grid[0], grid[1], grid[2]))
            if self._keeps(smaller):
                case, high = smaller, middle
            else:
                low = middle
        return case

    def _fewer(self, case: KernelCase, grid: tuple[int, int, int]) -> KernelCase:
        smaller = replace(case, grid=grid)
        if self.target is not None:
            return smaller
        after = smaller.replay.run(case.storages)
        recorded = {
            number: torch.where(_bits(after[number]) != _bits(case.storages[number]), values, case.storages[number])
            for number, values in case.recorded.items()
        }
        return replace(smaller, recorded=recorded)

    def _zero(self, case: KernelCase, number: int, low: int, high: int) -> KernelCase:
        storage = case.storages[number]
        if not storage[low:high].count_nonzero():
            return case
        changed = storage.clone()
        changed[low:high] = 0
        smaller = replace(case, storages={**case.storages, number: changed})
        if self.target is None and not self._same(case, smaller):
            return case
        return smaller if self._keeps(smaller) else case

    def _same(self, case: KernelCase, other: KernelCase) -> bool:
        """Whether the CPU target computes the same bits of both."""
        self._spend()
        one, two = (each.replay.run(each.storages) for each in (case, other))
        return all(torch.equal(_bits(one[n]), _bits(two[n])) for n in case.recorded)

    def _keeps(self, case: KernelCase) -> bool:
        self._spend()
        try:
            results: Mapping[int, Any] = case.recorded if self.target is None else self._run(case, self.target)
            return judge_case(case, results).kind == self.wanted
        except TorchportError:  # for instance an assertion of the kernel: another fault
            return False

    def _spend(self) -> None:
        self.left = max(0, self.left - 1)
        self._advance()


def _bits(values: torch.Tensor) -> torch.Tensor:
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return values.view(kinds[values.element_size()]) if values.element_size() in kinds else values


def _parts(length: int) -> Iterator[tuple[int, int]]:
    """All, then halves, quarters ... of a storage."""
    parts = 1
    while parts <= min(_PARTS, max(1, length)):
        step = -(-length // parts)
        yield from ((low, min(length, low + step)) for low in range(0, length, step) if step)
        parts *= 2
