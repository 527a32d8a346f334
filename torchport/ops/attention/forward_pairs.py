"""The forward kernel of attention in bfloat16 by an instruction that takes denormals for zeros, where no bit shows it.

``vdpbf16ps`` takes denormal operands for zeros and makes zeros of denormal sums (below 2^-126). The kernel looks at the
numbers that it reads and says where one is denormal, infinite, NaN or 2^40 and more (``MOST``); the caller computes
everything exactly then. Of other numbers:

* A score loses less than 2^-126 a term. A scale of up to 2^60 leaves that below 2^-50, far less than float32's rounding
  of a weight.
* Weights are multiplied by ``LIFT``, 2^64: a term of a result loses less than 2^-190, and the smallest denormal of
  bfloat16 is 2^-133. Sums stay below 2^104 times the number of keys, so none overflows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.attention.blocks import (
    key_span,
    load_rows,
    nothing_seen,
    online,
    scores_of,
    store_rows,
    whole_keys,
)
from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["LIFT", "MOST", "forward_pairs"]

MOST = (127 + 40) << 7
"""The bits of 2^40, the least magnitude that the kernel is not for."""
LIFT = 2.0**64


@Kernel
def _unsuited(block):  # type: ignore[no-untyped-def]
    """The largest bits of a block's magnitudes, where those of denormals count for the largest there are: one int16."""
    bits = block.to(tl.int16, bitcast=True) & 0x7FFF
    return tl.max(tl.max(tl.where((bits < 0x80) & (bits != 0), 0x7FFF, bits), 1), 0)


@Kernel
def _attend(wanted, key, value, bias, highest, total, found, worst, rows, begin, end,  # type: ignore[no-untyped-def]
            k_row, v_row, b_row, b_column, length, keys, shift, scale,
            SIZE: tl.constexpr, RIGHT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, LIFT: tl.constexpr,
            WHOLE: tl.constexpr):  # fmt: skip
    """Take keys from ``begin`` to ``end`` into the running softmax. WHOLE: all rows see all of them."""
    for at in range(begin, end, BLOCK_N):
        columns = at + tl.arange(0, BLOCK_N)
        block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D, WHOLE)
        worst = tl.maximum(worst, _unsuited(block))
        product = tl.dot(wanted, tl.trans(block), input_precision="ieee")
        scores, _ = scores_of(product, rows[:, None], columns[None, :], bias, None, length, keys, shift, 0, 0,
                              scale, 0.0, b_row, b_column, False, False, RIGHT, WHOLE)  # fmt: skip
        weights, highest, total, shrunk = online(scores, highest, total)
        block = load_rows(value, columns, v_row, keys, SIZE, BLOCK_D, WHOLE)
        worst = tl.maximum(worst, _unsuited(block))
        found = tl.dot((weights * LIFT).to(block.dtype), block, found * shrunk[:, None], input_precision="ieee")
    return highest, total, found, worst


@Kernel
def forward_pairs(query, key, value, bias, out, sums, unsuited,  # type: ignore[no-untyped-def]
                  q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
                  b_batch, b_head, b_row, b_column, heads, group, length, keys, scale,
                  SIZE: tl.constexpr, RIGHT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
                  BLOCK_N: tl.constexpr, REST: tl.constexpr, LIFT: tl.constexpr, MOST: tl.constexpr):  # fmt: skip
    """One block of rows of one head, as ``forward``. RIGHT: row m sees keys up to m.

    unsuited: one int32 for each program instance, 1 if it read numbers that the kernel is not for.
    REST: keys of a block behind the last whole one, and behind those that all rows see.
    """
    scale = tl.cast(scale, tl.float32)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    first = tl.program_id(0) * BLOCK_M
    token = batch * length
    query += batch * q_batch + head.to(tl.int64) * q_head
    key += batch * k_batch + (head // group).to(tl.int64) * k_head
    value += batch * v_batch + (head // group).to(tl.int64) * v_head
    out += (token * heads + head) * SIZE
    sums += token * heads + head
    if bias is not None:
        bias += batch * b_batch + head.to(tl.int64) * b_head
    rows = first + tl.arange(0, BLOCK_M)
    wanted = load_rows(query, rows, q_row, length, SIZE, BLOCK_D)
    worst = _unsuited(wanted)
    highest, total = nothing_seen(None, head, BLOCK_M)
    found = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    begin, end = key_span(first, BLOCK_M, length, keys, 0, 0, 0, False, RIGHT)
    inner, outer = whole_keys(first, BLOCK_M, begin, end, keys, 0, 0, 0, False, RIGHT, BLOCK_N)
    highest, total, found, worst = _attend(
        wanted, key, value, bias, highest, total, found, worst, rows, inner, outer, k_row, v_row, b_row, b_column,
        length, keys, 0, scale, SIZE, RIGHT, BLOCK_D, BLOCK_N, LIFT, True)  # fmt: skip
    highest, total, found, worst = _attend(
        wanted, key, value, bias, highest, total, found, worst, rows, outer, end, k_row, v_row, b_row, b_column,
        length, keys, 0, scale, SIZE, RIGHT, BLOCK_D, REST, LIFT, False)  # fmt: skip
    whole = tl.where(total == 0.0, 1.0, total)
    store_rows(out, rows, heads * SIZE, length, found / (whole * LIFT)[:, None], SIZE, BLOCK_D)
    at = sums + rows.to(tl.int64) * heads
    tl.store(at, (highest + tl.log2(whole)) * 0.6931471805599453, rows < length)
    place = (batch * heads + head) * tl.num_programs(0) + tl.program_id(0)
    tl.store(unsuited + place, (worst >= MOST).to(tl.int32))
