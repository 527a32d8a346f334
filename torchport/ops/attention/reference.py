"""``flash_attention`` in plain operators, with all scores in memory: its reference, error bounds and samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchport.ops.registry import Sample, Tensors, added

__all__ = [
    "band", "bound", "capped", "dense", "of_products", "of_scores", "reference", "samples", "scores_of", "totals_bound",
    "totals_reference", "totals_samples",
]  # fmt: skip


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


def capped(scores: torch.Tensor, cap: float) -> torch.Tensor:
    """Scores with a soft cap; 0 for none."""
    return cap * torch.tanh(scores / cap) if cap else scores


def band(length: int, keys: int, shift: int, left: int | None, right: int | None) -> torch.Tensor:
    """Which keys a row sees, [length, keys]: row m from m + shift - left to m + shift + right; None for no bound."""
    rows, columns = torch.arange(length)[:, None] + shift, torch.arange(keys)
    seen = torch.ones(length, keys, dtype=torch.bool)
    if left is not None:
        seen = seen & (columns >= rows - left)
    if right is not None:
        seen = seen & (columns <= rows + right)
    return seen


def scores_of(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, slopes: torch.Tensor | None, scale: float,
    cap: float, left: int, right: int, top_left: bool,
) -> torch.Tensor:  # fmt: skip
    """Scores of one batch, -inf where nothing is seen."""
    heads, length, keys = query.shape[1], query.shape[2], key.shape[2]
    scores = capped(query @ key.repeat_interleave(heads // key.shape[1], 1).mT * scale, cap)
    shift = 0 if top_left else keys - length
    if slopes is not None:
        rows = torch.arange(length)[:, None] + shift
        scores = scores - slopes.reshape(-1, heads, 1, 1) * (rows - torch.arange(keys)).abs()
    seen = band(length, keys, shift, left if left >= 0 else None, right if right >= 0 else None)
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


def of_scores(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor, off: torch.Tensor,
    sinks: torch.Tensor | None, grads: Tensors, rounded: float,
) -> Tensors:  # fmt: skip
    """Errors of a result, its logarithm of sums, and the way back to scores, where scores are ``off``.

    rounded: the unit roundoff of products' operands. Returns errors of the result and of the logarithms; with ``grads``
    also the gradient of scores and its error, and the error of the gradient of value.
    """
    heads, owners, keys, width = query.shape[1], key.shape[1], key.shape[2], value.shape[-1]
    wide = value.repeat_interleave(heads // owners, 1)
    out, sums, weights = dense(query, key, value, scores, sinks)
    near = torch.where(torch.isinf(sums), 0.0, sums)
    off = torch.where(weights > 0, off, 0.0)
    worst = (off * weights).sum(-1, keepdim=True) + (0 if sinks is None else 8 * sinks.abs().reshape(-1, 1, 1))
    terms = added(keys) + 8
    off_sums = worst.squeeze(-1) + terms + near.abs() * 4
    off_weights = weights * (off + worst + terms)
    off_out = (off_weights + weights * rounded) @ wide.abs() + (weights @ wide.abs()) * terms
    if not grads:
        return off_out, off_sums
    grad, grad_sums = grads
    change = grad @ wide.mT
    off_change = (grad.abs() @ wide.abs().mT) * added(width)
    delta = (grad * out).sum(-1, keepdim=True) - grad_sums.unsqueeze(-1)
    off_delta = (grad.abs() * (out.abs() * (added(width) + rounded) + off_out)).sum(-1, keepdim=True)
    off_delta = off_delta + grad_sums.abs().unsqueeze(-1)
    again = weights * (off + off_sums.unsqueeze(-1) + terms)  # weights from the stored logarithms
    off_step = again * (change - delta).abs() + weights * (off_change + off_delta + (change.abs() + delta.abs()) * 2)
    rows = added(query.shape[2]) + heads // owners
    of_value = shared(again + weights * (rounded + rows), grad.abs(), owners)
    return off_out, off_sums, weights * (change - delta), off_step, of_value


def of_products(query: torch.Tensor, key: torch.Tensor, step: torch.Tensor, off_step: torch.Tensor, scale: float,
                rounded: float) -> Tensors:  # fmt: skip
    """Errors of the gradients of query and key, where that of their products is ``step`` and off by ``off_step``."""
    heads, owners = query.shape[1], key.shape[1]
    off = (off_step + step.abs() * (rounded + 4)) * abs(scale)
    size = step.abs() * abs(scale)
    rows = added(query.shape[2]) + heads // owners
    of_query = (off + size * (added(key.shape[2]) + 8)) @ key.repeat_interleave(heads // owners, 1).abs()
    return of_query, shared(off + size * rows, query.abs(), owners)


def shared(weights: torch.Tensor, rows: torch.Tensor, owners: int) -> torch.Tensor:
    """weights^T rows of each head, added up over the heads that share one of keys."""
    found = weights.mT @ rows
    return found.reshape(len(found), owners, found.shape[1] // owners, *found.shape[2:]).sum(2)


def bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """Errors of scores make errors of weights, those make errors of sums; ``rounded``: of operands of products."""
    query, key, value, bias, sinks, slopes, starts, _, _, _, _, scale, cap, left, right, top_left, _ = args
    if starts is not None:
        raise NotImplementedError("bounds of packed sequences are those of their parts")
    heads, keys, length = query.shape[1], key.shape[2], query.shape[2]
    wide = key.repeat_interleave(heads // key.shape[1], 1)
    scores = scores_of(query, key, bias, slopes, scale, cap, left, right, top_left)
    off = (query.abs() @ wide.abs().mT) * abs(scale) * (added(query.shape[-1]) + 4)
    off = off + torch.where(torch.isinf(scores), 0.0, scores).abs() * 8
    if slopes is not None:
        rows = torch.arange(length)[:, None] + (0 if top_left else keys - length)
        off = off + slopes.reshape(-1, heads, 1, 1).abs() * (rows - torch.arange(keys)).abs() * 4
    found = of_scores(query, key, value, scores, off, sinks, grads, rounded)
    if not grads:
        return found
    off_out, off_sums, step, off_step, of_value = found
    inner, off_inner = step, off_step
    if cap:
        bent = torch.tanh((query @ wide.mT) * scale / cap)
        slope = 1 - bent * bent
        off_inner = off_step * slope + step.abs() * (2 * bent.abs() * off / cap + 4)
        inner = step * slope
    results = [off_out, off_sums, *of_products(query, key, inner, off_inner, scale, rounded), of_value]
    if bias is not None and bias.dtype != torch.bool:
        results.append((off_step + step.abs() * 8).sum_to_size(bias.shape) * 4)
    if sinks is not None:
        out, sums, _ = dense(query, key, value, scores, sinks)
        near = torch.where(torch.isinf(sums), 0.0, sums)
        deltas = (grads[0] * out).sum(-1) - grads[1]
        off_deltas = (grads[0].abs() * (out.abs() * (added(value.shape[-1]) + rounded) + off_out)).sum(-1)
        share = torch.exp(sinks.reshape(-1, 1) - near)
        off_share = off_sums + 8 * sinks.abs().reshape(-1, 1) + 8
        per = share * (off_share * deltas.abs() + off_deltas + grads[1].abs())
        results.append(per.sum((0, 2)) + (share * deltas.abs()).sum((0, 2)) * added(length))
    return tuple(results)


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
