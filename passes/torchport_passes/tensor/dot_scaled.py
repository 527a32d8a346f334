"""Lowers ``tt.dot_scaled`` to a dot of f32 tensors: OCP Microscaling Formats (MX) 1.0, sections 5.2 to 5.4."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import arith

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import element_type, text_attribute
from torchport_passes.ir.tensors import bitcast, constant, convert, reshape, splat_like, transposed, typed
from torchport_passes.ir.types import Op, Value

__all__ = ["lower"]

_FP8 = {"e4m3": "f8E4M3FN", "e5m2": "f8E5M2"}


def lower(op: Op, dot: Callable[[Value, Value, Value], Value]) -> Value:
    """``(a * scale_a) @ (b * scale_b) + c`` in f32.

    The operation's attribute ``operands`` names its operands (of "a", "a_scale", "b", "b_scale", "c"); ``lhs`` and
    ``rhs`` are their formats. There is a scale for each group along K: (M, K / group) for ``a``, (N, K / group) for
    ``b``. Raises UnsupportedOperation for an unknown format.
    """
    names = [ir.StringAttr(a).value for a in ir.ArrayAttr(op.attributes["operands"])]
    operand = dict(zip(names, op.operands, strict=True))
    a = _unpacked(operand["a"], _text(op, "lhs"), _flag(op, "lhs_k_pack"), k=-1)
    b = _unpacked(operand["b"], _text(op, "rhs"), _flag(op, "rhs_k_pack"), k=-2)
    if "a_scale" in operand:
        a = arith.MulFOp(a, _scales(operand["a_scale"], a.type.shape[-1])).result
    if "b_scale" in operand:
        scales = _scales(operand["b_scale"], b.type.shape[-2])
        rank = len(b.type.shape)
        b = arith.MulFOp(b, transposed(scales, [*range(rank - 2), rank - 1, rank - 2])).result
    return convert(dot(a, b, convert(operand["c"], ir.F32Type.get())), element_type(operand["c"].type))


def _text(op: Op, name: str) -> str:
    return text_attribute(op, name)


def _flag(op: Op, name: str) -> bool:
    return name not in op.attributes or bool(ir.BoolAttr(op.attributes[name]).value)


def _unpacked(value: Value, format_: str, k_pack: bool, k: int) -> Value:
    """An operand as f32. ``k``: dimension K, counted from the end; ``k_pack``: whether 4-bit floats lie along K."""
    f32 = ir.F32Type.get()
    if format_ == "e2m1":
        rank = len(value.type.shape)
        packed = rank + k if k_pack else rank + (-3 - k)  # the other one of the last two dimensions
        return _e2m1(value, packed)
    if format_ in _FP8:
        if isinstance(element_type(value.type), ir.IntegerType):
            value = bitcast(value, ir.Type.parse(_FP8[format_]))
        return convert(value, f32)
    if format_ in ("bf16", "fp16"):
        if isinstance(element_type(value.type), ir.IntegerType):
            value = bitcast(value, ir.BF16Type.get() if format_ == "bf16" else ir.F16Type.get())
        return convert(value, f32)
    raise UnsupportedOperation("tt.dot_scaled", f"format {format_!r} is not e2m1, e4m3, e5m2, bf16 or fp16")


def _e2m1(packed: Value, axis: int) -> Value:
    """Two 4-bit floats a byte, the low half first along ``axis``: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives."""
    i8, i32, f32 = ir.IntegerType.get_signless(8), ir.IntegerType.get_signless(32), ir.F32Type.get()

    def ints(value: int) -> Value:
        return splat_like(typed(packed, i8), constant(i8, value))

    halves = [arith.AndIOp(packed, ints(15)).result, arith.ShRUIOp(packed, ints(4)).result]
    shape = list(packed.type.shape)
    both = ir.Operation.create("tt.join", [ir.RankedTensorType.get([*shape, 2], i8)], halves).results[0]
    rank = len(shape)
    order = [*range(axis + 1), rank, *range(axis + 1, rank)]
    both = both if axis == rank - 1 else transposed(both, order)
    codes = reshape(both, [s * (2 if i == axis else 1) for i, s in enumerate(shape)])
    wide = arith.ExtUIOp(typed(codes, i32), codes).result

    def word(value: int) -> Value:
        return splat_like(wide.type, constant(i32, value))

    magnitude = arith.AndIOp(wide, word(7)).result
    # one mantissa bit under the exponent of a normal number; 0 and 0.5 are the two denormals
    normal = arith.AddIOp(arith.ShLIOp(magnitude, word(22)).result, word(126 << 23)).result
    half = bitcast(arith.MulIOp(magnitude, word(0x3F000000)).result, f32)
    small = arith.CmpIOp(arith.CmpIPredicate.ult, magnitude, word(2)).result
    value = arith.SelectOp(small, half, bitcast(normal, f32)).result
    sign = arith.ShLIOp(arith.ShRUIOp(wide, word(3)).result, word(31)).result
    return bitcast(arith.OrIOp(bitcast(value, i32), sign).result, f32)


def _scales(scales: Value, length: int) -> Value:
    """(rows, length / group) scales as f32, each repeated over its group: (rows, length)."""
    f32, i32 = ir.F32Type.get(), ir.IntegerType.get_signless(32)
    if isinstance(element_type(scales.type), ir.IntegerType):  # e8m0: 2 ** (x - 127), 255 is NaN
        wide = arith.ExtUIOp(typed(scales, i32), scales).result

        def word(value: int) -> Value:
            return splat_like(wide.type, constant(i32, value))

        bits = arith.ShLIOp(wide, word(23)).result
        equals = arith.CmpIPredicate.eq
        bits = arith.SelectOp(arith.CmpIOp(equals, wide, word(0)).result, word(1 << 22), bits).result  # 2 ** -127
        bits = arith.SelectOp(arith.CmpIOp(equals, wide, word(255)).result, word(0x7FC00000), bits).result
        factor = bitcast(bits, f32)
    else:
        factor = convert(scales, f32)
    shape = list(factor.type.shape)
    group = length // shape[-1]
    rank = len(shape)
    attributes = {"axis": ir.IntegerAttr.get(i32, rank)}
    apart = ir.Operation.create(
        "tt.expand_dims", [ir.RankedTensorType.get([*shape, 1], f32)], [factor], attributes
    ).results[0]
    wide_type = ir.RankedTensorType.get([*shape, group], f32)
    repeated = ir.Operation.create("tt.broadcast", [wide_type], [apart]).results[0]
    return reshape(repeated, [*shape[:-1], length])
