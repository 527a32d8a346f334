"""Triton kernels that stand for the operations of models. ``N`` and ``M``, ``K`` are sizes, blocks are constants.

Where UPCAST is false a kernel computes in its input's type, which its author should not have done.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def gelu(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n).to(tl.float32)
    tl.store(out + i, 0.5 * v * (1 + libdevice.erf(v * 0.7071067811865476)), i < n)


@triton.jit
def swiglu(x, gate, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gate + i, i < n).to(tl.float32)
    v = tl.load(x + i, i < n).to(tl.float32)
    tl.store(out + i, v * (g / (1 + tl.exp(-g))), i < n)


@triton.jit
def rotary(x, gate, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(x + i, i < n).to(tl.float32)
    angle = tl.load(gate + i, i < n).to(tl.float32)
    tl.store(out + i, a * tl.cos(angle) + 0.5 * tl.sin(angle), i < n)


@triton.jit
def small_gradient(x, gate, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(x + i, i < n).to(tl.float32)
    s = tl.load(gate + i, i < n).to(tl.float32)
    tl.store(out + i, g * s * 0.125, i < n)


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr, UPCAST: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, float("-inf"))
    if UPCAST:
        v = v.to(tl.float32)
    e = tl.exp((v - tl.max(v, 0)).to(tl.float32))
    if not UPCAST:
        e = e.to(v.dtype)
    total = _sum(e, UPCAST)
    tl.store(out + row * columns + i, e / total, i < columns)


@triton.jit
def _add(a, b):
    return a + b


@triton.jit
def _sum(v, UPCAST: tl.constexpr):
    if UPCAST:
        return tl.sum(v.to(tl.float32), 0)
    # A chain of narrow additions: a scan keeps every partial sum in its type.
    partial = tl.associative_scan(v, 0, _add)
    return tl.max(tl.where(tl.arange(0, v.shape[0]) == v.shape[0] - 1, partial, float("-inf")), 0)


@triton.jit
def layer_norm(x, out, columns, BLOCK: tl.constexpr, UPCAST: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, 0.0)
    if UPCAST:
        v = v.to(tl.float32)
    mean = _sum(v, UPCAST) / columns
    centred = tl.where(i < columns, v - mean.to(v.dtype), 0.0)
    variance = _sum(centred * centred, UPCAST) / columns
    result = centred.to(tl.float32) * libdevice.rsqrt(variance.to(tl.float32) + 1e-5)
    tl.store(out + row * columns + i, result, i < columns)


@triton.jit
def rms_norm(x, out, columns, BLOCK: tl.constexpr, UPCAST: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, 0.0)
    if UPCAST:
        v = v.to(tl.float32)
    mean = _sum(v * v, UPCAST) / columns
    tl.store(out + row * columns + i, v.to(tl.float32) * libdevice.rsqrt(mean.to(tl.float32) + 1e-6), i < columns)


@triton.jit
def row_sum(x, out, columns, BLOCK: tl.constexpr, UPCAST: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, 0.0)
    tl.store(out + row, _sum(v, UPCAST))


@triton.jit
def log_sum_exp(x, out, columns, BLOCK: tl.constexpr, UPCAST: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, float("-inf"))
    if UPCAST:
        v = v.to(tl.float32)
    top = tl.max(v, 0)
    e = tl.exp((v - top).to(tl.float32))
    if not UPCAST:
        e = e.to(v.dtype)
    tl.store(out + row, top + tl.log(_sum(e, UPCAST).to(tl.float32)))


@triton.jit
def running_sum(x, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, 0.0).to(tl.float32)
    tl.store(out + row * columns + i, tl.cumsum(v, 0), i < columns)


@triton.jit
def route(x, weights, index, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, float("-inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, 0))
    p = e / tl.sum(e, 0)
    tl.store(index + row, tl.argmax(p, 0).to(tl.int64))
    tl.store(weights + row, tl.max(p, 0))


@triton.jit
def product(a, b, out, rows, columns, depth, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, depth, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(a + m[:, None] * depth + k[None, :], (m[:, None] < rows) & (k[None, :] < depth), 0.0)
        right = tl.load(b + k[:, None] * columns + n[None, :], (k[:, None] < depth) & (n[None, :] < columns), 0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    tl.store(out + m[:, None] * columns + n[None, :], total, (m[:, None] < rows) & (n[None, :] < columns))


@triton.jit
def attention(q, k, v, out, length, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head = tl.program_id(1) * length * D
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    query = tl.load(q + head + m[:, None] * D + d[None, :], m[:, None] < length, 0.0)
    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    for start in range(0, length, BN):
        n = start + tl.arange(0, BN)
        key = tl.load(k + head + n[None, :] * D + d[:, None], n[None, :] < length, 0.0)
        value = tl.load(v + head + n[:, None] * D + d[None, :], n[:, None] < length, 0.0)
        score = tl.dot(query, key, input_precision="ieee") * 0.125
        score = tl.where(n[None, :] < length, score, float("-inf"))
        new = tl.maximum(top, tl.max(score, 1))
        scale = tl.exp(top - new)
        p = tl.exp(score - new[:, None])
        total = total * scale + tl.sum(p, 1)
        acc = tl.dot(p.to(value.dtype), value, acc * scale[:, None], input_precision="ieee")
        top = new
    tl.store(out + head + m[:, None] * D + d[None, :], acc / total[:, None], m[:, None] < length)
