"""The forward kernel of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import (
    kept,
    key_span,
    load_rows,
    nothing_seen,
    one_head,
    online,
    scores_of,
    sequence,
    store_rows,
    whole_keys,
)
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["forward"]


@Kernel
def _attend(wanted, key, value, bias, slope, seed, highest, total, found, rows, begin, end,  # type: ignore[no-untyped-def]
            k_row, v_row, b_row, b_column, place, length, keys, shift, left, right, scale, cap, dropout,
            SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
            DROPS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_N: tl.constexpr,
            WHOLE: tl.constexpr):  # fmt: skip
    """Take keys from ``begin`` to ``end`` into the running softmax. WHOLE: all rows see all of them."""
    for at in range(begin, end, BLOCK_N):
        columns = at + tl.arange(0, BLOCK_N)
        block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D, WHOLE)
        product = tl.dot(wanted, tl.trans(block), input_precision="ieee")
        scores, _ = scores_of(product, rows[:, None], columns[None, :], bias, slope, length, keys, shift, left,
                              right, scale, cap, b_row, b_column, CAPPED, LEFT, RIGHT, WHOLE)  # fmt: skip
        weights, highest, total, shrunk = online(scores, highest, total)
        if DROPS:
            weights = kept(weights, rows[:, None], columns[None, :], place, seed, dropout)
        block = load_rows(value, columns, v_row, keys, VSIZE, BLOCK_V, WHOLE)
        found = tl.dot(weights.to(block.dtype), block, found * shrunk[:, None], input_precision="ieee")
    return highest, total, found


@Kernel
def forward(query, key, value, bias, sinks, slopes, query_starts, key_starts, seed, out, sums,  # type: ignore[no-untyped-def]
            q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, b_batch, b_head, b_row, b_column,
            slope_batch, heads, group, length, keys, left, right, scale, cap, dropout,
            SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
            TOP_LEFT: tl.constexpr, DROPS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
            BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One block of rows of one head: out = softmax(scores) value, sums = log(sum(exp(scores))).

    out: [tokens, heads, VSIZE]; sums: [tokens, heads]. Rows with nothing to see give 0 and -inf.
    Grid: blocks of rows, heads, batch.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    dropout = tl.cast(dropout, tl.float32)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    token, length = sequence(query_starts, batch, length)
    first = tl.program_id(0) * BLOCK_M
    if first < length:
        query = one_head(query, query_starts, batch, head, token, q_batch, q_head, q_row)
        out += (token * heads + head) * VSIZE
        sums += token * heads + head
        token, keys = sequence(key_starts, batch, keys)
        key = one_head(key, key_starts, batch, head // group, token, k_batch, k_head, k_row)
        value = one_head(value, key_starts, batch, head // group, token, v_batch, v_head, v_row)
        shift = 0 if TOP_LEFT else keys - length
        if bias is not None:
            bias += batch * b_batch + head.to(tl.int64) * b_head
        slope = None
        if slopes is not None:
            slope = tl.load(slopes + batch * slope_batch + head)
        rows = first + tl.arange(0, BLOCK_M)
        wanted = load_rows(query, rows, q_row, length, SIZE, BLOCK_D)
        highest, total = nothing_seen(sinks, head, BLOCK_M)
        found = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
        begin, end = key_span(first, BLOCK_M, length, keys, shift, left, right, LEFT, RIGHT)
        begin = begin // BLOCK_N * BLOCK_N
        inner, outer = whole_keys(first, BLOCK_M, begin, end, keys, shift, left, right, LEFT, RIGHT, BLOCK_N)
        place = batch * heads + head
        if LEFT:
            highest, total, found = _attend(
                wanted, key, value, bias, slope, seed, highest, total, found, rows, begin, inner, k_row, v_row, b_row,
                b_column, place, length, keys, shift, left, right, scale, cap, dropout, SIZE, VSIZE, CAPPED, LEFT,
                RIGHT, DROPS, BLOCK_D, BLOCK_V, BLOCK_N, False)  # fmt: skip
        highest, total, found = _attend(
            wanted, key, value, bias, slope, seed, highest, total, found, rows, inner, outer, k_row, v_row, b_row,
            b_column, place, length, keys, shift, left, right, scale, cap, dropout, SIZE, VSIZE, CAPPED, LEFT,
            RIGHT, DROPS, BLOCK_D, BLOCK_V, BLOCK_N, True)  # fmt: skip
        highest, total, found = _attend(
            wanted, key, value, bias, slope, seed, highest, total, found, rows, outer, end, k_row, v_row, b_row,
            b_column, place, length, keys, shift, left, right, scale, cap, dropout, SIZE, VSIZE, CAPPED, LEFT,
            RIGHT, DROPS, BLOCK_D, BLOCK_V, BLOCK_N, False)  # fmt: skip
        whole = tl.where(total == 0.0, 1.0, total)
        store_rows(out, rows, heads * VSIZE, length, found / whole[:, None], VSIZE, BLOCK_V)
        at = sums + rows.to(tl.int64) * heads
        tl.store(at, (highest + tl.log2(whole)) * 0.6931471805599453, rows < length)
