"""Small pieces of IR, made at the current insertion point."""

from __future__ import annotations

from typing import Any

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport_passes.ir.ops import element_type, int_attribute, owner_of

__all__ = [
    "all_true",
    "as_integer",
    "byte_width",
    "constant_like",
    "from_storage",
    "gep",
    "if_else",
    "integer_type",
    "is_pointer",
    "lane_steps",
    "masked_load",
    "offset_addresses",
    "offset_pointer",
    "plain_load",
    "splat",
    "storage_type",
    "to_storage",
    "zero_of",
]

_DYNAMIC = -(1 << 31)  # marks a dynamic index in llvm.getelementptr


def byte_width(type_: Any) -> int:
    """Bytes of one element in memory; booleans take one."""

    if isinstance(type_, (ir.IntegerType, ir.FloatType)):
        return max(1, int(type_.width) // 8)
    return 8


def storage_type(type_: Any) -> Any:
    """The type an element has in memory: booleans and 8-bit floats are bytes, pointers integers."""
    if str(type_) == "i1" or (isinstance(type_, ir.FloatType) and type_.width == 8):
        return integer_type(8)
    return integer_type(64) if str(type_) == "!llvm.ptr" else type_


def _like(type_: Any, element: Any) -> Any:
    """``element``, or a vector of it as long as ``type_``."""
    return ir.VectorType.get(list(type_.shape), element) if isinstance(type_, ir.VectorType) else element


def to_storage(value: Any) -> Any:
    """A scalar or vector as memory holds it (vectors of pointers are integers already)."""
    element = element_type(value.type)
    storage = storage_type(element)
    if storage == element:
        return value
    type_ = _like(value.type, storage)
    if str(element) == "i1":
        return arith.ExtUIOp(type_, value).result
    return llvm.PtrToIntOp(type_, value).result if is_pointer(element) else arith.BitcastOp(type_, value).result


def from_storage(value: Any, element: Any) -> Any:
    """What ``to_storage`` was given; a vector of pointers stays one of integers."""
    stored = element_type(value.type)
    if stored == element or (is_pointer(element) and isinstance(value.type, ir.VectorType)):
        return value
    type_ = _like(value.type, element)
    if str(element) == "i1":
        return arith.TruncIOp(type_, value).result
    return llvm.IntToPtrOp(type_, value).result if is_pointer(element) else arith.BitcastOp(type_, value).result


def integer_type(bits: int) -> Any:
    """A signless integer type."""
    return ir.IntegerType.get_signless(bits)


def is_pointer(type_: Any) -> bool:
    """Whether a type is a pointer of the llvm dialect."""
    return str(type_) == "!llvm.ptr"


def as_integer(pointer: Any) -> Any:
    """The address a pointer holds, an i64."""
    return llvm.PtrToIntOp(ir.IntegerType.get_signless(64), pointer).result


def constant_like(type_: Any, attribute: Any) -> Any:
    """A constant of a scalar or vector type; ``attribute`` is the scalar in every lane."""
    if isinstance(type_, ir.VectorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return arith.ConstantOp(type_, attribute).result


def zero_of(type_: Any) -> Any:
    """Zero (the null pointer) of a scalar or vector type."""
    element = element_type(type_)
    if str(element) == "!llvm.ptr":
        return ir.Operation.create("llvm.mlir.zero", [type_]).results[0]
    zero = ir.IntegerAttr.get(element, 0) if isinstance(element, ir.IntegerType) else ir.FloatAttr.get(element, 0.0)
    return constant_like(type_, zero)


def splat(scalar: Any, lanes: int) -> Any:
    """A vector with the scalar in every lane."""
    return vector.BroadcastOp(ir.VectorType.get([lanes], scalar.type), scalar).result


def lane_steps(lanes: int, stride: int) -> Any:
    """The i64 vector ``0, stride, 2 * stride, ...``."""
    type_ = ir.VectorType.get([lanes], integer_type(64))
    values = [ir.IntegerAttr.get(integer_type(64), i * stride) for i in range(lanes)]
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get(values, type_)).result


def all_true(lanes: int) -> Any:
    """A mask with every lane active."""
    type_ = ir.VectorType.get([lanes], integer_type(1))
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, ir.BoolAttr.get(True))).result


