"""Says which operations round, and bounds the errors of their results."""

from __future__ import annotations

import math

from mlir import ir

from torchport.errors import OptionError
from torchport_passes.arithmetic.types import PromotedOp
from torchport_passes.ir.ops import constant_splat, element_type, owner_of, text_attribute
from torchport_passes.ir.types import Op, Type, Value
from torchport_passes.scalar.mathlib.formats import LAYOUTS, FloatLayout
from torchport_passes.scalar.mathlib.symbols import function_of as math_function
from torchport_passes.scalar.mathlib.symbols import function_of_symbol

__all__ = ["LIMITS", "parse_ulp", "rounding"]

_DEFAULT_ULP = 2.0
LIMITS = {**LAYOUTS, "f32": FloatLayout(8, 23, 127)}
"""The formats that promotion replaces."""

# Operations whose result is the exact one rounded once.
_ROUNDED = {"arith.addf": "add", "arith.subf": "sub", "arith.mulf": "mul", "arith.divf": "div"}
_ONCE = {"add", "sub", "mul", "div", "sqrt", "fma", "fdim", "rcp", "int2float", "uint2float", "ll2float", "ull2float"}
_DIRECTED = {"rz", "rd", "ru"}
# Functions whose result is always a number of their type.
_EXACT = {
    "abs", "ceil", "copysign", "floor", "fmod", "ilogb", "isfinite", "isfinited", "finitef", "isinf", "isnan", "ldexp",
    "int_as_float", "isnormal", "logb", "nearbyint", "nextafter", "remainder", "rint", "round", "saturatef", "scalbn",
    "trunc", "uint_as_float",
}  # fmt: skip


def parse_ulp(text: str) -> dict[str, float]:
    """``exp:2;sin:4`` as a table. Raises OptionError for other text."""
    table = {}
    for part in filter(None, text.split(";")):
        name, _, number = part.partition(":")
        try:
            table[name] = float(number)
        except ValueError:
            raise OptionError(f"cannot read {part!r} in the table of ULPs; write exp:2;sin:4") from None
    return table


def rounding(promoted_op: PromotedOp, ulp: dict[str, float]) -> tuple[Type, float, float] | None:
    """How an operation rounds: the float type, the error in unit roundoffs, and the magnitude below which it is exact.

    The error is 0 for an operation that can only overflow. None for an operation that does not round.
    """
    op = promoted_op.op
    if len(promoted_op.results) != 1 or promoted_op.results[0] is None:
        return None
    format_ = promoted_op.results[0]
    if op.name in ("arith.truncf", "tt.fp_to_fp"):
        source = promoted_op.operands[0]
        return (format_, 1.0, 0.0) if source is None or source.width >= format_.width else None
    if op.name in ("arith.sitofp", "arith.uitofp"):
        exact = LIMITS[str(format_)].mantissa + 1
        return None if element_type(op.operands[0].type).width <= exact else (format_, 1.0, 2.0**exact)
    if op.name.startswith("tt.precise_"):
        return format_, 1.0, 0.0
    units = _units(op, ulp)
    return None if units is None else (format_, units, 0.0)


def _units(op: Op, ulp: dict[str, float]) -> float | None:
    """The error of an operation's result in unit roundoffs; None for an operation that does not round."""
    name = _function(op)
    if not name or name in _EXACT:
        return None
    if op.name in _ROUNDED and _is_exact(op):
        return 0.0 if op.name in ("arith.mulf", "arith.divf") and not _is_by_one(op) else None
    stem, _, mode = name.rpartition("_")
    if mode in _DIRECTED:
        return 2.0
    name = stem if mode == "rn" else name
    return 2.0 * ulp.get(name, 0.5 if name in _ONCE else _DEFAULT_ULP)


def _function(op: Op) -> str:
    """The name of the function that an operation computes, empty for other operations."""
    if op.name == "tt.extern_elementwise":
        return function_of_symbol(text_attribute(op, "symbol"))
    return math_function(op) if op.name.startswith("math.") else _ROUNDED.get(op.name, "")


def _is_exact(op: Op) -> bool:
    """Whether an operand makes an operation exact: zero in a sum or difference, a power of two as factor or divisor."""
    return any(
        _exact_operand(op.name, i, number) for i, v in enumerate(op.operands) if (number := _number(v)) is not None
    )


def _is_by_one(op: Op) -> bool:
    """Whether an operand is 1 or -1."""
    return any(abs(_number(value) or 0.0) == 1.0 for value in op.operands)


def _exact_operand(name: str, position: int, number: float) -> bool:
    if name in ("arith.addf", "arith.subf"):
        return number == 0.0
    is_power = math.isfinite(number) and abs(math.frexp(number)[0]) == 0.5
    return is_power and (name == "arith.mulf" or position == 1)


def _number(value: Value) -> float | None:
    """The number that every lane of a value equals, None if that is not known."""
    op = owner_of(value)
    if op is None:
        return None
    if op.name == "tt.splat":
        return _number(op.operands[0])
    scalar = constant_splat(op)
    return float(ir.FloatAttr(scalar).value) if isinstance(scalar, ir.FloatAttr) else None
