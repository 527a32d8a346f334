"""Attention of new tokens to a paged cache of keys and values: ``paged_attention``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from torchport.ops import kinds
from torchport.ops.attention.call import Optional, whole_scale
from torchport.ops.attention.checks import check_paged
from torchport.ops.attention.paged_plan import Plan, alike, plan_of
from torchport.ops.attention.reference import dense, of_scores
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

__all__ = ["OPERATORS", "paged_attention"]

_SCHEMA = (
    "(Tensor query, Tensor key_cache, Tensor value_cache, Tensor tables, Tensor contexts, Tensor? sinks, "
    "Tensor? slopes, float scale, float cap, int left, float key_scale, float value_scale, bool invariant) "
    "-> (Tensor, Tensor)"
)


_MOST_PLANS = 256
_plans: dict[tuple[Any, ...], Plan] = {}
"""By shapes, strides and types of calls that were right."""


def _attend(*args: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return plan_of(*args, single=False, with_logarithms=True).run(*args[:7])


_call = define("paged_attention", _SCHEMA, _attend)


def _in_order(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, tables: torch.Tensor,
    contexts: torch.Tensor, sinks: Optional, slopes: Optional, scale: float, cap: float, left: int, key_scale: float,
    value_scale: float, invariant: bool,
) -> Any:  # fmt: skip
    """``paged_attention`` with all arguments in the schema's order."""
    return _call(
        query, key_cache, value_cache, tables, contexts, sinks, slopes, scale, cap, left, key_scale, value_scale,
        invariant,
    )  # fmt: skip


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    *,
    scale: float | None = None,
    window: int = -1,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    batch_invariant: bool = True,
    return_lse: bool = False,
) -> Any:
    """Attention of the last tokens of sequences to their keys and values in a cache (PagedAttention, arXiv 2309.06180).

    query: [sequences, heads, size], one token each, or [sequences, tokens, heads, size], the last ones of each.
    key_cache, value_cache: [pages, places, heads of keys, size], as ``reshape_and_cache`` writes them, which must be
    done for the tokens themselves before; of the query's dtype, or int8 or 8-bit floats that count ``key_scale`` and
    ``value_scale`` each. block_tables: [sequences, most pages], int32 or int64: pages of each sequence, in order.
    context_lens: [sequences], int32 or int64: keys of each, the tokens included; 0 gives zeros.
    window: a token sees itself and this many keys before; -1 for all. scale, softcap, sinks, alibi_slopes ([heads]) and
    return_lse: as in ``flash_attention``.

    The keys are divided into chunks, whose results are added up in order. With ``batch_invariant`` a chunk has 512
    keys, so that a sequence's result does not depend on the others; else a large batch takes fewer, longer ones.

    Returns a tensor like query, with the size of values. Raises ValueError if shapes or dtypes do not fit together,
    TypeError for an argument of another kind, KernelAssertionError if a page is not in the cache. No gradient.
    """
    tensors = query, key_cache, value_cache, block_tables, context_lens, sinks, alibi_slopes
    options = scale, window, softcap, key_scale, value_scale, batch_invariant, return_lse
    key = alike(tensors, options)
    if key is not None and (plan := _plans.get(key)) is not None:  # checked before
        out, lse = plan.run(*tensors)
        return (out, lse) if return_lse else out
    name = "paged_attention"
    caches = {"key_cache": key_cache, "value_cache": value_cache}
    kinds.tensors(name, query=query, **caches, block_tables=block_tables, context_lens=context_lens)
    kinds.optional_tensors(name, sinks=sinks, alibi_slopes=alibi_slopes)
    kinds.flags(name, batch_invariant=batch_invariant, return_lse=return_lse)
    kinds.integers(name, window=window)
    factor = 0.0 if scale is None else scale
    kinds.numbers(name, scale=factor, softcap=softcap, key_scale=key_scale, value_scale=value_scale)
    check_paged(
        query, key_cache, value_cache, block_tables, context_lens, sinks, alibi_slopes, softcap, window, key_scale,
        value_scale,
    )  # fmt: skip
    single = query.dim() == 3
    tokens = query.unsqueeze(1) if single else query
    args = tokens, *tensors[1:], whole_scale(query, scale), softcap, window, key_scale, value_scale, batch_invariant
    out, lse = _call(*args)
    if key is not None:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = plan_of(*args, single=single, with_logarithms=return_lse)
    if single:
        out, lse = out.squeeze(1), lse.squeeze(1)
    return (out, lse) if return_lse else out


