"""Emits reads and writes of buffers at the current indices of a loop nest."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm

from torchport_passes.ir.build import (
    all_true,
    byte_width,
    from_storage,
    gep,
    integer_type,
    lane_steps,
    plain_load,
    storage_type,
    to_storage,
    zero_of,
)
from torchport_passes.ir.ops import Coords, element_type, shape_of
from torchport_passes.ir.types import Op, Type, Value
from torchport_passes.vectorize.lane_values import LaneValues, Level

__all__ = ["read_scalar", "read_vector", "write"]


def _buffer_index(lanes: LaneValues, shape: tuple[int, ...], coords: Coords) -> tuple[Value | None, int]:
    """The element index of lane 0 (a scalar, None for 0), and the stride along the vector dimension, in elements."""
    scale = 1
    terms = []
    for size, coord in zip(reversed(shape), reversed(coords), strict=True):
        if coord is not None:
            terms.append((coord, scale))
        scale *= size
    stride = sum(factor for coord, factor in terms if coord == lanes.strides.dim)
    total = None
    depth = max((lanes.loops.index(coord) + 1 for coord, _ in terms), default=0)
    with lanes.levels[depth].point:
        for coord, factor in terms:
            index = lanes.levels[lanes.loops.index(coord) + 1].index
            term = index if factor == 1 else arith.MulIOp(index, arith.ConstantOp(index.type, factor).result).result
            total = term if total is None else arith.AddIOp(total, term).result
    return total, stride


def read_scalar(lanes: LaneValues, op: Op, coords: Coords) -> Value:
    """``tp.read`` of one element."""
    type_ = element_type(op.results[0].type)
    index, _ = _buffer_index(lanes, shape_of(op.results[0]) or (), coords)
    storage = storage_type(type_)
    pointer = op.operands[0] if index is None else gep(op.operands[0], index, byte_width(storage))
    return from_storage(plain_load(storage, pointer, byte_width(storage)), type_)


def read_vector(lanes: LaneValues, op: Op, coords: Coords, level: Level, wanted: Type) -> Value:
    """``tp.read`` of one element a lane."""
    element = element_type(op.results[0].type)
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    index, stride = _buffer_index(lanes, shape_of(op.results[0]) or (), coords)
    stored = ir.VectorType.get([lanes.strides.lanes], storage)
    with level.point:
        pointer = op.operands[0] if index is None else gep(op.operands[0], index, bytes_)
        if stride == 1:
            value = plain_load(stored, pointer, bytes_)
        else:
            pointers = gep(pointer, lane_steps(lanes.strides.lanes, stride), bytes_)
            alignment = ir.IntegerAttr.get(integer_type(32), bytes_)
            value = ir.Operation.create(
                "llvm.intr.masked.gather", [stored], [pointers, all_true(lanes.strides.lanes), zero_of(stored)],
                {"alignment": alignment},
            ).results[0]  # fmt: skip
        return from_storage(value, element)


def write(lanes: LaneValues, op: Op, coords: Coords, level: Level) -> None:
    """``tp.write``."""
    value, buffer = op.operands
    shape = shape_of(value) or ()
    vectorised = lanes.strides.dim in coords
    data = lanes.vector(value, coords) if vectorised else lanes.scalar(value, coords)
    element = element_type(value.type)
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    index, stride = _buffer_index(lanes, shape, coords)
    with level.point:
        data = to_storage(data)
        pointer = buffer if index is None else gep(buffer, index, bytes_)
        if not vectorised or stride == 1:
            llvm.StoreOp(data, pointer, alignment=bytes_)
        else:
            pointers = gep(pointer, lane_steps(lanes.strides.lanes, stride), bytes_)
            attributes = {"alignment": ir.IntegerAttr.get(integer_type(32), bytes_)}
            ir.Operation.create(
                "llvm.intr.masked.scatter", [], [data, pointers, all_true(lanes.strides.lanes)], attributes
            )
