"""The backward kernels of attention (Dao, FlashAttention-2, arXiv 2307.08691, section 3.1).

Scores are computed once more. No sum is by atomics, so that gradients are the same bits in every run. ``by_columns``
computes the gradients of keys and values, and, where asked, that of queries as well, five products a pair of blocks: it
goes through memory then, in copies that are added up afterwards. Where a program instance cannot read what it stored
without a barrier, or the copies would be too many, ``by_rows`` computes it apart: seven products.

Tensors that are computed here lie as [tokens, heads, size]; sums and deltas as [tokens, heads].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import (
    kept,
    key_span,
    load_rows,
    one_head,
    row_span,
    scores_of,
    sequence,
    store_rows,
    weights_of,
)
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["by_columns", "by_rows", "delta", "sums_of", "weights_from"]


@Kernel
def delta(grad, out, grad_sums, found, count, VSIZE: tl.constexpr, BLOCK_V: tl.constexpr,  # type: ignore[no-untyped-def]
          BLOCK_M: tl.constexpr):  # fmt: skip
    """found = sum(grad * out) of each of ``count`` rows, less the gradient of its ``sums``. All contiguous."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    given = load_rows(grad, rows, VSIZE, count, VSIZE, BLOCK_V)
    result = load_rows(out, rows, VSIZE, count, VSIZE, BLOCK_V)
    total = tl.sum(given.to(tl.float32) * result.to(tl.float32), 1)
    if grad_sums is not None:
        total -= tl.load(grad_sums + rows, rows < count, 0.0)
    tl.store(found + rows, total, rows < count)


@Kernel
def sums_of(sums, rows, stride, length):  # type: ignore[no-untyped-def]
    """Rows of ``sums``, in powers of two: 0 where nothing is to be seen, so that exp2(-inf - sum) is 0."""
    total = tl.load(sums + rows.to(tl.int64) * stride, rows < length, 0.0)
    return tl.where(total == float("-inf"), 0.0, total * 1.4426950408889634)


