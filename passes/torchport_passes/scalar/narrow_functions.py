"""Computes what sigmoid and GELU are made of with fewer instructions, where the result becomes bf16."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import constant_float, element_type, matching
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.scalar.mathlib.inline_f32 import ROUNDER, horner
from torchport_passes.scalar.mathlib.symbols import function_of
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["NarrowFunctions"]

_LOG2_E = math.log2(math.e)
_LEAST, _MOST = -126.0, 128.0  # powers of two that are normal numbers, and infinity
_EXP2 = ("0x1p+0", "0x1.62e42ap-1", "0x1.ebf9bcp-3", "0x1.c6b752p-5", "0x1.3cea88p-7", "0x1.5bba14p-10")
_EXP2_SHORT = ("0x1.ffffe8p-1", "0x1.62e0dcp-1", "0x1.ec06dap-3", "0x1.ca1442p-5", "0x1.3997d6p-7")
_LOG_ERFC = (
    "0x1.a0c730p+0", "0x1.d59e00p-1", "0x1.37b292p-3", "-0x1.14ba46p-5",
    "0x1.56b51ep-8", "-0x1.0cda9ap-11", "0x1.d4769ap-16", "-0x1.5379a6p-21",
)  # fmt: skip
_GONE = 9.18  # erfc is less than 2^-126 from here on


@dataclass(frozen=True)
class NarrowFunctions:
    """Replace ``1 + exp(x)``, ``1 + erf(x)``, ``1 + tanh(x)`` and ``x / number`` of f32 where the result becomes bf16.

    Takes functions of arith/math operations as ``lower-math`` does. All that a sum is used for must be products,
    quotients and signs that are rounded to bf16 at last, so that a relative error is all that matters: these are below
    2^-17 where the functions' own would be 2^-24, and 1 + erf(x) keeps that of small results (until it is 0, below
    -9.18), which the sum loses. A quotient becomes a product with the reciprocal, with an error of 2^-23.
    ``tests/unit/test_narrow_functions.py`` compares sigmoid, SiLU and GELU of every bf16 with float64.
    """

    name: ClassVar[str] = "narrow-functions"
    removes: ClassVar[frozenset[str]] = frozenset()

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "arith.divf".__eq__):
                if (factor := _factor(op)) is not None and _narrow(op.results[0]):
                    with ir.InsertionPoint(op):
                        op.results[0].replace_all_uses_with((VectorValue(op.operands[0]) * factor).value)
                    op.erase()
            for op in matching(module, "arith.addf".__eq__):
                function = _function(op)
                if function is None or not _narrow(op.results[0]):
                    continue
                emit, called = function
                with ir.InsertionPoint(op):
                    op.results[0].replace_all_uses_with(emit(VectorValue(called.operands[0])).value)
                op.erase()
                if not list(called.results[0].uses):
                    called.erase()


def _function(op: Op) -> tuple[Callable[[VectorValue], VectorValue], Op] | None:
    """How to compute the sum of 1 and a function's result, and the function's operation; None for other sums."""
    if str(element_type(op.results[0].type)) != "f32":
        return None
    for one, other in (list(op.operands), list(op.operands)[::-1]):
        called = one.owner
        if constant_float(other) != 1.0 or not isinstance(called, ir.OpView | ir.Operation):
            continue
        called = called.operation
        if called.name.startswith("math.") or called.name == "tp.extern":
            emit = _SUMS.get(function_of(called))
            return None if emit is None else (emit, called)
    return None


def _factor(op: Op) -> float | None:
    """The reciprocal of the number that f32s are divided by, if both are normal numbers, else None."""
    divisor = constant_float(op.operands[1])
    if divisor is None or str(element_type(op.results[0].type)) != "f32" or not 2.0**-125 <= abs(divisor) <= 2.0**125:
        return None
    return 1.0 / divisor


def _narrow(value: Value) -> bool:
    """Whether all that becomes of a value is bf16, by operations that keep relative errors."""
    uses = [use.owner.operation for use in value.uses]
    return bool(uses) and all(
        element_type(user.results[0].type) == ir.BF16Type.get()
        if user.name == "arith.truncf"
        else user.name in ("arith.mulf", "arith.divf", "arith.negf") and _narrow(user.results[0])
        for user in uses
    )


def _power(x: VectorValue, coefficients: tuple[str, ...]) -> VectorValue:
    """2^x for x from -126 to 128: the exponent is added to the significand's. 2^128 is infinity with 1 for 2^0.

    Anything for NaN, whose bits are added to, too.
    """
    shifted = x + ROUNDER
    r = x - (shifted - ROUNDER)
    return (horner(r, coefficients).to_bits() + (shifted.to_bits() << 23)).cast_bits(x.element)


def _one_and_exp(x: VectorValue, scale: float = 1.0) -> VectorValue:
    """1 + exp(scale * x). NaN stays NaN: comparisons are false for it, and what is added is 1 for numbers only."""
    exponent = x * (scale * _LOG2_E)
    exponent = select(exponent.gt(_MOST), _MOST, exponent)
    exponent = select(exponent.lt(_LEAST), _LEAST, exponent)
    return _power(exponent, _EXP2) + exponent.fma(0.0, 1.0)


def _one_and_tanh(x: VectorValue) -> VectorValue:
    return 2.0 / _one_and_exp(x, -2.0)


def _one_and_erf(x: VectorValue) -> VectorValue:
    """erfc(-x): of |x| it is 2^(-|x| H(|x|)) with a polynomial H, and its complement to 2 on the other side."""
    a = x.abs()
    bounded = select(a.gt(_GONE), _GONE, a)
    rest = select(a.le(_GONE), _power(-bounded * horner(bounded, _LOG_ERFC), _EXP2_SHORT), bounded * 0.0)  # or NaN
    return select(x.lt(0.0), rest, 2.0 - rest)


_SUMS: dict[str, Callable[[VectorValue], VectorValue]] = {
    "exp": _one_and_exp,
    "erf": _one_and_erf,
    "tanh": _one_and_tanh,
}
