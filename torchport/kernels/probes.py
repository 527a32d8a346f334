"""Small kernels whose results tell how a target computes."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cast_probe", "dot_probe", "function_probe", "product_probe", "sum_probe"]


@triton.jit  # type: ignore[untyped-decorator]
def dot_probe(a, b, c, out, PRECISION: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = a @ b + c: [16, K], [K, 16], f32 [16, 16]; ``PRECISION`` is tl.dot's, empty for what it does unasked."""
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
    """out = NAME(x) in f32, rounded to out's type; of x and y for a division."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at).to(tl.float32)
    if NAME == "div":
        found = value / tl.load(y + at).to(tl.float32)
    elif NAME == "exp":
        found = tl.exp(value)
    elif NAME == "exp2":
        found = tl.exp2(value)
    elif NAME == "log":
        found = tl.log(value)
    elif NAME == "log2":
        found = tl.log2(value)
    elif NAME == "sin":
        found = tl.sin(value)
    elif NAME == "cos":
        found = tl.cos(value)
    elif NAME == "erf":
        found = tl.erf(value)
    elif NAME == "rsqrt":
        found = tl.rsqrt(value)
    else:
        found = tl.sqrt(value)
    tl.store(out + at, found.to(out.dtype.element_ty))


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
