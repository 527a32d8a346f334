"""Rewrites dots in terms of dots of f32, f64 and i32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import element_type, matching, text_attribute
from torchport_passes.ir.tensors import bitcast, constant, convert, splat_like, typed
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.tensor import dot_scaled

__all__ = ["PAIRED", "DecomposeDot", "in_precision"]

PAIRED = 4
"""Pairs of bf16 in the smallest vector."""

_EXACT_INT8_TERMS = 1 << (24 - 14)  # products of at most 2^14 each, whose sum is exact in the 24 bits of an f32


@dataclass(frozen=True)
class DecomposeDot:
    """Rewrite ``tt.dot`` and ``tt.dot_scaled`` into dots whose operands and accumulator have one type.

    Takes scalarized IR. Leaves ``tt.dot`` of f32, f64 or i32 only, with plain arithmetic in that type:

    * fp8, f16, bf16: widened to f32, which holds their products exactly; a narrower accumulator is rounded once.
    * bf16 with ``pairs``: stays, if it has an even number of terms and ``PAIRED`` columns, with an accumulator of f32.
    * int8: the sum of up to 1024 products is exact in f32, so a dot of that length becomes one of f32, whose result is
      converted to i32 and added; a longer one becomes one of i32.
    * f32 with ``input_precision`` tf32: the low 13 bits of the operands are cut off, as NVIDIA's tensor cores do.
    * tf32x3, bf16x3, bf16x6: operands split into a sum of tf32 or bf16 numbers, small products first (Ootomo and
      Yokota, "Recovering single precision accuracy from Tensor Cores", 2022; Henry, Tang and Heinecke, "Leveraging the
      bfloat16 AI datatype for higher-precision computations", 2019).
    * ``tt.dot_scaled``: operands unpacked and scaled to f32 (OCP Microscaling Formats 1.0, sections 5 and 6).

    ``pairs``: whether products of bf16 may be those of an instruction that takes denormals for zeros.

    Raises UnsupportedOperation for an operand type or precision that it does not know.
    """

    name: ClassVar[str] = "decompose-dot"
    removes: ClassVar[frozenset[str]] = frozenset({"tt.dot_scaled"})
    pairs: bool = False

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, lambda name: name in ("tt.dot", "tt.dot_scaled")):
                with ir.InsertionPoint(op):
                    result = dot_scaled.lower(op, dot) if op.name == "tt.dot_scaled" else _lower(op, self.pairs)
                if result is not None:
                    op.results[0].replace_all_uses_with(result)
                    op.erase()


def _lower(op: Op, pairs: bool) -> Value | None:
    """The value that replaces a ``tt.dot``; None if it stays."""
    a, b, c = op.operands
    source, target = str(element_type(a.type)), str(element_type(c.type))
    precision = text_attribute(op, "input_precision").lower()
    if source == target and source in ("f64", "f32") and (precision == "ieee" or source == "f64"):
        return None
    if source == "i8":
        return _integer(a, b, c)
    if source not in ("f32", "f16", "bf16") and not source.startswith("f8"):
        raise UnsupportedOperation("tt.dot", f"operands of {source} have no dot on this target")
    f32 = ir.F32Type.get()
    if pairs and source == str(element_type(b.type)) == "bf16" and _in_pairs(a, b):
        return None if target == "f32" else convert(dot(a, b, convert(c, f32)), element_type(c.type))
    a, b, total = convert(a, f32), convert(b, f32), convert(c, f32)
    total = in_precision(a, b, total, precision if source == "f32" else "ieee", dot)
    return convert(total, element_type(c.type))


def _in_pairs(a: Value, b: Value) -> bool:
    """Whether the terms of each sum are pairs, and there are as many columns as the smallest vector has pairs."""
    return bool(a.type.shape[-1] % 2 == 0 and b.type.shape[-1] >= PAIRED)


def dot(a: Value, b: Value, c: Value) -> Value:
    """``a @ b + c`` of tensors of one element type."""
    attributes = {"input_precision": ir.StringAttr.get("ieee")}
    return ir.Operation.create("tt.dot", [c.type], [a, b, c], attributes).results[0]


def _integer(a: Value, b: Value, c: Value) -> Value:
    """``a @ b + c`` of 8-bit operands, added up in 32 bits."""
    i32 = ir.IntegerType.get_signless(32)
    if a.type.shape[-1] > _EXACT_INT8_TERMS:
        return dot(arith.ExtSIOp(typed(a, i32), a).result, arith.ExtSIOp(typed(b, i32), b).result, c)
    f32 = ir.F32Type.get()
    a, b = (arith.SIToFPOp(typed(v, f32), v).result for v in (a, b))
    exact = dot(a, b, splat_like(typed(c, f32), constant(f32, 0.0)))
    return arith.AddIOp(arith.FPToSIOp(c.type, exact).result, c).result


def in_precision(a: Value, b: Value, c: Value, precision: str, dot: Callable[[Value, Value, Value], Value]) -> Value:
    """``a @ b + c`` of f32 tensors in an ``input_precision``, by ``dot``s of narrowed operands."""
    if precision == "ieee":
        return dot(a, b, c)
    if precision == "tf32":
        return dot(_tf32(a), _tf32(b), c)
    if precision == "tf32x3":
        (a1, a2), (b1, b2) = (_split(v, 2, _tf32) for v in (a, b))
        return _sum_of_products([(a2, b1), (a1, b2)], (a1, b1), c, dot)
    if precision in ("bf16x3", "bf16x6"):
        (a1, a2, a3), (b1, b2, b3) = (_split(v, 3, _bf16) for v in (a, b))
        small = [(a2, b2), (a3, b1), (a1, b3)] if precision == "bf16x6" else []
        return _sum_of_products([*small, (a2, b1), (a1, b2)], (a1, b1), c, dot)
    raise UnsupportedOperation("tt.dot", f"input_precision {precision!r} is not ieee, tf32, tf32x3, bf16x3 or bf16x6")


def _sum_of_products(
    small: list[tuple[Value, Value]], large: tuple[Value, Value], c: Value, dot: Callable[[Value, Value, Value], Value]
) -> Value:
    """The corrections added up from zero, then to ``c``, then the leading product."""
    zero = splat_like(c.type, constant(element_type(c.type), 0.0))
    total = zero
    for a, b in small:
        total = dot(a, b, total)
    # inf - inf in a split gives NaN, which must not hide an infinite leading product
    isnan = arith.CmpFOp(arith.CmpFPredicate.UNO, total, total).result
    total = arith.SelectOp(isnan, zero, total).result
    return dot(*large, arith.AddFOp(c, total).result)


def _split(x: Value, parts: int, rounded: Callable[[Value], Value]) -> list[Value]:
    """``x`` as a sum of numbers of a narrower format, largest first."""
    terms = []
    for _ in range(parts - 1):
        terms.append(rounded(x))
        x = arith.SubFOp(x, terms[-1]).result
    return [*terms, rounded(x)]


def _bf16(x: Value) -> Value:
    """``x`` rounded to bf16."""
    return arith.ExtFOp(x.type, arith.TruncFOp(typed(x, ir.BF16Type.get()), x).result).result


def _tf32(x: Value) -> Value:
    """``x`` truncated to 10 bits of mantissa; NaN stays NaN."""
    i32 = ir.IntegerType.get_signless(32)
    bits = bitcast(x, i32)
    cut = bitcast(arith.AndIOp(bits, splat_like(bits.type, constant(i32, -(1 << 13)))).result, x.type.element_type)
    isnan = arith.CmpFOp(arith.CmpFPredicate.UNO, x, x).result
    return arith.SelectOp(isnan, x, cut).result
