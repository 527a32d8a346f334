"""The kernels of attention to a paged cache: chunks of the keys of a sequence, and their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import nothing_seen, online, weights_of
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["combine", "split", "split_heads"]


@Kernel
def split(query, key_cache, value_cache, tables, contexts, slopes, partial, sums,  # type: ignore[no-untyped-def]
           q_seq, q_token, q_head, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, table_row,
           heads, group, queries, pages, splits, chunk, left, scale, cap,
           PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
           BLOCK_D: tl.constexpr,
           BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One chunk of the keys of one sequence and one head of keys, for all queries of the heads that share it.

    partial: [sequences, queries, heads, splits, VSIZE], sums: [sequences, queries, heads, splits], in powers of two;
    -inf where nothing is seen. Grid: heads of keys, splits, sequences times blocks of rows.
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
    tl.store(partial + at[:, None] * VSIZE + across[None, :], found / whole[:, None],
             there[:, None] & (across[None, :] < VSIZE))  # fmt: skip
    tl.store(sums + at, highest + tl.log2(whole), there)


@Kernel
def _take(wanted, key_cache, value_cache, tables, slope, highest, total, found, own, there, begin, end, context,  # type: ignore[no-untyped-def]
          kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, pages, left, cap,
          PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
          BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_N: tl.constexpr, WHOLE: tl.constexpr):  # fmt: skip
    """Take keys from ``begin`` to ``end`` into the running softmax of all heads. WHOLE: nothing is masked."""
    lane = tl.arange(0, BLOCK_D)
    across = tl.arange(0, BLOCK_V)
    for start in range(begin, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        if PLACES % BLOCK_N == 0:  # a block lies in one page
            page = tl.load(tables + start // PLACES).to(tl.int64)
            place = start % PLACES + tl.arange(0, BLOCK_N)
        else:
            page = tl.load(tables + columns // PLACES, columns < end, 0).to(tl.int64)
            place = columns % PLACES
        there_is = (page >= 0) & (page < pages)
        tl.device_assert(there_is, "paged_attention: a page is not in the cache")
        page = tl.where(there_is, page, 0)
        at = (page * kc_page + place * kc_place)[:, None, None] + (own * kc_head)[None, :, None] + lane[None, None, :]
        if WHOLE:
            keys = tl.load(key_cache + at).to(tl.float32)
        else:
            mask = (columns < end)[:, None, None] & there[None, :, None]
            keys = tl.load(key_cache + at, mask & (lane[None, None, :] < SIZE), 0.0).to(tl.float32)
        scores = tl.sum(keys * wanted[None, :, :], 2)
        if CAPPED:
            scores = tl.extra.libdevice.tanh(scores) * cap
        if slope is not None:
            scores -= slope[None, :] * (context - 1 - columns)[:, None].to(tl.float32)
        if LEFT:
            scores = tl.where((columns >= context - 1 - left)[:, None], scores, float("-inf"))
        if not WHOLE:
            scores = tl.where((columns < end)[:, None], scores, float("-inf"))
        now = tl.maximum(highest, tl.max(scores, 0))
        base = tl.where(now == float("-inf"), 0.0, now)  # nothing seen yet: no -inf - -inf
        weights = weights_of(scores - base[None, :])
        shrunk = tl.exp2(highest - base)
        highest = now
        total = total * shrunk + tl.sum(weights, 0)
        at = (page * vc_page + place * vc_place)[:, None, None] + (own * vc_head)[None, :, None] + across[None, None, :]
        if WHOLE:
            values = tl.load(value_cache + at).to(tl.float32)
        else:
            values = tl.load(value_cache + at, mask & (across[None, None, :] < VSIZE), 0.0).to(tl.float32)
        found = found * shrunk[:, None] + tl.sum(weights[:, :, None] * values, 0)
    return highest, total, found


@Kernel
def split_heads(query, key_cache, value_cache, tables, contexts, slopes, partial, sums,  # type: ignore[no-untyped-def]
                q_seq, q_head, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, table_row,
                pages, splits, chunk, left, scale, cap,
                PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
                BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                HEADS: tl.constexpr):  # fmt: skip
    """One chunk of the keys of one sequence for one query, all heads at once: a CPU reads pages from end to end.

    Arguments as in ``split``; each of the HEADS has keys of its own. Grid: splits, sequences.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    sequence = tl.program_id(1).to(tl.int64)
    context = tl.load(contexts + sequence).to(tl.int32)
    tl.device_assert(context <= table_row * PLACES, "paged_attention: a context is longer than its pages")
    head = tl.arange(0, BLOCK_M)
    there = head < HEADS
    own = head.to(tl.int64)
    lane = tl.arange(0, BLOCK_D)
    at = query + sequence * q_seq + head.to(tl.int64)[:, None] * q_head + lane[None, :]
    wanted = tl.load(at, there[:, None] & (lane[None, :] < SIZE), 0.0).to(tl.float32) * scale
    slope = None
    if slopes is not None:
        slope = tl.load(slopes + head, there, 0.0).to(tl.float32) * 1.4426950408889634
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    found = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    begin = tl.program_id(0) * chunk
    end = tl.minimum(begin + chunk, context)
    if LEFT:
        begin = tl.maximum(begin, (context - 1 - left) // BLOCK_N * BLOCK_N)
    tables += sequence * table_row
    if HEADS == BLOCK_M and SIZE == BLOCK_D and VSIZE == BLOCK_V:
        rest = begin + tl.maximum(end - begin, 0) // BLOCK_N * BLOCK_N
        highest, total, found = _take(
            wanted, key_cache, value_cache, tables, slope, highest, total, found, own, there, begin, rest, context,
            kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, pages, left, cap, PLACES, SIZE, VSIZE, CAPPED, LEFT,
            BLOCK_D, BLOCK_V, BLOCK_N, True)  # fmt: skip
        begin = rest
    highest, total, found = _take(
        wanted, key_cache, value_cache, tables, slope, highest, total, found, own, there, begin, end, context,
        kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, pages, left, cap, PLACES, SIZE, VSIZE, CAPPED, LEFT,
        BLOCK_D, BLOCK_V, BLOCK_N, False)  # fmt: skip
    at = (sequence * HEADS + head) * splits + tl.program_id(0)
    across = tl.arange(0, BLOCK_V)
    whole = tl.where(total == 0.0, 1.0, total)
    tl.store(partial + at[:, None] * VSIZE + across[None, :], found / whole[:, None],
             there[:, None] & (across[None, :] < VSIZE))  # fmt: skip
    tl.store(sums + at, highest + tl.log2(whole), there)


@Kernel
def combine(partial, sums, sinks, out, logarithms, heads, splits, factor, VSIZE: tl.constexpr,  # type: ignore[no-untyped-def]
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
