"""Finds out along which dimension a tensor of pointers is contiguous, before loop nests are formed."""

from __future__ import annotations

from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.analysis.masks import Masks
from torchport_passes.analysis.strides import StrideAnalysis
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import Coords, element_type
from torchport_passes.ir.types import Type, Value

__all__ = ["all_coords", "is_contiguous"]

_LANES = 8  # neighbours that are compared


def all_coords(shape: tuple[int, ...]) -> Coords:
    """Coordinates of a tensor in an iteration space of its own shape."""
    return tuple(i if size > 1 else None for i, size in enumerate(shape))


def is_contiguous(pointers: Value, element: Type, dim: int, coords: Coords, size: int, lanes: int = _LANES) -> bool:
    """Whether neighbours along dimension ``dim`` of the iteration space, ``size`` long, are neighbours in memory.

    ``pointers`` is evaluated at ``coords``; ``element`` is the type that they point to. ``lanes``: neighbours that are
    compared, at each multiple of their number.
    """
    strides = StrideAnalysis(dim, min(lanes, size))
    return byte_stride(strides, address_of(Masks(), pointers, coords)) == byte_width(element_type(element))
