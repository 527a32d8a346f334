"""Small kernels whose results show how a target computes."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cast_probe", "dot_probe", "function_probe", "product_probe", "sum_probe"]


@triton.jit  # type: ignore[untyped-decorator]
def dot_probe(a, b, c, out, PRECISION: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = a @ b + c: [16, K], [K, 16], f32 [16, 16]; ``PRECISION`` is tl.dot's, empty for its default."""
    rows, terms = tl.arange(0, 16), tl.arange(0, K)
    square = rows[:, None] * 16 + rows[None, :]
    left = tl.load(a + rows[:, None] * K + terms[None, :])
    right = tl.load(b + terms[:, None] * 16 + rows[None, :])
    if PRECISION == "":
        total = tl.dot(left, right, tl.load(c + square))
    else:
        total = tl.dot(left, right, tl.load(c + square), input_precision=PRECISION)
    tl.store(out + square, total)


@triton.jit  # type: ignore[untyped-decorator]
def function_probe(x, y, out, NAME: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = NAME(x) in f32, rounded to out's type; x / y for ``div``. NAME: else a function of ``tl``."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at).to(tl.float32)
    if NAME == "div":
        result = value / tl.load(y + at).to(tl.float32)
    else:
        result = getattr(tl, NAME)(value)
    tl.store(out + at, result.to(out.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator]
def product_probe(x, y, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = x * y in their own type, f16 or f32."""
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * tl.load(y + at))


@triton.jit  # type: ignore[untyped-decorator]
def cast_probe(x, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = x in out's type."""
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at).to(out.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator]
def sum_probe(x, out, ROWS: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """out[i] = the sum of row i of x [ROWS, N], f32."""
    rows = tl.arange(0, ROWS)
    tl.store(out + rows, tl.sum(tl.load(x + rows[:, None] * N + tl.arange(0, N)[None, :]), 1))
