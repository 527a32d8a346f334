"""Emits prefetches of the memory that a loop nest streams through.

A processor's own prefetchers stop at the end of a page and take a few lines to start again, and a body with long
polynomials leaves the out-of-order window room for a handful of loads. Where memory is far away (a large shared cache,
another socket, DRAM), the program waits in both cases.
"""

from __future__ import annotations

from mlir.dialects import llvm

from torchport_passes.ir.build import further
from torchport_passes.ir.ops import Coords, constant_int, int_attribute, shape_of
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.lane_values import LaneValues

__all__ = ["prefetch_stream"]

_LINE = 64
_NARROWEST = 32  # bytes of a chunk: narrower ones would prefetch a line again and again
_SHORTEST = 1024  # bytes of a tile's row: what follows a shorter one belongs to another tile


def prefetch_stream(lanes: LaneValues, op: Op, coords: Coords, pointer: Value, bytes_: int) -> None:
    """Prefetch what is ahead of ``pointer``, for a contiguous access that ``mark-streams`` marked.

    Does nothing for short rows, unless they are for the second cache: the next program goes on with those. Beyond the
    end of an array it does no harm: prefetches do not fault.
    """
    chunk = lanes.strides.lanes * bytes_
    if "stream" not in op.attributes or lanes.strides.dim not in coords or chunk < _NARROWEST:
        return
    second = "second_cache" in op.attributes
    row = (shape_of(op.operands[0]) or ())[coords.index(lanes.strides.dim)] * bytes_
    if row < _SHORTEST and len(lanes.loops) > 1 and not second:
        return
    if any(constant_int(lanes.levels[depth + 1].index) for depth, dim in enumerate(lanes.loops) if dim not in coords):
        return  # the same lines again, in another step of an unrolled loop
    writes, locality = int(op.name == "tt.store"), 2 if second else 3
    for line in range(0, chunk, _LINE):
        llvm.Prefetch(further(pointer, int_attribute(op, "stream") + line), writes, locality, 1)
