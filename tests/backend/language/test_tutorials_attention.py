"""Flash attention with its gradients, as people learn it: two stages when causal, powers of 2, descriptors."""

from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl

LOG2E = tl.constexpr(math.log2(math.e))


@triton.jit
def attend(
    total, weight, most, q, k_desc, v_desc, base, first, low, high, scale,
    MASKED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One stage over keys in [low, high): the running sum of rows of v, of weights, and the greatest logit, base 2."""
    row = first + tl.arange(0, BM)
    for start in tl.range(low, high, BN, num_stages=2):
        start = tl.multiple_of(start, BN)
        logits = tl.dot(q, k_desc.load([base + start, 0]).T) * scale
        if MASKED:
            column = start + tl.arange(0, BN)
            logits = logits + tl.where(row[:, None] >= column[None, :], 0, -1.0e6)
        higher = tl.maximum(most, tl.max(logits, 1))
        p = tl.math.exp2(logits - higher[:, None])
        shrink = tl.math.exp2(most - higher)
        weight = weight * shrink + tl.sum(p, 1)
        total = total * shrink[:, None]
        v = v_desc.load([base + start, 0])
        total = tl.dot(p.to(v.dtype), v, total)
        most = higher
    return total, weight, most


@triton.jit
def forward(
    Q, K, V, OUT, LSE, scale, heads_total, length,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Tensors are (batch * heads, length, D); LSE: log2 of the sums of a row's weights, float32."""
    first = tl.program_id(0) * BM
    base = tl.program_id(1) * length
    lines = heads_total * length
    q_desc = tl.make_tensor_descriptor(Q, shape=[lines, D], strides=[D, 1], block_shape=[BM, D])
    k_desc = tl.make_tensor_descriptor(K, shape=[lines, D], strides=[D, 1], block_shape=[BN, D])
    v_desc = tl.make_tensor_descriptor(V, shape=[lines, D], strides=[D, 1], block_shape=[BN, D])
    out_desc = tl.make_tensor_descriptor(OUT, shape=[lines, D], strides=[D, 1], block_shape=[BM, D])
    most = tl.zeros([BM], dtype=tl.float32) - float("inf")
    weight = tl.zeros([BM], dtype=tl.float32)
    total = tl.zeros([BM, D], dtype=tl.float32)
    q = q_desc.load([base + first, 0])
    scale *= LOG2E
    if CAUSAL:
        total, weight, most = attend(
            total, weight, most, q, k_desc, v_desc, base, first, 0, first, scale, False, BM, BN
        )  # fmt: skip
        total, weight, most = attend(
            total, weight, most, q, k_desc, v_desc, base, first, first, first + BM, scale, True, BM, BN
        )  # fmt: skip
    else:
        total, weight, most = attend(
            total, weight, most, q, k_desc, v_desc, base, first, 0, length, scale, False, BM, BN
        )  # fmt: skip
    tl.store(LSE + base + first + tl.arange(0, BM), most + tl.math.log2(weight))
    out_desc.store([base + first, 0], (total / weight[:, None]).to(OUT.dtype.element_ty))


@triton.jit
def row_products(OUT, DOUT, DELTA, D: tl.constexpr, BM: tl.constexpr):
    """sum(out * dout) of each row."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    place = row[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(DELTA + row, tl.sum(tl.load(OUT + place).to(tl.float32) * tl.load(DOUT + place).to(tl.float32), axis=1))


@triton.jit
def weights(q, k, lse, row, column, scale, CAUSAL: tl.constexpr):
    """Softmax weights, recomputed: rows of q by rows of k."""
    p = tl.math.exp2(tl.dot(q, tl.trans(k)) * (scale * LOG2E) - lse[:, None])
    return tl.where(row[:, None] >= column[None, :], p, 0.0) if CAUSAL else p


@triton.jit
def backward(
    Q, K, V, DOUT, LSE, DELTA, DQ, DK, DV, scale, length,
    D: tl.constexpr, B: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """A program owns a block of keys, for dk and dv, and then the same block of queries, for dq."""
    base = tl.program_id(1) * length
    first = tl.program_id(0) * B
    lane = tl.arange(0, B)
    within = lane[:, None] * D + tl.arange(0, D)[None, :]
    mine = (base + first) * D + within

    k, v = tl.load(K + mine), tl.load(V + mine)
    dk = tl.zeros([B, D], dtype=tl.float32)
    dv = tl.zeros([B, D], dtype=tl.float32)
    for start in range(first if CAUSAL else 0, length, B):
        other = (base + start) * D + within
        q, dout = tl.load(Q + other), tl.load(DOUT + other)
        line = base + start + lane
        p = weights(q, k, tl.load(LSE + line), start + lane, first + lane, scale, CAUSAL)
        dv += tl.dot(tl.trans(p).to(dout.dtype), dout)
        dlogits = p * (tl.dot(dout, tl.trans(v)) - tl.load(DELTA + line)[:, None])
        dk += tl.dot(tl.trans(dlogits.to(q.dtype)), q)
    tl.store(DV + mine, dv)
    tl.store(DK + mine, dk * scale)

    q, dout = tl.load(Q + mine), tl.load(DOUT + mine)
    line = base + first + lane
    lse, delta = tl.load(LSE + line), tl.load(DELTA + line)
    dq = tl.zeros([B, D], dtype=tl.float32)
    for start in range(0, first + B if CAUSAL else length, B):
        other = (base + start) * D + within
        k, v = tl.load(K + other), tl.load(V + other)
        p = weights(q, k, lse, first + lane, start + lane, scale, CAUSAL)
        dlogits = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])
        dq = tl.dot(dlogits.to(k.dtype), k, dq)
    tl.store(DQ + mine, dq * scale)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_flash_attention(dtype: torch.dtype, causal: bool) -> None:
    heads, length, width, scale = 3, 192, 32, 0.5
    generator = torch.Generator().manual_seed(20)
    q, k, v, dout = torch.randn(4, heads, length, width, generator=generator).mul(0.5).to(dtype)
    out, dq, dk, dv = torch.empty(4, heads, length, width, dtype=dtype)
    lse, delta = torch.empty(2, heads, length)
    forward[(length // 64, heads)](q, k, v, out, lse, scale, heads, length, D=width, BM=64, BN=32, CAUSAL=causal)
    row_products[(heads * length // 64,)](out, dout, delta, D=width, BM=64)
    backward[(length // 64, heads)](
        q, k, v, dout, lse, delta, dq, dk, dv, scale, length, D=width, B=64, CAUSAL=causal
    )  # fmt: skip

    exact = [t.double().requires_grad_() for t in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, is_causal=causal, scale=scale)
    expected.backward(dout.double())
    # Every result is a sum of at most `length` products of weights with at most three roundings each; results of
    # order 1 besides, as weights sum to 1 (gradients of keys and values to at most `length`, relative to their scale).
    unit = 2.0**-24 if dtype == torch.float32 else 2.0**-11
    factor = length / 4 if dtype == torch.float32 else 4
    for got, want in ((out, expected), *zip((dq, dk, dv), (t.grad for t in exact), strict=True)):
        assert want is not None
        assert (got - want).abs().max().item() <= factor * unit * want.abs().max().item()
