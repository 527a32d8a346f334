"""Multiplies bytes as integers of 16 bits, where their products were to be made in a wider type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import constant_float, element_type, matching, owner_of
from torchport_passes.ir.tensors import constant, splat_like, typed
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.tensor.decompose_dot import PAIRED, dot

__all__ = ["PairBytes"]

_HELD = 1 << 24
"""Integers up to this are exact in f32."""
_GREATEST = {"arith.sitofp": 128, "arith.uitofp": 255, "arith.extsi": 128, "arith.extui": 255}
"""Magnitude of a byte, by what widens it."""


@dataclass(frozen=True)
class PairBytes:
    """Turn ``tt.dot`` of widened bytes into one of i16, whose sums are i32.

    Takes what ``decompose-dot`` leaves. Two kinds become ``tt.dot`` of i16 with an accumulator of i32, whose products
    ``lower-dot`` adds up in pairs, exactly (a pair is at most 2 * 255 * 255):

    * of f32, from zero, so short that f32 holds its sums, and read by nothing but conversions to i32. An addition of
      i32 that follows becomes the accumulator.
    * of i32, of any length: it wraps as before.

    The number of terms must be even, and there must be as many columns as the smallest vector has words.
    """

    name: ClassVar[str] = "pair-bytes"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tt.dot".__eq__):
                _rewrite(op)


def _rewrite(op: Op) -> None:
    a, b, c, *_ = op.operands
    widenings = [found for value in (a, b) if (found := _widened(value)) is not None]
    terms, columns = a.type.shape[-1], b.type.shape[-1]
    if len(widenings) < 2 or {"emulate", "chained"} & set(op.attributes) or terms % 2 or columns < PAIRED:
        return
    if isinstance(element_type(c.type), ir.IntegerType):
        with ir.InsertionPoint(op):
            op.results[0].replace_all_uses_with(dot(_halves(a), _halves(b), c))
        op.erase()
        return
    product = terms
    for widening in widenings:
        product *= _GREATEST[widening.name]
    users = [use.owner.operation for use in op.results[0].uses]
    if constant_float(c) != 0.0 or product > _HELD or not users or not all(map(_is_integer, users)):
        return
    for user in users:
        _in_integers(user, a, b)
    op.erase()


def _in_integers(user: Op, a: Value, b: Value) -> None:
    """Replace ``user``, which converts ``a @ b`` to i32, and an addition that alone follows it."""
    type_ = user.results[0].type
    following = [use.owner.operation for use in user.results[0].uses]
    added = following[0] if len(following) == 1 and following[0].name == "arith.addi" else None
    others = [] if added is None else [value for value in added.operands if value != user.results[0]]
    if added is not None and len(others) == 1 and added.block == user.block:
        with ir.InsertionPoint(added):
            added.results[0].replace_all_uses_with(dot(_halves(a), _halves(b), others[0]))
        added.erase()
    else:
        with ir.InsertionPoint(user):
            zero = splat_like(type_, constant(type_.element_type, 0))
            user.results[0].replace_all_uses_with(dot(_halves(a), _halves(b), zero))
    user.erase()


def _widened(value: Value) -> Op | None:
    """The operation that widens bytes to an operand of a dot, perhaps transposed after it; None for other operands."""
    owner = owner_of(value)
    if owner is not None and owner.name == "tt.trans":
        owner = owner_of(owner.operands[0])
    if owner is None or owner.name not in _GREATEST:
        return None
    return owner if element_type(owner.operands[0].type) == ir.IntegerType.get_signless(8) else None


def _halves(value: Value) -> Value:
    """An operand that ``_widened`` found, as i16."""
    owner = owner_of(value)
    assert owner is not None
    if owner.name == "tt.trans":
        inner = _halves(owner.operands[0])
        type_ = typed(value, element_type(inner.type))
        return ir.Operation.create("tt.trans", [type_], [inner], dict(owner.attributes.items())).results[0]
    (source,) = owner.operands
    signed = owner.name in ("arith.sitofp", "arith.extsi")
    i16 = ir.IntegerType.get_signless(16)
    return (arith.ExtSIOp if signed else arith.ExtUIOp)(typed(source, i16), source).result


def _is_integer(op: Op) -> bool:
    return op.name == "arith.fptosi" and bool(element_type(op.results[0].type) == ir.IntegerType.get_signless(32))
