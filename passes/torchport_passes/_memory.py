"""Loads and stores of a nest: contiguous where the analysis proves it, gathers where nothing better is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport.errors import UnsupportedOperation
from torchport_passes._axis import Coords, owner_of
from torchport_passes._ops import element_type, shape_of

if TYPE_CHECKING:
    from torchport_passes._lanes import Lanes, Level

__all__ = ["byte_width", "load_scalar", "load_vector", "offset_addresses", "offset_pointer", "read_scalar",
           "read_vector", "store", "write"]  # fmt: skip

_DYNAMIC = -(1 << 31)  # marks a dynamic index in llvm.getelementptr


def byte_width(type_: Any) -> int:
    """Bytes of one element in memory; booleans take one."""

    if isinstance(type_, (ir.IntegerType, ir.FloatType)):
        return max(1, int(type_.width) // 8)
    return 8


def _integer(bits: int) -> Any:
    return ir.IntegerType.get_signless(bits)


def _gep(base: Any, index: Any, bytes_: int) -> Any:
    """``base + index * bytes_``; a vector index gives a vector of pointers."""

    pointer = ir.Type.parse("!llvm.ptr")
    if isinstance(index.type, ir.VectorType):
        pointer = ir.VectorType.get(list(index.type.shape), pointer)
    return llvm.GEPOp(pointer, base, [index], [_DYNAMIC], _integer(8 * bytes_), 0).result


def offset_pointer(pointer: Any, offset: Any, op: Any) -> Any:
    """A scalar ``tt.addptr``."""

    return _gep(pointer, offset, int(ir.IntegerAttr(op.attributes["elem_bytes"]).value))


def offset_addresses(addresses: Any, offsets: Any, op: Any) -> Any:
    """``tt.addptr`` on addresses held as i64 vectors."""

    from torchport_passes._lanes import _constant_like

    bytes_ = int(ir.IntegerAttr(op.attributes["elem_bytes"]).value)
    wide = addresses.type
    offsets = offsets if offsets.type == wide else arith.ExtSIOp(wide, offsets).result
    scale = _constant_like(wide, ir.IntegerAttr.get(wide.element_type, bytes_))
    return arith.AddIOp(addresses, arith.MulIOp(offsets, scale).result).result


@dataclass
class _Address:
    """A tensor of pointers taken apart: a base and offsets in elements of so many bytes."""

    base: Any
    base_coords: Coords
    offsets: list[tuple[Any, Coords, int]] = field(default_factory=list)


def _address(lanes: Lanes, value: Any, coords: Coords) -> _Address:
    value, coords = lanes.resolve(value, coords)
    op = owner_of(value)
    if op is not None and op.name == "tt.addptr" and shape_of(value) is not None:
        address = _address(lanes, op.operands[0], coords)
        address.offsets.append((op.operands[1], coords, int(ir.IntegerAttr(op.attributes["elem_bytes"]).value)))
        return address
    return _Address(value, coords)


def _byte_stride(lanes: Lanes, address: _Address) -> int | None:
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


def _lane0(lanes: Lanes, address: _Address, level: Level) -> Any:
    """Scalar pointer of lane 0."""
    pointer = lanes.scalar(address.base, address.base_coords)
    for value, coords, bytes_ in address.offsets:
        offset = lanes.scalar(value, coords)
        with level.point:
            pointer = _gep(pointer, offset, bytes_)
    return pointer


def _pointers(lanes: Lanes, address: _Address, level: Level) -> Any:
    """A vector of pointers, one a lane; what is uniform is added to the scalar base."""

    uniform = shape_of(address.base) is None or lanes.axis.uniform(address.base, address.base_coords)
    varying = []
    if uniform:
        pointer = lanes.scalar(address.base, address.base_coords)
        for value, coords, bytes_ in address.offsets:
            if lanes.axis.uniform(value, coords):
                offset = lanes.scalar(value, coords)
                with level.point:
                    pointer = _gep(pointer, offset, bytes_)
            else:
                varying.append((lanes.vector(value, coords), bytes_))
        if len(varying) == 1:
            with level.point:
                return _gep(pointer, *varying[0])
        base = None
    else:
        base = lanes.vector(address.base, address.base_coords)
        varying = [(lanes.vector(v, c), b) for v, c, b in address.offsets]
        pointer = None
    with level.point:
        wide = ir.VectorType.get([lanes.axis.lanes], _integer(64))
        total = base
        for offset, bytes_ in varying:
            extended = offset if offset.type == wide else arith.ExtSIOp(wide, offset).result
            scale = arith.ConstantOp(
                wide, ir.DenseElementsAttr.get_splat(wide, ir.IntegerAttr.get(_integer(64), bytes_))
            )
            term = arith.MulIOp(extended, scale).result
            total = term if total is None else arith.AddIOp(total, term).result
        if pointer is not None:
            return _gep(pointer, total, 1)
        vector_of_pointers = ir.VectorType.get([lanes.axis.lanes], ir.Type.parse("!llvm.ptr"))
        return llvm.IntToPtrOp(vector_of_pointers, total).result


# ---- masks


def _mask(lanes: Lanes, value: Any, coords: Coords) -> tuple[str, Any]:
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


def _splat(scalar: Any, lanes: int) -> Any:
    return vector.BroadcastOp(ir.VectorType.get([lanes], scalar.type), scalar).result


def _zero(type_: Any) -> Any:
    from torchport_passes._lanes import _constant_like

    element = element_type(type_)
    if str(element) == "!llvm.ptr":
        return ir.Operation.create("llvm.mlir.zero", [type_]).results[0]
    zero = ir.IntegerAttr.get(element, 0) if isinstance(element, ir.IntegerType) else ir.FloatAttr.get(element, 0.0)
    return _constant_like(type_, zero)


def _branch(condition: Any, type_: Any, then: Any, otherwise: Any) -> Any:
    """``scf.if`` with one result; both are emitters called inside their block."""

    branch = scf.IfOp(condition, [type_], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.YieldOp([then()])
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp([otherwise()])
    return branch.results[0]


# ---- loads


def _operands(op: Any) -> tuple[Any, Any | None, Any | None]:
    operands = list(op.operands)
    return operands[0], operands[1] if len(operands) > 1 else None, operands[2] if len(operands) > 2 else None


def _plain_load(type_: Any, pointer: Any, alignment: int) -> Any:
    return llvm.LoadOp(type_, pointer, alignment=alignment).result


def load_scalar(lanes: Lanes, op: Any, coords: Coords) -> Any:
    """A load that is the same in all lanes, or lane 0 of one."""
    pointer_value, mask, other = _operands(op)
    type_ = element_type(op.results[0].type)
    kind, condition = _mask(lanes, mask, coords)
    level = lanes.levels[lanes.level_of(op.results[0], coords)]
    if kind == "vector":
        raise UnsupportedOperation("tt.load", "one lane of a load with a varying mask was asked for")
    fallback = lanes.scalar(other, coords) if other is not None and kind != "all" else None
    pointer = _lane0(lanes, _address(lanes, pointer_value, coords), level) if kind != "none" else None
    with level.point:
        bytes_ = byte_width(type_)
        if kind == "all":
            return _plain_load(type_, pointer, bytes_)
        if kind == "none":
            return fallback if fallback is not None else _zero(type_)
        return _branch(
            condition, type_, lambda: _plain_load(type_, pointer, bytes_),
            lambda: fallback if fallback is not None else _zero(type_),
        )  # fmt: skip


def load_vector(lanes: Lanes, op: Any, coords: Coords, level: Level, wanted: Any) -> Any:
    pointer_value, mask, other = _operands(op)
    kind, condition = _mask(lanes, mask, coords)
    fallback = lanes.vector(other, coords) if other is not None and kind != "all" else None
    if kind == "none":
        with level.point:
            return fallback if fallback is not None else _zero(wanted)
    type_ = wanted.element_type
    is_ptr = str(element_type(op.results[0].type)) == "!llvm.ptr"
    bytes_ = byte_width(type_)
    address = _address(lanes, pointer_value, coords)
    stride = _byte_stride(lanes, address)
    if stride == bytes_ or stride == 0:
        pointer = _lane0(lanes, address, level)
    else:
        pointer = _pointers(lanes, address, level)
    with level.point:
        if fallback is None and kind != "all":
            fallback = _zero(wanted)
        if is_ptr:
            wanted = ir.VectorType.get([lanes.axis.lanes], _integer(64))
        alignment = ir.IntegerAttr.get(_integer(32), bytes_)
        if stride == 0:
            if kind == "vector":
                some = vector.ReductionOp(_integer(1), vector.CombiningKind.OR, condition).result
                scalar = _branch(some, type_, lambda: _plain_load(type_, pointer, bytes_), lambda: _zero(type_))
                return arith.SelectOp(condition, _splat(scalar, lanes.axis.lanes), fallback).result
            if kind == "scalar":
                return _branch(
                    condition, wanted,
                    lambda: _splat(_plain_load(type_, pointer, bytes_), lanes.axis.lanes), lambda: fallback,
                )  # fmt: skip
            return _splat(_plain_load(type_, pointer, bytes_), lanes.axis.lanes)
        if stride == bytes_:
            if kind == "all":
                return _plain_load(wanted, pointer, bytes_)
            if kind == "scalar":
                return _branch(condition, wanted, lambda: _plain_load(wanted, pointer, bytes_), lambda: fallback)
            attributes = {"alignment": alignment}
            return ir.Operation.create(
                "llvm.intr.masked.load", [wanted], [pointer, condition, fallback], attributes
            ).results[0]

        def gather() -> Any:
            active = condition if kind == "vector" else _all_true(lanes.axis.lanes)
            passthrough = fallback if fallback is not None else _zero(wanted)
            return ir.Operation.create(
                "llvm.intr.masked.gather", [wanted], [pointer, active, passthrough], {"alignment": alignment}
            ).results[0]

        return _branch(condition, wanted, gather, lambda: fallback) if kind == "scalar" else gather()


def _all_true(lanes: int) -> Any:
    type_ = ir.VectorType.get([lanes], _integer(1))
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, ir.BoolAttr.get(True))).result


# ---- buffers


def _buffer_index(lanes: Lanes, shape: tuple[int, ...], coords: Coords) -> tuple[Any | None, int, int]:
    """(scalar element index of lane 0 or None for 0, stride along the vector dimension, level)."""

    total, stride, deepest, scale = None, 0, 0, 1
    terms = []
    for size, coord in zip(reversed(shape), reversed(coords), strict=True):
        if coord is not None:
            terms.append((coord, scale))
            if coord == lanes.axis.dim:
                stride += scale
        scale *= size
    for coord, _ in terms:
        deepest = max(deepest, lanes.loops.index(coord) + 1)
    with lanes.levels[deepest].point:
        for coord, factor in terms:
            index = lanes.levels[lanes.loops.index(coord) + 1].index
            term = index if factor == 1 else arith.MulIOp(index, arith.ConstantOp(index.type, factor).result).result
            total = term if total is None else arith.AddIOp(total, term).result
    return total, stride, deepest


def _storage(type_: Any) -> Any:
    """The type an element has in a buffer: booleans take a byte, pointers are integers."""
    if str(type_) == "i1":
        return _integer(8)
    return _integer(64) if str(type_) == "!llvm.ptr" else type_


def read_scalar(lanes: Lanes, op: Any, coords: Coords) -> Any:
    type_ = element_type(op.results[0].type)
    index, _, _ = _buffer_index(lanes, shape_of(op.results[0]) or (), coords)
    storage = _storage(type_)
    pointer = op.operands[0] if index is None else _gep(op.operands[0], index, byte_width(storage))
    value = _plain_load(storage, pointer, byte_width(storage))
    if storage == type_:
        return value
    return arith.TruncIOp(type_, value).result if str(type_) == "i1" else llvm.IntToPtrOp(type_, value).result


def read_vector(lanes: Lanes, op: Any, coords: Coords, level: Level, wanted: Any) -> Any:
    element = element_type(op.results[0].type)
    storage = _storage(element)
    bytes_ = byte_width(storage)
    index, stride, _ = _buffer_index(lanes, shape_of(op.results[0]) or (), coords)
    stored = ir.VectorType.get([lanes.axis.lanes], storage)
    with level.point:
        pointer = op.operands[0] if index is None else _gep(op.operands[0], index, bytes_)
        if stride == 1:
            value = _plain_load(stored, pointer, bytes_)
        else:
            pointers = _gep(pointer, _steps(lanes.axis.lanes, stride), bytes_)
            alignment = ir.IntegerAttr.get(_integer(32), bytes_)
            value = ir.Operation.create(
                "llvm.intr.masked.gather", [stored], [pointers, _all_true(lanes.axis.lanes), _zero(stored)],
                {"alignment": alignment},
            ).results[0]  # fmt: skip
        return arith.TruncIOp(wanted, value).result if str(element) == "i1" else value


def _steps(lanes: int, stride: int) -> Any:
    type_ = ir.VectorType.get([lanes], _integer(64))
    values = [ir.IntegerAttr.get(_integer(64), i * stride) for i in range(lanes)]
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get(values, type_)).result


def write(lanes: Lanes, op: Any, coords: Coords, level: Level) -> None:
    """``tp.write``: a value into its buffer, at the nest's current indices."""

    value, buffer = op.operands
    shape = shape_of(value) or ()
    vectorised = lanes.axis.dim in coords
    data = lanes.vector(value, coords) if vectorised else lanes.scalar(value, coords)
    element = element_type(value.type)
    storage = _storage(element)
    bytes_ = byte_width(storage)
    index, stride, _ = _buffer_index(lanes, shape, coords)
    with level.point:
        if str(element) == "i1":
            data = arith.ExtUIOp(ir.VectorType.get([lanes.axis.lanes], storage) if vectorised else storage, data).result
        elif not vectorised and storage != element:
            data = llvm.PtrToIntOp(storage, data).result
        pointer = buffer if index is None else _gep(buffer, index, bytes_)
        if not vectorised or stride == 1:
            llvm.StoreOp(data, pointer, alignment=bytes_)
        else:
            pointers = _gep(pointer, _steps(lanes.axis.lanes, stride), bytes_)
            attributes = {"alignment": ir.IntegerAttr.get(_integer(32), bytes_)}
            ir.Operation.create(
                "llvm.intr.masked.scatter", [], [data, pointers, _all_true(lanes.axis.lanes)], attributes
            )


