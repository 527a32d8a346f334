"""One matrix product, for targets whose memory no library reaches."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["matmul", "pack"]


@triton.jit  # type: ignore[untyped-decorator]
def pack(  # type: ignore[no-untyped-def]
    b, out,
    n, k,
    b_batch, b_row, b_column,
    WIDE: tl.constexpr, UNIT: tl.constexpr, TERMS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write ``b`` as panels of BLOCK_N columns in WIDE: ``out[batch, panel, row, column of the panel]``.

    Each panel has a multiple of TERMS rows; what is beyond ``b`` is 0. ``UNIT`` says that ``b_column`` is 1. Grid:
    blocks of TERMS rows, panels, batches.
    """
    batch, panel = tl.program_id(2).to(tl.int64), tl.program_id(1)
    rows = (tl.program_id(0) * TERMS + tl.arange(0, TERMS))[:, None]
    column = tl.arange(0, BLOCK_N)[None, :]
    columns = panel * BLOCK_N + column
    at = b + batch * b_batch + rows * b_row + (columns if UNIT else columns * b_column)
    packed = tl.load(at, (rows < k) & (columns < n), 0).to(WIDE)
    first = ((batch * tl.num_programs(1) + panel) * tl.num_programs(0) * TERMS + rows) * BLOCK_N
    tl.store(out + first + column, packed)


@triton.jit  # type: ignore[untyped-decorator]
def matmul(  # type: ignore[no-untyped-def]
    a, b, bias, out,
    m, n, k,
    a_batch, a_row, a_column,
    b_batch, b_row, b_column,
    bias_batch, bias_row, bias_column,
    out_batch, out_row, out_column,
    alpha, beta,
    WIDE: tl.constexpr, FLOAT: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, PACKED: tl.constexpr,
    UNIT: tl.constexpr, FOURS: tl.constexpr, TERMS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out = beta * bias + alpha * (a @ b) for each batch, all with strides in elements.

    ``WIDE`` is what is computed in: fp32 for fp16, bf16 and fp32; fp64; for integers (not ``FLOAT``) their own type.
    Sums run over k in order by fused multiply-add, TERMS terms at a time, which then join the sum of all: rounding
    errors are at most those of sums of TERMS + k / TERMS terms, and the order does not depend on the machine. The
    result is rounded once. Without ``SCALED`` alpha is 1, without ``BIASED`` beta is 0. ``PACKED``: b is what ``pack``
    wrote; its strides are not used. ``UNIT``: ``b_column`` is 1. ``FOURS``: ``a_column`` is 1, and ``a_row`` and
    ``a_batch`` are multiples of 4, for targets that load four neighbours at once. Grid: blocks of rows, blocks of
    columns, batches, so that programs that run one after another share columns of b.
    """
    if FOURS:
        a_batch, a_row, a_column = a_batch // 4 * 4, a_row // 4 * 4, 1
    batch = tl.program_id(2).to(tl.int64)
    panel = tl.program_id(1)
    column = tl.arange(0, BLOCK_N)[None, :]
    columns = panel * BLOCK_N + column
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    # Beyond the end: the last row, whose sums are dropped. So no load of whole blocks of a needs a mask.
    at_a = a + batch * a_batch + tl.minimum(rows, m - 1) * a_row
    inside = columns < n
    if PACKED:
        at_b = b + (batch * tl.num_programs(1) + panel) * tl.cdiv(k, TERMS) * TERMS * BLOCK_N + column
        step = BLOCK_N
    else:
        at_b = b + batch * b_batch + (columns if UNIT else columns * b_column)
        step = b_row
    terms = tl.arange(0, TERMS)
    total = tl.zeros((BLOCK_M, BLOCK_N), WIDE)
    whole = k // TERMS * TERMS
    if FLOAT:
        for first in range(0, whole, TERMS):
            left = tl.load(at_a + (first + terms)[None, :] * a_column).to(WIDE)
            at = at_b + (first + terms)[:, None] * step
            right = (tl.load(at) if PACKED else tl.load(at, inside, 0)).to(WIDE)
            total += tl.dot(left, right, input_precision="ieee", out_dtype=WIDE)
        if whole < k:
            left = tl.load(at_a + (whole + terms)[None, :] * a_column, (whole + terms)[None, :] < k, 0).to(WIDE)
            at = at_b + (whole + terms)[:, None] * step
            right = (tl.load(at) if PACKED else tl.load(at, inside & ((whole + terms)[:, None] < k), 0)).to(WIDE)
            total += tl.dot(left, right, input_precision="ieee", out_dtype=WIDE)
    else:
        for i in range(0, k):
            total += tl.load(at_a + i * a_column).to(WIDE) * tl.load(at_b + i * step, inside, 0).to(WIDE)
    if SCALED:
        total *= alpha.to(WIDE)
    inside = (rows < m) & (columns < n)
    if BIASED:
        at_bias = bias + batch * bias_batch + rows * bias_row + columns * bias_column
        total += beta.to(WIDE) * tl.load(at_bias, inside, 0).to(WIDE)
    tl.store(out + batch * out_batch + rows * out_row + columns * out_column, total.to(out.dtype.element_ty), inside)