def _pieces(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, tables: torch.Tensor,
    contexts: torch.Tensor, slopes: Optional, scale: float, cap: float, left: int, key_scale: float, value_scale: float,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:  # fmt: skip
    """Queries, keys, values and scores of each sequence, as batches of one."""
    group = query.shape[2] // key_cache.shape[2]
    for one, table, context in zip(query, tables.tolist(), contexts.tolist(), strict=True):
        keys, values = (
            cache[table].flatten(0, 1)[:context].transpose(0, 1)[None] * factor
            for cache, factor in ((key_cache.double(), key_scale), (value_cache.double(), value_scale))
        )
        asked = one.transpose(0, 1)[None]
        scores = asked @ keys.repeat_interleave(group, 1).mT * scale
        if cap:
            scores = cap * torch.tanh(scores / cap)
        last = context - one.shape[0] + torch.arange(one.shape[0])[:, None]
        columns = torch.arange(context)
        if slopes is not None:
            scores = scores - slopes.reshape(1, -1, 1, 1) * (last - columns).abs()
        unseen = columns > last
        if left >= 0:
            unseen = unseen | (columns < last - left)
        yield asked, keys, values, scores.masked_fill(unseen, -math.inf)


def _reference(*args: Any) -> Tensors:
    query, key_cache, value_cache, tables, contexts, sinks, slopes, *numbers, _ = args
    pieces = _pieces(query, key_cache, value_cache, tables, contexts, slopes, *numbers)
    found = [dense(asked, keys, values, scores, sinks)[:2] for asked, keys, values, scores in pieces]
    return tuple(torch.cat(each).transpose(1, 2) for each in zip(*found, strict=True))


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    query, key_cache, value_cache, tables, contexts, sinks, slopes, *numbers, _ = args
    results = []
    for asked, keys, values, scores in _pieces(query, key_cache, value_cache, tables, contexts, slopes, *numbers):
        wide = keys.repeat_interleave(asked.shape[1] // keys.shape[1], 1)
        off = (asked.abs() @ wide.abs().mT) * abs(numbers[0]) * (added(asked.shape[-1]) + 4)
        off = off + torch.where(torch.isinf(scores), 0.0, scores).abs() * 8
        if slopes is not None:
            off = off + slopes.reshape(1, -1, 1, 1).abs() * scores.shape[-1] * 4
        results.append(of_scores(asked, keys, values, scores, off, sinks, (), rounded))
    return tuple(torch.cat(each).transpose(1, 2) for each in zip(*results, strict=True))


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def sample(
        about: str, contexts: list[int], *, places: int = 16, tokens: int = 1, heads: int = 4, owners: int = 2,
        size: int = 32, cap: float = 0.0, left: int = -1, narrow: torch.dtype | None = None, sinks: bool = False,
        slopes: bool = False, integers: torch.dtype = torch.int32, invariant: bool = True,
    ) -> Sample:  # fmt: skip
        needed = [max(1, -(-context // places)) for context in contexts]
        order = torch.randperm(sum(needed) + 3)
        tables = torch.zeros(len(contexts), max(needed), dtype=integers)
        start = 0
        for row, count in enumerate(needed):
            tables[row, :count] = order[start : start + count]
            start += count
        shape = (len(order), places, owners, size)
        caches = [torch.randn(shape) for _ in range(2)]
        if narrow == torch.int8:
            caches = [(cache * 30).round().clamp(-127, 127) for cache in caches]
        caches = [cache.to(narrow or dtype) for cache in caches]
        scales = (1 / 30, 1 / 25) if narrow == torch.int8 else (0.5, 2.0) if narrow else (1.0, 1.0)
        query = torch.randn(len(contexts), tokens, heads, size).to(dtype)
        more = torch.randn(heads).to(dtype) if sinks else None, torch.rand(heads) if slopes else None
        numbers = 1 / math.sqrt(size), cap, left, *scales, invariant
        return Sample(about, (query, *caches, tables, torch.tensor(contexts).to(integers), *more, *numbers))

    yield sample("contexts of several chunks", [1, 600, 37, 1100])
    yield sample("a few tokens each", [5, 70, 3], tokens=3, size=24)
    yield sample("window, cap", [400, 33, 700], left=100, cap=3.0, owners=1)
    yield sample("sinks, slopes, pages of 7", [90, 8], places=7, sinks=True, slopes=True)
    yield sample("int8", [300, 20], narrow=torch.int8)
    yield sample("8-bit floats, int64", [300, 20], narrow=torch.float8_e4m3fn, integers=torch.int64)
    yield sample("a head of keys for each, in blocks of heads", [70, 5], heads=40, owners=40, size=128)
    yield sample("three share a key, sizes that are no power of two", [37, 2], heads=6, size=40)
    yield sample("an odd size", [9], size=21)
    yield sample("no context", [0, 20])
    yield sample("long chunks", [1, 600, 37, 1100], invariant=False)


OPERATORS = (
    Operator(
        name="paged_attention",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=_in_order,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Attention of new tokens to a paged cache of keys and values",
    ),
)
