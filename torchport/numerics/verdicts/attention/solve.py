"""Numbers that wrong results tell: the scale of scores, the factor of a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from torchport.numerics.verdicts.attention.reference import Attention, Results

__all__ = ["factor_between", "scale_of"]

_MOST = 2**20
"""Scores that the scale is fitted to."""

_OCTAVES = 8
"""Scales up to 2**8 times too large or too small are looked for, two to an octave."""


def factor_between(got: torch.Tensor, right: torch.Tensor) -> float:
    """The number that ``right`` is multiplied by to be nearest to ``got``; NaN if it is 0."""
    near = torch.isfinite(got) & torch.isfinite(right)
    a, b = got[near].flatten(), right[near].flatten()
    return float(a @ b) / float(b @ b) if b.numel() and float(b @ b) else math.nan


def scale_of(right: Attention, got: Results) -> float | None:
    """The scale of scores that results fit best; None where nothing tells it.

    Forward by the logarithms of sums, backward by the gradient of values: they follow from scores directly.
    """
    name = "sums" if "sums" in got else "grad_value"
    if name not in got or not 0 < right.rows * right.keys <= _MOST or not right.scale:
        return None
    wanted = got[name]
    if not bool((torch.isfinite(wanted) | torch.isinf(wanted)).all()):
        return None

    def error(exponent: float) -> float:
        found = replace(right, scale=right.scale * 2**exponent).results()[name]
        off = torch.where(found == wanted, 0.0, found - wanted)
        return float(off.square().sum().nan_to_num(math.inf))

    best = min((n / 2 for n in range(-2 * _OCTAVES, 2 * _OCTAVES + 1)), key=error)
    return right.scale * 2 ** _least(error, best - 0.5, best + 0.5)


def _least(error: Callable[[float], float], low: float, high: float) -> float:
    """Where ``error`` is least, by golden sections."""
    golden = (math.sqrt(5) - 1) / 2
    one, two = high - golden * (high - low), low + golden * (high - low)
    of_one, of_two = error(one), error(two)
    for _ in range(40):
        if of_one < of_two:
            high, two, of_two = two, one, of_one
            one = high - golden * (high - low)
            of_one = error(one)
        else:
            low, one, of_one = one, two, of_two
            two = low + golden * (high - low)
            of_two = error(two)
    return (low + high) / 2
