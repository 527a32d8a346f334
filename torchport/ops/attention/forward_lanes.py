"""The forward kernel of attention for targets on which a program instance is one thread with vectors (docs/simt.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import (
    banded,
    kept,
    key_span,
    load_rows,
    nothing_seen,
    one_head,
    online,
    scores_of,
    sequence,
    store_rows,
)
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["forward_lanes"]


@Kernel
def forward_lanes(query, key, value, bias, sinks, slopes, query_starts, key_starts, seed, out, sums,  # type: ignore[no-untyped-def]
                  q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, b_batch, b_head, b_row,
                  b_column, slope_batch, heads, group, length, keys, left, right, scale, cap, dropout,
                  SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
                  RIGHT: tl.constexpr, TOP_LEFT: tl.constexpr, DROPS: tl.constexpr, BLOCK_D: tl.constexpr,
                  BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One block of rows of one head, as ``forward``; all tensors are float32.

    Everything is turned: an element of a vector is a row of queries, so that maxima and sums of rows need no exchange,
    and each element of keys and values is one number for a vector. There is one loop, as code costs a driver time. Rows
    and keys beyond the last are the last: no load needs a mask.
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
        inside = tl.minimum(rows, length - 1)
        wanted = tl.trans(load_rows(query, inside, q_row, length, SIZE, BLOCK_D, True) * scale)
        highest, total = nothing_seen(sinks, head, BLOCK_M)
        found = tl.zeros((BLOCK_V, BLOCK_M), tl.float32)
        begin, end = key_span(first, BLOCK_M, length, keys, shift, left, right, LEFT, RIGHT)
        for at in range(begin // BLOCK_N * BLOCK_N, end, BLOCK_N):
            columns = at + tl.arange(0, BLOCK_N)
            present = tl.minimum(columns, keys - 1)
            product = tl.dot(load_rows(key, present, k_row, keys, SIZE, BLOCK_D, True), wanted, input_precision="ieee")
            scores, _ = scores_of(product, inside[None, :], present[:, None], bias, slope, length, keys, shift, left,
                                  right, 1.0, cap, b_row, b_column, CAPPED, LEFT, RIGHT, True)  # fmt: skip
            scores = banded(scores, rows[None, :], columns[:, None], length, keys, shift, left, right, LEFT, RIGHT)
            weights, highest, total, shrunk = online(scores, highest, total, 0)
            if DROPS:
                weights = kept(weights, rows[None, :], columns[:, None], batch * heads + head, seed, dropout)
            block = load_rows(value, present, v_row, keys, VSIZE, BLOCK_V, True)
            found = tl.dot(tl.trans(block), weights, found * shrunk[None, :], input_precision="ieee")
        whole = tl.where(total == 0.0, 1.0, total)
        store_rows(out, rows, heads * VSIZE, length, tl.trans(found / whole[None, :]), VSIZE, BLOCK_V)
        at = sums + rows.to(tl.int64) * heads
        tl.store(at, (highest + tl.log2(whole)) * 0.6931471805599453, rows < length)
