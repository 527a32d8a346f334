"""The backward kernels of attention for targets on which a program instance is one thread with vectors (docs/simt.md).

Everything is turned, as in ``forward_lanes``: an element of a vector is a key in ``by_columns_lanes``, a row of queries
in ``by_rows_lanes``, and each element of the other side is one number for a vector. Rows and keys beyond the last are
the last: no load needs a mask. All tensors are float32; sums and deltas lie as [tokens, heads]. The rest is as in
``backward``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.backward import weights_from
from torchport.ops.attention.blocks import (
    banded,
    key_span,
    load_rows,
    one_head,
    row_span,
    scores_of,
    sequence,
    store_rows,
)
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["by_columns_lanes", "by_rows_lanes"]


@Kernel
def by_columns_lanes(query, key, value, grad, bias, slopes, query_starts, key_starts, sums, rest, deltas,  # type: ignore[no-untyped-def]
                     grad_key, grad_value, grad_bias,
                     q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, b_batch, b_head, b_row,
                     b_column, slope_batch, heads, group, length, keys, left, right, scale, cap, factor,
                     SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
                     RIGHT: tl.constexpr, TOP_LEFT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
                     BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Gradients of one block of keys and values of one head. Grid: blocks of keys, heads of key and value, batch."""
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    factor = tl.cast(factor, tl.float32)
    own = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    token, length = sequence(query_starts, batch, length)
    key_token, keys = sequence(key_starts, batch, keys)
    first = tl.program_id(0) * BLOCK_N
    if first < keys:
        key = one_head(key, key_starts, batch, own, key_token, k_batch, k_head, k_row)
        value = one_head(value, key_starts, batch, own, key_token, v_batch, v_head, v_row)
        owners = heads // group
        grad_key += (key_token * owners + own) * SIZE
        grad_value += (key_token * owners + own) * VSIZE
        shift = 0 if TOP_LEFT else keys - length
        columns = first + tl.arange(0, BLOCK_N)
        present = tl.minimum(columns, keys - 1)
        wanted = tl.trans(load_rows(key, present, k_row, keys, SIZE, BLOCK_D, True) * scale)
        values = tl.trans(load_rows(value, present, v_row, keys, VSIZE, BLOCK_V, True))
        key_found = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
        value_found = tl.zeros((BLOCK_V, BLOCK_N), tl.float32)
        begin, end = row_span(first, BLOCK_N, length, shift, left, right, LEFT, RIGHT)
        for member in range(0, group):
            head = own * group + member
            query_start = one_head(query, query_starts, batch, head, token, q_batch, q_head, q_row)
            grad_start = grad + (token * heads + head) * VSIZE
            sums_start = token * heads + head
            bias_start = bias
            if bias is not None:
                bias_start = bias + batch * b_batch + head.to(tl.int64) * b_head
            slope = None
            if slopes is not None:
                slope = tl.load(slopes + batch * slope_batch + head)
            for at in range(begin // BLOCK_M * BLOCK_M, end, BLOCK_M):
                rows = at + tl.arange(0, BLOCK_M)
                inside = tl.minimum(rows, length - 1)
                asked = load_rows(query_start, inside, q_row, length, SIZE, BLOCK_D, True)
                product = tl.dot(asked, wanted, input_precision="ieee")
                scores, bent = scores_of(product, inside[:, None], present[None, :], bias_start, slope, length, keys,
                                         shift, left, right, 1.0, cap, b_row, b_column, CAPPED, LEFT, RIGHT,
                                         True)  # fmt: skip
                scores = banded(scores, rows[:, None], columns[None, :], length, keys, shift, left, right, LEFT, RIGHT)
                weights = weights_from(scores, sums, rest, sums_start, inside, heads, length, 1)
                given = load_rows(grad_start, inside, heads * VSIZE, length, VSIZE, BLOCK_V, True)
                value_found = tl.dot(tl.trans(given), weights, value_found, input_precision="ieee")
                change = tl.dot(given, values, input_precision="ieee")
                change = weights * (change - tl.load(deltas + sums_start + inside.to(tl.int64) * heads)[:, None])
                if grad_bias is not None:
                    corner = (batch * heads + head) * length * keys
                    spot = grad_bias + corner + rows.to(tl.int64)[:, None] * keys + columns[None, :]
                    tl.store(spot, change, (rows[:, None] < length) & (columns[None, :] < keys))
                if CAPPED:
                    change = change * (1.0 - bent * bent)
                key_found = tl.dot(tl.trans(asked), change, key_found, input_precision="ieee")
        store_rows(grad_key, columns, owners * SIZE, keys, tl.trans(key_found * factor), SIZE, BLOCK_D)
        store_rows(grad_value, columns, owners * VSIZE, keys, tl.trans(value_found), VSIZE, BLOCK_V)


@Kernel
def by_rows_lanes(query, key, value, grad, bias, slopes, query_starts, key_starts, sums, rest, deltas, grad_query,  # type: ignore[no-untyped-def]
                  q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, b_batch, b_head, b_row,
                  b_column, slope_batch, heads, group, length, keys, left, right, scale, cap, factor,
                  SIZE: tl.constexpr, VSIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr,
                  RIGHT: tl.constexpr, TOP_LEFT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
                  BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """The gradient of one block of queries. Grid: blocks of rows, heads, batch."""
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    factor = tl.cast(factor, tl.float32)
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
        inside = tl.minimum(rows, length - 1)
        wanted = tl.trans(load_rows(query, inside, q_row, length, SIZE, BLOCK_D, True) * scale)
        grad_start = grad + (token * heads + head) * VSIZE
        given = tl.trans(load_rows(grad_start, inside, heads * VSIZE, length, VSIZE, BLOCK_V, True))
        sums_start = token * heads + head
        off = tl.load(deltas + sums_start + inside.to(tl.int64) * heads)
        found = tl.zeros((BLOCK_D, BLOCK_M), tl.float32)
        begin, end = key_span(first, BLOCK_M, length, keys, shift, left, right, LEFT, RIGHT)
        for at in range(begin // BLOCK_N * BLOCK_N, end, BLOCK_N):
            columns = at + tl.arange(0, BLOCK_N)
            present = tl.minimum(columns, keys - 1)
            block = load_rows(key, present, k_row, keys, SIZE, BLOCK_D, True)
            product = tl.dot(block, wanted, input_precision="ieee")
            scores, bent = scores_of(product, inside[None, :], present[:, None], bias, slope, length, keys, shift, left,
                                     right, 1.0, cap, b_row, b_column, CAPPED, LEFT, RIGHT, True)  # fmt: skip
            scores = banded(scores, rows[None, :], columns[:, None], length, keys, shift, left, right, LEFT, RIGHT)
            change = tl.dot(load_rows(value, present, v_row, keys, VSIZE, BLOCK_V, True), given, input_precision="ieee")
            change = weights_from(scores, sums, rest, sums_start, inside, heads, length, 0) * (change - off[None, :])
            if CAPPED:
                change = change * (1.0 - bent * bent)
            found = tl.dot(tl.trans(block), change, found, input_precision="ieee")
        grad_query += (token * heads + head) * SIZE
        store_rows(grad_query, rows, heads * SIZE, length, tl.trans(found * factor), SIZE, BLOCK_D)
