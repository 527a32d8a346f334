"""Attention to a paged cache on a CPU: a program instance takes several heads of keys, whose rows lie side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import weights_of
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["split_heads"]


@Kernel
def _halves(row, first_head, head_stride, there, SIZE: tl.constexpr, HALF: tl.constexpr, PAIRED: tl.constexpr,  # type: ignore[no-untyped-def]
            FULL: tl.constexpr):  # fmt: skip
    """A row of each head as two float32 blocks [heads, .., HALF], 0 where not ``there``.

    PAIRED: of bfloat16, read as words of two: the even and the odd elements. Else the first elements and the others.
    FULL: all heads are there, and all elements.
    """
    lane = tl.arange(0, HALF)[None, None, :]
    if PAIRED:
        words = row.to(tl.pointer_type(tl.int32)) + first_head * (head_stride // 2) + lane
        if FULL:
            word = tl.load(words)
        else:
            word = tl.load(words, there & (lane * 2 < SIZE), 0)
        first = (word << 16).to(tl.float32, bitcast=True)
        second = (word & -65536).to(tl.float32, bitcast=True)
    else:
        at = row + first_head * head_stride + lane
        if FULL:
            first = tl.load(at).to(tl.float32)
            second = tl.load(at + HALF).to(tl.float32)
        else:
            first = tl.load(at, there & (lane < SIZE), 0.0).to(tl.float32)
            second = tl.load(at + HALF, there & (lane + HALF < SIZE), 0.0).to(tl.float32)
    return first, second


@Kernel
def _page(tables, at, pages, PLACES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The page of key ``at``."""
    page = tl.load(tables + at // PLACES).to(tl.int64)
    there_is = (page >= 0) & (page < pages)
    tl.device_assert(there_is, "paged_attention: a page is not in the cache")
    return tl.where(there_is, page, 0)


@Kernel
def _take(wanted, wanted_2, key_cache, value_cache, tables, slope, highest, total, found, found_2, own, there,  # type: ignore[no-untyped-def]
          begin, end, last, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, pages, left, cap,
          PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
          HALF_D: tl.constexpr, HALF_V: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, PAIRED: tl.constexpr,
          VPAIRED: tl.constexpr, FULL: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """Take keys from ``begin`` to ``end``, KEYS at a time, into the running softmax of all heads."""
    for start in range(begin, end, KEYS):
        page = _page(tables, start, pages, PLACES)
        pages_of = ()
        products = ()
        for i in tl.static_range(KEYS):
            at = start + i
            if PLACES % KEYS != 0 and i > 0:
                page = _page(tables, at, pages, PLACES)
            pages_of += (page,)  # type: ignore[assignment]
            row = key_cache + page * kc_page + at % PLACES * kc_place
            first, second = _halves(row, own, kc_head, there, SIZE, HALF_D, PAIRED, FULL)
            products += (tl.sum(tl.fma(first, wanted, second * wanted_2), 2),)  # type: ignore[assignment]
        scores = ()
        now = highest
        for i in tl.static_range(KEYS):
            at = start + i
            score = tl.reshape(products[i], (HEADS * GROUP,))
            if CAPPED:
                score = tl.extra.libdevice.tanh(score) * cap
            if slope is not None:
                score -= slope * (last - at).to(tl.float32)
            if LEFT:
                score = tl.where(at >= last - left, score, float("-inf"))
            now = tl.maximum(now, score)
            scores += (score,)  # type: ignore[assignment]
        base = tl.where(now == float("-inf"), 0.0, now)  # nothing seen yet: no -inf - -inf
        shrunk = tl.exp2(highest - base)
        highest = now
        total *= shrunk
        shrunk = tl.reshape(shrunk, (HEADS, GROUP))[:, :, None]
        found *= shrunk
        found_2 *= shrunk
        for i in tl.static_range(KEYS):
            weights = weights_of(scores[i] - base)
            total += weights
            row = value_cache + pages_of[i] * vc_page + (start + i) % PLACES * vc_place
            first, second = _halves(row, own, vc_head, there, VSIZE, HALF_V, VPAIRED, FULL)
            weights = tl.reshape(weights, (HEADS, GROUP))[:, :, None]
            found = tl.fma(weights, first, found)
            found_2 = tl.fma(weights, second, found_2)
    return highest, total, found, found_2


@Kernel
def split_heads(query, key_cache, value_cache, tables, contexts, slopes, partial,  # type: ignore[no-untyped-def]
                q_seq, q_head, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, table_row,
                owners, group, sums_at, pages, splits, chunk, left, scale, cap,
                PLACES: tl.constexpr, SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
                BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr,
                FULL: tl.constexpr, PAIRED: tl.constexpr, VPAIRED: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """One chunk of the keys of one sequence for one query and HEADS heads of keys: a CPU reads pages from end to end.

    Arguments as in ``split``. FULL: HEADS and GROUP are no more than there are. Grid: splits, sequences, blocks of
    heads.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    sequence = tl.program_id(1).to(tl.int64)
    context = tl.load(contexts + sequence).to(tl.int32)
    tl.device_assert(context <= table_row * PLACES, "paged_attention: a context is longer than its pages")
    own = tl.program_id(2) * HEADS + tl.arange(0, HEADS)
    member = tl.arange(0, GROUP)
    head = (own * group)[:, None] + member[None, :]
    there = (own < owners)[:, None] & (member < group)[None, :]
    HALF_D: tl.constexpr = BLOCK_D // 2
    HALF_V: tl.constexpr = BLOCK_V // 2
    wanted, wanted_2 = _halves(query + sequence * q_seq, head.to(tl.int64)[:, :, None], q_head, there[:, :, None], SIZE,
                               HALF_D, PAIRED, False)  # fmt: skip
    wanted *= scale
    wanted_2 *= scale
    slope = None
    flat = tl.reshape(head, (HEADS * GROUP,))
    there = tl.reshape(there, (HEADS * GROUP,))
    if slopes is not None:
        slope = tl.load(slopes + flat, there, 0.0).to(tl.float32) * 1.4426950408889634
    highest = tl.full((HEADS * GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS * GROUP,), tl.float32)
    found = tl.zeros((HEADS, GROUP, HALF_V), tl.float32)
    found_2 = tl.zeros((HEADS, GROUP, HALF_V), tl.float32)
    begin = tl.program_id(0) * chunk
    end = tl.minimum(begin + chunk, context)
    if LEFT:
        begin = tl.maximum(begin, (context - 1 - left) // KEYS * KEYS)
    tables += sequence * table_row
    last = context - 1
    spot = own.to(tl.int64)[:, None, None]
    known = (own < owners)[:, None, None]
    rest = begin + tl.maximum(end - begin, 0) // KEYS * KEYS
    highest, total, found, found_2 = _take(
        wanted, wanted_2, key_cache, value_cache, tables, slope, highest, total, found, found_2, spot, known, begin,
        rest, last, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, pages, left, cap, PLACES, SIZE, VSIZE,
        CAPPED, LEFT, HALF_D, HALF_V, HEADS, GROUP, PAIRED, VPAIRED, FULL, KEYS)  # fmt: skip
    highest, total, found, found_2 = _take(
        wanted, wanted_2, key_cache, value_cache, tables, slope, highest, total, found, found_2, spot, known, rest,
        end, last, kc_page, kc_place, kc_head, vc_page, vc_place, vc_head, pages, left, cap, PLACES, SIZE, VSIZE,
        CAPPED, LEFT, HALF_D, HALF_V, HEADS, GROUP, PAIRED, VPAIRED, FULL, 1)  # fmt: skip
    at = (sequence * (owners * group) + flat) * splits + tl.program_id(0)
    whole = tl.where(total == 0.0, 1.0, total)
    tl.store(partial + sums_at + at, highest + tl.log2(whole), there)
    whole = tl.reshape(whole, (HEADS, GROUP))[:, :, None]
    mask = tl.reshape(there, (HEADS, GROUP))[:, :, None]
    spot = partial + tl.reshape(at, (HEADS, GROUP))[:, :, None] * BLOCK_V + tl.arange(0, HALF_V)[None, None, :]
    tl.store(spot, found / whole, mask)
    tl.store(spot + HALF_V, found_2 / whole, mask)
