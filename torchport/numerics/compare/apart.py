"""How far apart two results of one computation may be, in units of what legal arithmetic moves both by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchport.arithmetic.formats import format_of
from torchport.arithmetic.spacing import spacing
from torchport.numerics.runs.reader import Arg
from torchport.numerics.verdicts.classes import classes_of
from torchport.numerics.verdicts.measure import relative_l2, tiles_of
from torchport.numerics.verdicts.references import Reference

__all__ = ["Apart", "apart", "apart_opaque"]

_ROUNDINGS, _SIGMAS = 4.0, 12.0
"""Of two opaque results: each may have rounded twice to the type, and be off by 6 sigma of a sum in f32."""


@dataclass(frozen=True)
class Apart:
    """Two results that are too far apart: in words, and the largest figure in units of its limit."""

    text: str
    score: float


def apart(a: torch.Tensor, b: torch.Tensor, of_a: Reference, of_b: Reference, slack: float) -> Apart | None:
    """Whether results of one shape are further apart than their references allow, whose limits are times ``slack``.

    z is the distance beyond both final roundings over the sum of both sigmas. If neither is beyond its limits, and both
    have one float64 value, no figure of z is above the larger limit.
    """
    if not a.dtype.is_floating_point:
        return _integers_apart(a, b, of_a, of_b)
    assert of_a.sigma is not None and of_b.sigma is not None and of_a.limits is not None and of_b.limits is not None
    assert of_a.allowed is not None and of_b.allowed is not None
    allowed = of_a.allowed.reshape(a.shape) & classes_of(b) | of_b.allowed.reshape(a.shape) & classes_of(a)
    if count := int(torch.count_nonzero((classes_of(a) != classes_of(b)) & (allowed == 0))):
        return Apart(f"NaN or infinite in {count} of {a.numel()} elements where the other is not", math.inf)
    z, sign = _distance(a, b, (of_a.sigma + of_b.sigma).reshape(a.shape))
    if not z.numel():
        return None
    figures = (
        (float(z.max()), max(of_a.limits.element, of_b.limits.element), "an element"),
        (float(z.square().mean().sqrt()), max(of_a.limits.rms, of_b.limits.rms), "the tensor"),
        (float(tiles_of(z).max()), max(of_a.limits.tile, of_b.limits.tile), "a tile"),
        (abs(float((sign * z).mean())), max(of_a.limits.bias, of_b.limits.bias), "the mean"),
    )
    score, value, limit, what = max(
        (value / limit / slack, value, limit * slack, what) for value, limit, what in figures
    )
    if score <= 1:
        return None
    return Apart(f"further from it than both may err: {what} by {value:.3g} of both sigmas (limit {limit:.3g})", score)


def apart_opaque(a: torch.Tensor, b: torch.Tensor, read: Sequence[Arg], launches: int = 1) -> Apart | None:
    """The same for results of which no sigma is known, as of operators of other libraries.

    Nothing is known of their terms. So they are taken for sums of n terms that are as large as the largest result, n
    the longest dimension of what was read, which rounded intermediate values to their type: results are apart by
    4 u max|y| + 12 u32 sqrt(5n / 6) max|y| at most, and in relative L2 by as much. Integers must be equal.

    launches: how many are one behind another. Their errors are independent: the limit grows by its root.
    """
    if not a.dtype.is_floating_point:
        count = int(torch.count_nonzero(a != b))
        return Apart(f"another in {count} of {a.numel()} elements", math.inf) if count else None
    if count := int(torch.count_nonzero(classes_of(a) != classes_of(b))):
        return Apart(f"NaN or infinite in {count} of {a.numel()} elements where the other is not", math.inf)
    x, y = (one.double().nan_to_num(0.0, 0.0, 0.0) for one in (a, b))
    kinds = [a.dtype, *(getattr(torch, str(arg.dtype)) for arg in read if arg.dtype is not None)]
    unit = max(format_of(kind).unit for kind in kinds if kind.is_floating_point)
    terms = max((size for arg in read for size in arg.shape), default=1)
    sums = min(format_of(a.dtype).unit, format_of(torch.float32).unit) * math.sqrt(5 * terms / 6)
    bound = (_ROUNDINGS * unit + _SIGMAS * sums) * math.sqrt(launches)
    largest = float(torch.maximum(x.abs(), y.abs()).max()) if x.numel() else 0.0
    element = float((x - y).abs().max()) / largest if largest else 0.0
    score = max(element, relative_l2(y - x, torch.maximum(x.abs(), y.abs()))) / bound
    if score <= 1:
        return None
    return Apart(f"{element:.2g} of the largest element from it, and no terms are known (limit {bound:.2g})", score)


def _distance(a: torch.Tensor, b: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The distance beyond both roundings in sigmas, and its sign; 0 where one is not finite."""
    x, y = a.double(), b.double()
    finite = torch.isfinite(x) & torch.isfinite(y)
    zero = torch.zeros((), dtype=torch.float64)
    x, y = torch.where(finite, x, zero), torch.where(finite, y, zero)
    format_ = format_of(a.dtype)
    beyond = ((x - y).abs() - (spacing(x, format_) + spacing(y, format_)) / 2).clamp_min(0.0)
    least = torch.maximum(x.abs(), y.abs()) * min(format_.unit, format_of(torch.float32).unit) + format_.tiny
    sigma = torch.where(torch.isfinite(sigma), sigma, least)
    return torch.where(finite, beyond / sigma, zero), torch.sign(x - y)


def _integers_apart(a: torch.Tensor, b: torch.Tensor, of_a: Reference, of_b: Reference) -> Apart | None:
    """Integers differ legally where a variant of either side gives the other's."""
    wrong = a != b
    for one, other in ((of_a, b), (of_b, a)):
        for alternative in one.alternatives:
            wrong &= alternative.reshape(a.shape) != other
    count = int(torch.count_nonzero(wrong))
    return Apart(f"another in {count} of {a.numel()} elements, which no rounding decides", math.inf) if count else None
