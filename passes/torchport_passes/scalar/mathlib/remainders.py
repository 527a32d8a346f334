"""fmod of f32, exactly, without f64 where the quotient is below 2^23.

The rounded quotient of |x| and |y|, cut to an integer q, is the exact one or, where rounding took it up to an integer,
one more: then x - q y is negative and above -|y| / 2. Either way it is a multiple of the smaller last place and not
larger than y, so that one fused multiply-add gives it exactly, and so is its sum with |y|, the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchport_passes.scalar.mathlib.calls import Externals, Implementation
from torchport_passes.scalar.mathlib.rare import unless_rare
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["fmod_f32"]


def fmod_f32(otherwise: Implementation) -> Implementation:
    """fmod of f32 values; vectors with large quotients, infinities, zero divisors or NaN branch to ``otherwise``."""

    def implementation(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        x, y = args
        if not externals.has_sleef:
            return otherwise(externals, args)
        divided, divisor = x.abs(), y.abs()
        quotient = (divided / divisor).trunc()
        rest = (-quotient).fma(divisor, divided)
        usual = select(rest.lt(0.0), rest + divisor, rest).copysign(x)
        rare = ~(quotient.lt(2.0**23) & rest.lt(divisor))  # an infinite divisor makes the rest NaN
        (result,) = unless_rare(rare.any(), rare, [usual], lambda: [otherwise(externals, args)])
        return result

    return implementation
