"""function name -> how it is computed, for f32, f64 and integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torchport_passes.mathlib import inline_f32
from torchport_passes.mathlib.calls import SLEEF, Externals
from torchport_passes.mathlib.lanes import Lanes

__all__ = ["IMPLEMENTATIONS", "Implementation"]

Implementation: TypeAlias = Callable[[Externals, Sequence[Lanes]], Lanes]


def _sleef(function: str) -> Implementation:
    def call(externals: Externals, args: Sequence[Lanes]) -> Lanes:
        return externals.call(function, args)

    return call


def _rsqrt(externals: Externals, args: Sequence[Lanes]) -> Lanes:
    return 1.0 / args[0].sqrt()


IMPLEMENTATIONS: dict[str, Implementation] = {name: _sleef(name) for name in SLEEF}



def _inline_f32(function: Callable[[Lanes], Lanes], otherwise: Implementation) -> Implementation:
    def choose(externals: Externals, args: Sequence[Lanes]) -> Lanes:
        return function(args[0]) if args[0].bits == 32 else otherwise(externals, args)

    return choose


for _name in inline_f32.__all__:
    IMPLEMENTATIONS[_name] = _inline_f32(getattr(inline_f32, _name), IMPLEMENTATIONS.get(_name, _rsqrt))
