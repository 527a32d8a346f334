"""Operations on payloads in the IR: functions, comparisons, conversions from and to integers, externals."""

from __future__ import annotations

import re
from collections.abc import Callable

from mlir import ir
from mlir.dialects import arith

from torchport.arithmetic.payload import field
from torchport.arithmetic.payload.constants import payload_of
from torchport.arithmetic.payload.functions import FUNCTIONS, UNORDERED
from torchport.errors import UnsupportedOperation
from torchport_passes.arithmetic.types import shaped
from torchport_passes.ir.atomics import PAYLOAD
from torchport_passes.ir.ops import element_type, text_attribute
from torchport_passes.ir.types import Op, Type, Value
from torchport_passes.scalar.mathlib.symbols import function_of_symbol

__all__ = [
    "TESTS",
    "comparison",
    "copysign",
    "extern",
    "filled",
    "from_integer",
    "from_signed",
    "function",
    "to_integer",
]


def function(name: str, *operands: Value) -> Value:
    """A function on payloads."""
    attributes = {
        "libname": ir.StringAttr.get(""), "libpath": ir.StringAttr.get(""), "pure": ir.BoolAttr.get(True),
        "symbol": ir.StringAttr.get(f"tp_{PAYLOAD}{name}_i64"),
    }  # fmt: skip
    type_ = operands[-1].type
    return ir.Operation.create("tt.extern_elementwise", [type_], list(operands), attributes).results[0]


