"""One matrix product, for targets whose memory no library reaches."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["UNROLL", "matmul"]

UNROLL = 8
"""Terms that are added up before they join the sum of all."""


@triton.jit  # type: ignore[untyped-decorator]
def matmul(  # type: ignore[no-untyped-def]
    a, b, bias, out,
    m, n, k,
    a_batch, a_row, a_column,
    b_batch, b_row, b_column,
    bias_batch, bias_row, bias_column,
    out_batch, out_row, out_column,
    alpha, beta,
    WIDE: tl.constexpr, FLOAT: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out = beta * bias + alpha * (a @ b) for each batch, all with strides in elements.

    ``WIDE`` is what is computed in: fp32 for fp16, bf16 and fp32; fp64; for integers (not ``FLOAT``) their own type.
    Sums run over k in order, UNROLL terms at a time, so their rounding errors are those of sums of k / UNROLL terms;
    the order does not depend on the machine. The result is rounded once. Without ``SCALED`` alpha is 1, without
    ``BIASED`` beta is 0. Grid: blocks of columns, blocks of rows, batches.

    Every element of the block adds up by itself: there are no barriers, which devices that run lanes one after another
    pay dearly for, and the operands that neighbours share come from caches.
    """
    batch = tl.program_id(2).to(tl.int64)
    columns = (tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    rows = (tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    inside = (rows < m) & (columns < n)
    # Beyond the end: the last row and column, whose sums are dropped. So no load needs a mask.
    at_a = a + batch * a_batch + tl.broadcast_to(tl.minimum(rows, m - 1) * a_row, (BLOCK_M, BLOCK_N))
    at_b = b + batch * b_batch + tl.broadcast_to(tl.minimum(columns, n - 1) * b_column, (BLOCK_M, BLOCK_N))
    total = tl.zeros((BLOCK_M, BLOCK_N), WIDE)
    for _ in range(0, k // UNROLL):
        part = tl.zeros((BLOCK_M, BLOCK_N), WIDE)
        for _ in tl.static_range(UNROLL):
            left, right = tl.load(at_a).to(WIDE), tl.load(at_b).to(WIDE)
            if FLOAT:
                part = tl.fma(left, right, part)
            else:
                part += left * right
            at_a += a_column
            at_b += b_row
        total += part
    for _ in range(0, k % UNROLL):
        left, right = tl.load(at_a).to(WIDE), tl.load(at_b).to(WIDE)
        if FLOAT:
            total = tl.fma(left, right, total)
        else:
            total += left * right
        at_a += a_column
        at_b += b_row
    if SCALED:
        total *= alpha.to(WIDE)
    if BIASED:
        at_bias = bias + batch * bias_batch + rows * bias_row + columns * bias_column
        total += beta.to(WIDE) * tl.load(at_bias, inside, 0).to(WIDE)
    tl.store(out + batch * out_batch + rows * out_row + columns * out_column, total.to(out.dtype.element_ty), inside)
