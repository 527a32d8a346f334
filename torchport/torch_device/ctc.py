"""Connectionist temporal classification: the loss and its gradient, a step of time after the other.

Graves, Fernandez, Gomez, Schmidhuber, Connectionist Temporal Classification, 2006, section 4.1, in logarithms. States
are a target's labels with blanks before, between and behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["ctc_loss", "ctc_loss_backward"]

Tensor = torch.Tensor
Lengths = Tensor | Sequence[int]

_NEVER = float("-inf")


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Any:
    """``aten._ctc_loss``: the loss of each sequence, and the logarithms of the states' probabilities ``[b, t, s]``."""
    if log_probs.dim() != 3 or log_probs.dtype not in (torch.float32, torch.float64) or not log_probs.shape[0]:
        return NotImplemented
    lengths = input_lengths.tolist() if isinstance(input_lengths, Tensor) else input_lengths
    longest = max(lengths, default=0)
    if longest > log_probs.shape[0]:
        raise ValueError(f"ctc_loss: an input has length {longest}, and there are {log_probs.shape[0]} steps of time")
    inputs, labels = _lengths(input_lengths, log_probs), _lengths(target_lengths, log_probs)
    states = _states(targets, labels, blank)
    shares = _shares(log_probs, states)
    skips = _skips(states, blank)
    place = _places(states)
    here = torch.where(place <= (labels[:, None] > 0).to(torch.int64), shares[:, 0], _NEVER)
    every = [here]
    for t in range(1, log_probs.shape[0]):
        before = torch.stack([here, _shifted(here, 1), torch.where(skips, _shifted(here, 2), _NEVER)])
        here = shares[:, t] + before.logsumexp(0)
        every.append(here)
    alpha = torch.stack(every, 1)
    last = (inputs - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[1])
    ends = torch.where(_final(place, labels), alpha.gather(1, last)[:, 0], _NEVER)
    loss = -ends.logsumexp(1)
    none = torch.where(labels == 0, 0.0, float("inf")).to(loss.dtype)
    return torch.where(inputs == 0, none, loss), alpha


def ctc_loss_backward(
    grad: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    neg_log_likelihood: Tensor,
    log_alpha: Tensor,
    blank: int,
    zero_infinity: bool = False,
) -> Any:
    """``aten._ctc_loss_backward``."""
    inputs, labels = _lengths(input_lengths, log_probs), _lengths(target_lengths, log_probs)
    states = _states(targets, labels, blank)
    shares = _shares(log_probs, states)
    skips = torch.cat([_skips(states, blank)[:, 2:], torch.zeros_like(states[:, :2], dtype=torch.bool)], 1)
    final = _final(_places(states), labels)
    here = torch.full_like(shares[:, 0], _NEVER)
    every: list[Tensor] = []
    for t in reversed(range(log_probs.shape[0])):
        after = torch.stack(
            [here, _shifted(here, -1), torch.where(skips[:, : here.shape[1]], _shifted(here, -2), _NEVER)]
        )
        moved = after.logsumexp(0)
        moved = torch.where((inputs == t + 1)[:, None], torch.where(final, 0.0, _NEVER), moved)
        here = shares[:, t] + moved
        every.append(here)
    both = log_alpha + torch.stack(every[::-1], 1)
    top = both.amax(2, keepdim=True)
    top = torch.where(top == _NEVER, 0.0, top)
    of_class = torch.zeros_like(log_probs.transpose(0, 1), memory_format=torch.contiguous_format)
    of_class = of_class.scatter_add(2, states[:, None].expand_as(both), (both - top).exp()).log() + top
    probs = log_probs.transpose(0, 1)
    found = (probs.exp() - (of_class + neg_log_likelihood[:, None, None] - probs).exp()) * grad[:, None, None]
    time = torch.arange(log_probs.shape[0], device=log_probs.device)
    kept = time[None, :] < inputs[:, None]
    if zero_infinity:
        kept = kept & (neg_log_likelihood != float("inf"))[:, None]
    return torch.where(kept[:, :, None], found, 0.0).transpose(0, 1)


def _lengths(lengths: Lengths, like: Tensor) -> Tensor:
    return torch.as_tensor(lengths, dtype=torch.int64, device=like.device)


def _states(targets: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """Labels with blanks: ``[b, 2 * longest + 1]``. Targets are ``[b, longest]``, or one behind the other."""
    longest = int(lengths.max())
    places = torch.arange(longest, device=targets.device)
    if targets.dim() == 1:
        starts = lengths.cumsum(0) - lengths
        labels = targets[(starts[:, None] + places).clamp(max=max(targets.numel() - 1, 0))]
    else:
        labels = targets[:, :longest]
    states = torch.full((lengths.numel(), 2 * longest + 1), blank, dtype=torch.int64, device=targets.device)
    states[:, 1::2] = torch.where(places < lengths[:, None], labels.to(torch.int64), blank)
    return states


def _shares(log_probs: Tensor, states: Tensor) -> Tensor:
    """The logarithm of each state's probability at each time: ``[b, t, s]``."""
    return log_probs.transpose(0, 1).gather(2, states[:, None].expand(-1, log_probs.shape[0], -1))


def _places(states: Tensor) -> Tensor:
    return torch.arange(states.shape[1], device=states.device)[None]


def _skips(states: Tensor, blank: int) -> Tensor:
    """Whether a state can follow the one two before it: both are labels, and differ."""
    differ = (states[:, 2:] != states[:, :-2]) & (states[:, 2:] != blank)
    return torch.cat([torch.zeros_like(states[:, :2], dtype=torch.bool), differ], 1)[:, : states.shape[1]]


def _final(place: Tensor, labels: Tensor) -> Tensor:
    """The states in which a sequence may end: the last label and the blank behind it."""
    end = 2 * labels[:, None]
    return (place == end) | ((place == end - 1) & (end > 0))


def _shifted(states: Tensor, by: int) -> Tensor:
    """The states ``by`` places before."""
    ends = (by, 0) if by > 0 else (0, -by)
    padded = torch.nn.functional.pad(states, ends, value=_NEVER)
    return padded[:, : states.shape[1]] if by > 0 else padded[:, -by:]
