"""One matrix product by ``tl.dot``, for targets whose matrix unit is emulated."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["dot_product"]


@triton.jit  # type: ignore[untyped-decorator]
def dot_product(  # type: ignore[no-untyped-def]
    a, b, bias, out,
    m, n, k,
    a_batch, a_row, a_column,
    b_batch, b_row, b_column,
    bias_batch, bias_row, bias_column,
    out_batch, out_row, out_column,
    alpha, beta,
    PRECISION: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out = beta * bias + alpha * (a @ b) for each batch, all with strides in elements.

    Operands of f16, bf16, f32 or an 8-bit float, added up in f32 over k in order; ``PRECISION`` is tl.dot's for f32.
    The result is scaled, added to and rounded once. Without ``SCALED`` alpha is 1, without ``BIASED`` beta is 0. Grid:
    blocks of columns, blocks of rows, batches.
    """
    batch = tl.program_id(2).to(tl.int64)
    columns = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    terms = tl.arange(0, BLOCK_K)
    at_a = a + batch * a_batch + rows[:, None] * a_row + terms[None, :] * a_column
    at_b = b + batch * b_batch + terms[:, None] * b_row + columns[None, :] * b_column
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        inside = start + terms < k
        left = tl.load(at_a, (rows[:, None] < m) & inside[None, :], 0.0)
        right = tl.load(at_b, inside[:, None] & (columns[None, :] < n), 0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        at_a += BLOCK_K * a_column
        at_b += BLOCK_K * b_row
    shown = (rows[:, None] < m) & (columns[None, :] < n)
    if SCALED:
        total *= alpha
    if BIASED:
        at_bias = bias + batch * bias_batch + rows[:, None] * bias_row + columns[None, :] * bias_column
        total += beta * tl.load(at_bias, shown, 0.0).to(tl.float32)
    at_out = out + batch * out_batch + rows[:, None] * out_row + columns[None, :] * out_column
    tl.store(at_out, total.to(out.dtype.element_ty), shown)
