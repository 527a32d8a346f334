"""The table of mathematical functions: how each is computed for f32, f64 and integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchport_passes.scalar.mathlib.calls import SLEEF, Externals, Implementation
from torchport_passes.scalar.mathlib.composed import COMPOSED, plain, sleef
from torchport_passes.scalar.mathlib.directed import DIRECTED
from torchport_passes.scalar.mathlib.inline_f32 import INLINE
from torchport_passes.scalar.mathlib.integers import INTEGER
from torchport_passes.scalar.mathlib.payloads import PAYLOADS
from torchport_passes.scalar.mathlib.special import SPECIAL
from torchport_passes.scalar.mathlib.trigonometric import TRIGONOMETRIC
from torchport_passes.scalar.mathlib.vector_value import VectorValue

__all__ = ["IMPLEMENTATIONS"]


def _rsqrt(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    return 1.0 / args[0].sqrt()


def _inline_f32(name: str, function: Callable[[VectorValue], VectorValue]) -> Implementation:
    otherwise = IMPLEMENTATIONS.get(name, _rsqrt)

    def implementation(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        here = args[0].bits == 32 and (externals.has_sleef or name not in _BY_LANGUAGES)
        return function(args[0]) if here else otherwise(externals, args)

    return implementation


_BY_LANGUAGES = frozenset({"expm1"})
"""Inline functions that are called on SIMT targets: their languages have code of their own, WGSL no fused
multiply-add."""


# Later tables win: pow and nextafter have forms of their own, exp and others an inline one for f32.
IMPLEMENTATIONS: dict[str, Implementation] = {name: sleef(name) for name in SLEEF}
IMPLEMENTATIONS |= {name: plain(function) for name, function in (INTEGER | DIRECTED).items()}
IMPLEMENTATIONS |= COMPOSED | SPECIAL | PAYLOADS
IMPLEMENTATIONS |= {name: _inline_f32(name, function) for name, function in INLINE.items()}
IMPLEMENTATIONS |= TRIGONOMETRIC
# CUDA's fast variants are no less exact here.
for _name in ("cosf", "exp10f", "expf", "log10f", "log2f", "logf", "powf", "sinf", "tanf", "tanhf"):
    IMPLEMENTATIONS[f"fast_{_name}"] = IMPLEMENTATIONS[_name[:-1]]
