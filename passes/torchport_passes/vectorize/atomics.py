"""Emits the atomic operations of a loop nest, lane by lane where vectors do not do."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.ir.atomics import atomic_scalar, combined, guarded, kind_of, needs_order
from torchport_passes.ir.build import byte_width, masked_load, masked_store, plain_load, zero_of
from torchport_passes.ir.ops import Coords, element_type, has_uses
from torchport_passes.ir.traits import MASKS
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.lane_values import LaneValues, Level
from torchport_passes.vectorize.pointers import first_pointer, lane_pointers, mask_of, varying_pointers

__all__ = [
    "atomic",
]

_DYNAMIC_POSITION = -(1 << 63)  # marks a dynamic index of vector.extract and vector.insert


def _mask_operand(op: Op) -> Value | None:
    position = MASKS[op.name]
    return op.operands[position] if len(op.operands) > position else None


def atomic(lanes: LaneValues, op: Op, coords: Coords, level: Level) -> None:
    """Emit an atomic anchor; its old values become the value of its result."""
    kind, condition = mask_of(lanes, _mask_operand(op), coords)
    address = address_of(lanes.masks, op.operands[0], coords)
    result_type = element_type(op.results[0].type)
    values = list(op.operands)[1 : MASKS[op.name]]
    if lanes.strides.dim not in coords:
        operands = [lanes.scalar(v, coords) for v in values]
        pointer = first_pointer(lanes, address, level)
        with level.point:
            old = guarded(kind, condition, result_type, lambda: atomic_scalar(op, pointer, operands))
        level.memo[op.results[0], coords, "scalar"] = old
        return
    operands = [lanes.vector(v, coords) for v in values]
    stride = byte_stride(lanes.strides, address)
    if stride == byte_width(result_type) and needs_order(op) and kind in ("all", "vector"):
        pointer = first_pointer(lanes, address, level)
        with level.point:
            old = _neighbours(op, pointer, operands[0], condition if kind == "vector" else None)
    else:
        pointers = (lane_pointers if stride == 0 else varying_pointers)(lanes, address, level)
        with level.point:
            old = _lane_by_lane(op, pointers, operands, kind, condition)
    if old is not None:
        level.memo[op.results[0], coords, "vector"] = old


def _neighbours(op: Op, pointer: Value, value: Value, mask: Value | None) -> Value:
    """Vector load, operation and store, for an operation whose programs run in order on one thread."""
    type_ = value.type
    bytes_ = byte_width(type_.element_type)
    if mask is None:
        old = plain_load(type_, pointer, bytes_)
        llvm.StoreOp(combined(kind_of(op), old, value), pointer, alignment=bytes_)
    else:
        old = masked_load(type_, pointer, mask, zero_of(type_))
        new = combined(kind_of(op), old, value)
        masked_store(new, pointer, mask)
    return old


def _lane_by_lane(op: Op, pointers: Value, operands: list[Value], kind: str, condition: Value) -> Value | None:
    """A loop over the lanes; the vector of old values, None if they are not used."""
    used = has_uses(op.results[0])
    type_, element = operands[-1].type, element_type(op.results[0].type)
    zero, one, end = (arith.ConstantOp(ir.IndexType.get(), n).result for n in (0, 1, type_.shape[0]))
    loop = scf.ForOp(zero, end, one, [zero_of(type_)] if used else [])
    lane = loop.induction_variable

    def extract(values: Value) -> Value:
        return vector.ExtractOp(values, [lane], [_DYNAMIC_POSITION]).result

    with ir.InsertionPoint(loop.body):
        pointer = extract(pointers)
        values = [extract(v) for v in operands]
        lane_condition = extract(condition) if kind == "vector" else condition
        old = guarded(kind, lane_condition, element, lambda: atomic_scalar(op, pointer, values))
        olds = [vector.InsertOp(old, loop.inner_iter_args[0], [lane], [_DYNAMIC_POSITION]).result] if used else []
        scf.YieldOp(olds)
    return loop.results[0] if used else None
