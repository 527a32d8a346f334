"""The float64 reference of what a launch computes, how far legal arithmetic moves it, and the limits that follow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.verdicts.classes import allowed_classes, classes_of
from torchport.numerics.verdicts.limits import Limits, deviation, limits_of
from torchport.numerics.verdicts.measure import root, scaled
from torchport.numerics.verdicts.replay import Argument, Replay, view

__all__ = ["DECISION_SCALE", "VARIANTS", "Reference", "decides", "least_sigma", "reference_of", "references"]

VARIANTS = 16
"""Noise variants of a kernel: NUMERICS' least number of legal variants."""

DECISION_VARIANTS = 8
DECISION_SCALE = 4.0
"""Variants with more noise, for results of decisions: a margin of this many sigmas may still go the other way."""

_DECIDES = re.compile(r"arith\.cmpf|arith\.fpto[su]i|tt\.histogram|tp_(ll|float2|double2|isnan|signbit)")

ORDERS: tuple[Mapping[str, Any], ...] = (
    {"reductions": {"order": "sequential"}},
    {"reductions": {"order": "reversed"}, "dot": {"order": "reversed"}},
    {"reductions": {"order": "split:2"}},
)
"""Orders of sums that are tried, as rules of ``arithmetic``. Noise takes rounding errors for independent. If terms are
equal, or too small to count beside the sum, they are not independent, and these orders show it."""

_SUMS = {"reductions": "tt.reduce", "dot": "tt.dot"}
"""By rule, the operation that it changes."""


@dataclass(frozen=True)
class Reference:
    """What one output should be.

    dtype: of the output.
    values: float64; for integers, those of the kernel promoted to float64.
    native: what the CPU target gives, in the output's dtype.
    sigma: how far legal arithmetic moves each element, float64, above 0; None for integers.
    allowed: legal classes (``torchport.numerics.verdicts.classes``).
    classes: those that the values and their noise variants have in float64, where the output's type is not.
    alternatives: for integers, what variants give.
    limits: of error figures.
    variants: how many noise variants there were.
    """

    dtype: torch.dtype
    values: torch.Tensor
    native: torch.Tensor
    sigma: torch.Tensor | None = None
    allowed: torch.Tensor | None = None
    alternatives: tuple[torch.Tensor, ...] = ()
    limits: Limits | None = None
    variants: int = 0
    classes: torch.Tensor | None = None


def references(
    replay: Replay,
    storages: Mapping[int, torch.Tensor],
    outputs: Sequence[Argument],
    *,
    ulp: Mapping[str, float] | None = None,
    variants: int = VARIANTS,
) -> dict[str, Reference]:
    """The reference of every argument in ``outputs``, by name.

    ``storages``: before the launch, as ``Replay.run`` takes them. ``ulp``: units that functions may err by, by name (2
    for others). Raises what ``Replay`` raises.
    """

    def run(arithmetic: Mapping[str, Any] | None) -> dict[str, torch.Tensor]:
        after = replay.run(storages, arithmetic)
        return {argument.name: view(argument, after[_storage(argument)]).clone() for argument in outputs}

    def noisy(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return run({"promote": True, "noise": {"seed": seed, "scale": scale, "ulp": dict(ulp or {})}})

    promoted, native = run({"promote": True}), run(None)
    rules = [{name: rule for name, rule in order.items() if _SUMS[name] in replay.ttir} for order in ORDERS]
    orders = [run({"rules": rule}) for rule in rules if rule]
    noise = [noisy(seed) for seed in range(1, variants + 1)]
    decisions: list[dict[str, torch.Tensor]] = []
    if decides(replay):
        decisions = [noisy(1000 + seed, DECISION_SCALE) for seed in range(DECISION_VARIANTS)]
    return {
        name: reference_of(
            promoted[name],
            native[name],
            [variant[name] for variant in noise],
            [variant[name] for variant in decisions],
            [variant[name] for variant in orders],
        )
        for name in (argument.name for argument in outputs)
    }


def decides(replay: Replay) -> bool:
    """Whether a kernel's results may depend on decisions, by comparisons or conversions to integers."""
    return _DECIDES.search(replay.ttir) is not None


def _storage(argument: Argument) -> int:
    assert argument.storage is not None, argument.name
    return argument.storage


def reference_of(
    values: torch.Tensor,
    native: torch.Tensor,
    noise: Sequence[torch.Tensor],
    decisions: Sequence[torch.Tensor] = (),
    orders: Sequence[torch.Tensor] = (),
    sigma: torch.Tensor | None = None,
) -> Reference:
    """The reference of one output from its float64 values, the CPU target's and legal variants', all of one shape.

    ``noise``, ``decisions``: variants, float64 (not rounded) if the output is a float; the latter have DECISION_SCALE
    times the noise. ``orders``: results in other orders of sums, in the output's dtype. ``sigma``: the standard
    deviation that noise was drawn with, if it is known and need not be estimated.
    """
    dtype = native.dtype
    if not dtype.is_floating_point:
        alternatives = (native, *noise, *decisions, *orders)
        return Reference(dtype, values, native, alternatives=alternatives, variants=len(noise))
    floor = least_sigma(values, dtype)
    squares = None
    if sigma is None:
        squares = torch.zeros_like(floor)
        for variant in noise:
            squares += deviation(variant, values).square()
        sigma = root(squares / max(1, len(noise)))
        if bool(torch.isinf(sigma).any()):  # of numbers whose squares are beyond float64
            largest = torch.stack([deviation(variant, values).abs() for variant in noise]).amax(0)
            sigma = torch.where(torch.isinf(sigma), largest, sigma)
    else:
        sigma = torch.nan_to_num(sigma, 0.0, 0.0)
    sigma = torch.maximum(sigma, floor)
    if decisions:
        moved = torch.stack([deviation(variant, values).abs() for variant in decisions]).amax(0)
        # Smooth results move by DECISION_SCALE sigmas and a bit; these went another way.
        sigma = torch.where(moved > 3 * DECISION_SCALE * sigma, moved / DECISION_SCALE, sigma)
    for variant in orders:
        sigma = torch.maximum(sigma, scaled(variant, values, torch.ones_like(sigma)).z)
    rounded = [variant.to(dtype) for variant in (*noise, *decisions)]
    allowed = allowed_classes(values, sigma, [native, *orders, *rounded], dtype)
    limits = limits_of(values, sigma, squares, floor, noise, orders, dtype)
    classes = classes_of(values)
    for variant in (*noise, *decisions):
        classes |= classes_of(variant)
    return Reference(dtype, values, native, sigma, allowed, (), limits, len(noise), classes)


def least_sigma(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Half a unit of what an accumulator keeps, and half the least denormal."""
    format_ = format_of(dtype)
    unit = min(format_.unit, format_of(torch.float32).unit)
    size = torch.nan_to_num(values.abs(), nan=0.0, posinf=0.0)
    return (size * (unit / 2)).clamp_min(format_.tiny / 2)
