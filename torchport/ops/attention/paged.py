"""Attention of new tokens to a paged cache of keys and values: ``paged_attention``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops import kinds
from torchport.ops.attention.blocks import nothing_seen, online
from torchport.ops.attention.call import Optional, in_powers_of_two, straight, straight_list, whole_scale
from torchport.ops.attention.checks import check_paged
from torchport.ops.attention.reference import dense, of_scores
from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import block_for
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "paged_attention"]

_CHUNK = 512
"""Keys of one split: a number of its own, so that sums do not depend on what else is in the batch."""

_PROGRAMS = 8


@Kernel
def _split(query, key_cache, value_cache, tables, contexts, slopes, partial, sums,  # type: ignore[no-untyped-def]
           q_seq, q_token, q_head, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, table_row,
           heads, group, queries, pages, splits, chunk, left, scale, cap,
           PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
           BLOCK_D: tl.constexpr,
           BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One chunk of the keys of one sequence and one head of keys, for all queries of the heads that share it.

    partial: [sequences, queries, heads, splits, VSIZE], sums: [sequences, queries, heads, splits], in powers of two;
    -inf where nothing is seen. Grid: splits, heads of keys, sequences times blocks of rows.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    own = tl.program_id(1)
    blocks = (queries * group + BLOCK_M - 1) // BLOCK_M
    sequence = (tl.program_id(2) // blocks).to(tl.int64)
    rows = tl.program_id(2) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < queries * group
    token = rows // group
    head = own * group + rows % group
    context = tl.load(contexts + sequence).to(tl.int32)
    tl.device_assert(context <= table_row * PLACES, "paged_attention: a context is longer than its pages")
    last = context - queries + token  # the last key that a row sees
    lane = tl.arange(0, BLOCK_D)
    at = query + sequence * q_seq + token.to(tl.int64)[:, None] * q_token + head.to(tl.int64)[:, None] * q_head
    wanted = tl.load(at + lane[None, :], there[:, None] & (lane[None, :] < SIZE), 0.0)
    slope = None
    if slopes is not None:
        slope = tl.load(slopes + head, there, 0.0) * 1.4426950408889634
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    found = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    begin = tl.program_id(0) * chunk
    end = tl.minimum(begin + chunk, context)
    if LEFT:
        begin = tl.maximum(begin, (context - queries - left) // BLOCK_N * BLOCK_N)
    tables += sequence * table_row
    key_cache += own.to(tl.int64) * kc_head
    value_cache += own.to(tl.int64) * vc_head
    for start in range(begin, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        inside = columns < end
        if PLACES % BLOCK_N == 0:  # a block lies in one page
            page = tl.load(tables + start // PLACES).to(tl.int64)
            place = start % PLACES + tl.arange(0, BLOCK_N)
        else:
            page = tl.load(tables + columns // PLACES, inside, 0).to(tl.int64)
            place = columns % PLACES
        there_is = (page >= 0) & (page < pages)
        tl.device_assert(there_is, "paged_attention: a page is not in the cache")
        inside = inside & there_is
        spot = key_cache + (page * kc_page + place * kc_place)[:, None] + lane[None, :]
        keys = tl.load(spot, inside[:, None] & (lane[None, :] < SIZE), 0.0).to(wanted.dtype)
        if BLOCK_M == 1:  # a product would turn all keys around for one row
            scores = tl.sum(keys.to(tl.float32) * wanted.to(tl.float32), 1)[None, :] * scale
        else:
            scores = tl.dot(wanted, tl.trans(keys), input_precision="ieee") * scale
        if CAPPED:
            scores = tl.extra.libdevice.tanh(scores) * cap
        if slope is not None:
            scores -= slope[:, None] * tl.abs(last[:, None] - columns[None, :]).to(tl.float32)
        seen = inside[None, :] & (columns[None, :] <= last[:, None])
        if LEFT:
            seen = seen & (columns[None, :] >= last[:, None] - left)
        scores = tl.where(seen, scores, float("-inf"))
        weights, highest, total, shrunk = online(scores, highest, total)
        across = tl.arange(0, BLOCK_V)
        spot = value_cache + (page * vc_page + place * vc_place)[:, None] + across[None, :]
        values = tl.load(spot, inside[:, None] & (across[None, :] < VSIZE), 0.0).to(wanted.dtype)
        found = tl.dot(weights.to(wanted.dtype), values, found * shrunk[:, None], input_precision="ieee")
    at = ((sequence * queries + token) * heads + head) * splits + tl.program_id(0)
    whole = tl.where(total == 0.0, 1.0, total)
    across = tl.arange(0, BLOCK_V)
    tl.store(partial + at[:, None] * VSIZE + across[None, :], found / whole[:, None],
             there[:, None] & (across[None, :] < VSIZE))  # fmt: skip
    tl.store(sums + at, highest + tl.log2(whole), there)


@Kernel
def _combine(partial, sums, sinks, out, logarithms, heads, splits, factor, VSIZE: tl.constexpr,  # type: ignore[no-untyped-def]
             BLOCK_V: tl.constexpr, BLOCK_S: tl.constexpr):  # fmt: skip
    """out = the splits of one row, by their sums, in order. Grid: sequences x queries x heads."""
    factor = tl.cast(factor, tl.float32)
    row = tl.program_id(0).to(tl.int64)
    across = tl.arange(0, BLOCK_V)
    highest, total = nothing_seen(sinks, row % heads, 1)
    found = tl.zeros((1, BLOCK_V), tl.float32)
    for start in range(0, splits, BLOCK_S):
        split = start + tl.arange(0, BLOCK_S)
        share = tl.load(sums + row * splits + split, split < splits, float("-inf"))
        weights, highest, total, shrunk = online(share[None, :], highest, total)
        mask = (share != float("-inf"))[:, None] & (across[None, :] < VSIZE)
        values = tl.load(partial + (row * splits + split)[:, None] * VSIZE + across[None, :], mask, 0.0)
        found = found * shrunk[:, None] + tl.sum(tl.trans(weights) * values, 0)[None, :]
    whole = tl.where(total == 0.0, 1.0, total)
    found = found * (factor / whole)[:, None]
    tl.store(out + row * VSIZE + across[None, :], found.to(out.dtype.element_ty), across[None, :] < VSIZE)
    at = logarithms + row + tl.arange(0, 1)
    tl.store(at, (highest + tl.log2(whole)) * 0.6931471805599453)


def _attend(
    query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, tables: torch.Tensor,
    contexts: torch.Tensor, sinks: Optional, slopes: Optional, scale: float, cap: float, left: int, key_scale: float,
    value_scale: float, invariant: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    query, key_cache, value_cache = map(straight, (query, key_cache, value_cache))
    sequences, queries, heads, size = query.shape
    pages, places, owners, width = value_cache.shape
    group = heads // owners
    most = max(tables.shape[1] * places, 1)
    chunk = _CHUNK if invariant else max(_CHUNK, -(-most // max(1, _PROGRAMS // max(1, sequences * owners))))
    chunk = -(-chunk // 64) * 64
    splits = -(-most // chunk)
    out = torch.empty((sequences, queries, heads, width), dtype=query.dtype, device=query.device)
    logarithms = torch.empty((sequences, queries, heads), dtype=torch.float32, device=query.device)
    partial = torch.empty((sequences, queries, heads, splits, width), dtype=torch.float32, device=query.device)
    sums = torch.empty((sequences, queries, heads, splits), dtype=torch.float32, device=query.device)
    small = _rows(queries * group, query.device)
    scale *= key_scale
    scaling = in_powers_of_two(scale, cap)
    args = (
        query, key_cache, value_cache, tables.contiguous(), contexts.contiguous(), straight_list(slopes), partial, sums,
        *query.stride()[:3], *key_cache.stride()[:3], *value_cache.stride()[:3], tables.shape[1], heads, group, queries,
        pages, splits, chunk, max(left, 0), *scaling,
    )  # fmt: skip
    blocks = {
        "BLOCK_D": block_for(size),
        "BLOCK_V": block_for(width),
        "BLOCK_M": small,
        "BLOCK_N": _columns(places),
    }
    constants = {"PLACES": places, "SIZE": size, "VSIZE": width, "CAPPED": cap != 0, "LEFT": left >= 0}
    launch(_split, (splits, owners, sequences * -(-queries * group // small)), args, constants | blocks)
    rows = sequences * queries * heads
    args = partial, sums, straight_list(sinks), out, logarithms, heads, splits, value_scale
    launch(_combine, (rows, 1, 1), args, {"VSIZE": width, "BLOCK_V": block_for(width), "BLOCK_S": 16})
    return out, logarithms


def _rows(count: int, device: torch.device) -> int:
    """Rows of a block: on a CPU no more than there are, elsewhere at least what matrix units take."""
    least = 1 if device.type == "cpu" else 16
    while least < min(count, 64):
        least *= 2
    return least


def _columns(places: int) -> int:
    """Keys of a block: within one page, if its size allows that."""
    return min(64, places) if places >= 16 and places & (places - 1) == 0 else 64


_SCHEMA = (
    "(Tensor query, Tensor key_cache, Tensor value_cache, Tensor tables, Tensor contexts, Tensor? sinks, "
    "Tensor? slopes, float scale, float cap, int left, float key_scale, float value_scale, bool invariant) "
    "-> (Tensor, Tensor)"
)
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
    out, lse = _call(
        tokens, key_cache, value_cache, block_tables, context_lens, sinks, alibi_slopes, whole_scale(query, scale),
        softcap, window, key_scale, value_scale, batch_invariant,
    )  # fmt: skip
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
