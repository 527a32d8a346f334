"""Loads and stores of a nest: contiguous where the analysis proves it, gathers where nothing better is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport.errors import UnsupportedOperation
from torchport_passes._address import address_of, byte_stride, first_pointer, lane_pointers, mask_of, varying_pointers
from torchport_passes._axis import Coords
from torchport_passes._emit import all_true, byte_width, if_else, integer_type, plain_load, splat, zero_of
from torchport_passes._ops import element_type

if TYPE_CHECKING:
    from torchport_passes._lanes import Lanes, Level

__all__ = ["load_scalar", "load_vector", "store"]


def _operands(op: Any) -> tuple[Any, Any | None, Any | None]:
    operands = list(op.operands)
    return operands[0], operands[1] if len(operands) > 1 else None, operands[2] if len(operands) > 2 else None


def load_scalar(lanes: Lanes, op: Any, coords: Coords) -> Any:
    """A load that is the same in all lanes, or lane 0 of one."""
    pointer_value, mask, other = _operands(op)
    type_ = element_type(op.results[0].type)
    kind, condition = mask_of(lanes, mask, coords)
    level = lanes.levels[lanes.level_of(op.results[0], coords)]
    if kind == "vector":
        raise UnsupportedOperation("tt.load", "one lane of a load with a varying mask was asked for")
    fallback = lanes.scalar(other, coords) if other is not None and kind != "all" else None
    pointer = first_pointer(lanes, address_of(lanes, pointer_value, coords), level) if kind != "none" else None
    with level.point:
        bytes_ = byte_width(type_)
        if kind == "all":
            return plain_load(type_, pointer, bytes_)
        if kind == "none":
            return fallback if fallback is not None else zero_of(type_)
        return if_else(
            condition, type_, lambda: plain_load(type_, pointer, bytes_),
            lambda: fallback if fallback is not None else zero_of(type_),
        )  # fmt: skip


def load_vector(lanes: Lanes, op: Any, coords: Coords, level: Level, wanted: Any) -> Any:
    pointer_value, mask, other = _operands(op)
    kind, condition = mask_of(lanes, mask, coords)
    fallback = lanes.vector(other, coords) if other is not None and kind != "all" else None
    if kind == "none":
        with level.point:
            return fallback if fallback is not None else zero_of(wanted)
    type_ = wanted.element_type
    is_ptr = str(element_type(op.results[0].type)) == "!llvm.ptr"
    bytes_ = byte_width(type_)
    address = address_of(lanes, pointer_value, coords)
    stride = byte_stride(lanes, address)
    if stride == bytes_ or stride == 0:
        pointer = first_pointer(lanes, address, level)
    else:
        pointer = varying_pointers(lanes, address, level)
    with level.point:
        if fallback is None and kind != "all":
            fallback = zero_of(wanted)
        if is_ptr:
            wanted = ir.VectorType.get([lanes.axis.lanes], integer_type(64))
        alignment = ir.IntegerAttr.get(integer_type(32), bytes_)
        if stride == 0:
            if kind == "vector":
                some = vector.ReductionOp(integer_type(1), vector.CombiningKind.OR, condition).result
                scalar = if_else(some, type_, lambda: plain_load(type_, pointer, bytes_), lambda: zero_of(type_))
                return arith.SelectOp(condition, splat(scalar, lanes.axis.lanes), fallback).result
            if kind == "scalar":
                return if_else(
                    condition, wanted,
                    lambda: splat(plain_load(type_, pointer, bytes_), lanes.axis.lanes), lambda: fallback,
                )  # fmt: skip
            return splat(plain_load(type_, pointer, bytes_), lanes.axis.lanes)
        if stride == bytes_:
            if kind == "all":
                return plain_load(wanted, pointer, bytes_)
            if kind == "scalar":
                return if_else(condition, wanted, lambda: plain_load(wanted, pointer, bytes_), lambda: fallback)
            attributes = {"alignment": alignment}
            return ir.Operation.create(
                "llvm.intr.masked.load", [wanted], [pointer, condition, fallback], attributes
            ).results[0]

        def gather() -> Any:
            active = condition if kind == "vector" else all_true(lanes.axis.lanes)
            passthrough = fallback if fallback is not None else zero_of(wanted)
            return ir.Operation.create(
                "llvm.intr.masked.gather", [wanted], [pointer, active, passthrough], {"alignment": alignment}
            ).results[0]

        return if_else(condition, wanted, gather, lambda: fallback) if kind == "scalar" else gather()


def store(lanes: Lanes, op: Any, coords: Coords, level: Level) -> None:
    """``tt.store`` at the nest's current indices."""

    operands = list(op.operands)
    pointer_value, value = operands[0], operands[1]
    kind, condition = mask_of(lanes, operands[2] if len(operands) > 2 else None, coords)
    if kind == "none":
        return
    type_ = element_type(value.type)
    bytes_ = byte_width(type_)
    address = address_of(lanes, pointer_value, coords)
    vectorised = lanes.axis.dim in coords
    stride = byte_stride(lanes, address) if vectorised else bytes_
    data = lanes.vector(value, coords) if vectorised else lanes.scalar(value, coords)
    pointer = first_pointer(lanes, address, level) if stride == bytes_ else lane_pointers(lanes, address, level)
    alignment = ir.IntegerAttr.get(integer_type(32), bytes_)

    def plain() -> None:
        if str(type_) == "i1":
            raise UnsupportedOperation("tt.store", "booleans are stored as i8")
        if stride == bytes_:
            llvm.StoreOp(data, pointer, alignment=bytes_)
        else:
            active = all_true(lanes.axis.lanes)
            ir.Operation.create("llvm.intr.masked.scatter", [], [data, pointer, active], {"alignment": alignment})

    with level.point:
        if kind == "all":
            plain()
        elif kind == "scalar":
            branch = scf.IfOp(condition)
            with ir.InsertionPoint(branch.then_block):
                plain()
                scf.YieldOp([])
        else:
            name = "llvm.intr.masked.store" if stride == bytes_ else "llvm.intr.masked.scatter"
            ir.Operation.create(name, [], [data, pointer, condition], {"alignment": alignment})
