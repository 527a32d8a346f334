"""What a launch should have computed: exact values, how far legal arithmetic moves them, and limits from that."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.verdicts.classes import allowed_classes
from torchport.numerics.verdicts.measure import scaled, tile_shape
from torchport.numerics.verdicts.replay import Argument, Replay, view

__all__ = ["ELEMENT", "VARIANTS", "Limits", "Reference", "reference", "references"]

VARIANTS = 16
"""Noise variants of a kernel: NUMERICS' least number of legal variants."""

DECISION_VARIANTS = 8
DECISION_SCALE = 4.0
"""Variants with more noise, for results of decisions: a margin of so many sigmas may still go the other way."""

_DECIDES = re.compile(r"arith\.cmpf|arith\.fpto[su]i|tt\.histogram|tp_(ll|float2|double2|isnan|signbit)")

ORDERS: tuple[Mapping[str, Any], ...] = (
    {"reductions": {"order": "sequential"}},
    {"reductions": {"order": "reversed"}, "dot": {"order": "reversed"}},
    {"reductions": {"order": "split:2"}},
)
"""Orders of sums that are tried, as rules of ``arithmetic``. Noise takes rounding errors for independent; where terms
are equal, or too small to count beside the sum, they are not, and these show it."""

_SUMS = {"reductions": "tt.reduce", "dot": "tt.dot"}
"""What a kernel's TTIR has where a rule changes anything."""

_ABOVE_ORDERS = 1.25
"""Limits are so much above what the orders give."""

ELEMENT = 6.0
"""Least limit of one element's z: the largest of 10**6 normal deviates is 4.9, of 10**9 it is 6.1, and rounding errors
are bounded. The largest of 3,300 legal variants' figures was 0.70 of the limit (tools/bench_precision.py)."""

_KNOWN_ELEMENT, _DECADE = 5.75, 0.75
"""The same where sigma is no estimate but follows from the terms, for up to 5,000 elements, and how much more for ten
times as many. z of sums of independent terms in order, rounded to f32, is above 3.7 in 1e-5 of all elements, above 4.4
in 1e-6 (24, 48 and 256 terms, 18e6 sums; where partial sums happen to be large, so are errors): with this limit, one
tensor in 10,000 has an element above it (a model has hundreds of operators; one of ConvNeXt's gave 5.19)."""

DEVIATIONS = 4.0
"""How many standard deviations of the variants' own figures a figure may be above their mean (99.9 % and more of them
are below 4 even where 16 variants are all that is known: Cantelli's inequality aside, the figures are near normal)."""

FEW = 6.0
"""Root of the sum of z**2 that a handful of elements may add where the variants have none: four with z of 3."""

BIAS = 0.35
"""Least limit of the mean signed z."""


@dataclass(frozen=True)
class Limits:
    """Above which a figure of ``torchport.numerics.verdicts.measure.Errors`` is no legal arithmetic's."""

    rms: float
    tile: float
    element: float
    bias: float


@dataclass(frozen=True)
class Reference:
    """What one output should be.

    ``y64``: exact values (float64), or the golden kernel's integers. ``sigma``: float64, above 0; None for integers.
    ``allowed``: legal classes (``torchport.numerics.verdicts.classes``). ``alternatives``: for integers, what variants
    give.
    ``native``: what the CPU target gives, in the output's dtype.
    """

    dtype: torch.dtype
    y64: torch.Tensor
    native: torch.Tensor
    sigma: torch.Tensor | None = None
    allowed: torch.Tensor | None = None
    alternatives: tuple[torch.Tensor, ...] = ()
    limits: Limits | None = None
    variants: int = 0


