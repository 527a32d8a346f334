"""Which dimension of a tensor of pointers neighbouring addresses lie along, before nests are formed."""

from __future__ import annotations

from typing import Any

from torchport_passes.analysis.strides import Axis
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import Coords, element_type
from torchport_passes.vectorize.lane_values import Lanes
from torchport_passes.vectorize.pointers import address_of, byte_stride

__all__ = ["all_coords", "is_contiguous"]

_LANES = 8  # neighbours that decide


def all_coords(shape: tuple[int, ...]) -> Coords:
    """Coordinates of a tensor in an iteration space of its own shape."""
    return tuple(i if size > 1 else None for i, size in enumerate(shape))


def is_contiguous(pointers: Any, element: Any, dim: int, coords: Coords, size: int) -> bool:
    """Whether neighbours along dimension ``dim`` of the iteration space, ``size`` long, are neighbours in memory.

    ``pointers`` is evaluated at ``coords``; ``element`` is the type of what they point to.
    """
    loops = sorted({dim, *(c for c in coords if c is not None)})
    lanes = Lanes(loops, Axis(dim, min(_LANES, size)), [], {})
    return byte_stride(lanes, address_of(lanes, pointers, coords)) == byte_width(element_type(element))