@Kernel
def weights_from(scores, sums, rest, start, rows, stride, length, AXIS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Weights of a block of scores, by logarithms of the rows' sums; with ``rest``, those are in two parts (``bases``).

    start: where both have the head's first row. AXIS: that of the keys.
    """
    if rest is not None:
        at = rows.to(tl.int64) * stride + start
        left = scores - tl.expand_dims(tl.load(sums + at, rows < length, 0.0), AXIS)
        shifted = left - tl.expand_dims(tl.load(rest + at, rows < length, 0.0), AXIS)
    else:
        shifted = scores - tl.expand_dims(sums_of(sums + start, rows, stride, length), AXIS)
    return weights_of(shifted)


@Kernel
def by_columns(query, key, value, grad, bias, slopes, query_starts, key_starts, seed, sums, rest, deltas,  # type: ignore[no-untyped-def]
               grad_query, grad_key, grad_value, grad_bias,
               q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, b_batch, b_head, b_row, b_column,
               slope_batch, heads, group, length, keys, tokens, left, right, scale, cap, factor, dropout,
               SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
               TOP_LEFT: tl.constexpr, DROPS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
               BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Gradients of every P-th block of keys and values of one head, P being the programs; scores are [keys, rows].

    sums, rest, deltas: [heads, tokens], as rows lie side by side in a block of scores. rest: see ``bases``, or None.
    grad_query: [P, tokens, heads, SIZE], zero before, without the factor; or None.
    grad_bias: [batch, heads, length, keys], zero before, or None. factor: d score / d product (without a cap).
    Grid: programs for a head, heads of key and value, batch.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    factor = tl.cast(factor, tl.float32)
    dropout = tl.cast(dropout, tl.float32)
    own = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    token, length = sequence(query_starts, batch, length)
    key_token, keys = sequence(key_starts, batch, keys)
    key = one_head(key, key_starts, batch, own, key_token, k_batch, k_head, k_row)
    value = one_head(value, key_starts, batch, own, key_token, v_batch, v_head, v_row)
    owners = heads // group
    grad_key += (key_token * owners + own) * SIZE
    grad_value += (key_token * owners + own) * VSIZE
    if grad_query is not None:
        grad_query += (tl.program_id(0).to(tl.int64) * tokens + token) * heads * SIZE
    shift = 0 if TOP_LEFT else keys - length
    for first in range(tl.program_id(0) * BLOCK_N, keys, tl.num_programs(0) * BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        right_block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D)
        values = load_rows(value, columns, v_row, keys, VSIZE, BLOCK_V)
        key_found = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        value_found = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
        begin, end = row_span(first, BLOCK_N, length, shift, left, right, LEFT, RIGHT)
        for member in range(0, group):
            head = own * group + member
            left_start = one_head(query, query_starts, batch, head, token, q_batch, q_head, q_row)
            grad_start = grad + (token * heads + head) * VSIZE
            sums_start = head.to(tl.int64) * tokens + token
            bias_start = bias
            if bias is not None:
                bias_start = bias + batch * b_batch + head.to(tl.int64) * b_head
            slope = None
            if slopes is not None:
                slope = tl.load(slopes + batch * slope_batch + head)
            for at in range(begin // BLOCK_M * BLOCK_M, end, BLOCK_M):
                rows = at + tl.arange(0, BLOCK_M)
                wanted = load_rows(left_start, rows, q_row, length, SIZE, BLOCK_D)
                given = load_rows(grad_start, rows, heads * VSIZE, length, VSIZE, BLOCK_V)
                product = tl.dot(right_block, tl.trans(wanted), input_precision="ieee")
                scores, bent = scores_of(product, rows[None, :], columns[:, None], bias_start, slope, length, keys,
                                         shift, left, right, scale, cap, b_row, b_column, CAPPED, LEFT,
                                         RIGHT)  # fmt: skip
                weights = weights_from(scores, sums, rest, sums_start, rows, 1, length, 0)
                change = tl.dot(values, tl.trans(given), input_precision="ieee")
                used = weights
                if DROPS:
                    place = batch * heads + head
                    used = kept(weights, rows[None, :], columns[:, None], place, seed, dropout)
                    change = kept(change, rows[None, :], columns[:, None], place, seed, dropout)
                value_found = tl.dot(used.to(given.dtype), given, value_found, input_precision="ieee")
                off = tl.load(deltas + sums_start + rows, rows < length, 0.0)
                change = weights * (change - off[None, :])
                if grad_bias is not None:
                    corner = (batch * heads + head) * length * keys
                    spot = grad_bias + corner + rows.to(tl.int64)[None, :] * keys + columns[:, None]
                    tl.store(spot, change, (rows[None, :] < length) & (columns[:, None] < keys))
                if CAPPED:
                    change = change * (1.0 - bent * bent)
                change = change.to(wanted.dtype)
                key_found = tl.dot(change, wanted, key_found, input_precision="ieee")
                if grad_query is not None:
                    sum_start = grad_query + head * SIZE
                    before = load_rows(sum_start, rows, heads * SIZE, length, SIZE, BLOCK_D)
                    after = tl.dot(tl.trans(change), right_block, before, input_precision="ieee")
                    store_rows(sum_start, rows, heads * SIZE, length, after, SIZE, BLOCK_D)
        store_rows(grad_key, columns, owners * SIZE, keys, key_found * factor, SIZE, BLOCK_D)
        store_rows(grad_value, columns, owners * VSIZE, keys, value_found, VSIZE, BLOCK_V)


@Kernel
def by_rows(query, key, value, grad, bias, slopes, query_starts, key_starts, seed, sums, rest, deltas, grad_query,  # type: ignore[no-untyped-def]
            q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, b_batch, b_head, b_row, b_column,
            slope_batch, heads, group, length, keys, tokens, left, right, scale, cap, factor, dropout,
            SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
            TOP_LEFT: tl.constexpr, DROPS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
            BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """The gradient of one block of queries; arguments as in ``by_columns``. Grid: blocks of rows, heads, batch."""
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    factor = tl.cast(factor, tl.float32)
    dropout = tl.cast(dropout, tl.float32)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    token, length = sequence(query_starts, batch, length)
    first = tl.program_id(0) * BLOCK_M
    if first < length:
        query = one_head(query, query_starts, batch, head, token, q_batch, q_head, q_row)
        key_token, keys = sequence(key_starts, batch, keys)
        key = one_head(key, key_starts, batch, head // group, key_token, k_batch, k_head, k_row)
        value = one_head(value, key_starts, batch, head // group, key_token, v_batch, v_head, v_row)
        shift = 0 if TOP_LEFT else keys - length
        if bias is not None:
            bias += batch * b_batch + head.to(tl.int64) * b_head
        slope = None
        if slopes is not None:
            slope = tl.load(slopes + batch * slope_batch + head)
        rows = first + tl.arange(0, BLOCK_M)
        wanted = load_rows(query, rows, q_row, length, SIZE, BLOCK_D)
        given = load_rows(grad + (token * heads + head) * VSIZE, rows, heads * VSIZE, length, VSIZE, BLOCK_V)
        sums_start = head.to(tl.int64) * tokens + token
        off = tl.load(deltas + sums_start + rows, rows < length, 0.0)
        found = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        begin, end = key_span(first, BLOCK_M, length, keys, shift, left, right, LEFT, RIGHT)
        for at in range(begin // BLOCK_N * BLOCK_N, end, BLOCK_N):
            columns = at + tl.arange(0, BLOCK_N)
            block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D)
            product = tl.dot(wanted, tl.trans(block), input_precision="ieee")
            scores, bent = scores_of(product, rows[:, None], columns[None, :], bias, slope, length, keys, shift, left,
                                     right, scale, cap, b_row, b_column, CAPPED, LEFT, RIGHT)  # fmt: skip
            values = load_rows(value, columns, v_row, keys, VSIZE, BLOCK_V)
            change = tl.dot(given, tl.trans(values), input_precision="ieee")
            if DROPS:
                change = kept(change, rows[:, None], columns[None, :], batch * heads + head, seed, dropout)
            weights = weights_from(scores, sums, rest, sums_start, rows, 1, length, 1)
            change = weights * (change - off[:, None])
            if CAPPED:
                change = change * (1.0 - bent * bent)
            found = tl.dot(change.to(block.dtype), block, found, input_precision="ieee")
        grad_query += (token * heads + head) * SIZE
        store_rows(grad_query, rows, heads * SIZE, length, found * factor, SIZE, BLOCK_D)
