"""Kernels whose order of additions is followed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def row_sums(x, y, n, m, XB: tl.constexpr, RB: tl.constexpr):
    row = tl.program_id(0) * XB + tl.arange(0, XB)[:, None]
    acc = tl.zeros([XB, RB], tl.float32)
    for k in range(0, m, RB):
        c = k + tl.arange(0, RB)[None, :]
        acc += tl.load(x + row * m + c, (row < n) & (c < m), 0.0)
    tl.store(y + row, tl.sum(acc, 1)[:, None], row < n)


@triton.jit
def mean_square(x, y, m, B: tl.constexpr):
    row = tl.program_id(0)
    acc = tl.zeros([B], tl.float32)
    for k in range(0, m, B):
        c = k + tl.arange(0, B)
        v = tl.load(x + row * m + c, c < m, 0.0).to(tl.float32)
        acc = tl.where(c < m, acc + v * v, acc)
    tl.store(y + row, tl.sum(acc, 0) / m)


@triton.jit
def softmax(x, y, m, B: tl.constexpr):
    row, c = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * m + c, c < m, -float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row * m + c, e / tl.sum(e, 0), c < m)


@triton.jit
def layer_norm(x, w, b, y, m, B: tl.constexpr):
    row, c = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * m + c, c < m, 0.0).to(tl.float32)
    mean = tl.sum(v, 0) / m
    d = tl.where(c < m, v - mean, 0.0)
    r = 1 / tl.sqrt(tl.sum(d * d, 0) / m + 1e-5)
    tl.store(y + row * m + c, d * r * tl.load(w + c, c < m) + tl.load(b + c, c < m), c < m)


@triton.jit
def product(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    rn = tl.program_id(1) * BN + tl.arange(0, BN)[None, :]
    acc = tl.zeros([BM, BN], tl.float32)
    for k in range(0, K, BK):
        rk = k + tl.arange(0, BK)
        left = tl.load(a + rm * K + rk[None, :], (rm < M) & (rk[None, :] < K), 0.0)
        right = tl.load(b + rk[:, None] * N + rn, (rn < N) & (rk[:, None] < K), 0.0)
        acc = tl.dot(left, right, acc)
    tl.store(c + rm * N + rn, acc, (rm < M) & (rn < N))


@triton.jit
def whole_sum(x, y, a, b, A: tl.constexpr, B: tl.constexpr):
    i, j = tl.arange(0, A)[:, None], tl.arange(0, B)[None, :]
    tl.store(y, tl.sum(tl.load(x + i * b + j, (i < a) & (j < b), 0.0)))


@triton.jit
def column_sums(x, y, n, m, A: tl.constexpr, B: tl.constexpr):
    j = tl.program_id(0) * B + tl.arange(0, B)
    acc = tl.zeros([B], tl.float32)
    for r in range(0, n, A):
        i = r + tl.arange(0, A)[:, None]
        acc += tl.sum(tl.load(x + i * m + j[None, :], (i < n) & (j[None, :] < m), 0.0), 0)
    tl.store(y + j, acc, j < m)


@triton.jit
def larger(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def row_maxima(x, y, m, B: tl.constexpr):
    row = tl.arange(0, 4)[:, None]
    most = tl.full([4, B], -float("inf"), tl.float32)
    for k in range(0, m, B):
        c = k + tl.arange(0, B)[None, :]
        most = larger(most, tl.load(x + row * m + c, c < m, -float("inf")))
    tl.store(y + row, tl.reduce(most, 1, larger)[:, None])


@triton.jit
def running_sum(x, y, m, B: tl.constexpr):
    c = tl.arange(0, B)
    tl.store(y + c, tl.cumsum(tl.load(x + c, c < m, 0.0), 0), c < m)


@triton.jit
def atomic_sum(x, y, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.atomic_add(y, tl.sum(tl.load(x + i, i < n, 0.0), 0))


@triton.jit
def parts(x, y, m, P: tl.constexpr, B: tl.constexpr):
    row, part, c = tl.program_id(0), tl.program_id(1), tl.arange(0, B)
    size = tl.cdiv(m, P)
    acc = tl.zeros([B], tl.float32)
    for k in range(part * size, min(m, (part + 1) * size), B):
        acc += tl.load(x + row * m + k + c, k + c < min(m, (part + 1) * size), 0.0)
    tl.store(y + row * P + part, tl.sum(acc, 0))


@triton.jit
def attention(q, k, v, o, n, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    m, d = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    Q = tl.load(q + m[:, None] * D + d[None, :], m[:, None] < n, 0.0)
    most = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for s in range(0, n, BN):
        j = s + tl.arange(0, BN)
        K = tl.load(k + j[:, None] * D + d[None, :], j[:, None] < n, 0.0)
        S = tl.where(j[None, :] < n, tl.dot(Q, tl.trans(K)) * 0.125, -float("inf"))
        new = tl.maximum(most, tl.max(S, 1))
        p, scale = tl.exp(S - new[:, None]), tl.exp(most - new)
        total = total * scale + tl.sum(p, 1)
        V = tl.load(v + j[:, None] * D + d[None, :], j[:, None] < n, 0.0)
        acc = tl.dot(p, V, acc * scale[:, None])
        most = new
    tl.store(o + m[:, None] * D + d[None, :], acc / total[:, None], m[:, None] < n)


@triton.jit
def exponentials(x, y, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + i, tl.exp(tl.load(x + i, i < n)), i < n)


@triton.jit
def integer_sum(x, y, m, B: tl.constexpr):
    c = tl.arange(0, B)
    tl.store(y, tl.sum(tl.load(x + c, c < m, 0), 0).to(tl.float32))


@triton.jit
def while_positive(x, y, B: tl.constexpr):
    total, i = 0.0, 0
    while total < 1.0:
        total += tl.load(x + i)
        i += 1
    tl.store(y, total)


def rows(m: int, n: int = 3, block: int = 32):
    x = torch.randn(n, max(m, 1))
    return row_sums, (2,), {"x": x, "y": torch.zeros(n), "n": n, "m": m, "XB": 2, "RB": block}
