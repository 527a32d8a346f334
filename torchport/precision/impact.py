"""Measures what other arithmetic does to a language model: how far logits move, how often the next token flips.

Teacher forcing: both models see the same tokens, so every position is a measurement. A benchmark of a few dozen
questions decides nothing about numerics (12 of 50 right against 13 of 50 has p = 1.0); positions are many and paired.
Exact intervals of shares assume independent positions, which those of one text are not quite: so intervals of means,
and a second one of the share, resample whole sequences. Use several texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from torchport.errors import OptionError
from torchport.precision.positions import IGNORED, Positions, compared, next_tokens
from torchport.precision.statistics import Interval, bootstrap, exact_interval
from torchport.precision.ways import logits_in, way_of

__all__ = ["IGNORED", "Impact", "impact", "impact_of", "logits_of", "next_tokens"]


@dataclass(frozen=True)
class Impact:
    """Two models' logits at the same positions, A the reference. Intervals are of 95 %.

    sequences: how many there are; they are taken for independent.
    rms, largest: error of B's logits after each position's mean is taken off, which softmax does not see.
    kl, kl_largest: Kullback-Leibler divergence of B from A in nats, mean and largest of a position.
    kl_interval: of the mean, by sequences; None for less than two, or if all are the same.
    flips: positions where the likeliest token differs.
    flip: their share.
    flip_low, flip_high: its exact binomial interval (Clopper-Pearson), for independent positions.
    flip_by_sequence: its interval by sequences; None for less than two, or if all are the same.
    overturned: the largest lead, in logits, that A's likeliest token had at a position that flipped.
    sampled: the probability that a token drawn with the same random number differs, mean of the positions.
    nll_a, nll_b: mean negative log likelihood of the labels; None without labels.
    perplexity: B's perplexity minus A's; None without labels.
    perplexity_interval: by sequences; None for less than two, or if all are the same.
    """

    positions: int
    vocabulary: int
    rms: float
    largest: float
    kl: float
    kl_largest: float
    flips: int
    flip: float
    flip_low: float
    flip_high: float
    overturned: float
    sampled: float
    nll_a: float | None = None
    nll_b: float | None = None
    sequences: int = 1
    kl_interval: Interval | None = None
    flip_by_sequence: Interval | None = None
    perplexity: float | None = None
    perplexity_interval: Interval | None = None

    def as_json(self) -> dict[str, Any]:
        """A dictionary of numbers."""
        return asdict(self)


def impact(a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor | None = None) -> Impact:
    """Compare logits ``a`` and ``b``; arguments and errors as of ``torchport.precision.positions.compared``."""
    return impact_of(compared(a, b, labels))


def impact_of(found: Positions) -> Impact:
    """The figures of logits that were compared."""
    positions, flips = found.flipped.numel(), int(found.flipped.sum())
    low, high = exact_interval(flips, positions)
    ones = torch.ones_like(found.kl)
    nll = _likelihoods(found)
    return Impact(
        positions=positions,
        vocabulary=found.vocabulary,
        rms=float(found.error.square().mean().sqrt()),
        largest=float(found.error.abs().max()),
        kl=float(found.kl.mean()),
        kl_largest=float(found.kl.max()),
        flips=flips,
        flip=flips / positions,
        flip_low=low,
        flip_high=high,
        overturned=float(found.margin[found.flipped].max()) if flips else 0.0,
        sampled=float(found.sampled.mean()),
        nll_a=None if nll is None else float(nll[:, 0].sum() / nll[:, 2].sum()),
        nll_b=None if nll is None else float(nll[:, 1].sum() / nll[:, 2].sum()),
        sequences=found.kl.shape[0],
        kl_interval=bootstrap(torch.stack([found.kl.sum(-1), ones.sum(-1)], 1), _ratio),
        flip_by_sequence=bootstrap(torch.stack([found.flipped.double().sum(-1), ones.sum(-1)], 1), _ratio),
        perplexity=None if nll is None else float(_perplexities(nll.sum(0))),
        perplexity_interval=None if nll is None else bootstrap(nll, _perplexities),
    )


def _ratio(sums: torch.Tensor) -> torch.Tensor:
    return sums[..., 0] / sums[..., 1]


def _likelihoods(found: Positions) -> torch.Tensor | None:
    """By sequence that has labels, the sums of both models' negative log likelihoods, and how many labels there are."""
    if found.nll_a is None or found.nll_b is None:
        return None
    counts = (~torch.isnan(found.nll_a)).double().sum(-1)
    sums = torch.stack([found.nll_a.nansum(-1), found.nll_b.nansum(-1), counts], 1)[counts > 0]
    return sums if sums.shape[0] else None


def _perplexities(sums: torch.Tensor) -> torch.Tensor:
    """B's perplexity minus A's."""
    return (sums[..., 1] / sums[..., 2]).exp() - (sums[..., 0] / sums[..., 2]).exp()


def logits_of(model: Any, inputs: Sequence[Any], how: str) -> torch.Tensor:
    """The logits of a causal language model, [batch, tokens, vocabulary].

    ``how``: as of ``torchport.precision.ways.way_of``. The model returns logits, or something with ``logits``. Raises
    OptionError if it does neither, TargetError.
    """
    found = logits_in(way_of(how).run(model, inputs))
    if found is None:
        raise OptionError("the model returns no logits of [batch, tokens, vocabulary]; `impact` is for causal models")
    return found
