"""Emits stores that go around the caches where a launch writes more than these hold.

A store to a line that no cache has first reads the line, and a line that is written later leaves the cache: three ways
through memory for a copied line where two are enough. A line that is written as a whole need not be read. What is
written around the caches has to come from memory when it is read next, so only launches that would fill the caches with
their results do it. That is known at run time: the size of the grid.
"""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm, scf

from torchport_passes.analysis.addresses import Address
from torchport_passes.ir.build import as_integer, byte_width, integer_type
from torchport_passes.ir.ops import constant_int, element_type, int_attribute, numel, shape_of
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.lane_values import LaneValues, Level
from torchport_passes.vectorize.pointers import first_pointer

__all__ = ["bypasses", "is_large", "store_either"]

_LINE = 64
_CHUNKS = (32, 64, 128)
"""Bytes of a chunk that is stored around caches: whole lines, or half of one. Smaller parts are not put together."""


def bypasses(lanes: LaneValues, op: Op, address: Address, bytes_: int) -> Value | None:
    """Whether a contiguous unmasked store of chunks goes around the caches, an i1; None if it never does.

    ``address``: what the store writes to; ``bytes_``: those of an element. All chunks of a row have one answer.
    """
    chunk = lanes.strides.lanes * bytes_
    if "bypass" not in op.attributes or chunk not in _CHUNKS or not lanes.loops:
        return None
    if lanes.loops[-1] != lanes.strides.dim or len(lanes.levels) <= len(lanes.loops):
        return None
    around = lanes.levels[-2]
    key = (op.operands[0], (), "bypass")
    if key not in around.memo:
        with around.point:
            first = Level(around.place, _constant(0))
        row = LaneValues(lanes.loops, lanes.strides, [*lanes.levels[:-1], first], lanes.known, lanes.loads)
        pointer = first_pointer(row, address, first)
        large = is_large(lanes.levels[0], op)
        with around.point:
            around.memo[key] = arith.AndIOp(large, _aligned(pointer, min(chunk, _LINE))).result
    return around.memo[key]


def is_large(outside: Level, op: Op) -> Value:
    """Whether a launch stores more than the attribute ``bypass`` of ``op`` says, an i1. ``outside``: of the nest.

    All such stores of the nest count together.
    """
    alike = [view.operation for view in op.block.operations if "bypass" in view.operation.attributes]
    key = (alike[0].operands[0], (), "large")
    if key not in outside.memo:
        limit = int_attribute(op, "bypass") // sum(_stored(one) for one in alike)
        with outside.point:
            count = ir.Operation.create("tp.programs", [integer_type(64)]).results[0]
            for turns in _turns(op):
                count = arith.MulIOp(count, turns).result
            outside.memo[key] = arith.CmpIOp(arith.CmpIPredicate.sgt, count, _constant(limit)).result
    return outside.memo[key]


def _stored(op: Op) -> int:
    """Bytes that one program stores by ``op``."""
    return numel(shape_of(op.operands[0]) or ()) * byte_width(element_type(op.operands[1].type))


def _aligned(pointer: Value, bytes_: int) -> Value:
    """Whether an address is a multiple of ``bytes_``, an i1."""
    rest = arith.AndIOp(as_integer(pointer), _constant(bytes_ - 1)).result
    return arith.CmpIOp(arith.CmpIPredicate.eq, rest, _constant(0)).result


def store_either(around: Value, data: Value, pointer: Value, bytes_: int) -> None:
    """Store a vector around the caches if ``around`` holds, else into them; ``bytes_``: those of an element."""
    chunk = int(ir.VectorType(data.type).shape[0]) * bytes_
    branch = scf.IfOp(around, has_else=True)
    with ir.InsertionPoint(branch.then_block):
        llvm.StoreOp(data, pointer, alignment=min(chunk, _LINE), nontemporal=True)
        scf.YieldOp([])
    with ir.InsertionPoint(branch.else_block):
        llvm.StoreOp(data, pointer, alignment=bytes_)
        scf.YieldOp([])


def _turns(op: Op) -> list[Value]:
    """How often the loops around a nest run for one turn of the loop around each, i64."""
    turns, around = [], op.parent
    while around.name != "func.func":
        if around.name == "scf.for":
            low, high, step = list(around.operands)[:3]
            count = arith.SubIOp(high, low).result
            if (known := constant_int(step)) is not None and known > 1:
                count = arith.DivSIOp(count, arith.ConstantOp(count.type, known).result).result
            turns.append(count if count.type == integer_type(64) else _widened(count))
        around = around.parent
    return turns


def _widened(count: Value) -> Value:
    cast = arith.IndexCastOp if isinstance(count.type, ir.IndexType) else arith.ExtSIOp
    return cast(integer_type(64), count).result


def _constant(value: int) -> Value:
    return arith.ConstantOp(integer_type(64), value).result
