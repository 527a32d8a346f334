"""The kernels of attention to a paged cache: chunks of the keys of a sequence, and their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import nothing_seen, online
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["combine", "split"]


@Kernel
def split(query, key_cache, value_cache, tables, contexts, slopes, partial,  # type: ignore[no-untyped-def]
           q_seq, q_token, q_head, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, table_row,
           heads, group, queries, sums_at, pages, splits, chunk, left, scale, cap,
           PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
           BLOCK_D: tl.constexpr,
           BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One chunk of the keys of one sequence and one head of keys, for all queries of the heads that share it.

    partial: results, [sequences, queries, heads, splits, BLOCK_V], and from ``sums_at`` on their sums, [sequences,
    queries, heads, splits], as logarithms to base 2, -inf where nothing is seen.
    Grid: heads of keys, splits, sequences times blocks of rows.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    own = tl.program_id(0)
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
    begin = tl.program_id(1) * chunk
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
    at = ((sequence * queries + token) * heads + head) * splits + tl.program_id(1)
    whole = tl.where(total == 0.0, 1.0, total)
    across = tl.arange(0, BLOCK_V)
    tl.store(partial + at[:, None] * BLOCK_V + across[None, :], found / whole[:, None], there[:, None])
    tl.store(partial + sums_at + at, highest + tl.log2(whole), there)


@Kernel
def combine(partial, sinks, out, logarithms, heads, sums_at, splits, factor, VSIZE: tl.constexpr,  # type: ignore[no-untyped-def]
            BLOCK_V: tl.constexpr, BLOCK_S: tl.constexpr, PAIRED: tl.constexpr):  # fmt: skip
    """out = the splits of one row, by their sums, in order. Grid: sequences x queries x heads.

    logarithms: of the rows' sums, or None if nobody asks for them.
    PAIRED: the even elements come first in ``partial``.
    """
    factor = tl.cast(factor, tl.float32)
    row = tl.program_id(0).to(tl.int64)
    across = tl.arange(0, BLOCK_V // 2)
    highest, total = nothing_seen(sinks, row % heads, 1)
    first = tl.zeros((1, BLOCK_V // 2), tl.float32)
    second = tl.zeros((1, BLOCK_V // 2), tl.float32)
    for start in range(0, splits, BLOCK_S):
        split = start + tl.arange(0, BLOCK_S)
        share = tl.load(partial + sums_at + row * splits + split, split < splits, float("-inf"))
        weights, highest, total, shrunk = online(share[None, :], highest, total)
        at = partial + (row * splits + split)[:, None] * BLOCK_V + across[None, :]
        mask = (share != float("-inf"))[:, None]
        weights = tl.trans(weights)
        first = first * shrunk[:, None] + tl.sum(weights * tl.load(at, mask, 0.0), 0)[None, :]
        second = second * shrunk[:, None] + tl.sum(weights * tl.load(at + BLOCK_V // 2, mask, 0.0), 0)[None, :]
    whole = tl.where(total == 0.0, 1.0, total)
    first *= (factor / whole)[:, None]
    second *= (factor / whole)[:, None]
    at = out + row * VSIZE
    if PAIRED:
        every = tl.arange(0, BLOCK_V)
        both = tl.interleave(first, second)
        tl.store(at + every[None, :], both.to(out.dtype.element_ty), (every < VSIZE)[None, :])
    else:
        at = at + across[None, :]
        tl.store(at, first.to(out.dtype.element_ty), (across < VSIZE)[None, :])
        tl.store(at + BLOCK_V // 2, second.to(out.dtype.element_ty), (across + BLOCK_V // 2 < VSIZE)[None, :])
    if logarithms is not None:
        at = logarithms + row + tl.arange(0, 1)
        tl.store(at, (highest + tl.log2(whole)) * 0.6931471805599453)