def filled(type_: Type, number: int) -> Value:
    """An integer constant, in every lane of a tensor."""
    attribute = ir.IntegerAttr.get(element_type(type_), number)
    if isinstance(type_, ir.RankedTensorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return ir.Operation.create("arith.constant", [type_], attributes={"value": attribute}).results[0]


def from_integer(op: Op, *, signed: bool) -> Value:
    """What takes the place of a conversion from an integer."""
    value = op.operands[0]
    wide, width = _wide(value.type), element_type(value.type).width
    if width < 64:
        value = (arith.ExtSIOp if signed else arith.ExtUIOp)(wide, value).result
    return function("from_signed" if signed or width < 64 else "from_unsigned", value)


def from_signed(n: Value, type_: Type) -> Value:
    """A signed integer as a payload. ``type_``: of the payload."""
    return function("from_signed", n if n.type == type_ else arith.ExtSIOp(type_, n).result)


def to_integer(op: Op) -> Value:
    """What takes the place of a conversion to an integer."""
    return _narrowed(function("to_signed", op.operands[0]), op.results[0].type)


def _narrowed(value: Value, type_: Type) -> Value:
    return value if value.type == type_ else arith.TruncIOp(type_, value).result


def _wide(type_: Type) -> Type:
    return shaped(type_, ir.IntegerType.get_signless(64))


_PREDICATES = {"eq": arith.CmpIPredicate.eq, "gt": arith.CmpIPredicate.sgt, "ge": arith.CmpIPredicate.sge,
               "lt": arith.CmpIPredicate.slt, "le": arith.CmpIPredicate.sle, "ne": arith.CmpIPredicate.ne}  # fmt: skip
_COMPARISONS = "false oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno true".split()
"""Predicates of ``arith.cmpf`` by number."""


def comparison(op: Op) -> Value:
    """What takes the place of ``arith.cmpf``."""
    predicate = _COMPARISONS[ir.IntegerAttr(op.attributes["predicate"]).value]
    a, b = op.operands
    if predicate in ("false", "true"):
        return filled(op.results[0].type, int(predicate == "true"))
    nan = filled(a.type, field.NAN)
    either = arith.OrIOp(*(arith.CmpIOp(arith.CmpIPredicate.eq, x, nan).result for x in (a, b))).result
    if predicate == "uno":
        return either
    neither = arith.XOrIOp(either, filled(either.type, 1)).result
    if predicate == "ord":
        return neither
    holds = arith.CmpIOp(_PREDICATES[predicate[1:]], function("order", a), function("order", b)).result
    return arith.OrIOp(holds, either).result if predicate[0] == "u" else arith.AndIOp(holds, neither).result


_DIRECTED = re.compile(r"(add|sub|mul|div|sqrt|rsqrt|fma|rcp)_r[nzdu]$")
_FAST = re.compile(r"fast_(\w+?)f?$")
_TO_INTEGER = re.compile(r"(?:float|double)2u?(?:int|ll)_r([nzdu])$")
_FROM_INTEGER = re.compile(r"(u?)(?:int|ll)2(?:float|double)(?:_r[nzdu])?$")
_NAMES = {"rcp": "reciprocal", "dividef": "div", "divide": "div", "fabs": "abs", "fmax": "maxnum", "fmin": "minnum"}
_ROUNDINGS = {"n": "rint", "z": "trunc", "d": "floor", "u": "ceil"}
_MOST_HASHED = 3  # operands


def extern(op: Op, *, floats: bool) -> Value:
    """What takes the place of a library function. ``floats``: whether all operands and the result were floats.

    A function that payloads know nothing of is a hash of its name and operands.
    """
    name, type_ = function_of_symbol(text_attribute(op, "symbol")), op.results[0].type
    for pattern in (_DIRECTED, _FAST):
        if found := pattern.match(name):
            name = found[1]
    name = _NAMES.get(name, name)
    if found := _TO_INTEGER.match(name):
        return _narrowed(function("to_signed", function(_ROUNDINGS[found[1]], op.operands[0])), type_)
    if found := _FROM_INTEGER.match(name):
        return from_integer(op, signed=not found[1])
    if name in TESTS:
        return _resized(TESTS[name](op.operands[0]), type_)
    if name.startswith("double2float"):
        return op.operands[0]
    if name in ("ldexp", "scalbn"):
        x, n = op.operands
        two = filled(x.type, payload_of(2.0))
        return function("mul", x, function("pow", two, from_signed(n, x.type)))
    if not floats or len(op.operands) > _MOST_HASHED:
        raise UnsupportedOperation(op.name, f"{name} has no algebra", location=str(op.location))
    if name == "copysign":
        return copysign(*op.operands)
    known = FUNCTIONS.get(name)
    if known is not None and known.arity == len(op.operands):
        return function(name, *op.operands)
    return function(f"hash{len(op.operands)}", filled(type_, field.salt(name)), *op.operands)


def _equals(*numbers: int) -> Callable[[Value], Value]:
    def test(x: Value) -> Value:
        found = [arith.CmpIOp(arith.CmpIPredicate.eq, x, filled(x.type, number)).result for number in numbers]
        return found[0] if len(found) == 1 else arith.OrIOp(*found).result

    return test


def _is_finite(x: Value) -> Value:
    return arith.CmpIOp(arith.CmpIPredicate.ult, x, filled(x.type, field.FINITE)).result


def _is_negative(x: Value) -> Value:
    """NaN is not: its order is below all others."""
    order = function("order", x)
    low = arith.CmpIOp(arith.CmpIPredicate.slt, order, filled(x.type, 0)).result
    known = arith.CmpIOp(arith.CmpIPredicate.ne, order, filled(x.type, UNORDERED)).result
    return arith.AndIOp(low, known).result


TESTS: dict[str, Callable[[Value], Value]] = {
    "finitef": _is_finite, "isfinite": _is_finite, "isinf": _equals(field.INFINITY, field.MINUS_INFINITY),
    "isnan": _equals(field.NAN), "signbit": _is_negative,
}  # fmt: skip


def _resized(condition: Value, type_: Type) -> Value:
    return condition if condition.type == type_ else arith.ExtUIOp(type_, condition).result


def copysign(x: Value, sign: Value) -> Value:
    """The size of one number with the sign of another."""
    size = function("abs", x)
    return arith.SelectOp(_is_negative(sign), function("neg", size), size).result
