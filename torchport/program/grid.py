"""The grid of a kernel, and launches over grids that follow from sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.plugin import Launcher

__all__ = ["MAX_BOUND", "MAX_GRID_Y", "Grid", "bound_launch"]

MAX_GRID_Y = 65535
"""Program instances in y; Inductor's kernels made for larger sizes continue in z."""

MAX_BOUND = 64
"""Sizes for which a kernel of changing sizes remembers its grid."""


@dataclass(frozen=True)
class Grid:
    """The grid of a kernel: for x, y and z, which argument is the size and how large a block is.

    ``overflow``: y continues in z beyond MAX_GRID_Y, as the kernel's source expects.
    """

    sizes: tuple[int, ...]
    blocks: tuple[int, ...]
    overflow: bool = False

    def of(self, args: Sequence[Any]) -> tuple[int, int, int]:
        """Program instances in x, y and z for the arguments of a launch."""
        x, y, z = (*(-(-args[i] // b) for i, b in zip(self.sizes, self.blocks, strict=True)), 1, 1)[:3]
        if self.overflow and y > MAX_GRID_Y:
            z = -(-y // MAX_GRID_Y)
            y = -(-y // z)
        return x, y, z


def bound_launch(launcher: Launcher, function: int, grid: Grid | tuple[int, int, int]) -> Callable[..., None]:
    """A callable that takes a kernel's arguments and launches it over ``grid``, or the one that follows from them."""
    if not isinstance(grid, Grid):
        return launcher.bind(*grid, function)
    sizes = operator.itemgetter(*grid.sizes)
    bound: dict[Any, Callable[..., None]] = {}

    def launch(*args: Any) -> None:
        key = sizes(args)
        if (run := bound.get(key)) is None:
            if len(bound) >= MAX_BOUND:
                bound.clear()
            run = bound[key] = launcher.bind(*grid.of(args), function)
        run(*args)

    return launch
