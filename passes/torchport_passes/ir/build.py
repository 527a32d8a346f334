"""Builds small pieces of IR at the current insertion point: constants, loads, addresses, conversions for memory."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport_passes.ir.ops import element_type, int_attribute, owner_of
from torchport_passes.ir.types import Attribute, Op, Type, Value

__all__ = [
    "all_true",
    "as_integer",
    "byte_width",
    "constant_like",
    "from_storage",
    "further",
    "gep",
    "if_else",
    "integer_type",
    "is_pointer",
    "lane_steps",
    "load_pointer",
    "masked_load",
    "masked_store",
    "offset_addresses",
    "offset_pointer",
    "plain_load",
    "splat",
    "storage_type",
    "to_storage",
    "zero_of",
]

_DYNAMIC = -(1 << 31)  # marks a dynamic index in llvm.getelementptr


def byte_width(type_: Type) -> int:
    """Bytes of one element in memory; booleans take one."""
    if isinstance(type_, (ir.IntegerType, ir.FloatType)):
        return max(1, int(type_.width) // 8)
    return 8


def storage_type(type_: Type) -> Type:
    """The type of an element in memory: booleans and 8-bit floats are bytes, pointers are integers."""
    if str(type_) == "i1" or (isinstance(type_, ir.FloatType) and type_.width == 8):
        return integer_type(8)
    return integer_type(64) if str(type_) == "!llvm.ptr" else type_


def _like(type_: Type, element: Type) -> Type:
    """``element``, or a vector of it if ``type_`` is a vector."""
    return ir.VectorType.get(list(type_.shape), element) if isinstance(type_, ir.VectorType) else element


def to_storage(value: Value) -> Value:
    """A scalar or vector in its type in memory. Vectors of pointers are integers already."""
    element = element_type(value.type)
    storage = storage_type(element)
    if storage == element:
        return value
    type_ = _like(value.type, storage)
    if str(element) == "i1":
        return arith.ExtUIOp(type_, value).result
    return llvm.PtrToIntOp(type_, value).result if is_pointer(element) else arith.BitcastOp(type_, value).result


def from_storage(value: Value, element: Type) -> Value:
    """The inverse of ``to_storage``: ``value`` with elements of type ``element``. Vectors of pointers stay integers."""
    stored = element_type(value.type)
    if stored == element or (is_pointer(element) and isinstance(value.type, ir.VectorType)):
        return value
    type_ = _like(value.type, element)
    if str(element) == "i1":
        return arith.TruncIOp(type_, value).result
    return llvm.IntToPtrOp(type_, value).result if is_pointer(element) else arith.BitcastOp(type_, value).result


def integer_type(bits: int) -> Type:
    """A signless integer type."""
    return ir.IntegerType.get_signless(bits)


def is_pointer(type_: Type) -> bool:
    """Whether a type is a pointer of the llvm dialect."""
    return str(type_) == "!llvm.ptr"


def as_integer(pointer: Value) -> Value:
    """The address in a pointer, an i64."""
    return llvm.PtrToIntOp(ir.IntegerType.get_signless(64), pointer).result


def constant_like(type_: Type, attribute: Attribute) -> Value:
    """A constant of a scalar or vector type, with the scalar ``attribute`` in every lane."""
    if isinstance(type_, ir.VectorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return arith.ConstantOp(type_, attribute).result


def zero_of(type_: Type) -> Value:
    """Zero (the null pointer) of a scalar or vector type."""
    element = element_type(type_)
    if str(element) == "!llvm.ptr":
        return ir.Operation.create("llvm.mlir.zero", [type_]).results[0]
    zero = ir.IntegerAttr.get(element, 0) if isinstance(element, ir.IntegerType) else ir.FloatAttr.get(element, 0.0)
    return constant_like(type_, zero)


def splat(scalar: Value, lanes: int) -> Value:
    """A vector with the scalar in every lane."""
    return vector.BroadcastOp(ir.VectorType.get([lanes], scalar.type), scalar).result


def lane_steps(lanes: int, stride: int) -> Value:
    """The i64 vector ``0, stride, 2 * stride, ...``."""
    type_ = ir.VectorType.get([lanes], integer_type(64))
    values = [ir.IntegerAttr.get(integer_type(64), i * stride) for i in range(lanes)]
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get(values, type_)).result


def all_true(lanes: int) -> Value:
    """A mask with every lane active."""
    type_ = ir.VectorType.get([lanes], integer_type(1))
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, ir.BoolAttr.get(True))).result


def gep(base: Value, index: Value, bytes_: int) -> Value:
    """``base + index * bytes_``; a vector of indices gives a vector of pointers."""
    pointer = ir.Type.parse("!llvm.ptr")
    if isinstance(index.type, ir.VectorType):
        pointer = ir.VectorType.get(list(index.type.shape), pointer)
    return llvm.GEPOp(pointer, base, [index], [_DYNAMIC], integer_type(8 * bytes_), 0).result


def further(pointer: Value, bytes_: int) -> Value:
    """``pointer`` so many bytes further."""
    return llvm.GEPOp(pointer.type, pointer, [], [bytes_], integer_type(8), 0).result


def plain_load(type_: Type, pointer: Value, alignment: int, volatile: bool = False) -> Value:
    """An unmasked load; ``alignment`` in bytes."""
    return llvm.LoadOp(type_, pointer, alignment=alignment, volatile_=volatile).result


def load_pointer(buffer: Value, index: Value) -> Value:
    """One of a buffer of addresses."""
    address = plain_load(integer_type(64), gep(buffer, index, 8), 8)
    return llvm.IntToPtrOp(ir.Type.parse("!llvm.ptr"), address).result


_WIDEST = 32
"""The most bytes of a masked load.

