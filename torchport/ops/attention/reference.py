"""``flash_attention`` in plain operators, with all scores in memory: its reference, error bounds and samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchport.ops.registry import Sample, Tensors, added

__all__ = ["bound", "dense", "reference", "samples", "scores_of", "totals_bound", "totals_reference", "totals_samples"]


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor,
          sinks: torch.Tensor | None = None) -> Tensors:  # fmt: skip
    """(result, logarithm of sums, weights) of one batch, from its scores [batch, heads, length, keys]."""
    if sinks is not None:
        own = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, own), -1)
    highest = scores.amax(-1, keepdim=True) if scores.shape[-1] else torch.full((*scores.shape[:3], 1), -math.inf)
    base = torch.where(highest == -math.inf, 0.0, highest).detach()
    weights = torch.exp(scores - base)
    total = weights.sum(-1, keepdim=True)
    sums = torch.where(highest == -math.inf, -math.inf, base + torch.log(torch.where(total == 0, 1.0, total)))
    weights = (weights / torch.where(total == 0, 1.0, total))[..., : key.shape[2]]
    shared = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    return weights @ shared, sums.squeeze(-1), weights


def scores_of(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, slopes: torch.Tensor | None, scale: float,
    cap: float, left: int, right: int, top_left: bool,
) -> torch.Tensor:  # fmt: skip
    """Scores of one batch, -inf where nothing is seen."""
    heads, length, keys = query.shape[1], query.shape[2], key.shape[2]
    scores = query @ key.repeat_interleave(heads // key.shape[1], 1).mT * scale
    if cap:
        scores = cap * torch.tanh(scores / cap)
    rows = torch.arange(length)[:, None] + (0 if top_left else keys - length)
    columns = torch.arange(keys)
    if slopes is not None:
        scores = scores - slopes.reshape(-1, heads, 1, 1) * (rows - columns).abs()
    seen = torch.ones(length, keys, dtype=torch.bool)
    if left >= 0:
        seen = seen & (columns >= rows - left)
    if right >= 0:
        seen = seen & (columns <= rows + right)
    if bias is not None and bias.dtype == torch.bool:
        seen = seen & bias
    elif bias is not None:
        scores = scores + bias
    return scores.masked_fill(~seen, -math.inf)


def _sequences(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, slopes: torch.Tensor | None,
               query_starts: torch.Tensor, key_starts: torch.Tensor) -> Iterator[tuple[Any, ...]]:  # fmt: skip
    """Each packed sequence as a batch of one, with its slopes."""
    edges = zip(itertools.pairwise(query_starts.tolist()), itertools.pairwise(key_starts.tolist()), strict=True)
    for index, ((a, b), (c, d)) in enumerate(edges):
        own = slopes[index] if slopes is not None and slopes.dim() == 2 else slopes
        yield *(x.transpose(0, 1)[None] for x in (query[a:b], key[c:d], value[c:d])), own


def _packed(call: Callable[..., Tensors], args: tuple[Any, ...]) -> Tensors:
    """``call``'s results for each sequence of packed tensors, joined as packed ones."""
    query, key, value, bias, sinks, slopes, query_starts, key_starts, *rest = args
    found = [
        call(*(*one, bias, sinks, own, None, None, *rest))
        for *one, own in _sequences(query, key, value, slopes, query_starts, key_starts)
    ]
    return tuple(torch.cat([x[0].transpose(0, 1) for x in each]) for each in zip(*found, strict=True))


def reference(*args: Any) -> Tensors:
    """What ``flash_attention`` computes; arguments of ``torch.ops.torchport.flash_attention``, without dropout."""
    if args[6] is not None:
        return _packed(reference, args)
    query, key, value, bias, sinks, slopes, _, _, _, _, _, scale, cap, left, right, top_left, _ = args
    scores = scores_of(query, key, bias, slopes, scale, cap, left, right, top_left)
    return dense(query, key, value, scores, sinks)[:2]


def bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """Errors of scores make errors of weights, those make errors of sums; ``rounded``: of operands of products."""
    query, key, value, bias, sinks, slopes, starts, _, _, _, _, scale, cap, left, right, top_left, _ = args
    if starts is not None:
        raise NotImplementedError("bounds of packed sequences are those of their parts")
    heads, owners = query.shape[1], key.shape[1]
    keys, size, width = key.shape[2], query.shape[-1], value.shape[-1]
    wide_key, wide_value = (x.repeat_interleave(heads // owners, 1) for x in (key, value))
    scores = scores_of(query, key, bias, slopes, scale, cap, left, right, top_left)
    out, sums, weights = dense(query, key, value, scores, sinks)
    finite = torch.where(torch.isinf(scores), 0.0, scores).abs()
    off = (query.abs() @ wide_key.abs().mT) * abs(scale) * (added(size) + 4) + finite * 8
    if slopes is not None:
        rows = torch.arange(query.shape[2])[:, None] + (0 if top_left else keys - query.shape[2])
        off = off + slopes.reshape(-1, heads, 1, 1).abs() * (rows - torch.arange(keys)).abs() * 4
    off = torch.where(weights > 0, off, 0.0)
    worst = (off * weights).sum(-1, keepdim=True) + (0 if sinks is None else 8 * sinks.abs().reshape(-1, 1, 1))
    terms = added(keys) + 8
    near = torch.where(torch.isinf(sums), 0.0, sums)
    off_sums = worst.squeeze(-1) + terms + near.abs() * 4
    off_weights = weights * (off + worst + terms)
    off_out = (off_weights + weights * rounded) @ wide_value.abs() + (weights @ wide_value.abs()) * terms
    results = off_out, off_sums
    if not grads:
        return results
    grad, grad_sums = grads[0], grads[1]
    change = grad @ wide_value.mT
    off_change = (grad.abs() @ wide_value.abs().mT) * added(width)
    delta = (grad * out).sum(-1, keepdim=True) - grad_sums.unsqueeze(-1)
    off_delta = (grad.abs() * (out.abs() * (added(width) + rounded) + off_out)).sum(-1, keepdim=True)
    off_delta = off_delta + grad_sums.abs().unsqueeze(-1)
    step = weights * (change - delta)
    again = weights * (off + off_sums.unsqueeze(-1) + terms)  # weights from the stored logarithms
    off_step = again * (change - delta).abs() + weights * (off_change + off_delta + (change.abs() + delta.abs()) * 2)
    grad_bias = off_step
    if cap:
        bent = torch.tanh((query @ wide_key.mT) * scale / cap)
        slope = 1 - bent * bent
        off_step = off_step * slope + step.abs() * (2 * bent.abs() * off / cap + 4)
        step = step * slope
    off_step = (off_step + step.abs() * (rounded + 2)) * abs(scale)
    step = step.abs() * abs(scale)

    def shared(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(len(tensor), owners, heads // owners, *tensor.shape[2:]).sum(2)

    rows = added(query.shape[2]) * 1.0 + heads // owners
    of_query = (off_step + step * (added(keys) + 8)) @ wide_key.abs()
    of_key = shared((off_step + step * (rows + 4)).mT @ query.abs())
    of_value = shared((again + weights * (rounded + rows)).mT @ grad.abs())
    found = [*results, of_query, of_key, of_value]
    if bias is not None and bias.dtype != torch.bool:
        found.append((grad_bias + (weights * (change - delta)).abs() * 8).sum_to_size(bias.shape) * 4)
    if sinks is not None:
        share = torch.exp(sinks.reshape(-1, 1) - near)
        per = share * (
            (off_sums + 8 * sinks.abs().reshape(-1, 1) + 8) * delta.abs().squeeze(-1) + off_delta.squeeze(-1)
        )
        found.append(per.sum((0, 2)) + (share * delta.abs().squeeze(-1)).sum((0, 2)) * added(query.shape[2]))
    return tuple(found)


def samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    def sample(
        about: str, q: tuple[int, ...], k: tuple[int, ...], width: int = 0, *, bias: torch.Tensor | None = None,
        sinks: torch.Tensor | None = None, slopes: torch.Tensor | None = None, cap: float = 0.0, left: int = -1,
        right: int = -1, top_left: bool = False,
    ) -> Sample:  # fmt: skip
        tensors = normal(*q), normal(*k), normal(*k[:-1], width or k[-1])
        numbers = (0, 0, 1 / math.sqrt(q[-1]), cap, left, right, top_left, 0.0)
        return Sample(about, (*tensors, bias, sinks, slopes, None, None, None, *numbers))

    yield sample("prime lengths", (1, 2, 37, 64), (1, 2, 71, 64))
    yield sample("causal, shared heads, rows that see nothing", (2, 4, 131, 16), (2, 2, 71, 16), right=0)
    yield sample("causal, another size of values", (1, 2, 71, 24), (1, 1, 131, 24), 40, right=0)
    yield sample("window, top left, cap", (1, 2, 90, 16), (1, 2, 70, 16), left=20, right=5, cap=2.0, top_left=True)
    yield sample("sinks, slopes", (2, 2, 33, 16), (2, 2, 33, 16), right=0, sinks=normal(2), slopes=torch.rand(2))
    yield sample("bias of heads", (2, 2, 20, 16), (2, 2, 40, 16), bias=normal(1, 2, 20, 40))
    yield sample("mask, one query", (2, 4, 1, 16), (2, 1, 77, 16), bias=torch.rand(2, 1, 1, 77) > 0.6)
    yield sample("no queries", (2, 2, 0, 64), (2, 2, 5, 64))
    yield sample("no keys", (2, 2, 37, 64), (2, 2, 0, 64))


def totals_reference(*args: Any) -> torch.Tensor:
    """What ``attention_totals`` computes."""
    query, key, sums, bias, slopes, _, _, _, _, scale, cap, left, right, top_left = args
    scores = scores_of(query, key, bias, slopes, scale, cap, left, right, top_left)
    return torch.exp(scores - torch.where(sums == -math.inf, 0.0, sums).unsqueeze(-1)).sum(2)


def totals_bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """Errors of scores and of sums."""
    query, key, sums, bias, slopes, _, _, _, _, scale, cap, left, right, top_left = args
    scores = scores_of(query, key, bias, slopes, scale, cap, left, right, top_left)
    near = torch.where(sums == -math.inf, 0.0, sums).unsqueeze(-1)
    weights = torch.exp(scores - near)
    shared = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    off = (query.abs() @ shared.abs().mT) * abs(scale) * (added(query.shape[-1]) + 4) + near.abs() * 8 + 8
    off = off + torch.where(torch.isinf(scores), 0.0, scores).abs() * 8 + added(query.shape[2])
    return ((weights * off).sum(2),)


def totals_samples(dtype: torch.dtype) -> Iterator[Sample]:
    for sample in samples(dtype):
        query, key, _, bias, _, slopes, *starts, _, length, keys, scale, cap, left, right, top_left, _ = sample.args
        numbers = length, keys, scale, cap, left, right, top_left
        wide = (x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in sample.args)
        sums = reference(*wide)[1].float()
        yield Sample(sample.about, (query, key, sums, bias, slopes, *starts, *numbers))
