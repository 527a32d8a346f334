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
    f"arith.{name}" for name in "addf subf mulf divf negf maximumf minimumf maxnumf minnumf select".split()
) | {"math.absf", "math.fma", "math.sqrt", "vector.fma", "vector.reduction"}
# Those whose code computes with the bits of numbers alone (tests/unit/test_mark_nans.py tries every bf16).
FUNCTIONS = frozenset({"erf", "exp", "exp2", "expm1", "log", "log2", "rsqrt", "tanh"})
_MOVES = frozenset({"vector.broadcast", "vector.extract", "vector.shuffle"})
_SPREADS = _ARITHMETIC | _MOVES | {f"math.{name}" for name in FUNCTIONS}
_NUMBERS = frozenset({"arith.sitofp", "arith.uitofp"})
_LOADS = frozenset({"llvm.load", "llvm.intr.masked.load"})
_STORES = frozenset({"llvm.store", "llvm.intr.masked.store"})
_LIFETIMES = frozenset({"llvm.intr.lifetime.start", "llvm.intr.lifetime.end"})
_OTHERS = frozenset({"arith.constant", "arith.extf", "llvm.alloca", "scf.for", "scf.if", "tp.extern"})
_KNOWN = _SPREADS | _NUMBERS | _LOADS | _STORES | _OTHERS


@dataclass(frozen=True)
class MarkNans:
    """Mark each ``arith.truncf`` from f32 to bf16 whose operand's NaNs are bf16 already: ``tp.short_nans``.

    Takes functions of arith/math operations as ``lower-math`` does. Rounding adds to a float's bits. A NaN with bits
    set below bf16's may so become infinity or minus zero; one without stays what it is, and ``lower-casts`` does not
    have to ask. Widened bf16, and what arithmetic makes of them and of numbers, is of the second kind, also where it
    passes through a loop or through memory of the program's own. What is loaded as f32, given as an argument or made
    of bits is not known.
    """

    name: ClassVar[str] = "mark-nans"
    removes: ClassVar[frozenset[str]] = frozenset()

    def apply(self, module: Module) -> None:
        with module.context:
            roundings = [op for op in matching(module, "arith.truncf".__eq__) if _is_rounding(op)]
            if not roundings:
                return
            short = _short(module)
            for op in roundings:
                if op.operands[0] in short:
                    op.attributes[SHORT_NANS] = ir.UnitAttr.get()


def _is_rounding(op: Op) -> bool:
    narrow, wide = element_type(op.results[0].type), element_type(op.operands[0].type)
    return bool(narrow == ir.BF16Type.get() and wide == ir.F32Type.get())


def _short(module: Module) -> set[Value]:
    """The values of a module whose f32s, where they are NaN, have a payload that bf16 has, and such memory.

    All that is known how to come about is at first. What may be otherwise, and what is made of it, is taken away until
    nothing more is.
    """
    ops = matching(module, _KNOWN.__contains__)
    short: set[Value] = set()
    for op in ops:
        short.update(op.results)
        if op.name == "scf.for":
            short.update(op.regions[0].blocks[0].arguments)
    size = -1
    while size != len(short):
        size = len(short)
        for op in ops:
            short.difference_update(_made_long(op, short))
    return short


def _made_long(op: Op, short: set[Value]) -> list[Value]:
    """What an operation makes that may have a longer payload: results, what a loop carries, or memory."""
    name = op.name
    if name == "scf.for":
        body = op.regions[0].blocks[0]
        carried = list(zip(list(op.operands)[3:], terminator_of(body).operands, strict=True))
        long = [i for i, both in enumerate(carried) if not short.issuperset(both)]
        return [op.results[i] for i in long] + [body.arguments[i + 1] for i in long]
    if name in _STORES:
        stored, to = op.operands[0], op.operands[1]
        return [] if stored in short and element_type(stored.type) == ir.F32Type.get() else [_root(to)]
    return [] if _is_short(op, short) else list(op.results)


def _is_short(op: Op, short: set[Value]) -> bool:
    name, operands = op.name, list(op.operands)
    if name in _NUMBERS:
        return True
    if name == "arith.constant":
        number = constant_float(op.results[0])
        return number is not None and not math.isnan(number)
    if name == "arith.extf":
        return bool(element_type(operands[0].type) == ir.BF16Type.get())
    if name == "llvm.alloca":
        return _is_closed(op.results[0])
    if name in _LOADS:
        return short.issuperset((_root(operands[0]), *operands[2:]))
    if name == "scf.if":
        blocks = [block for region in op.regions for block in region.blocks]
        return all(short.issuperset(terminator_of(block).operands) for block in blocks)
    if name == "tp.extern" and function_of(op) not in FUNCTIONS:
        return False
    return short.issuperset(operands[1:] if name == "arith.select" else operands)


def _root(pointer: Value) -> Value:
    while (op := owner_of(pointer)) is not None and op.name == "llvm.getelementptr":
        pointer = op.operands[0]
    return pointer


def _is_closed(pointer: Value) -> bool:
    """Whether memory is loaded and stored by operations that are seen here, and by no others."""
    for use in pointer.uses:
        user = use.owner.operation
        if user.name == "llvm.getelementptr":
            if not _is_closed(user.results[0]):
                return False
        elif user.name in _STORES:
            if user.operands[0] == pointer:
                return False
        elif user.name not in _LOADS | _LIFETIMES:
            return False
    return True