LLVM 22 splits wider ones. If it finds out only then that the mask of a part is false in all lanes (the comparison of
lane numbers with 20, in the second half of 32 lanes), its x86 backend loads that part without a mask.
"""


def masked_load(type_: Type, pointer: Value, mask: Value, other: Value) -> Value:
    """Loads neighbours in memory, in parts that the target has instructions for; ``other`` where ``mask`` is false."""
    lanes, bytes_ = int(type_.shape[0]), byte_width(type_.element_type)
    if lanes * bytes_ <= _WIDEST:
        alignment = ir.IntegerAttr.get(integer_type(32), bytes_)
        operands = [pointer, mask, other]
        return ir.Operation.create("llvm.intr.masked.load", [type_], operands, {"alignment": alignment}).results[0]
    half = lanes // 2
    part = ir.VectorType.get([half], type_.element_type)

    def load(first: int) -> Value:
        index = arith.ConstantOp(integer_type(64), first).result
        start = gep(pointer, index, bytes_)
        return masked_load(part, start, _slice(mask, first, half), _slice(other, first, half))

    return vector.ShuffleOp(load(0), load(half), list(range(lanes))).result


def masked_store(value: Value, pointer: Value, mask: Value) -> None:
    """Stores neighbours in memory where ``mask`` is true.

    LLVM 22 makes one instruction of a truncation and the store of its result, for AVX-512. If it knows that the mask is
    true in one lane only, it stores that lane as wide as it was before the truncation, beyond the element. A second use
    keeps the two apart; it leaves no instruction. A function that has one is not to be inlined, which drops it.
    """
    element = value.type.element_type
    if str(element) in ("i8", "i16", "i32", "bf16"):  # bf16 becomes i16 later
        attributes = {
            "intrin": ir.StringAttr.get("llvm.fake.use"),
            "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([1, 0]),
        }
        ir.Operation.create("llvm.call_intrinsic", [], [value], attributes)
    alignment = ir.IntegerAttr.get(integer_type(32), byte_width(element))
    ir.Operation.create("llvm.intr.masked.store", [], [value, pointer, mask], {"alignment": alignment})


def _slice(value: Value, first: int, count: int) -> Value:
    """Some lanes of a vector.

    A comparison is not sliced but made again of slices, so that LLVM sees a constant if it is false in all these lanes.
    """
    op = owner_of(value)
    if op is not None and op.name in ("arith.andi", "arith.ori"):
        connective = arith.AndIOp if op.name == "arith.andi" else arith.OrIOp
        return connective(*(_slice(operand, first, count) for operand in op.operands)).result
    if op is not None and op.name == "arith.cmpi":
        operands = [_slice(operand, first, count) for operand in op.operands]
        return arith.CmpIOp(int_attribute(op, "predicate"), *operands).result
    return vector.ShuffleOp(value, value, list(range(first, first + count))).result


def if_else(condition: Value, type_: Type, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
    """An ``scf.if`` with one result. ``then`` and ``otherwise`` emit the values of its branches."""
    branch = scf.IfOp(condition, [type_], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.YieldOp([then()])
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp([otherwise()])
    return branch.results[0]


def offset_pointer(pointer: Value, offset: Value, op: Op) -> Value:
    """The result of the scalar ``tt.addptr`` ``op``."""
    return gep(pointer, offset, int_attribute(op, "elem_bytes"))


def offset_addresses(addresses: Value, offsets: Value, op: Op) -> Value:
    """The result of the ``tt.addptr`` ``op``, with addresses as i64 vectors."""
    bytes_ = int_attribute(op, "elem_bytes")
    wide = addresses.type
    offsets = offsets if offsets.type == wide else arith.ExtSIOp(wide, offsets).result
    scale = constant_like(wide, ir.IntegerAttr.get(wide.element_type, bytes_))
    return arith.AddIOp(addresses, arith.MulIOp(offsets, scale).result).result
