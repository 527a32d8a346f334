"""Finds roundings to bf16 that need no care for NaN, because every NaN that they may get is a bf16 already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import constant_float, matching, owner_of, terminator_of
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.scalar.mathlib.symbols import function_of
from torchport_passes.scalar.mathlib.vector_value import element_type

__all__ = ["SHORT_NANS", "MarkNans"]

SHORT_NANS = "tp.short_nans"
"""The attribute of a rounding to bf16 whose operand, where it is NaN, has nothing in its lower 16 bits."""

# Operations whose result is NaN by an operand that is, with that operand's payload, or by IEEE 754's default one, which
# has only the highest bit of the payload (on x86 and Arm): 754-2019, 6.2.3.
_ARITHMETIC = frozenset(
    f"arith.{name}" for name in "addf subf mulf divf negf maximumf minimumf maxnumf minnumf".split()
) | {"math.absf", "math.fma", "math.sqrt", "vector.broadcast", "vector.fma", "vector.reduction"}
# Those whose code computes with the bits of numbers alone (tests/unit/test_mark_nans.py tries every bf16).
FUNCTIONS = frozenset({"erf", "exp", "exp2", "expm1", "log", "log2", "rsqrt", "tanh"})
_DEPTH = 64  # what is deeper is taken for unknown


@dataclass(frozen=True)
class MarkNans:
    """Mark each ``arith.truncf`` from f32 to bf16 whose operand's NaNs are bf16 already: ``tp.short_nans``.

    Takes functions of arith/math operations as ``lower-math`` does. Rounding adds to a float's bits. A NaN with bits
    set below bf16's may so become infinity or minus zero; one without stays what it is, and ``lower-casts`` does not
    have to ask. Widened bf16, and what arithmetic makes of them and of numbers, is of the second kind; what is loaded
    as f32, given as an argument or made of bits is not known.
    """

    name: ClassVar[str] = "mark-nans"
    removes: ClassVar[frozenset[str]] = frozenset()

    def apply(self, module: Module) -> None:
        known: dict[Value, bool] = {}
        with module.context:
            for op in matching(module, "arith.truncf".__eq__):
                narrow = element_type(op.results[0].type) == ir.BF16Type.get()
                wide = element_type(op.operands[0].type) == ir.F32Type.get()
                if narrow and wide and _short(op.operands[0], known, _DEPTH):
                    op.attributes[SHORT_NANS] = ir.UnitAttr.get()


def _short(value: Value, known: dict[Value, bool], depth: int) -> bool:
    """Whether a float, where it is NaN, has a payload that bf16 has, too."""
    if value not in known:
        if depth == 0:
            return False
        op = owner_of(value)
        if op is None or op.name == "scf.for":
            known[value] = _short_carried(value, known, depth - 1)
        else:
            known[value] = _short_result(op, known, depth - 1)
    return known[value]


def _short_carried(value: Value, known: dict[Value, bool], depth: int) -> bool:
    """Of what a loop carries: whether it is so at first and, supposing that, after each turn."""
    owner = owner_of(value)
    loop = value.owner.owner.operation if owner is None else owner
    if loop.name != "scf.for":
        return False
    body = loop.regions[0].blocks[0]
    number = ir.BlockArgument(value).arg_number - 1 if owner is None else ir.OpResult(value).result_number
    if number < 0:
        return False
    carried = body.arguments[number + 1]
    first, next_ = loop.operands[number + 3], terminator_of(body).operands[number]
    supposed = {**known, value: True, carried: True}
    if not (_short(first, known, depth) and _short(next_, supposed, depth)):
        return False
    known.update(supposed)
    return True


def _short_result(op: Op, known: dict[Value, bool], depth: int) -> bool:
    if op.name == "arith.constant":
        number = constant_float(op.results[0])
        return number is not None and not math.isnan(number)
    if op.name == "arith.extf":
        return str(element_type(op.operands[0].type)) == "bf16"
    if op.name in ("arith.sitofp", "arith.uitofp"):
        return True
    if op.name == "arith.select":
        return all(_short(value, known, depth) for value in list(op.operands)[1:])
    if op.name in _ARITHMETIC or (
        (op.name.startswith("math.") or op.name == "tp.extern") and function_of(op) in FUNCTIONS
    ):
        return all(_short(value, known, depth) for value in op.operands)
    return False
