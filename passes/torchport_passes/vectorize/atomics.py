"""Atomic read-modify-write operations of a nest, lane by lane."""

from __future__ import annotations

from typing import Any

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.ir.atomics import atomic_scalar, combined, guarded, kind_of, needs_order
from torchport_passes.ir.build import byte_width, integer_type, masked_load, plain_load, zero_of
from torchport_passes.ir.ops import Coords, element_type, has_uses
from torchport_passes.ir.traits import MASKS
from torchport_passes.vectorize.lane_values import LaneValues, Level
from torchport_passes.vectorize.pointers import first_pointer, lane_pointers, mask_of, varying_pointers

__all__ = [
    "atomic",
]


def _mask_operand(op: Any) -> Any | None:
    position = MASKS[op.name]
    return op.operands[position] if len(op.operands) > position else None


def atomic(lanes: LaneValues, op: Any, coords: Coords, level: Level) -> None:
    """An atomic anchor; its old values are remembered as the value of its result."""

    values = list(op.operands)[1 : MASKS[op.name]]
    kind, condition = mask_of(lanes, _mask_operand(op), coords)
    address = address_of(lanes.masks, op.operands[0], coords)
    result_type = element_type(op.results[0].type)
    used = has_uses(op.results[0])
    if lanes.strides.dim not in coords:
        operands = [lanes.scalar(v, coords) for v in values]
        pointer = first_pointer(lanes, address, level)
        with level.point:
            old = guarded(kind, condition, result_type, lambda: atomic_scalar(op, pointer, operands))
        level.memo[op.results[0], coords, "scalar"] = old
        return
    count = lanes.strides.lanes
    operands = [lanes.vector(v, coords) for v in values]
    wanted = operands[-1].type
    bytes_ = byte_width(result_type)
    if byte_stride(lanes.strides, address) == bytes_ and needs_order(op) and kind in ("all", "vector"):
        # neighbouring lanes, one thread: the lanes' addresses differ, so a vector load and store do
        pointer = first_pointer(lanes, address, level)
        with level.point:
            attributes = {"alignment": ir.IntegerAttr.get(integer_type(32), bytes_)}
            if kind == "all":
                old = plain_load(wanted, pointer, bytes_)
                llvm.StoreOp(combined(kind_of(op), old, operands[0]), pointer, alignment=bytes_)
            else:
                old = masked_load(wanted, pointer, condition, zero_of(wanted))
                new = combined(kind_of(op), old, operands[0])
                ir.Operation.create("llvm.intr.masked.store", [], [new, pointer, condition], attributes)
        level.memo[op.results[0], coords, "vector"] = old
        return
    if byte_stride(lanes.strides, address) == 0:
        pointers = lane_pointers(lanes, address, level)
    else:
        pointers = varying_pointers(lanes, address, level)
    with level.point:
        index = ir.IndexType.get()
        zero, one, end = (arith.ConstantOp(index, n).result for n in (0, 1, count))
        loop = scf.ForOp(zero, end, one, [zero_of(wanted)] if used else [])
        with ir.InsertionPoint(loop.body):
            lane = loop.induction_variable
            pointer = vector.ExtractOp(pointers, [lane], [_DYNAMIC_POSITION]).result
            lane_values = [vector.ExtractOp(v, [lane], [_DYNAMIC_POSITION]).result for v in operands]
            lane_condition = condition
            if kind == "vector":
                lane_condition = vector.ExtractOp(condition, [lane], [_DYNAMIC_POSITION]).result
            old = guarded(kind, lane_condition, result_type, lambda: atomic_scalar(op, pointer, lane_values))
            yielded = []
            if used:
                yielded = [vector.InsertOp(old, loop.inner_iter_args[0], [lane], [_DYNAMIC_POSITION]).result]
            scf.YieldOp(yielded)
    if used:
        level.memo[op.results[0], coords, "vector"] = loop.results[0]


_DYNAMIC_POSITION = -(1 << 63)
