"""Kernels whose rows do, or do not, depend on the batch. Each function returns the launch for so many rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import tree_cases as sums
import triton
import triton.language as tl
from triton import cdiv


@triton.jit
def block_mean(x, y, n, B: tl.constexpr):
    r = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + r, r < n, 0.0)
    tl.store(y + r, v - tl.sum(v, 0) / B, r < n)


@triton.jit
def first_rows(x, y, n, B: tl.constexpr):
    r = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + r, r < n, 0.0)
    tl.store(y + r, tl.where(r < 5, v, v + 1), r < n)


@triton.jit
def position(x, y, n, B: tl.constexpr):
    r = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + r, tl.load(x + r, r < n, 0.0) + r.to(tl.float32), r < n)


@triton.jit
def batch_mean(x, y, n, B: tl.constexpr):
    r = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + r, tl.load(x + r, r < n, 0.0) / n, r < n)


@triton.jit
def stream(x, y, n, m, B: tl.constexpr):  # block size of the sum depends on n
    row = tl.program_id(0)
    step = tl.cdiv(m, tl.minimum(n, 4))
    total = 0.0
    for s in range(0, m, step):
        c = tl.arange(0, B)
        total += tl.sum(tl.load(x + row * m + s + c, (c < step) & (s + c < m), 0.0), 0)
    tl.store(y + row, total)


@triton.jit
def other_mask(x, y, n, m, B: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, B)
    v = tl.load(x + row * m + c, (c < m) & (row < n - 1), 0.0)
    tl.store(y + row, tl.sum(v, 0))


@triton.jit
def persistent(x, y, n, m, B: tl.constexpr):
    c = tl.arange(0, B)
    for row in range(tl.program_id(0), n, tl.num_programs(0)):
        v = tl.load(x + row * m + c, c < m, 0.0)
        tl.store(y + row, tl.sum(v, 0))


@triton.jit
def reversed_rows(x, y, n, m, B: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, B)
    tl.store(y + row, tl.sum(tl.load(x + (n - 1 - row) * m + c, c < m, 0.0), 0))


@triton.jit
def grouped(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, G: tl.constexpr):
    pid = tl.program_id(0)
    nm = tl.cdiv(M, BM)
    nn = tl.cdiv(N, BN)
    g = G * nn
    gid = pid // g
    first = gid * G
    size = min(nm - first, G)
    pm = first + (pid % g) % size
    pn = (pid % g) // size
    rm = (pm * BM + tl.arange(0, BM)) % M
    rn = (pn * BN + tl.arange(0, BN)) % N
    rk = tl.arange(0, BK)
    ap = a + rm[:, None] * K + rk[None, :]
    bp = b + rk[:, None] * N + rn[None, :]
    acc = tl.zeros([BM, BN], tl.float32)
    for k in range(0, tl.cdiv(K, BK)):
        av = tl.load(ap, rk[None, :] < K - k * BK, 0.0)
        bv = tl.load(bp, rk[:, None] < K - k * BK, 0.0)
        acc = tl.dot(av, bv, acc)
        ap += BK
        bp += BK * N
    cm = pm * BM + tl.arange(0, BM)
    cn = pn * BN + tl.arange(0, BN)
    tl.store(c + cm[:, None] * N + cn[None, :], acc, (cm[:, None] < M) & (cn[None, :] < N))


@triton.jit
def ragged(x, lengths, y, m, B: tl.constexpr):
    row = tl.program_id(0)
    n = tl.load(lengths + row)
    total = tl.zeros([B], tl.float32)
    for s in range(0, n, B):
        c = s + tl.arange(0, B)
        total += tl.load(x + row * m + c, c < n, 0.0)
    tl.store(y + row, tl.sum(total, 0))


@triton.jit
def ragged_block(x, lengths, y, n, m, R: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0) * R + tl.arange(0, R)
    length = tl.load(lengths + row, row < n, 0)
    total = tl.zeros([R, B], tl.float32)
    for s in range(0, tl.max(length, 0), B):
        c = s + tl.arange(0, B)
        total += tl.load(x + row[:, None] * m + c[None, :], (c[None, :] < length[:, None]) & (row < n)[:, None], 0.0)
    tl.store(y + row, tl.sum(total, 1), row < n)


@triton.jit
def both_axes(x, y, a, b, A: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0)
    i, j = tl.arange(0, A)[:, None], tl.arange(0, B)[None, :]
    tl.store(y + row, tl.sum(tl.load(x + row * a * b + i * b + j, (i < a) & (j < b), 0.0)))


@triton.jit
def unmasked_blocks(x, y, B: tl.constexpr):
    r = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + r)
    tl.store(y + r, v - tl.sum(v, 0) / B)


@triton.jit
def gather(x, idx, y, m, B: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, B)
    tl.store(y + row, tl.sum(tl.load(x + tl.load(idx + row) * m + c, c < m, 0.0), 0))


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


z = torch.zeros
Case = Callable[[int], tuple[Any, Any, dict[str, Any]]]

EVERY_SIZE: dict[str, Case] = {
    "rows in blocks": lambda n: (
        sums.row_sums, (cdiv(n, 4),), {"x": x(n, 50), "y": z(n), "n": n, "m": 50, "XB": 4, "RB": 32}),
    "softmax": lambda n: (sums.softmax, (n,), {"x": x(n, 50), "y": z(n, 50), "m": 50, "B": 64}),
    "layer norm": lambda n: (
        sums.layer_norm, (n,), {"x": x(n, 50), "w": x(50), "b": x(50), "y": z(n, 50), "m": 50, "B": 64}),
    "mean square, bf16": lambda n: (
        sums.mean_square, (n,), {"x": x(n, 50).bfloat16(), "y": z(n).bfloat16(), "m": 50, "B": 32}),
    "no columns": lambda n: (
        sums.row_sums, (cdiv(n, 4),), {"x": x(n, 1), "y": z(n), "n": n, "m": 0, "XB": 4, "RB": 32}),
    "split": lambda n: (sums.parts, (n, 4), {"x": x(n, 101), "y": z(n, 4), "m": 101, "P": 4, "B": 32}),
    "persistent programs": lambda n: (persistent, (3,), {"x": x(n, 60), "y": z(n), "n": n, "m": 60, "B": 64}),
    "two axes": lambda n: (both_axes, (n,), {"x": x(n, 6, 10), "y": z(n), "a": 6, "b": 10, "A": 8, "B": 16}),
    "rows of their own length": lambda n: (
        ragged, (n,), {"x": x(n, 60), "lengths": torch.full((n,), 37, dtype=torch.int32), "y": z(n), "m": 60, "B": 16}),
    "gathered": lambda n: (
        gather, (n,), {"x": x(7, 60), "idx": torch.zeros(n, dtype=torch.int32), "y": z(n), "m": 60, "B": 64}),
}  # fmt: skip

PRODUCTS: dict[str, Case] = {
    "rows": lambda n: (sums.product, (cdiv(n, 16), 1), {
        "a": x(n, 40), "b": x(40, 8), "c": z(n, 8), "M": n, "N": 8, "K": 40, "BM": 16, "BN": 16, "BK": 32}),
    "columns": lambda n: (sums.product, (1, cdiv(n, 16)), {
        "a": x(8, 40), "b": x(40, n), "c": z(8, n), "M": 8, "N": n, "K": 40, "BM": 16, "BN": 16, "BK": 32}),
    "grouped": lambda n: (grouped, (cdiv(n, 16),), {
        "a": x(n, 40), "b": x(40, 8), "c": z(n, 8), "M": n, "N": 8, "K": 40, "BM": 16, "BN": 16, "BK": 32, "G": 2}),
}  # fmt: skip

DEPENDING: dict[str, tuple[str, Case]] = {
    "mean of a block": ("computed from row 1", lambda n: (
        block_mean, (cdiv(n, 4),), {"x": x(n), "y": z(n), "n": n, "B": 4})),
    "the first rows": ("row 5 of 8", lambda n: (first_rows, (cdiv(n, 4),), {"x": x(n), "y": z(n), "n": n, "B": 4})),
    "position": ("another order", lambda n: (position, (cdiv(n, 4),), {"x": x(n), "y": z(n), "n": n, "B": 4})),
    "size": ("another order", lambda n: (batch_mean, (cdiv(n, 4),), {"x": x(n), "y": z(n), "n": n, "B": 4})),
    "steps by the size": ("another order", lambda n: (
        stream, (n,), {"x": x(n, 60), "y": z(n), "n": n, "m": 60, "B": 64})),
    "another mask": ("another order", lambda n: (
        other_mask, (n,), {"x": x(n, 60), "y": z(n), "n": n, "m": 60, "B": 64})),
    "reversed": ("computed from row 1", lambda n: (
        reversed_rows, (n,), {"x": x(n, 60), "y": z(n), "n": n, "m": 60, "B": 64})),
    "columns": ("the same size for every batch", lambda n: (
        sums.column_sums, (4,), {"x": x(n, 50), "y": z(50), "n": n, "m": 50, "A": 8, "B": 16})),
    "atomic": ("atomic operations", lambda n: (
        sums.atomic_sum, (cdiv(n, 64),), {"x": x(n), "y": z(1), "n": n, "B": 64})),
    "another kernel": ("another order", lambda n: (
        sums.mean_square, (n,), {"x": x(n, 200), "y": z(n), "m": 200, "B": 32 if n < 5 else 128})),
}  # fmt: skip
