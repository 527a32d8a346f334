"""Lowers mathematical functions to instructions, inline expansions or calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import matching, owner_of
from torchport_passes.ir.types import Module, Value
from torchport_passes.scalar.mathlib.calls import Externals
from torchport_passes.scalar.mathlib.formats import without_sign
from torchport_passes.scalar.mathlib.symbols import function_of
from torchport_passes.scalar.mathlib.table import IMPLEMENTATIONS
from torchport_passes.scalar.mathlib.trigonometric import sine_and_cosine
from torchport_passes.scalar.mathlib.vector_value import VectorValue, element_type

__all__ = ["LowerMath"]

# math operations that LLVM turns into instructions, exact for f32 and f64.
_NATIVE = {
    f"math.{name}"
    for name in (
        "absf absi ceil copysign ctlz ctpop cttz floor fma isfinite isinf isnan isnormal round roundeven sqrt trunc"
    ).split()
}


_THROUGH_F64 = frozenset({"exp"})
"""Functions of f32 whose values are the same for all 2^32 arguments if sums in f64 take the place of fused ones
(tools/ulp_exhaustive.py --through-f64)."""


@dataclass(frozen=True)
class LowerMath:
    """Lower every ``math.*``, ``tp.extern`` and ``tt.precise_*`` operation on scalars and 1-D vectors.

    Takes functions of arith/scf/vector/math/llvm operations. Leaves arith, vector, scf, the exact ``math`` operations
    that upstream's convert-math-to-llvm maps to instructions (fma, sqrt, floor, ...), and ``func.call`` to ``Sleef_*``
    and C library functions that are declared in the module. f16 and bf16 are computed in f32 and rounded once.

    ``vector_bits``: the widest vector register to use (128, 256 or 512).
    ``arch``: ``x86_64``, ``aarch64``, or ``none`` for another machine, whose fused multiply-adds of f32 may be a sum in
    f64 that is rounded to f32, in functions of which every value was found to be the same then: these have
    ``tp.through_f64``.

    Raises UnsupportedOperation for an unknown function.
    """

    name: ClassVar[str] = "lower-math"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.extern"})

    vector_bits: int = 256
    arch: str = "x86_64"

    def apply(self, module: Module) -> None:
        targets = matching(module, _is_function)
        with module.context, ir.Location.unknown():
            externals = Externals(module, self.vector_bits, self.arch)
            for ops in _together(targets):
                with ir.InsertionPoint(ops[0]), ops[0].location:
                    if len(ops) == 2:
                        _lower_pair(ops, externals)
                    else:
                        _lower(ops[0], externals, mark=self.arch == "none")


def _is_function(name: str) -> bool:
    return name.startswith("math.") or name in ("tp.extern", "tt.precise_sqrt", "arith.remf")


def _together(targets: Sequence[ir.Operation]) -> list[list[ir.Operation]]:
    """Each operation alone, but the sine and the cosine of one value in one block as a pair."""
    groups: list[list[ir.Operation]] = []
    open_: dict[tuple[str, ir.Block, Value], list[ir.Operation]] = {}
    other = {"sin": "cos", "cos": "sin"}
    for op in targets:
        function = function_of(op)
        if function in other and (first := open_.pop((other[function], op.block, op.operands[0]), None)):
            first.append(op)
            continue
        groups.append([op])
        if function in other:
            open_[function, op.block, op.operands[0]] = groups[-1]
    return groups


def _lower_pair(pair: Sequence[ir.Operation], externals: Externals) -> None:
    x = VectorValue(pair[0].operands[0])
    narrow = _narrow([x])
    both = sine_and_cosine(externals, x if narrow is None else x.extend_float(ir.F32Type.get()))
    results = dict(zip(("sin", "cos"), both, strict=True))
    for op in pair:
        result = results[function_of(op)]
        _replace(op, result if narrow is None else result.truncate_float(narrow))


def _narrow(args: Sequence[VectorValue]) -> ir.Type | None:
    """The type of floats that are computed in f32, if there is one."""
    return next((a.element for a in args if a.is_float and a.bits <= 16), None)


def _lower(op: ir.Operation, externals: Externals, mark: bool) -> None:
    function = function_of(op)
    args = [VectorValue(value) for value in op.operands]
    narrow = _narrow(args)
    if op.name in _NATIVE and narrow is None:
        return
    implementation = IMPLEMENTATIONS.get(function)
    if implementation is None:
        raise UnsupportedOperation(op.name, f"unknown function {function!r}", location=str(op.location))
    if narrow is not None and function == "abs":
        implementation = _absolute  # by its bits, as rounding does not keep the infinity of an 8-bit format
    elif narrow is not None:
        args = [a.extend_float(ir.F32Type.get()) if a.is_float else a for a in args]
    result = implementation(externals, args)
    if mark and function in _THROUGH_F64 and result.bits == 32:
        _mark(result.value, {argument.value for argument in args})
    wanted = op.results[0].type
    if narrow is not None and result.is_float and result.type != wanted:
        result = result.truncate_float(narrow)
    if result.bits == 1 and result.type != wanted:  # CUDA's predicates are 32-bit integers, ours booleans
        result = result.resize_int(element_type(wanted).width, signed=False)
    _replace(op, result)


def _replace(op: ir.Operation, result: VectorValue) -> None:
    op.results[0].replace_all_uses_with(result.value)
    op.erase()


def _mark(result: Value, arguments: set[Value]) -> None:
    """Mark the fused multiply-adds that a result is computed by."""
    waiting, seen = [result], set(arguments)
    while waiting:
        value = waiting.pop()
        op = owner_of(value)
        if value in seen or op is None:
            continue
        seen.add(value)
        waiting += op.operands
        if op.name == "math.fma":
            op.attributes["tp.through_f64"] = ir.UnitAttr.get()


def _absolute(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    return without_sign(args[0])
