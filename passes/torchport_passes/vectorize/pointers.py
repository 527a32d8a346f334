"""Addresses of a nest's memory operations: a base, offsets from lane to lane, and masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlir import ir
from mlir.dialects import arith, llvm

from torchport_passes.ir.build import gep, integer_type, lane_steps
from torchport_passes.ir.ops import Coords, owner_of, shape_of

if TYPE_CHECKING:
    from torchport_passes.vectorize.lane_values import Lanes, Level

__all__ = [
    "Address",
    "address_of",
    "byte_stride",
    "first_pointer",
    "lane_pointers",
    "mask_of",
    "varying_pointers",
]


@dataclass
class Address:
    """A tensor of pointers taken apart: a base and offsets in elements of so many bytes."""

    base: Any
    base_coords: Coords
    offsets: list[tuple[Any, Coords, int]] = field(default_factory=list)


def address_of(lanes: Lanes, value: Any, coords: Coords) -> Address:
    value, coords = lanes.resolve(value, coords)
    op = owner_of(value)
    if op is not None and op.name == "tt.addptr" and shape_of(value) is not None:
        address = address_of(lanes, op.operands[0], coords)
        address.offsets.append((op.operands[1], coords, int(ir.IntegerAttr(op.attributes["elem_bytes"]).value)))
        return address
    return Address(value, coords)


def byte_stride(lanes: Lanes, address: Address) -> int | None:
    """Distance in bytes between neighbouring lanes, None when it is not constant."""
    if shape_of(address.base) is not None and not lanes.axis.uniform(address.base, address.base_coords):
        return None
    total = 0
    for value, coords, bytes_ in address.offsets:
        stride = lanes.axis.of(value, coords).stride
        if stride is None:
            return None
        total += stride * bytes_
    return total


def first_pointer(lanes: Lanes, address: Address, level: Level) -> Any:
    """Scalar pointer of lane 0."""
    pointer = lanes.scalar(address.base, address.base_coords)
    for value, coords, bytes_ in address.offsets:
        offset = lanes.scalar(value, coords)
        with level.point:
            pointer = gep(pointer, offset, bytes_)
    return pointer


def varying_pointers(lanes: Lanes, address: Address, level: Level) -> Any:
    """A vector of pointers, one a lane; what is uniform is added to the scalar base."""

    uniform = shape_of(address.base) is None or lanes.axis.uniform(address.base, address.base_coords)
    varying = []
    if uniform:
        pointer = lanes.scalar(address.base, address.base_coords)
        for value, coords, bytes_ in address.offsets:
            if lanes.axis.uniform(value, coords):
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
        wide = ir.VectorType.get([lanes.axis.lanes], integer_type(64))
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
        vector_of_pointers = ir.VectorType.get([lanes.axis.lanes], ir.Type.parse("!llvm.ptr"))
        return llvm.IntToPtrOp(vector_of_pointers, total).result


def lane_pointers(lanes: Lanes, address: Address, level: Level) -> Any:
    """Pointers of all lanes; for a uniform address the same one in each (the last active lane's store stays)."""
    if byte_stride(lanes, address) == 0 and all(lanes.axis.uniform(v, c) for v, c, _ in address.offsets):
        pointer = first_pointer(lanes, address, level)
        with level.point:
            return gep(pointer, lane_steps(lanes.axis.lanes, 0), 1)
    return varying_pointers(lanes, address, level)


def mask_of(lanes: Lanes, value: Any, coords: Coords) -> tuple[str, Any]:
    """('all', None), ('none', None), ('scalar', i1) or ('vector', vector of i1)."""
    if value is None:
        return "all", None
    known = lanes.known(value, coords)
    if known is not None:
        return ("all" if known else "none"), None
    resolved, resolved_coords = lanes.resolve(value, coords)
    if shape_of(resolved) is None:
        return "scalar", resolved
    if lanes.axis.uniform(resolved, resolved_coords):
        return "scalar", lanes.scalar(resolved, resolved_coords)
    return "vector", lanes.vector(resolved, resolved_coords)
