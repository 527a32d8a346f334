"""Emits prefetches of rows whose numbers come from memory, as those of an embedding.

Where a row is, is known only after its number is loaded, and no processor guesses it: the rows of the next turns are
asked for while this one is worked on.
"""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm, scf

from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.ir.build import byte_width, further, integer_type
from torchport_passes.ir.ops import Coords, element_type, int_attribute
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.bypass import is_large
from torchport_passes.vectorize.lane_values import LaneValues, Level
from torchport_passes.vectorize.plan import Plan
from torchport_passes.vectorize.pointers import first_pointer

__all__ = ["prefetch_rows"]

_LINE = 64
_MOST_LINES = 16  # of a row: the processor follows a longer one itself


def prefetch_rows(plan: Plan, lanes: LaneValues, end: int | Value) -> None:
    """Prefetch the rows of a later turn of the loop around that over vectors, for accesses marked with ``rows``.

    ``lanes``: the nest's values; its last level is that of the loop over rows, which ends at ``end``.
    """
    *around, here = lanes.levels
    for op, coords in plan.nest.uses:
        if "rows" not in op.attributes or not _contiguous(plan, lanes, op, coords):
            continue
        with here.point:
            further = arith.AddIOp(here.index, _constant(int_attribute(op, "rows"))).result
            last = _constant(end - 1) if isinstance(end, int) else arith.SubIOp(end, _constant(1)).result
            row = arith.MinSIOp(further, last).result
            first = _constant(0)
        levels = [*around, Level(here.place, row), Level(here.place, first)]
        later = LaneValues(lanes.loops, lanes.strides, levels, lanes.known, lanes.loads)
        pointer = first_pointer(later, address_of(lanes.masks, op.operands[0], coords), levels[-1])
        stores = op.name == "tt.store"
        if stores and "bypass" in op.attributes:  # a line that goes around the caches is not to be fetched
            large = is_large(lanes.levels[0], op)
            with here.point:
                branch = scf.IfOp(large, has_else=True)
                with ir.InsertionPoint(branch.then_block):
                    scf.YieldOp([])
                with ir.InsertionPoint(branch.else_block):
                    end_of_branch = scf.YieldOp([])
                with ir.InsertionPoint(end_of_branch):
                    _prefetch(pointer, _row_bytes(plan, op), stores)
        else:
            with here.point:
                _prefetch(pointer, _row_bytes(plan, op), stores)


def _prefetch(pointer: Value, bytes_: int, stores: bool) -> None:
    for line in range(0, min(bytes_, _MOST_LINES * _LINE), _LINE):
        llvm.Prefetch(further(pointer, line), int(stores), 3, 1)


def _row_bytes(plan: Plan, op: Op) -> int:
    return plan.nest.shape[plan.vector.dim] * _width(op)


def _width(op: Op) -> int:
    """Bytes of an element that is read or written."""
    return byte_width(element_type(op.results[0].type if op.name == "tt.load" else op.operands[1].type))


def _contiguous(plan: Plan, lanes: LaneValues, op: Op, coords: Coords) -> bool:
    """Whether an access takes rows of neighbours, one in each turn of the loop over rows."""
    dims = plan.vector.loops[-2:]
    address = address_of(lanes.masks, op.operands[0], coords)
    return all(dim in coords for dim in dims) and byte_stride(lanes.strides, address) == _width(op)


def _constant(value: int) -> Value:
    return arith.ConstantOp(integer_type(64), value).result
