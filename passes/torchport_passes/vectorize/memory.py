"""Emits the loads and stores of a loop nest: contiguous ones where that is known, backwards, too, else gathers and
scatters."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport.errors import UnsupportedOperation
from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.ir.build import (
    all_true,
    byte_width,
    from_storage,
    if_else,
    integer_type,
    is_pointer,
    masked_load,
    masked_store,
    plain_load,
    splat,
    storage_type,
    to_storage,
    zero_of,
)
from torchport_passes.ir.ops import Coords, element_type
from torchport_passes.ir.types import Op, Type, Value
from torchport_passes.vectorize.bypass import bypasses, store_either
from torchport_passes.vectorize.lane_values import LaneValues, Level
from torchport_passes.vectorize.pointers import first_pointer, lane_pointers, mask_of, varying_pointers
from torchport_passes.vectorize.prefetch import prefetch_stream
from torchport_passes.vectorize.reversed import load_reversed, store_reversed
from torchport_passes.vectorize.spaced import load_spaced, spacing

__all__ = ["load_scalar", "load_vector", "store"]


def _operands(op: Op) -> tuple[Value, Value | None, Value | None]:
    """Pointer, mask and other value of a load."""
    operands = list(op.operands)
    return operands[0], operands[1] if len(operands) > 1 else None, operands[2] if len(operands) > 2 else None


def load_scalar(lanes: LaneValues, op: Op, coords: Coords) -> Value:
    """A load that is the same in all lanes, or lane 0 of one."""
    pointer_value, mask, other = _operands(op)
    type_ = element_type(op.results[0].type)
    kind, condition = mask_of(lanes, mask, coords)
    level = lanes.levels[lanes.level_of(op.results[0], coords)]
    if kind == "vector":
        raise UnsupportedOperation("tt.load", "a load whose mask varies has no single value")
    fallback = lanes.scalar(other, coords) if other is not None and kind != "all" else None
    pointer = first_pointer(lanes, address_of(lanes.masks, pointer_value, coords), level) if kind != "none" else None
    volatile = "volatile" in op.attributes
    with level.point:
        bytes_ = byte_width(type_)

        def load() -> Value:
            stored = type_ if is_pointer(type_) else storage_type(type_)
            return from_storage(plain_load(stored, pointer, bytes_, volatile), type_)

        if kind == "all":
            return load()
        if kind == "none":
            return fallback if fallback is not None else zero_of(type_)
        return if_else(condition, type_, load, lambda: fallback if fallback is not None else zero_of(type_))


def load_vector(lanes: LaneValues, op: Op, coords: Coords, level: Level, wanted: Type) -> Value:
    """A load of one element a lane; ``wanted`` is its vector type, in which pointers are i64."""
    pointer_value, mask, other = _operands(op)
    kind, condition = mask_of(lanes, mask, coords)
    fallback = lanes.vector(other, coords) if other is not None and kind != "all" else None
    if kind == "none":
        with level.point:
            return fallback if fallback is not None else zero_of(wanted)
    bytes_ = byte_width(wanted.element_type)
    address = address_of(lanes.masks, pointer_value, coords)
    stride = byte_stride(lanes.strides, address)
    volatile = "volatile" in op.attributes
    steps = None if kind == "vector" or volatile else spacing(stride, bytes_, lanes.strides.lanes)
    if stride in (bytes_, 0, -bytes_) or steps is not None:
        pointer = first_pointer(lanes, address, level)
    else:
        pointer = varying_pointers(lanes, address, level)
    with level.point:
        stored = ir.VectorType.get([lanes.strides.lanes], storage_type(wanted.element_type))
        other = to_storage(fallback) if fallback is not None else zero_of(stored)
        active = condition if kind == "vector" else None
        if kind == "all" and stride == bytes_:
            prefetch_stream(lanes, op, coords, pointer, bytes_)

        def load() -> Value:
            if steps is not None:
                return load_spaced(stored, pointer, steps)
            return _loaded(stored, pointer, stride, active, other, volatile)

        loaded = if_else(condition, stored, load, lambda: other) if kind == "scalar" else load()
        return from_storage(loaded, wanted.element_type)


def _loaded(
    stored: Type, pointer: Value, stride: int | None, active: Value | None, other: Value, volatile: bool
) -> Value:
    """A vector from ``pointer``, with ``other`` in lanes where the mask ``active`` is false.

    ``pointer``: that of lane 0 if the byte ``stride`` is 0 or that of neighbours in either direction, else one for
    each lane.
    ``active``: None if all lanes are active.
    ``volatile``: has no effect on masked and reversed loads and gathers, whose intrinsics have no volatile form.
    """
    element, lanes = stored.element_type, int(stored.shape[0])
    bytes_ = byte_width(element)
    if stride == 0:
        if active is None:
            return splat(plain_load(element, pointer, bytes_, volatile), lanes)
        some = vector.ReductionOp(integer_type(1), vector.CombiningKind.OR, active).result
        scalar = if_else(
            some, element, lambda: plain_load(element, pointer, bytes_, volatile), lambda: zero_of(element)
        )  # fmt: skip
        return arith.SelectOp(active, splat(scalar, lanes), other).result
    if stride == bytes_ and active is None:
        return plain_load(stored, pointer, bytes_, volatile)
    if stride == bytes_:
        return masked_load(stored, pointer, active, other)
    if stride == -bytes_:
        return load_reversed(stored, pointer, active, other)
    mask = active if active is not None else all_true(lanes)
    attributes = {"alignment": ir.IntegerAttr.get(integer_type(32), bytes_)}
    return ir.Operation.create("llvm.intr.masked.gather", [stored], [pointer, mask, other], attributes).results[0]


def store(lanes: LaneValues, op: Op, coords: Coords, level: Level) -> None:
    """``tt.store``."""
    operands = list(op.operands)
    pointer_value, value = operands[0], operands[1]
    kind, condition = mask_of(lanes, operands[2] if len(operands) > 2 else None, coords)
    if kind == "none":
        return
    type_ = element_type(value.type)
    bytes_ = byte_width(type_)
    address = address_of(lanes.masks, pointer_value, coords)
    vectorised = lanes.strides.dim in coords
    stride = byte_stride(lanes.strides, address) if vectorised else bytes_
    data = lanes.vector(value, coords) if vectorised else lanes.scalar(value, coords)
    row = stride in (bytes_, -bytes_)
    pointer = first_pointer(lanes, address, level) if row else lane_pointers(lanes, address, level)
    alignment = ir.IntegerAttr.get(integer_type(32), bytes_)

    with level.point:
        data = to_storage(data)

    def plain() -> None:
        if stride == bytes_:
            llvm.StoreOp(data, pointer, alignment=bytes_)
        elif stride == -bytes_:
            store_reversed(data, pointer, None)
        else:
            active = all_true(lanes.strides.lanes)
            ir.Operation.create("llvm.intr.masked.scatter", [], [data, pointer, active], {"alignment": alignment})

    with level.point:
        if kind == "all":
            if stride == bytes_:
                prefetch_stream(lanes, op, coords, pointer, bytes_)
            around = bypasses(lanes, op, address, bytes_) if stride == bytes_ else None
            if around is None:
                plain()
            else:
                store_either(around, data, pointer, bytes_)
        elif kind == "scalar":
            branch = scf.IfOp(condition)
            with ir.InsertionPoint(branch.then_block):
                plain()
                scf.YieldOp([])
        elif stride == bytes_:
            masked_store(data, pointer, condition)
        elif stride == -bytes_:
            store_reversed(data, pointer, condition)
        else:
            ir.Operation.create("llvm.intr.masked.scatter", [], [data, pointer, condition], {"alignment": alignment})
