"""Operators that Inductor has no lowering for, by others that it has one for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from torchport.torch_device import random
from torchport.torch_device.arguments import facts_of

__all__ = ["definition_of"]

_aten = torch.ops.aten


_PLAIN_WRITES = frozenset({_aten.copy_.default})
"""Writes whose result has the type of what they read."""


def _put(
    self: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False, unsafe: bool = False
) -> torch.Tensor:
    _aten.index_put_(self, indices, values, accumulate)
    return self


def _weight_norm_backward(
    grad_w: torch.Tensor, saved_v: torch.Tensor, saved_g: torch.Tensor, saved_norms: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``w = g * v / |v|``, with norms over all dimensions but ``dim``."""
    others = [d for d in range(saved_v.dim()) if d != dim % saved_v.dim()]
    along = (grad_w * saved_v).sum(others, keepdim=True)
    return saved_g / saved_norms * (grad_w - saved_v * (along / (saved_norms * saved_norms))), along / saved_norms


def _floats(self: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``self`` in the type of a function's result, and in the type to compute it in."""
    given = self if self.is_floating_point() else self.to(torch.get_default_dtype())
    return given, given.to(torch.float32) if given.dtype in (torch.float16, torch.bfloat16) else given


_PSI = (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12)
"""Coefficients of the asymptotic series of digamma in 1 / x**2, the last first."""


def _digamma(self: torch.Tensor) -> torch.Tensor:
    """By recurrence to 10 and above, and the asymptotic series there (Abramowitz, Stegun 6.3.6, 6.3.7, 6.3.18)."""
    given, wide = _floats(self)
    x = torch.where(wide < 0, 1 - wide, wide)
    below = torch.zeros_like(x)
    for _ in range(10):
        small = x < 10
        below = below + torch.where(small, 1 / x, 0)
        x = torch.where(small, x + 1, x)
    square = 1 / (x * x)
    series = torch.zeros_like(x)
    for coefficient in _PSI:
        series = series * square + coefficient
    result = x.log() - 0.5 / x - series * square - below
    whole = wide == wide.trunc()
    mirrored = result - math.pi / torch.tan(math.pi * (wide - wide.trunc()))
    result = torch.where(wide < 0, torch.where(whole, float("nan"), mirrored), result)
    return torch.where(wide == 0, torch.copysign(torch.full_like(wide, float("inf")), -wide), result).to(given.dtype)


def _polygamma(n: int, self: torch.Tensor) -> torch.Tensor:
    """Digamma, and trigamma by recurrence and its series (Abramowitz, Stegun 6.4.6, 6.4.7, 6.4.12)."""
    if n == 0:
        return _digamma(self)
    if n != 1:
        raise NotImplementedError(f"polygamma of order {n}")
    given, wide = _floats(self)
    left = wide < 0.5
    x = torch.where(left, 1 - wide, wide)
    result = torch.zeros_like(x)
    for _ in range(6):
        result = result + 1 / (x * x)
        x = x + 1
    square = 1 / (x * x)
    result = result + (1 + 1 / (2 * x) + square * (1 / 6 - square * (1 / 30 - square / 42))) / x
    sine = torch.sin(math.pi * wide)
    return torch.where(left, math.pi * math.pi / (sine * sine) - result, result).to(given.dtype)


_DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        **random.DEFINITIONS,
        _aten._index_put_impl_.default: _put,
        _aten.digamma.default: _digamma,
        _aten.polygamma.default: _polygamma,
        _aten._weight_norm_interface_backward.default: _weight_norm_backward,
    }
)
"""Operator -> what is traced in its place."""


def definition_of(operator: Any) -> Callable[..., Any]:
    """What is traced in an operator's place: itself, if there is nothing better.

    One that writes into ``self`` is the operator that does not, and a copy: functionalization knows no symbolic sizes
    for some of them (``clamp_``, ``tril_``).
    """
    facts, definition = facts_of(operator), _DEFINITIONS.get(operator)
    if facts.functional is None or facts.outs or facts.written != (0,) or operator in _PLAIN_WRITES or definition:
        found: Callable[..., Any] = definition or operator
        return found
    computed: Callable[..., Any] = _DEFINITIONS.get(facts.functional, facts.functional)

    def written(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = computed(self, *args, **kwargs)
        if not torch.can_cast(result.dtype, self.dtype):
            raise TypeError(f"a result of {result.dtype} cannot be written into {self.dtype}")
        return self.copy_(result)

    return written