def gep(base: Any, index: Any, bytes_: int) -> Any:
    """``base + index * bytes_``; a vector index gives a vector of pointers."""

    pointer = ir.Type.parse("!llvm.ptr")
    if isinstance(index.type, ir.VectorType):
        pointer = ir.VectorType.get(list(index.type.shape), pointer)
    return llvm.GEPOp(pointer, base, [index], [_DYNAMIC], integer_type(8 * bytes_), 0).result


def plain_load(type_: Any, pointer: Any, alignment: int, volatile: bool = False) -> Any:
    """An unmasked load; ``alignment`` in bytes."""
    return llvm.LoadOp(type_, pointer, alignment=alignment, volatile_=volatile).result


_WIDEST = 32
"""Bytes of a masked load, at most. LLVM 22 splits wider ones, and where the mask of a part turns out to be false in all
lanes only then (as of lanes below 20 of 32 that a condition holds for), its x86 backend loads that part without a mask:
what is beyond is read, and kept."""


def masked_load(type_: Any, pointer: Any, mask: Any, other: Any) -> Any:
    """Neighbours in memory, in parts that the target has instructions for; ``other`` where ``mask`` is false."""
    lanes, bytes_ = int(type_.shape[0]), byte_width(type_.element_type)
    if lanes * bytes_ <= _WIDEST:
        alignment = ir.IntegerAttr.get(integer_type(32), bytes_)
        operands = [pointer, mask, other]
        return ir.Operation.create("llvm.intr.masked.load", [type_], operands, {"alignment": alignment}).results[0]
    half = lanes // 2
    part = ir.VectorType.get([half], type_.element_type)

    def loaded(first: int) -> Any:
        index = arith.ConstantOp(integer_type(64), first).result
        its = (_lanes_of(one, first, half) for one in (mask, other))
        return masked_load(part, gep(pointer, index, bytes_), *its)

    return vector.ShuffleOp(loaded(0), loaded(half), list(range(lanes))).result


def _lanes_of(value: Any, first: int, count: int) -> Any:
    """Some of a vector's lanes. Of comparisons, and of what is made of them, the operands' are compared: so that a mask
    which is false in all of them is a constant for LLVM's simplifications."""
    op = owner_of(value)
    if op is not None and op.name in ("arith.andi", "arith.ori"):
        kind = arith.AndIOp if op.name == "arith.andi" else arith.OrIOp
        return kind(*(_lanes_of(one, first, count) for one in op.operands)).result
    if op is not None and op.name == "arith.cmpi":
        its = [_lanes_of(one, first, count) for one in op.operands]
        return arith.CmpIOp(int_attribute(op, "predicate"), *its).result
    return vector.ShuffleOp(value, value, list(range(first, first + count))).result


def if_else(condition: Any, type_: Any, then: Any, otherwise: Any) -> Any:
    """``scf.if`` with one result; both are emitters called inside their block."""

    branch = scf.IfOp(condition, [type_], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.YieldOp([then()])
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp([otherwise()])
    return branch.results[0]


def offset_pointer(pointer: Any, offset: Any, op: Any) -> Any:
    """A scalar ``tt.addptr``."""

    return gep(pointer, offset, int_attribute(op, "elem_bytes"))


def offset_addresses(addresses: Any, offsets: Any, op: Any) -> Any:
    """``tt.addptr`` on addresses held as i64 vectors."""

    bytes_ = int_attribute(op, "elem_bytes")
    wide = addresses.type
    offsets = offsets if offsets.type == wide else arith.ExtSIOp(wide, offsets).result
    scale = constant_like(wide, ir.IntegerAttr.get(wide.element_type, bytes_))
    return arith.AddIOp(addresses, arith.MulIOp(offsets, scale).result).result
