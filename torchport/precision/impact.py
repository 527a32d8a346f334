"""Measures what other arithmetic does to a language model: how far logits move, how often the next token flips.

Teacher forcing: both models see the same tokens, so every position is a measurement. A benchmark of a few dozen
questions decides nothing about numerics (12 of 50 right against 13 of 50 has p = 1.0); positions are many and paired.
Intervals assume independent positions, which those of one text are not quite: use several texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from torchport.arithmetic.profile import names
from torchport.compat import reset_dynamo
from torchport.errors import OptionError

__all__ = ["Impact", "impact", "logits_of", "next_tokens", "wilson"]

IGNORED = -100
"""Labels of this value are ignored, as in PyTorch's cross entropy."""


@dataclass(frozen=True)
class Impact:
    """Two models' logits at the same positions, A the reference.

    rms, largest: error of B's logits after each position's mean is taken off, which softmax does not see.
    kl, kl_largest: Kullback-Leibler divergence of B from A in nats, mean and largest of a position.
    flips: positions where the likeliest token differs.
    flip: their share.
    flip_low, flip_high: Wilson's 95 % interval of the share.
    overturned: the largest lead, in logits, that A's likeliest token had at a position that flipped.
    sampled: the probability that a token drawn with the same random number differs, mean of the positions.
    nll_a, nll_b: mean negative log likelihood of the labels; None without labels.
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

    def as_json(self) -> dict[str, Any]:
        """A dictionary of numbers."""
        return asdict(self)


def wilson(hits: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, JASA 1927), 95 % by default."""
    if not n:
        return 0.0, 1.0
    share, square = hits / n, z * z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def impact(a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor | None = None) -> Impact:
    """Compare logits ``a`` and ``b``, both [..., vocabulary], of any floating-point dtype.

    ``labels``: the token that follows at each position, [...], IGNORED if there is none. Raises OptionError if shapes
    do not fit or a logit is NaN: there is no task left to measure.
    """
    if a.shape != b.shape or a.dim() < 1 or (labels is not None and labels.shape != a.shape[:-1]):
        shape = None if labels is None else tuple(labels.shape)
        raise OptionError(f"logits of {tuple(a.shape)} and {tuple(b.shape)} with labels of {shape} do not fit together")
    size = a.shape[-1]
    x, y = (one.detach().cpu().to(torch.float64).reshape(-1, size) for one in (a, b))
    if bool(torch.isnan(x).any()) or bool(torch.isnan(y).any()):
        raise OptionError("the logits hold NaN; `torchport diff` says which kernel they come from")
    log_p, log_q = torch.log_softmax(x, -1), torch.log_softmax(y, -1)
    p = log_p.exp()
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp_min(0.0)
    error = _error(x, y)
    flipped = x.argmax(-1) != y.argmax(-1)
    best = x.topk(min(2, size), -1).values
    margin = best[:, 0] - best[:, -1]
    flips = int(flipped.sum())
    positions = x.shape[0]
    low, high = wilson(flips, positions)
    return Impact(
        positions=positions,
        vocabulary=size,
        rms=float(error.square().mean().sqrt()),
        largest=float(error.abs().max()),
        kl=float(kl.mean()),
        kl_largest=float(kl.max()),
        flips=flips,
        flip=flips / positions,
        flip_low=low,
        flip_high=high,
        overturned=float(margin[flipped].max()) if flips else 0.0,
        sampled=float((p - log_q.exp()).abs().sum(-1).mean() / 2),
        nll_a=_nll(log_p, labels),
        nll_b=_nll(log_q, labels),
    )


def _error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y - x without each position's mean; tokens that both rule out (-inf) count as equal."""
    same = x == y
    difference = torch.where(same, 0.0, y - x)
    kept = torch.isfinite(x) & torch.isfinite(y)
    mean = torch.where(kept, difference, 0.0).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(same & ~kept, 0.0, difference - mean)


def _nll(log_p: torch.Tensor, labels: torch.Tensor | None) -> float | None:
    if labels is None:
        return None
    flat = labels.reshape(-1).to(torch.int64)
    kept = flat != IGNORED
    return float(-log_p[kept].gather(-1, flat[kept, None]).mean()) if bool(kept.any()) else None


def logits_of(model: Any, inputs: Sequence[Any], how: str) -> torch.Tensor:
    """The logits of a causal language model, [batch, tokens, vocabulary].

    ``how``: ``eager``, a target (``cpu``, ``opencl``) or a numerics profile (``h100``), which the CPU target emulates.
    The model returns logits, or something with ``logits``. Raises OptionError if it does neither, TargetError.
    """
    called = model
    if how != "eager":
        emulated = how.removesuffix("-tf32") in names()
        options: dict[str, Any] = {"target": "cpu", "emulate": how} if emulated else {"target": how}
        reset_dynamo()
        called = torch.compile(model, backend="torchport", options=options, dynamic=False)
    with torch.no_grad():
        result: Any = called(*inputs)
    found = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", result)
    if not isinstance(found, torch.Tensor) or found.dim() != 3:
        raise OptionError("the model returns no logits of [batch, tokens, vocabulary]; `impact` is for causal models")
    return found.clone()


def next_tokens(inputs: Sequence[Any], logits: torch.Tensor) -> torch.Tensor | None:
    """The labels of teacher forcing: each position's next token, if the first input is the tokens."""
    tokens = inputs[0] if inputs else None
    if not isinstance(tokens, torch.Tensor) or tokens.is_floating_point() or tokens.shape != logits.shape[:-1]:
        return None
    labels = torch.full_like(tokens, IGNORED, dtype=torch.int64)
    labels[:, :-1] = tokens[:, 1:]
    return labels
