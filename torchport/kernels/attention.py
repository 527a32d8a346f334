"""Attention by ``tl.dot``, forward and backward, for targets whose matrix unit is emulated.

The structure is FlashAttention-2's (Dao, arXiv 2307.08691, sections 3.1 and 3.2; its CUDA kernels, repository
Dao-AILab/flash-attention, csrc/flash_attn/src, do the same): operands of the matrix unit in the inputs' type, sums in
f32, a softmax in f32 with an online maximum and powers of two, weights and gradients of scores rounded to the inputs'
type before they are multiplied. Unlike there, sums of a gradient run over blocks in order, never by atomics.

Tensors are contiguous: query, out and grad_out [n, length, SIZE], key and value [n, keys, SIZE], sums [n, length] f32;
n is batches times heads, SIZE a power of two. mask: f32 or the inputs' type, with strides in elements (batch, head,
row, column).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attention", "attention_columns", "attention_rows"]

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator]
def _rows(start, rows, count, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Block of ``rows`` of a matrix that begins at ``start`` and has ``count`` of them, zero outside."""
    at = start + rows.to(tl.int64)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    return tl.load(at, rows[:, None] < count, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _put(start, rows, count, block, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    at = start + rows.to(tl.int64)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(at, block.to(start.dtype.element_ty), rows[:, None] < count)


@triton.jit  # type: ignore[untyped-decorator]
def _shown(scores, mask, rows, columns, length, keys, row_stride, column_stride, scale,  # type: ignore[no-untyped-def]
           CAUSAL: tl.constexpr, MASKED: tl.constexpr):  # fmt: skip
    """``scores``, query times key, with -inf where nothing is to be seen; with a mask also scaled and added to it.

    ``rows`` and ``columns`` broadcast against each other: the scores may be transposed.
    """
    inside = (rows < length) & (columns < keys)
    if MASKED:
        at = mask + rows.to(tl.int64) * row_stride + columns.to(tl.int64) * column_stride
        scores = scores * scale + tl.load(at, inside, 0.0).to(tl.float32)
    if CAUSAL:
        inside = inside & (columns <= rows)
    return tl.where(inside, scores, float("-inf"))


@triton.jit  # type: ignore[untyped-decorator]
def attention(  # type: ignore[no-untyped-def]
    query, key, value, mask, out, sums,
    heads, length, keys, mask_batch, mask_head, mask_row, mask_column, scale,
    SIZE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out = softmax(query key^T * scale + mask) value; sums = the logarithm of the softmax's sums.

    Rows with nothing to attend to give 0 and -inf. Without ``MASKED`` scale is positive. Grid: blocks of rows, n.
    """
    one = tl.program_id(1).to(tl.int64)
    mask += one // heads * mask_batch + one % heads * mask_head
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    left = _rows(query + one * length * SIZE, rows, length, SIZE)
    unit = _LOG2E if MASKED else scale * _LOG2E  # of scores, in powers of two
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    found = tl.zeros((BLOCK_M, SIZE), tl.float32)
    end = tl.minimum(keys, (tl.program_id(0) + 1) * BLOCK_M) if CAUSAL else keys
    for start in range(0, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        right = _rows(key + one * keys * SIZE, columns, keys, SIZE)
        scores = tl.dot(left, tl.trans(right), input_precision=PRECISION)
        scores = _shown(scores, mask, rows[:, None], columns[None, :], length, keys, mask_row, mask_column, scale,
                        CAUSAL, MASKED)  # fmt: skip
        before = highest
        highest = tl.maximum(highest, tl.max(scores, 1), propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(highest == float("-inf"), 0.0, highest * unit)  # nothing seen yet: no -inf - -inf
        weights = tl.exp2(scores * unit - base[:, None])
        shrunk = tl.exp2(before * unit - base)
        total = total * shrunk + tl.sum(weights, 1)
        values = _rows(value + one * keys * SIZE, columns, keys, SIZE)
        found = tl.dot(weights.to(values.dtype), values, found * shrunk[:, None], input_precision=PRECISION)
    seen = tl.where(total == 0.0, 1.0, total)
    found = found * (1.0 / seen)[:, None]
    _put(out + one * length * SIZE, rows, length, found, SIZE)
    natural = highest if MASKED else highest * scale
    tl.store(sums + one * length + rows, natural + tl.log(seen), rows < length)


@triton.jit  # type: ignore[untyped-decorator]
def _given(query, out, sums, grad_out, one, rows, length, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of a block of rows: queries, gradients of results, their products with the results, and ``sums``."""
    left = _rows(query + one * length * SIZE, rows, length, SIZE)
    grad = _rows(grad_out + one * length * SIZE, rows, length, SIZE)
    result = _rows(out + one * length * SIZE, rows, length, SIZE)
    delta = tl.sum(grad.to(tl.float32) * result.to(tl.float32), 1)
    return left, grad, delta, tl.load(sums + one * length + rows, rows < length, float("-inf"))


@triton.jit  # type: ignore[untyped-decorator]
def attention_rows(  # type: ignore[no-untyped-def]
    query, key, value, mask, out, sums, grad_out, grad_query,
    heads, length, keys, mask_batch, mask_head, mask_row, mask_column, scale,
    SIZE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradient of ``attention`` with respect to query. Grid: blocks of rows, n."""
    one = tl.program_id(1).to(tl.int64)
    mask += one // heads * mask_batch + one % heads * mask_head
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    left, grad, delta, total = _given(query, out, sums, grad_out, one, rows, length, SIZE)
    unit = _LOG2E if MASKED else scale * _LOG2E
    found = tl.zeros((BLOCK_M, SIZE), tl.float32)
    end = tl.minimum(keys, (tl.program_id(0) + 1) * BLOCK_M) if CAUSAL else keys
    for start in range(0, end, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        right = _rows(key + one * keys * SIZE, columns, keys, SIZE)
        values = _rows(value + one * keys * SIZE, columns, keys, SIZE)
        scores = tl.dot(left, tl.trans(right), input_precision=PRECISION)
        scores = _shown(scores, mask, rows[:, None], columns[None, :], length, keys, mask_row, mask_column, scale,
                        CAUSAL, MASKED)  # fmt: skip
        weights = tl.exp2(scores * unit - (total * _LOG2E)[:, None])
        weights = tl.where((total == float("-inf"))[:, None], 0.0, weights)
        grad_weights = tl.dot(grad, tl.trans(values), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[:, None])
        found = tl.dot(grad_scores.to(right.dtype), right, found, input_precision=PRECISION)
    _put(grad_query + one * length * SIZE, rows, length, found * scale, SIZE)


@triton.jit  # type: ignore[untyped-decorator]
def attention_columns(  # type: ignore[no-untyped-def]
    query, key, value, mask, out, sums, grad_out, grad_key, grad_value,
    heads, length, keys, mask_batch, mask_head, mask_row, mask_column, scale,
    SIZE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradients of ``attention`` with respect to key and value; scores are transposed. Grid: blocks of keys, n."""
    one = tl.program_id(1).to(tl.int64)
    mask += one // heads * mask_batch + one % heads * mask_head
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    right = _rows(key + one * keys * SIZE, columns, keys, SIZE)
    values = _rows(value + one * keys * SIZE, columns, keys, SIZE)
    unit = _LOG2E if MASKED else scale * _LOG2E
    key_found = tl.zeros((BLOCK_N, SIZE), tl.float32)
    value_found = tl.zeros((BLOCK_N, SIZE), tl.float32)
    first = tl.program_id(0) * BLOCK_N // BLOCK_M * BLOCK_M if CAUSAL else 0
    for start in range(first, length, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        left, grad, delta, total = _given(query, out, sums, grad_out, one, rows, length, SIZE)
        scores = tl.dot(right, tl.trans(left), input_precision=PRECISION)
        scores = _shown(scores, mask, rows[None, :], columns[:, None], length, keys, mask_row, mask_column, scale,
                        CAUSAL, MASKED)  # fmt: skip
        weights = tl.exp2(scores * unit - (total * _LOG2E)[None, :])
        weights = tl.where((total == float("-inf"))[None, :], 0.0, weights)
        value_found = tl.dot(weights.to(grad.dtype), grad, value_found, input_precision=PRECISION)
        grad_weights = tl.dot(values, tl.trans(grad), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[None, :])
        key_found = tl.dot(grad_scores.to(left.dtype), left, key_found, input_precision=PRECISION)
    _put(grad_key + one * keys * SIZE, columns, keys, key_found * scale, SIZE)
    _put(grad_value + one * keys * SIZE, columns, keys, value_found, SIZE)