def references(
    replay: Replay,
    storages: Mapping[int, torch.Tensor],
    outputs: Sequence[Argument],
    *,
    ulp: Mapping[str, float] | None = None,
    variants: int = VARIANTS,
) -> dict[str, Reference]:
    """The reference of every argument in ``outputs``, by name.

    ``storages``: before the launch, as ``Replay.run`` takes them. ``ulp``: units that functions may err by, by name
    (2 where it says nothing). Raises what ``Replay`` raises.
    """

    def run(arithmetic: Mapping[str, Any] | None) -> dict[str, torch.Tensor]:
        after = replay.run(storages, arithmetic)
        return {argument.name: view(argument, after[_storage(argument)]).clone() for argument in outputs}

    def noisy(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return run({"promote": True, "noise": {"seed": seed, "scale": scale, "ulp": dict(ulp or {})}})

    exact, native = run({"promote": True}), run(None)
    chosen = [{name: rule for name, rule in order.items() if _SUMS[name] in replay.ttir} for order in ORDERS]
    orders = [run({"rules": rules}) for rules in chosen if rules]
    noise = [noisy(seed) for seed in range(1, variants + 1)]
    decisions: list[dict[str, torch.Tensor]] = []
    if _DECIDES.search(replay.ttir):
        decisions = [noisy(1000 + seed, DECISION_SCALE) for seed in range(DECISION_VARIANTS)]
    return {
        argument.name: reference(
            exact[argument.name],
            native[argument.name],
            [one[argument.name] for one in noise],
            [one[argument.name] for one in decisions],
            [one[argument.name] for one in orders],
        )
        for argument in outputs
    }


def _storage(argument: Argument) -> int:
    assert argument.storage is not None, argument.name
    return argument.storage


def reference(
    exact: torch.Tensor,
    native: torch.Tensor,
    noise: Sequence[torch.Tensor],
    decisions: Sequence[torch.Tensor] = (),
    orders: Sequence[torch.Tensor] = (),
    sigma: torch.Tensor | None = None,
) -> Reference:
    """The reference of one output from its exact values, the CPU target's and legal variants', all of one shape.

    ``noise`` and ``decisions``: float64 (not rounded) where the output is a float, the latter with DECISION_SCALE
    times the noise. ``orders``: results in other orders of sums, in the output's dtype. ``sigma``: the standard
    deviation that noise was drawn with, where it is known and need not be estimated.
    """
    dtype = native.dtype
    if not dtype.is_floating_point:
        return Reference(dtype, exact, native, alternatives=(native, *noise, *decisions, *orders), variants=len(noise))
    floor = _least_sigma(exact, dtype)
    squares = torch.zeros_like(floor)
    for one in noise:
        squares += _deviation(one, exact).square()
    known = None if sigma is None else torch.maximum(torch.nan_to_num(sigma, 0.0, 0.0), floor)
    sigma = torch.maximum((squares / max(1, len(noise))).sqrt(), floor) if known is None else known
    if decisions:
        moved = torch.stack([_deviation(one, exact).abs() for one in decisions]).amax(0)
        # Smooth results move by DECISION_SCALE sigmas and a bit; these went another way.
        sigma = torch.where(moved > 3 * DECISION_SCALE * sigma, moved / DECISION_SCALE, sigma)
    for one in orders:
        sigma = torch.maximum(sigma, scaled(one, exact, torch.ones_like(sigma)).z)
    rounded = [one.to(dtype) for one in (*noise, *decisions)]
    allowed = allowed_classes(exact, sigma, [native, *orders, *rounded], dtype)
    limits = _limits(exact, sigma, None if known is not None else squares, floor, noise, orders, dtype)
    return Reference(dtype, exact, native, sigma, allowed, (), limits, len(noise))


def _deviation(variant: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(variant - exact, nan=0.0, posinf=0.0, neginf=0.0)


def _least_sigma(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Half a unit of what an accumulator keeps, and half the least denormal."""
    format_ = format_of(dtype)
    unit = min(format_.unit, format_of(torch.float32).unit)
    size = torch.nan_to_num(exact.abs(), nan=0.0, posinf=0.0)
    return (size * (unit / 2)).clamp_min(format_.tiny / 2)


def _limits(
    exact: torch.Tensor,
    sigma: torch.Tensor,
    squares: torch.Tensor | None,
    floor: torch.Tensor,
    noise: Sequence[torch.Tensor],
    orders: Sequence[torch.Tensor],
    dtype: torch.dtype,
) -> Limits:
    """Each variant is judged with the sigma of the others, as a chip is; figures of all of them give the limits.

    ``squares``: the variants' squared deviations added up; None where sigma is no estimate, and so leaves none of them
    out.
    """
    if not exact.numel() or len(noise) < 2:
        return Limits(FEW, FEW, ELEMENT, BIAS)

    def apart(one: torch.Tensor) -> torch.Tensor:
        if squares is None:
            return sigma
        others = ((squares - _deviation(one, exact).square()).clamp_min(0) / (len(noise) - 1)).sqrt()
        # Decisions, orders and floors are in sigma, not in the squares.
        return torch.maximum(torch.maximum(others, floor), torch.where(sigma > 2 * others, sigma / 2, floor))

    found = [scaled(one.to(dtype), exact, apart(one)).figures for one in noise]
    figures = torch.tensor(found, dtype=torch.float64)
    mean, deviation = figures.mean(0), figures.std(0)
    high = (mean + DEVIATIONS * deviation).tolist()
    rows, columns = tile_shape(exact.shape)
    few = [FEW / n**0.5 for n in (exact.numel(), min(exact.numel(), rows * columns))]
    bias = abs(float(mean[3])) + DEVIATIONS * float(deviation[3])
    largest = 2 * float(figures[:, 2].max())
    known = _KNOWN_ELEMENT + _DECADE * max(0.0, math.log10(exact.numel() / 5000))
    element = max(ELEMENT, largest) if squares is not None else known
    limits = (high[0] + few[0], high[1] + few[1], element, max(BIAS, bias))
    ordered = [[abs(figure) * _ABOVE_ORDERS for figure in scaled(one, exact, sigma).figures] for one in orders]
    return Limits(*(max(column) for column in zip(limits, *ordered, strict=True)))
