"""The backward kernel of attention in bfloat16 by an instruction that takes denormals for zeros, where no bit shows it.

``vdpbf16ps`` takes denormal operands for zeros and makes zeros of denormal sums (below 2^-126; ``forward_pairs``).
The kernels look at the numbers that they read and say where one is denormal, infinite, NaN or 2^20 and more (``MOST``),
or where all of a row of the result's gradient or of a value are smaller than 2^-60 or 2^-30 (``LEAST``), but not 0; the
caller computes everything exactly then. Of other numbers, for heads of up to 256 and scales of 0 or 2^-40 to 2^4:

* A score loses less than 2^-126 a term: less than 2^-114 of a weight.
* The gradient of a weight loses less than 2^-126 a term. It is a product of two rows whose largest numbers' product is
  2^-90 or more, and float32 rounds by 2^-24 of that.
* Weights and gradients of scores are multiplied by ``LIFT``, 2^40: those that are lost are below 2^-166, a term of a
  result less than 2^-146, and the smallest denormal of bfloat16 is 2^-133. Gradients of scores stay below 2^50, and so
  lifted sums of up to 2^16 products below 2^126.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.backward import sums_of
from torchport.ops.attention.blocks import load_rows, scores_of, store_rows
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["LEAST_GRAD", "LEAST_VALUE", "LIFT", "MOST", "by_columns_pairs", "deltas_pairs", "rounded_pairs"]

MOST = (127 + 20) << 7
"""The bits of 2^20, the least magnitude that the kernels are not for."""
LEAST_GRAD, LEAST_VALUE = (127 - 60) << 7, (127 - 30) << 7
LIFT = 40
"""The logarithm of what weights are multiplied by."""


@Kernel
def _unsuited(block, MOST: tl.constexpr, LEAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether one of a block's numbers is denormal or too large, or a row of it not 0 but smaller than LEAST: int32."""
    bits = block.to(tl.int16, bitcast=True) & 0x7FFF
    worst = tl.max(tl.where((bits < 0x80) & (bits != 0), 0x7FFF, bits), 1)
    found = worst >= MOST
    if LEAST:
        found = found | ((worst < LEAST) & (worst != 0))
    return tl.max(found.to(tl.int32), 0)


@Kernel
def deltas_pairs(query, grad, out, sums, deltas, turned, unsuited,  # type: ignore[no-untyped-def]
                 q_batch, q_head, q_row, g_batch, g_head, g_row, o_batch, o_head, o_row, s_batch, s_head, s_row,
                 heads, length, LIFT: tl.constexpr, SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
                 MOST: tl.constexpr, LEAST: tl.constexpr):  # fmt: skip
    """deltas = sum(grad * out) of each row, turned = its logarithm of sums as powers of two, less LIFT.

    Both are [batch, heads, length]: rows lie side by side in a block of scores. unsuited: one int32 for each program
    instance. Grid: blocks of rows, heads, batch.
    """
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    wanted = load_rows(query + batch * q_batch + head.to(tl.int64) * q_head, rows, q_row, length, SIZE, BLOCK_D)
    given = load_rows(grad + batch * g_batch + head.to(tl.int64) * g_head, rows, g_row, length, SIZE, BLOCK_D)
    result = load_rows(out + batch * o_batch + head.to(tl.int64) * o_head, rows, o_row, length, SIZE, BLOCK_D)
    total = tl.sum(given.to(tl.float32) * result.to(tl.float32), 1)
    at = (batch * heads + head) * length + rows
    tl.store(deltas + at, total, rows < length)
    base = sums_of(sums + batch * s_batch + head.to(tl.int64) * s_head, rows, s_row, length)
    tl.store(turned + at, base - LIFT, rows < length)
    found = _unsuited(wanted, MOST, 0) | _unsuited(given, MOST, LEAST)
    large = (result.to(tl.int16, bitcast=True) & 0x7FFF) >= MOST
    found = found | tl.max(tl.max(large.to(tl.int32), 1), 0)
    tl.store(unsuited + (batch * heads + head) * tl.num_programs(0) + tl.program_id(0), found)


