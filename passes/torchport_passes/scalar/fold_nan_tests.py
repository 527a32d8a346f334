"""Folds the test for NaN of a minimum or maximum with a number into its comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import constant_float, has_uses, int_attribute, matching, owner_of
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["FoldNanTests"]

_F = arith.CmpFPredicate
_NOT_ITSELF = {_F.UNE, _F.UNO}
# With a number other than 0, what is equal is the same value: the comparison may let it through. x86 has that as min
# and max (second operand for NaN), where the strict one takes a comparison and a choice.
_UNORDERED = {
    _F.OLT: (_F.ULT, _F.ULE), _F.OLE: (_F.ULE, _F.ULE), _F.OGT: (_F.UGT, _F.UGE), _F.OGE: (_F.UGE, _F.UGE),
}  # fmt: skip


@dataclass(frozen=True)
class FoldNanTests:
    """Replace ``x < c or x != x`` in ``select(..., x, c)`` by one unordered comparison, for a number ``c``.

    Takes functions of arith operations on scalars and vectors. It is how Inductor writes clamps and the activations
    made of them, which keep NaN.
    """

    name: ClassVar[str] = "fold-nan-tests"
    removes: ClassVar[frozenset[str]] = frozenset()

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "arith.select".__eq__):
                condition, x, bound = op.operands
                number = constant_float(bound)
                if number is None or math.isnan(number):
                    continue
                predicate = _ordered(condition, x, bound)
                if predicate is not None:
                    with ir.InsertionPoint(op):
                        op.operands[0] = arith.CmpFOp(_UNORDERED[predicate][number != 0.0], x, bound).result
                    _erase_unused(condition)


def _ordered(condition: Value, x: Value, bound: Value) -> arith.CmpFPredicate | None:
    """The predicate of a comparison of ``x`` with ``bound`` that stands beside a test of ``x`` for NaN, else None."""
    both = owner_of(condition)
    if both is None or both.name != "arith.ori":
        return None
    for one, other in (tuple(both.operands), tuple(both.operands)[::-1]):
        compared, test = _comparison(one), _comparison(other)
        if compared is None or test is None or _F(int_attribute(test, "predicate")) not in _NOT_ITSELF:
            continue
        predicate = _F(int_attribute(compared, "predicate"))
        if list(test.operands) == [x, x] and list(compared.operands) == [x, bound] and predicate in _UNORDERED:
            return predicate
    return None


def _comparison(value: Value) -> Op | None:
    op = owner_of(value)
    return op if op is not None and op.name == "arith.cmpf" else None


def _erase_unused(condition: Value) -> None:
    """Erase a disjunction and what it was made of, as far as nothing else uses them."""
    both = owner_of(condition)
    if both is not None and not has_uses(condition):
        parts = list(both.operands)
        both.erase()
        for part in parts:
            if not has_uses(part):
                part.owner.erase()
