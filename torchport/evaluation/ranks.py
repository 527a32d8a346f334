"""Whether two models put things in the same order: rank correlation with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from torchport.precision.statistics import ALPHA, Interval

__all__ = ["ranks", "similar_order", "spearman"]

_RESAMPLES = 1000


def ranks(values: torch.Tensor) -> torch.Tensor:
    """The rank of each of ``values`` [n], from 0; equal values share the mean of theirs."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    middle = last - (counts.double() + 1) / 2
    found: torch.Tensor = middle[inverse]
    return found


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's rank correlation of ``a`` and ``b``, both [n]; NaN where one of them has a single value."""
    x, y = (one - one.mean() for one in (ranks(a.double()), ranks(b.double())))
    size = float(x.norm() * y.norm())
    return float((x * y).sum()) / size if size else math.nan


def similar_order(a: torch.Tensor, b: torch.Tensor, pairs: bool, seed: int = 0) -> tuple[float, Interval | None]:
    """Rank correlation of two models' answers to the same ``n`` examples, and its interval by resampled examples.

    pairs: answers are vectors [n, width], and the order is that of the cosine similarity of every two of them; else
        they are numbers [n], whose order it is.

    The interval is the percentile bootstrap's of 95 %; None for fewer than four examples.
    """
    n = a.shape[0]
    made = _of_pairs(a, b) if pairs else _of_numbers(a, b)
    found = made(torch.arange(n))
    if n < 4:
        return found, None
    generator = torch.Generator().manual_seed(seed)
    drawn = [made(torch.randint(n, (n,), generator=generator)) for _ in range(_RESAMPLES)]
    ordered = sorted(one for one in drawn if not math.isnan(one))
    if len(ordered) < _RESAMPLES // 2:
        return found, None
    place = int(ALPHA / 2 * len(ordered))
    return found, (ordered[place], ordered[-1 - place])


def _of_numbers(a: torch.Tensor, b: torch.Tensor) -> Callable[[torch.Tensor], float]:
    return lambda chosen: spearman(a[chosen], b[chosen])


def _of_pairs(a: torch.Tensor, b: torch.Tensor) -> Callable[[torch.Tensor], float]:
    x, y = (_similarities(one) for one in (a, b))

    def made(chosen: torch.Tensor) -> float:
        first, second = torch.triu_indices(len(chosen), len(chosen), 1)
        first, second = chosen[first], chosen[second]
        kept = first != second  # an example is as similar to itself in any arithmetic
        return spearman(x[first[kept], second[kept]], y[first[kept], second[kept]]) if bool(kept.any()) else math.nan

    return made


def _similarities(vectors: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(vectors.double().flatten(1), dim=-1)
    return unit @ unit.T
