"""Two language models' logits compared position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.errors import OptionError

__all__ = ["IGNORED", "Positions", "compared", "next_tokens"]

IGNORED = -100
"""Labels of this value are ignored, as in PyTorch's cross entropy."""


@dataclass(frozen=True)
class Positions:
    """What differs between logits of A, the reference, and of B; all tensors are [sequences, positions], float64.

    vocabulary: how many tokens there are.
    error: of B's logits without each position's mean, [sequences, positions, vocabulary].
    flipped: whether the likeliest token differs.
    kl: Kullback-Leibler divergence of B from A in nats.
    margin: the lead, in logits, of A's likeliest token.
    sampled: the probability that a token drawn with the same random number differs.
    nll_a, nll_b: negative log likelihood of the label in nats, NaN where there is none; None without labels.
    """

    vocabulary: int
    error: torch.Tensor
    flipped: torch.Tensor
    kl: torch.Tensor
    margin: torch.Tensor
    sampled: torch.Tensor
    nll_a: torch.Tensor | None
    nll_b: torch.Tensor | None


def compared(a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor | None = None) -> Positions:
    """Compare logits ``a`` and ``b``, both [..., vocabulary], of any floating-point dtype.

    The first dimension of three or more is that of sequences; with less, all positions are of one sequence.
    ``labels``: the token that follows at each position, [...], IGNORED if there is none. Raises OptionError if shapes
    do not fit, if there is nothing to compare, or if a position has no probabilities (NaN, +inf): no task is left.
    """
    if a.shape != b.shape or a.dim() < 1 or (labels is not None and labels.shape != a.shape[:-1]):
        shape = None if labels is None else tuple(labels.shape)
        raise OptionError(f"logits of {tuple(a.shape)} and {tuple(b.shape)} with labels of {shape} do not fit together")
    if a.numel() == 0:
        raise OptionError(f"logits of {tuple(a.shape)} have no positions: there is nothing to measure")
    shape = (a.shape[0] if a.dim() > 2 else 1, -1, a.shape[-1])
    x, y = (one.detach().cpu().to(torch.float64).reshape(shape) for one in (a, b))
    if bool(torch.isnan(x).any()) or bool(torch.isnan(y).any()):
        raise OptionError("the logits hold NaN; `torchport diff` says which kernel they come from")
    log_p, log_q = torch.log_softmax(x, -1), torch.log_softmax(y, -1)
    if bool(torch.isnan(log_p).any()) or bool(torch.isnan(log_q).any()):
        raise OptionError("logits of a position are +inf, or all -inf: no token has a probability there")
    p = log_p.exp()
    best = x.topk(min(2, x.shape[-1]), -1).values
    nll = None if labels is None else [_nll(one, labels.reshape(shape[:2])) for one in (log_p, log_q)]
    return Positions(
        x.shape[-1],
        _error(x, y),
        x.argmax(-1) != y.argmax(-1),
        torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp_min(0.0),
        best[..., 0] - best[..., -1],
        (p - log_q.exp()).abs().sum(-1) / 2,
        None if nll is None else nll[0],
        None if nll is None else nll[1],
    )


def _error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y - x without each position's mean; tokens that both rule out (-inf) count as equal."""
    same = x == y
    difference = torch.where(same, 0.0, y - x)
    kept = torch.isfinite(x) & torch.isfinite(y)
    mean = torch.where(kept, difference, 0.0).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(same & ~kept, 0.0, difference - mean)


def _nll(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[sequences, positions], NaN where labels are IGNORED."""
    labels = labels.detach().cpu().to(torch.int64)
    kept = labels != IGNORED
    found = -log_p.gather(-1, labels.where(kept, 0)[..., None])[..., 0]
    return found.where(kept, torch.nan)


def next_tokens(inputs: Sequence[Any], logits: torch.Tensor) -> torch.Tensor | None:
    """The labels of teacher forcing: each position's next token, if the first input is the tokens."""
    tokens = inputs[0] if inputs else None
    if not isinstance(tokens, torch.Tensor) or tokens.is_floating_point() or tokens.shape != logits.shape[:-1]:
        return None
    labels = torch.full_like(tokens, IGNORED, dtype=torch.int64)
    labels[:, :-1] = tokens[:, 1:]
    return labels