@Kernel
def _of_rows(block, values, key_found, value_found, query, grad, bias, base, rest, deltas, queries,  # type: ignore[no-untyped-def]
             columns, begin, inner, skipped, count, q_row, g_row, b_row, b_column, length, keys, scale,
             SIZE: tl.constexpr, RIGHT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
             LIFT: tl.constexpr, WHOLE: tl.constexpr):  # fmt: skip
    """Add what ``count`` blocks of rows give; those from ``begin`` on, and behind ``inner``, others ``skipped``.

    WHOLE: all of these rows are there, and see all of the keys.
    """
    for index in range(0, count):
        at = begin + index * BLOCK_M
        at = tl.where(at >= inner, at + skipped, at)
        rows = at + tl.arange(0, BLOCK_M)
        wanted = load_rows(query, rows, q_row, length, SIZE, BLOCK_D, WHOLE)
        given = load_rows(grad, rows, g_row, length, SIZE, BLOCK_D, WHOLE)
        product = tl.dot(block, tl.trans(wanted), input_precision="ieee")
        scores, _ = scores_of(product, rows[None, :], columns[:, None], bias, None, length, keys, 0, 0, 0, scale, 0.0,
                              b_row, b_column, False, False, RIGHT, WHOLE)  # fmt: skip
        inside = rows < length
        shifted = scores - tl.load(base + rows, inside, 0.0)[None, :]
        if rest is not None:
            shifted -= tl.load(rest + rows, inside, 0.0)[None, :]
        weights = tl.exp2(tl.where(shifted < LIFT - 126.0, float("-inf"), shifted))
        change = tl.dot(values, tl.trans(given), input_precision="ieee")
        value_found = tl.dot(weights.to(given.dtype), given, value_found, input_precision="ieee")
        change = (weights * (change - tl.load(deltas + rows, inside, 0.0)[None, :])).to(wanted.dtype)
        key_found = tl.dot(change, wanted, key_found, input_precision="ieee")
        before = load_rows(queries, rows, SIZE, length, SIZE, BLOCK_D, WHOLE)
        after = tl.dot(tl.trans(change), block, before, input_precision="ieee")
        store_rows(queries, rows, SIZE, length, after, SIZE, BLOCK_D)
    return key_found, value_found


@Kernel
def _of_keys(first, query, key, value, grad, bias, base, rest, deltas, queries, grad_key, grad_value,  # type: ignore[no-untyped-def]
             q_head, q_row, k_row, v_row, g_head, g_row, b_head, b_row, b_column, out_row, group, length, keys, scale,
             factor, SIZE: tl.constexpr, RIGHT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
             REST_M: tl.constexpr, BLOCK_N: tl.constexpr, LIFT: tl.constexpr, MOST: tl.constexpr, LEAST: tl.constexpr,
             WHOLE: tl.constexpr):  # fmt: skip
    """Gradients of one block of keys and values, of all heads that share them. Returns whether numbers are unsuited.

    WHOLE: all of these keys are there. REST_M: rows of a block where not all see all of the keys, or are there.
    """
    columns = first + tl.arange(0, BLOCK_N)
    block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D, WHOLE)
    values = load_rows(value, columns, v_row, keys, SIZE, BLOCK_D, WHOLE)
    unsuited = _unsuited(block, MOST, 0) | _unsuited(values, MOST, LEAST)
    key_found = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    value_found = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    begin = 0
    if RIGHT:
        begin = tl.minimum(first, length)
    inner = begin
    outer = begin
    if WHOLE:
        if RIGHT:  # rows from the block's first key on see some of it, those from its last key on all
            inner = begin + (tl.minimum(BLOCK_N, length - begin) + REST_M - 1) // REST_M * REST_M
        wholes = tl.maximum(0, length - inner) // BLOCK_M
        outer = inner + wholes * BLOCK_M
    others = (inner - begin) // REST_M + (tl.maximum(0, length - outer) + REST_M - 1) // REST_M
    for member in range(0, group):
        at = tl.cast(member, tl.int64)
        left = query + at * q_head
        given = grad + at * g_head
        added = bias
        if bias is not None:
            added = bias + at * b_head
        start = at * length
        left_over = rest
        if rest is not None:
            left_over = rest + start
        if WHOLE:
            key_found, value_found = _of_rows(
                block, values, key_found, value_found, left, given, added, base + start, left_over, deltas + start,
                queries + start * SIZE, columns, inner, inner, 0, wholes, q_row, g_row, b_row, b_column, length, keys,
                scale, SIZE, RIGHT, BLOCK_D, BLOCK_M, LIFT, True)  # fmt: skip
        key_found, value_found = _of_rows(
            block, values, key_found, value_found, left, given, added, base + start, left_over, deltas + start,
            queries + start * SIZE, columns, begin, inner, outer - inner, others, q_row, g_row, b_row, b_column, length,
            keys, scale, SIZE, RIGHT, BLOCK_D, REST_M, LIFT, False)  # fmt: skip
    store_rows(grad_key, columns, out_row, keys, key_found * factor, SIZE, BLOCK_D)
    store_rows(grad_value, columns, out_row, keys, value_found * 2.0**-LIFT, SIZE, BLOCK_D)
    return unsuited