# ---- stores


def store(lanes: Lanes, op: Any, coords: Coords, level: Level) -> None:
    """``tt.store`` at the nest's current indices."""

    operands = list(op.operands)
    pointer_value, value = operands[0], operands[1]
    kind, condition = _mask(lanes, operands[2] if len(operands) > 2 else None, coords)
    if kind == "none":
        return
    type_ = element_type(value.type)
    bytes_ = byte_width(type_)
    address = _address(lanes, pointer_value, coords)
    vectorised = lanes.axis.dim in coords
    stride = _byte_stride(lanes, address) if vectorised else bytes_
    data = lanes.vector(value, coords) if vectorised else lanes.scalar(value, coords)
    pointer = _lane0(lanes, address, level) if stride == bytes_ else _pointers_or_splat(lanes, address, level)
    alignment = ir.IntegerAttr.get(_integer(32), bytes_)

    def plain() -> None:
        if str(type_) == "i1":
            raise UnsupportedOperation("tt.store", "booleans are stored as i8")
        if stride == bytes_:
            llvm.StoreOp(data, pointer, alignment=bytes_)
        else:
            active = _all_true(lanes.axis.lanes)
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


def _pointers_or_splat(lanes: Lanes, address: _Address, level: Level) -> Any:
    """Pointers of all lanes; for a uniform address the same one in each (the last active lane's store stays)."""
    if _byte_stride(lanes, address) == 0 and all(lanes.axis.uniform(v, c) for v, c, _ in address.offsets):
        pointer = _lane0(lanes, address, level)
        with level.point:
            return _gep(pointer, _steps(lanes.axis.lanes, 0), 1)
    return _pointers(lanes, address, level)
