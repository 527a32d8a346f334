"""Loads of elements a few apart: neighbours are loaded, and those wanted are picked, in place of a gather.

A gather takes some two dozen operations on every x86 processor, whatever its addresses; a load and a shuffle take two.
"""

from __future__ import annotations

from mlir import ir
from mlir.dialects import vector

from torchport_passes.ir.build import byte_width, further, plain_load
from torchport_passes.ir.types import Type, Value

__all__ = ["load_spaced", "spacing"]

_MOST_STEPS = 4
"""Elements from lane to lane. Each costs a load and a shuffle; what lies between two lanes is in their cache lines."""
_FEWEST_LANES = 4


def spacing(stride: int | None, bytes_: int, lanes: int) -> int | None:
    """How many elements of ``bytes_`` bytes lie from lane to lane, where loading all of them is worth it."""
    if stride is None or stride % bytes_ or lanes < _FEWEST_LANES:
        return None
    steps = stride // bytes_
    return steps if 2 <= steps <= _MOST_STEPS else None


def load_spaced(type_: Type, pointer: Value, steps: int) -> Value:
    """The vector of ``type_`` with every ``steps``-th element from ``pointer`` on.

    Nothing before the first of them or after the last is read: the last of the loads ends with it.
    """
    lanes = int(ir.VectorType(type_).shape[0])
    bytes_ = byte_width(type_.element_type)
    last = (lanes - 1) * (steps - 1)
    found = plain_load(type_, pointer, bytes_)
    held = [steps * lane if steps * lane < lanes else 0 for lane in range(lanes)]  # where ``found`` has the lanes
    for start in (*range(lanes, last, lanes), last):
        part = plain_load(type_, further(pointer, start * bytes_), bytes_)
        places = [steps * lane - start for lane in range(lanes)]
        picked = [lanes + at if 0 <= at < lanes else kept for at, kept in zip(places, held, strict=True)]
        found = vector.ShuffleOp(found, part, picked).result
        held = list(range(lanes))
    return found
