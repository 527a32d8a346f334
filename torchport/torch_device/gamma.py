"""The logarithmic derivative of the gamma function, and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

__all__ = ["DEFINITIONS"]


def _floats(self: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``self`` in the type of a function's result, and in the type to compute it in."""
    given = self if self.is_floating_point() else self.to(torch.get_default_dtype())
    return given, given.to(torch.float32) if given.dtype in (torch.float16, torch.bfloat16) else given


_PSI = (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12)
"""Coefficients of the asymptotic series of digamma in 1 / x**2, the last first."""


def _digamma(self: torch.Tensor) -> torch.Tensor:
    """By recurrence to ten more, and the asymptotic series there (Abramowitz, Stegun 6.3.6, 6.3.7, 6.3.18)."""
    given, wide = _floats(self)
    x = torch.where(wide < 0, 1 - wide, wide)
    small = x < 10
    below = torch.zeros_like(x)
    for k in range(10):  # not x + 1 again and again: Inductor would compute each from the start
        below = below + torch.where(small, 1 / (x + k), 0)
    x = torch.where(small, x + 10, x)
    square = 1 / (x * x)
    series = torch.zeros_like(x)
    for coefficient in _PSI:
        series = series * square + coefficient
    result = x.log() - 0.5 / x - series * square - below
    whole = wide == wide.trunc()
    mirrored = result - math.pi / torch.tan(math.pi * (wide - wide.trunc()))
    result = torch.where(wide < 0, torch.where(whole, float("nan"), mirrored), result)
    return torch.where(wide == 0, torch.copysign(torch.full_like(wide, float("inf")), -wide), result).to(given.dtype)


_EULER_MACLAURIN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)
"""B(2j) / (2j)! for j = 1 ..."""


def _zeta(s: int, q: torch.Tensor) -> torch.Tensor:
    """Hurwitz's zeta function for q > 0: ten terms, and the rest by Euler and Maclaurin."""
    result = torch.zeros_like(q)
    for k in range(10):
        result = result + (q + k) ** -s
    end, factor = q + 10, float(s)
    result = result + end ** (1 - s) / (s - 1) + end**-s / 2
    for j, coefficient in enumerate(_EULER_MACLAURIN, 1):
        result = result + coefficient * factor * end ** (1 - s - 2 * j)
        factor *= (s + 2 * j - 1) * (s + 2 * j)
    return result


def _cotangent_derivative(n: int, x: torch.Tensor) -> torch.Tensor:
    """The n-th derivative of cot(pi x), over pi**n: a polynomial in cot(pi x), from cot' = -(1 + cot**2)."""
    coefficients = [0.0, 1.0]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [-(a + b) for a, b in zip([*slope, 0.0, 0.0], [0.0, 0.0, *slope], strict=True)]
    part = x - x.round()
    near = 1 / torch.tan(math.pi * part)
    cotangent = torch.where(part.abs() < 0.25, near, torch.tan(math.pi * (torch.copysign(0.5 + 0 * part, part) - part)))
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * cotangent + coefficient
    return result


def _trigamma(self: torch.Tensor) -> torch.Tensor:
    """By recurrence and its series (Abramowitz, Stegun 6.4.6, 6.4.7, 6.4.12)."""
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


def _polygamma(n: int, self: torch.Tensor) -> torch.Tensor:
    """Digamma and its derivatives: zeta functions on the right, mirrored to the left (Abramowitz, Stegun 6.4.10)."""
    if n < 2:
        return _trigamma(self) if n else _digamma(self)
    given, wide = _floats(self)
    left = wide < 0
    sign = 1.0 if n % 2 else -1.0
    result = sign * math.factorial(n) * _zeta(n + 1, torch.where(left, 1 - wide, wide))
    mirrored = -sign * result - math.pi ** (n + 1) * _cotangent_derivative(n, wide)
    return torch.where(left, mirrored, result).to(given.dtype)


DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {torch.ops.aten.digamma.default: _digamma, torch.ops.aten.polygamma.default: _polygamma}
)
