"""Flushes subnormal numbers to zero, as chips without them do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.arithmetic.formats import FORMATS
from torchport.arithmetic.rules import check, parse
from torchport_passes.ir.ops import element_type, matching
from torchport_passes.ir.traits import FUNCTIONS
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["EmulateDenormals"]

_ARITHMETIC = frozenset("arith.addf arith.subf arith.mulf arith.divf arith.extf arith.truncf tt.dot".split())
_BITS = frozenset({"math.absf", "math.copysign"})  # change the sign bit only


@dataclass(frozen=True)
class EmulateDenormals:
    """Replace subnormal operands and results of arithmetic, functions and dots by zeros of the same sign.

    Takes imported TTIR and leaves it. Loads, stores, comparisons, selections and negations do not change.

    ``rules``: the rule ``denormals``: ``flush`` (f32), or JSON or the short form by type, ``f32:flush;f16:flush``.
    """

    name: ClassVar[str] = "emulate-denormals"
    rules: str = "flush"

    def apply(self, module: Module) -> None:
        rule = {"f32": "flush"} if self.rules.strip('"') == "flush" else parse(self.rules)
        check({"denormals": rule})
        types = {name for name, what in rule.items() if what == "flush"}
        with module.context, ir.Location.unknown():
            for op in matching(module, _computes):
                _rewrite(op, types)


def _computes(name: str) -> bool:
    function = name.startswith("math.") or name in FUNCTIONS
    return name in _ARITHMETIC or (function and name not in _BITS)


def _rewrite(op: Op, types: set[str]) -> None:
    with ir.InsertionPoint(op):
        for i, operand in enumerate(op.operands):
            if str(element_type(operand.type)) in types:
                op.operands[i] = _flushed(operand).value
    result = op.results[0]
    if str(element_type(result.type)) in types:
        uses = [(use.owner, use.operand_number) for use in result.uses]
        with ir.InsertionPoint.after(op):
            flushed = _flushed(result).value
        for owner, number in uses:
            owner.operation.operands[number] = flushed


def _flushed(value: Value) -> VectorValue:
    x = VectorValue(value)
    zero = x.const(0.0).copysign(x)
    return select(x.abs().lt(2.0 ** FORMATS[str(x.element)].least), zero, x)