@Kernel
def by_columns_pairs(query, key, value, grad, bias, base, rest, deltas,  # type: ignore[no-untyped-def]
                     queries, grad_key, grad_value, unsuited,
                     q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row,
                     b_batch, b_head, b_row, b_column, heads, group, length, keys, scale, factor,
                     SIZE: tl.constexpr, RIGHT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
                     REST_M: tl.constexpr, BLOCK_N: tl.constexpr, REST_N: tl.constexpr, LIFT: tl.constexpr,
                     MOST: tl.constexpr, LEAST: tl.constexpr):  # fmt: skip
    """Gradients of every P-th block of keys and values of one head, P being the programs, as ``by_columns``.

    base, rest, deltas: [batch, heads, length]; a weight is two to the power of its score less ``base``, and less
    ``rest`` where it is not None. queries: the gradient of queries, [P, batch, heads, length, SIZE] in float32, zero
    before, without the scale and times 2^LIFT. factor: the scale over 2^LIFT. REST_N: keys of a block behind the last
    whole one, 0 if there are none. Grid: programs for a head, heads of key and value, batch.
    """
    scale = tl.cast(scale, tl.float32)
    factor = tl.cast(factor, tl.float32)
    own = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    head = own.to(tl.int64) * group
    owners = heads // group
    query += batch * q_batch + head * q_head
    grad += batch * g_batch + head * g_head
    key += batch * k_batch + own.to(tl.int64) * k_head
    value += batch * v_batch + own.to(tl.int64) * v_head
    if bias is not None:
        bias += batch * b_batch + head * b_head
    start = (batch * heads + head) * length
    base += start
    if rest is not None:
        rest += start
    deltas += start
    copy = tl.program_id(0).to(tl.int64) * tl.num_programs(2) * heads * length
    queries += (copy + start) * SIZE
    grad_key += (batch * keys * owners + own) * SIZE
    grad_value += (batch * keys * owners + own) * SIZE
    found = tl.cast(0, tl.int32)
    whole = keys // BLOCK_N * BLOCK_N
    for first in range(tl.program_id(0) * BLOCK_N, whole, tl.num_programs(0) * BLOCK_N):
        found |= _of_keys(
            first, query, key, value, grad, bias, base, rest, deltas, queries, grad_key, grad_value, q_head, q_row,
            k_row, v_row, g_head, g_row, b_head, b_row, b_column, owners * SIZE, group, length, keys, scale, factor,
            SIZE, RIGHT, BLOCK_D, BLOCK_M, REST_M, BLOCK_N, LIFT, MOST, LEAST, True)  # fmt: skip
    if REST_N:
        for first in range(whole + tl.program_id(0) * REST_N, keys, tl.num_programs(0) * REST_N):
            found |= _of_keys(
                first, query, key, value, grad, bias, base, rest, deltas, queries, grad_key, grad_value, q_head, q_row,
                k_row, v_row, g_head, g_row, b_head, b_row, b_column, owners * SIZE, group, length, keys, scale, factor,
                SIZE, RIGHT, BLOCK_D, BLOCK_M, BLOCK_M, REST_N, LIFT, MOST, LEAST, False)  # fmt: skip
    place = (batch * owners + own) * tl.num_programs(0) + tl.program_id(0)
    tl.store(unsuited + place, found)


@Kernel
def rounded_pairs(queries, grad_query, heads, length, copies, stride, factor,  # type: ignore[no-untyped-def]
                  SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr):  # fmt: skip
    """grad_query, [batch, length, heads, SIZE], is the sum of ``copies``, which lie ``stride`` apart, times factor.

    Grid: blocks of rows, heads, batch.
    """
    factor = tl.cast(factor, tl.float32)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    queries += (batch * heads + head) * length * SIZE
    found = load_rows(queries, rows, SIZE, length, SIZE, BLOCK_D)
    for copy in range(1, copies):
        found += load_rows(queries + tl.cast(copy, tl.int64) * stride, rows, SIZE, length, SIZE, BLOCK_D)
    grad_query += (batch * length * heads + head) * SIZE
    store_rows(grad_query, rows, heads * SIZE, length, found * factor, SIZE, BLOCK_D)
