"""Limits of error figures: above them, a figure is not that of legal arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchport.numerics.verdicts.measure import root, scaled, tile_shape

__all__ = ["ELEMENT", "Limits", "deviation", "limits_of"]

_ABOVE_ORDERS = 1.25
"""Limits are at least this many times what other orders of sums give."""

ELEMENT = 6.0
"""Least limit of one element's z: the largest of 10**6 normal deviates is 4.9, of 10**9 it is 6.1, and rounding errors
are bounded. The largest of 3,300 legal variants' figures was 0.70 of the limit (tools/bench_precision.py)."""

_KNOWN_ELEMENT, _DECADE = 5.75, 0.75
"""The same if sigma is no estimate but follows from the terms, for up to 5,000 elements, and how much more for ten
times as many. z of sums of independent terms in order, rounded to f32, is above 3.7 in 1e-5 of all elements, above 4.4
in 1e-6 (24, 48 and 256 terms, 18e6 sums; large partial sums have large errors): with this limit, one tensor in 10,000
has an element above it (a model has hundreds of operators; one of ConvNeXt's gave 5.19)."""

DEVIATIONS = 4.0
"""How many standard deviations of the variants' own figures a figure may be above their mean (99.9 % and more of them
are below 4 even if only 16 variants are known: Cantelli's inequality aside, the figures are near normal)."""

FEW = 6.0
"""Root of the sum of z**2 that a handful of elements may add where the variants have none: four with z of 3."""

BIAS = 0.35
"""Least limit of the mean signed z."""


@dataclass(frozen=True)
class Limits:
    """The largest legal figures of ``torchport.numerics.verdicts.measure.Errors``.

    rms: of ``z_rms``.
    tile: of ``z_tile``.
    element: of ``z_max``.
    bias: of the absolute ``bias``.
    """

    rms: float
    tile: float
    element: float
    bias: float


def deviation(variant: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """What a variant adds to the reference; 0 where either is not finite."""
    return torch.nan_to_num(variant - reference, nan=0.0, posinf=0.0, neginf=0.0)


def limits_of(
    reference: torch.Tensor,
    sigma: torch.Tensor,
    squares: torch.Tensor | None,
    floor: torch.Tensor,
    noise: Sequence[torch.Tensor],
    orders: Sequence[torch.Tensor],
    dtype: torch.dtype,
) -> Limits:
    """Limits from the figures of legal variants, each judged with the sigma of the others, as a chip is.

    ``squares``: the variants' squared deviations added up; None if sigma is no estimate, so that none is left out.
    ``floor``: least sigma. ``noise``, ``orders``: as ``reference_of`` takes them.
    """
    if not reference.numel() or len(noise) < 2:
        return Limits(FEW, FEW, ELEMENT, BIAS)

    def sigma_without(variant: torch.Tensor) -> torch.Tensor:
        if squares is None:
            return sigma
        others = root((squares - deviation(variant, reference).square()).clamp_min(0) / (len(noise) - 1))
        # Decisions, orders and floors are in sigma, not in the squares.
        return torch.maximum(torch.maximum(others, floor), torch.where(sigma > 2 * others, sigma / 2, floor))

    rows = [scaled(variant.to(dtype), reference, sigma_without(variant)).figures for variant in noise]
    figures = torch.tensor(rows, dtype=torch.float64)
    mean, spread = figures.mean(0), figures.std(0)
    rms, tile = (mean + DEVIATIONS * spread).tolist()[:2]
    height, width = tile_shape(reference.shape)
    limits = (
        rms + FEW / reference.numel() ** 0.5,
        tile + FEW / min(reference.numel(), height * width) ** 0.5,
        _element_limit(reference.numel(), None if squares is None else float(figures[:, 2].max())),
        max(BIAS, abs(float(mean[3])) + DEVIATIONS * float(spread[3])),
    )
    ordered = [[abs(figure) * _ABOVE_ORDERS for figure in scaled(one, reference, sigma).figures] for one in orders]
    return Limits(*(max(column) for column in zip(limits, *ordered, strict=True)))


def _element_limit(elements: int, largest: float | None) -> float:
    """``largest``: z of the variants; None if sigma is no estimate."""
    if largest is not None:
        return max(ELEMENT, 2 * largest)
    return _KNOWN_ELEMENT + _DECADE * max(0.0, math.log10(elements / 5000))
