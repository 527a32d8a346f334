"""The kernels of piecewise attention: near keys are scored by one pair of queries and keys, far ones by another.

Of a block of rows and a block of keys, most are all near or all far and take one product, as plain attention does; only
those that the threshold crosses take both. Names and layouts as in ``forward`` and ``backward``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.backward import sums_of
from torchport.ops.attention.blocks import load_rows, online, row_span, scores_of, store_rows, weights_of
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["piecewise_columns", "piecewise_forward", "piecewise_rows"]


@Kernel
def _scores(near, far, rows, columns, length, keys, shift, threshold, scale,  # type: ignore[no-untyped-def]
            NEAR: tl.constexpr, FAR: tl.constexpr, CAUSAL: tl.constexpr):  # fmt: skip
    """Scores in powers of two from the products with the near and the far keys, whichever there are."""
    if NEAR and FAR:
        found = tl.where(rows + shift - columns >= threshold, far, near)
    elif FAR:
        found = far
    else:
        found = near
    scores, _ = scores_of(found, rows, columns, None, None, length, keys, shift, 0, 0, scale, 0.0, 0, 0, False, False,
                          CAUSAL)  # fmt: skip
    return scores


@Kernel
def _attend(near, far, near_key, far_key, value, highest, total, found, rows, begin, end, near_row, far_row, v_row,  # type: ignore[no-untyped-def]
            length, keys, shift, threshold, scale, NEAR: tl.constexpr, FAR: tl.constexpr, CAUSAL: tl.constexpr,
            SIZE: tl.constexpr, VSIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
            BLOCK_N: tl.constexpr):  # fmt: skip
    """Take keys from ``begin`` to ``end`` into the running softmax."""
    for at in range(begin, end, BLOCK_N):
        columns = at + tl.arange(0, BLOCK_N)
        one = None
        two = None
        if NEAR:
            one = tl.dot(near, tl.trans(load_rows(near_key, columns, near_row, keys, SIZE, BLOCK_D)),
                         input_precision="ieee")  # fmt: skip
        if FAR:
            two = tl.dot(far, tl.trans(load_rows(far_key, columns, far_row, keys, SIZE, BLOCK_D)),
                         input_precision="ieee")  # fmt: skip
        scores = _scores(one, two, rows[:, None], columns[None, :], length, keys, shift, threshold, scale,
                         NEAR, FAR, CAUSAL)  # fmt: skip
        weights, highest, total, shrunk = online(scores, highest, total)
        block = load_rows(value, columns, v_row, keys, VSIZE, BLOCK_V)
        found = tl.dot(weights.to(block.dtype), block, found * shrunk[:, None], input_precision="ieee")
    return highest, total, found


@Kernel
def piecewise_forward(near, far, near_key, far_key, value, out, sums,  # type: ignore[no-untyped-def]
                      n_batch, n_head, n_row, f_batch, f_head, f_row, nk_batch, nk_head, nk_row,
                      fk_batch, fk_head, fk_row, v_batch, v_head, v_row, heads, group, length, keys, threshold, scale,
                      SIZE: tl.constexpr, VSIZE: tl.constexpr, CAUSAL: tl.constexpr, BLOCK_D: tl.constexpr,
                      BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One block of rows of one head. Grid: blocks of rows, heads, batch."""
    scale = tl.cast(scale, tl.float32)
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    owner = head // group
    near += batch * n_batch + head * n_head
    far += batch * f_batch + head * f_head
    near_key += batch * nk_batch + owner * nk_head
    far_key += batch * fk_batch + owner * fk_head
    value += batch * v_batch + owner * v_head
    token = batch * length
    first = tl.program_id(0) * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    shift = keys - length
    one = load_rows(near, rows, n_row, length, SIZE, BLOCK_D)
    two = load_rows(far, rows, f_row, length, SIZE, BLOCK_D)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    found = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.maximum(0, tl.minimum(keys, first + BLOCK_M + shift))
    # keys up to the first row's threshold are far for all rows, those behind the last row's are near for all
    edge = first + shift - threshold + 1
    only_far = tl.minimum(tl.maximum(edge, 0), end) // BLOCK_N * BLOCK_N
    only_near = tl.minimum((tl.maximum(edge + BLOCK_M - 1, 0) + BLOCK_N - 1) // BLOCK_N * BLOCK_N, end)
    highest, total, found = _attend(
        one, two, near_key, far_key, value, highest, total, found, rows, 0, only_far, nk_row, fk_row, v_row, length,
        keys, shift, threshold, scale, False, True, CAUSAL, SIZE, VSIZE, BLOCK_D, BLOCK_V, BLOCK_N)  # fmt: skip
    highest, total, found = _attend(
        one, two, near_key, far_key, value, highest, total, found, rows, only_far, only_near, nk_row, fk_row, v_row,
        length, keys, shift, threshold, scale, True, True, CAUSAL, SIZE, VSIZE, BLOCK_D, BLOCK_V, BLOCK_N)  # fmt: skip
    highest, total, found = _attend(
        one, two, near_key, far_key, value, highest, total, found, rows, tl.maximum(only_far, only_near), end, nk_row,
        fk_row, v_row, length, keys, shift, threshold, scale, True, False, CAUSAL, SIZE, VSIZE, BLOCK_D, BLOCK_V,
        BLOCK_N)  # fmt: skip
    whole = tl.where(total == 0.0, 1.0, total)
    out += (token * heads + head) * VSIZE
    store_rows(out, rows, heads * VSIZE, length, found / whole[:, None], VSIZE, BLOCK_V)
    at = sums + (token + rows.to(tl.int64)) * heads + head
    tl.store(at, (highest + tl.log2(whole)) * 0.6931471805599453, rows < length)


@Kernel
def _columns(near, far, near_block, far_block, values, grad, sums, deltas, grad_near, grad_far,  # type: ignore[no-untyped-def]
             near_found, far_found, value_found, columns, begin, end, n_row, f_row, heads, length, keys, shift,
             threshold, scale, NEAR: tl.constexpr, FAR: tl.constexpr, CAUSAL: tl.constexpr, SIZE: tl.constexpr,
             VSIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr):  # fmt: skip
    """Gradients of one block of keys and values from rows ``begin`` to ``end``; scores are [keys, rows]."""
    for at in range(begin, end, BLOCK_M):
        rows = at + tl.arange(0, BLOCK_M)
        given = load_rows(grad, rows, heads * VSIZE, length, VSIZE, BLOCK_V)
        one = None
        two = None
        if NEAR:
            near_rows = load_rows(near, rows, n_row, length, SIZE, BLOCK_D)
            one = tl.dot(near_block, tl.trans(near_rows), input_precision="ieee")
        if FAR:
            far_rows = load_rows(far, rows, f_row, length, SIZE, BLOCK_D)
            two = tl.dot(far_block, tl.trans(far_rows), input_precision="ieee")
        scores = _scores(one, two, rows[None, :], columns[:, None], length, keys, shift, threshold, scale,
                         NEAR, FAR, CAUSAL)  # fmt: skip
        weights = weights_of(scores - sums_of(sums, rows, 1, length)[None, :])
        change = tl.dot(values, tl.trans(given), input_precision="ieee")
        value_found = tl.dot(weights.to(given.dtype), given, value_found, input_precision="ieee")
        off = tl.load(deltas + rows, rows < length, 0.0)
        change = weights * (change - off[None, :])
        part = change
        if NEAR:
            if FAR:
                part = tl.where(rows[None, :] + shift - columns[:, None] >= threshold, 0.0, change)
            part = part.to(near_rows.dtype)
            near_found = tl.dot(part, near_rows, near_found, input_precision="ieee")
            if grad_near is not None:
                before = load_rows(grad_near, rows, heads * SIZE, length, SIZE, BLOCK_D)
                after = tl.dot(tl.trans(part), near_block, before, input_precision="ieee")
                store_rows(grad_near, rows, heads * SIZE, length, after, SIZE, BLOCK_D)
        if FAR:
            part = change
            if NEAR:
                part = tl.where(rows[None, :] + shift - columns[:, None] >= threshold, change, 0.0)
            part = part.to(far_rows.dtype)
            far_found = tl.dot(part, far_rows, far_found, input_precision="ieee")
            if grad_far is not None:
                before = load_rows(grad_far, rows, heads * SIZE, length, SIZE, BLOCK_D)
                after = tl.dot(tl.trans(part), far_block, before, input_precision="ieee")
                store_rows(grad_far, rows, heads * SIZE, length, after, SIZE, BLOCK_D)
    return near_found, far_found, value_found


@Kernel
def piecewise_columns(near, far, near_key, far_key, value, grad, sums, deltas,  # type: ignore[no-untyped-def]
                      grad_near, grad_far, grad_near_key, grad_far_key, grad_value,
                      n_batch, n_head, n_row, f_batch, f_head, f_row, nk_batch, nk_head, nk_row,
                      fk_batch, fk_head, fk_row, v_batch, v_head, v_row, heads, group, length, keys, tokens,
                      threshold, scale, factor,
                      SIZE: tl.constexpr, VSIZE: tl.constexpr, CAUSAL: tl.constexpr, BLOCK_D: tl.constexpr,
                      BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Gradients of every P-th block of keys and values of one head, as ``backward.by_columns`` (sums, deltas, too)."""
    scale = tl.cast(scale, tl.float32)
    factor = tl.cast(factor, tl.float32)
    own = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    near_key += batch * nk_batch + own * nk_head
    far_key += batch * fk_batch + own * fk_head
    value += batch * v_batch + own * v_head
    owners = heads // group
    token = batch * length
    key_token = batch * keys
    shift = keys - length
    for first in range(tl.program_id(0) * BLOCK_N, keys, tl.num_programs(0) * BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        near_block = load_rows(near_key, columns, nk_row, keys, SIZE, BLOCK_D)
        far_block = load_rows(far_key, columns, fk_row, keys, SIZE, BLOCK_D)
        values = load_rows(value, columns, v_row, keys, VSIZE, BLOCK_V)
        near_found = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        far_found = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        value_found = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
        begin, _ = row_span(first, BLOCK_N, length, shift, 0, 0, False, CAUSAL)
        begin = begin // BLOCK_M * BLOCK_M
        # rows before the first key's threshold are near for all keys, those from the last key's on are far for all
        edge = first + threshold - shift
        only_near = tl.maximum(tl.minimum(tl.maximum(edge, 0), length) // BLOCK_M * BLOCK_M, begin)
        only_far = (tl.maximum(edge + BLOCK_N - 1, 0) + BLOCK_M - 1) // BLOCK_M * BLOCK_M
        only_far = tl.maximum(only_near, tl.minimum(only_far, length))
        for member in range(0, group):
            head = own * group + member
            start = token * heads + head
            sum_at = head * tokens + token
            near_start = near + batch * n_batch + head * n_head
            far_start = far + batch * f_batch + head * f_head
            near_sum = None
            far_sum = None
            if grad_near is not None:
                copy = tl.program_id(0).to(tl.int64) * tokens * heads * SIZE + start * SIZE
                near_sum = grad_near + copy
                far_sum = grad_far + copy
            near_found, far_found, value_found = _columns(
                near_start, far_start, near_block, far_block, values, grad + start * VSIZE, sums + sum_at,
                deltas + sum_at, near_sum, far_sum, near_found, far_found, value_found, columns, begin, only_near,
                n_row, f_row, heads, length, keys, shift, threshold, scale, True, False, CAUSAL, SIZE, VSIZE, BLOCK_D,
                BLOCK_V, BLOCK_M)  # fmt: skip
            near_found, far_found, value_found = _columns(
                near_start, far_start, near_block, far_block, values, grad + start * VSIZE, sums + sum_at,
                deltas + sum_at, near_sum, far_sum, near_found, far_found, value_found, columns, only_near, only_far,
                n_row, f_row, heads, length, keys, shift, threshold, scale, True, True, CAUSAL, SIZE, VSIZE, BLOCK_D,
                BLOCK_V, BLOCK_M)  # fmt: skip
            near_found, far_found, value_found = _columns(
                near_start, far_start, near_block, far_block, values, grad + start * VSIZE, sums + sum_at,
                deltas + sum_at, near_sum, far_sum, near_found, far_found, value_found, columns, only_far, length,
                n_row, f_row, heads, length, keys, shift, threshold, scale, False, True, CAUSAL, SIZE, VSIZE, BLOCK_D,
                BLOCK_V, BLOCK_M)  # fmt: skip
        at = key_token * owners + own
        store_rows(grad_near_key + at * SIZE, columns, owners * SIZE, keys, near_found * factor, SIZE, BLOCK_D)
        store_rows(grad_far_key + at * SIZE, columns, owners * SIZE, keys, far_found * factor, SIZE, BLOCK_D)
        store_rows(grad_value + at * VSIZE, columns, owners * VSIZE, keys, value_found, VSIZE, BLOCK_V)


@Kernel
def piecewise_rows(near, far, near_key, far_key, value, grad, sums, deltas, grad_near, grad_far,  # type: ignore[no-untyped-def]
                   n_batch, n_head, n_row, f_batch, f_head, f_row, nk_batch, nk_head, nk_row,
                   fk_batch, fk_head, fk_row, v_batch, v_head, v_row, heads, group, length, keys,
                   threshold, scale, factor,
                   SIZE: tl.constexpr, VSIZE: tl.constexpr, CAUSAL: tl.constexpr, BLOCK_D: tl.constexpr,
                   BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Gradients of one block of both queries, every block by both products. Grid: blocks of rows, heads, batch."""
    scale = tl.cast(scale, tl.float32)
    factor = tl.cast(factor, tl.float32)
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    owner = head // group
    near_key += batch * nk_batch + owner * nk_head
    far_key += batch * fk_batch + owner * fk_head
    value += batch * v_batch + owner * v_head
    start = batch * length * heads + head
    first = tl.program_id(0) * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    shift = keys - length
    one = load_rows(near + batch * n_batch + head * n_head, rows, n_row, length, SIZE, BLOCK_D)
    two = load_rows(far + batch * f_batch + head * f_head, rows, f_row, length, SIZE, BLOCK_D)
    given = load_rows(grad + start * VSIZE, rows, heads * VSIZE, length, VSIZE, BLOCK_V)
    sum_at = (head * tl.num_programs(2) + batch) * length
    total = sums_of(sums + sum_at, rows, 1, length)
    off = tl.load(deltas + sum_at + rows, rows < length, 0.0)
    near_found = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    far_found = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.maximum(0, tl.minimum(keys, first + BLOCK_M + shift))
    for at in range(0, end, BLOCK_N):
        columns = at + tl.arange(0, BLOCK_N)
        near_block = load_rows(near_key, columns, nk_row, keys, SIZE, BLOCK_D)
        far_block = load_rows(far_key, columns, fk_row, keys, SIZE, BLOCK_D)
        values = load_rows(value, columns, v_row, keys, VSIZE, BLOCK_V)
        near_product = tl.dot(one, tl.trans(near_block), input_precision="ieee")
        far_product = tl.dot(two, tl.trans(far_block), input_precision="ieee")
        scores = _scores(near_product, far_product, rows[:, None], columns[None, :], length, keys, shift, threshold,
                         scale, True, True, CAUSAL)  # fmt: skip
        change = tl.dot(given, tl.trans(values), input_precision="ieee")
        change = weights_of(scores - total[:, None]) * (change - off[:, None])
        distant = rows[:, None] + shift - columns[None, :] >= threshold
        near_part = tl.where(distant, 0.0, change).to(near_block.dtype)
        far_part = tl.where(distant, change, 0.0).to(far_block.dtype)
        near_found = tl.dot(near_part, near_block, near_found, input_precision="ieee")
        far_found = tl.dot(far_part, far_block, far_found, input_precision="ieee")
    store_rows(grad_near + start * SIZE, rows, heads * SIZE, length, near_found * factor, SIZE, BLOCK_D)
    store_rows(grad_far + start * SIZE, rows, heads * SIZE, length, far_found * factor, SIZE, BLOCK_D)
