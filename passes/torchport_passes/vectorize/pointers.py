"""Emits the addresses and masks of a loop nest's memory operations."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm

from torchport_passes.analysis.addresses import Address, byte_stride
from torchport_passes.ir.build import gep, integer_type, lane_steps
from torchport_passes.ir.ops import Coords, shape_of
from torchport_passes.ir.types import Value
from torchport_passes.vectorize.lane_values import LaneValues, Level

__all__ = ["first_pointer", "lane_pointers", "mask_of", "varying_pointers"]


def first_pointer(lanes: LaneValues, address: Address, level: Level) -> Value:
    """The pointer of lane 0, a scalar."""
    pointer = lanes.scalar(address.base, address.base_coords)
    for value, coords, bytes_ in address.offsets:
        offset = lanes.scalar(value, coords)
        with level.point:
            pointer = gep(pointer, offset, bytes_)
    return pointer


def varying_pointers(lanes: LaneValues, address: Address, level: Level) -> Value:
    """A vector of pointers, one a lane. Offsets that are equal in all lanes are added to a scalar base."""
    uniform = shape_of(address.base) is None or lanes.strides.uniform(address.base, address.base_coords)
    varying = []
    if uniform:
        pointer = lanes.scalar(address.base, address.base_coords)
        for value, coords, bytes_ in address.offsets:
            if lanes.strides.uniform(value, coords):
                offset = lanes.scalar(value, coords)
                with level.point:
                    pointer = gep(pointer, offset, bytes_)
            else:
                varying.append((lanes.vector(value, coords), bytes_))
        if len(varying) == 1:
            with level.point:
                return gep(pointer, *varying[0])
        base = None
    else:
        base = lanes.vector(address.base, address.base_coords)
        varying = [(lanes.vector(v, c), b) for v, c, b in address.offsets]
        pointer = None
    with level.point:
        wide = ir.VectorType.get([lanes.strides.lanes], integer_type(64))
        total = base
        for offset, bytes_ in varying:
            extended = offset if offset.type == wide else arith.ExtSIOp(wide, offset).result
            scale = arith.ConstantOp(
                wide, ir.DenseElementsAttr.get_splat(wide, ir.IntegerAttr.get(integer_type(64), bytes_))
            )
            term = arith.MulIOp(extended, scale).result
            total = term if total is None else arith.AddIOp(total, term).result
        if pointer is not None:
            return gep(pointer, total, 1)
        vector_of_pointers = ir.VectorType.get([lanes.strides.lanes], ir.Type.parse("!llvm.ptr"))
        return llvm.IntToPtrOp(vector_of_pointers, total).result


def lane_pointers(lanes: LaneValues, address: Address, level: Level) -> Value:
    """A vector of pointers, one a lane; all equal for an address that does not change from lane to lane."""
    if byte_stride(lanes.strides, address) == 0 and all(lanes.strides.uniform(v, c) for v, c, _ in address.offsets):
        pointer = first_pointer(lanes, address, level)
        with level.point:
            return gep(pointer, lane_steps(lanes.strides.lanes, 0), 1)
    return varying_pointers(lanes, address, level)


def mask_of(lanes: LaneValues, value: Value | None, coords: Coords) -> tuple[str, Value | None]:
    """The lanes that a mask leaves active: ('all', None), ('none', None), ('scalar', i1) or ('vector', i1 vector)."""
    if value is None:
        return "all", None
    known = lanes.masks.known(value, coords)
    if known is not None:
        return ("all" if known else "none"), None
    resolved, resolved_coords = lanes.masks.resolve(value, coords)
    if shape_of(resolved) is None:
        return "scalar", resolved
    if lanes.strides.uniform(resolved, resolved_coords):
        return "scalar", lanes.scalar(resolved, resolved_coords)
    return "vector", lanes.vector(resolved, resolved_coords)
