"""Sums of f64 values without any error but the last rounding.

Error-free transformations: Knuth's TwoSum; Shewchuk, "Adaptive precision floating-point arithmetic" (1997), expansions.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlir import ir
from mlir.dialects import arith

from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["exact_sum", "fused_multiply_add", "two_sum"]

_INF = float("inf")


def two_sum(a: VectorValue, b: VectorValue) -> tuple[VectorValue, VectorValue]:
    """``a + b`` rounded, and the error of that: their sum is exact."""
    both = a + b
    part = both - a
    return both, (a - (both - part)) + (b - part)


def exact_sum(values: Sequence[VectorValue], plain: VectorValue) -> VectorValue:
    """The sum, rounded to odd: rounded once more, to f32 or less, it is as if the exact sum was. A zero is +0.

    ``plain``: the sum in f64, which is the result where that is Inf or NaN.
    """
    parts = [values[0]]
    for value in values[1:]:
        parts = _grown(parts, value)
    high, rest = parts[-1], parts[-1].const(0.0)
    for part in reversed(parts[:-1]):
        settled = rest.ne(0.0)  # what follows cannot change its sign
        both, error = two_sum(high, part)
        high, rest = select(settled, high, both), select(settled, rest, error)
    return _odd(high + 0.0, rest, plain)


def fused_multiply_add(total: VectorValue, product: VectorValue) -> VectorValue:
    """``total + product``, rounded once to f32; ``product`` is exact."""
    both, error = two_sum(total, product)
    return _odd(both, error, both).truncate_float(ir.F32Type.get()).extend_float(total.element)


def _grown(parts: Sequence[VectorValue], value: VectorValue) -> list[VectorValue]:
    """An expansion, the smallest part first, with ``value`` added to it."""
    grown = []
    for part in parts:
        value, error = two_sum(value, part)
        grown.append(error)
    return [*grown, value]


def _odd(both: VectorValue, error: VectorValue, plain: VectorValue) -> VectorValue:
    """``both + error``, rounded to odd; ``plain`` where that is Inf or NaN.

    Rounding to f64 first and then to f32 could differ from one rounding. So if there is an error, of the two numbers
    around the sum the odd one is taken, which the second rounding cannot take for a tie.
    """
    bits = both.to_bits()
    away = both.lt(0.0).value
    same = VectorValue(arith.cmpi(arith.CmpIPredicate.eq, error.lt(0.0).value, away))
    neighbour = select(same, bits, bits - 1) | 1  # toward the sum
    odd = select(error.ne(0.0), neighbour, bits).cast_bits(both.element)
    return select(plain.abs().lt(_INF), odd, plain)
