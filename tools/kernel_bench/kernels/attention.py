"""Flash attention (Dao 2023), forward and backward, in float32."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kernel_bench.case import ATTENTION, Case, Launch, Sizes, normal, size_of

HEADS, DIM = 4, 64
TOKENS = (1024, 2048, 4096, 8192)
LOG2_E = 1.4426950408889634
ATEN = torch.ops.aten


@triton.jit
def attend(  # type: ignore[no-untyped-def]
    query, k, v, most, total, sums, row, first, end, tokens, scale,
    BN: tl.constexpr, DIM: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take keys and values from `first` to `end` into the running maximum, sum of weights and weighted sums of rows."""
    lane = tl.arange(0, DIM)
    for begin in range(first, end, BN):
        column = begin + tl.arange(0, BN)
        k_at, v_at = k + column[None, :] * DIM + lane[:, None], v + column[:, None] * DIM + lane[None, :]
        if MASKED:
            score = tl.dot(query, tl.load(k_at, column[None, :] < tokens, other=0.0)) * scale
            seen = column[None, :] < tokens
            if CAUSAL:
                seen = seen & (row[:, None] >= column[None, :])
            score = tl.where(seen, score, float("-inf"))
            value = tl.load(v_at, column[:, None] < tokens, other=0.0)
        else:
            score = tl.dot(query, tl.load(k_at)) * scale
            value = tl.load(v_at)
        new = tl.maximum(most, tl.max(score, 1))
        weight = tl.math.exp2(score - new[:, None])
        rescale = tl.math.exp2(most - new)
        total = total * rescale + tl.sum(weight, 1)
        sums = tl.dot(weight, value, sums * rescale[:, None])
        most = new
    return most, total, sums


@triton.jit
def attention_kernel(  # type: ignore[no-untyped-def]
    q, k, v, out, logsum, tokens, scale, BM: tl.constexpr, BN: tl.constexpr, DIM: tl.constexpr, CAUSAL: tl.constexpr
):
    """Tensors are [heads, tokens, DIM]; `scale` is that of the scores times log2(e). Masks are for the last blocks."""
    block, head = tl.program_id(0), tl.program_id(1)
    start = head * tokens * DIM
    row = block * BM + tl.arange(0, BM)
    lane = tl.arange(0, DIM)
    at = start + row[:, None] * DIM + lane[None, :]
    query = tl.load(q + at, row[:, None] < tokens, other=0.0)
    most = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    sums = tl.zeros((BM, DIM), tl.float32)
    whole = (block * BM if CAUSAL else tokens) // BN * BN
    end = tl.minimum((block + 1) * BM, tokens) if CAUSAL else tokens
    k += start
    v += start
    most, total, sums = attend(
        query, k, v, most, total, sums, row, 0, whole, tokens, scale, BN, DIM, CAUSAL, MASKED=False
    )
    most, total, sums = attend(
        query, k, v, most, total, sums, row, whole, end, tokens, scale, BN, DIM, CAUSAL, MASKED=True
    )
    tl.store(out + at, sums / total[:, None], row[:, None] < tokens)
    tl.store(logsum + head * tokens + row, (most + tl.math.log2(total)) * 0.6931471805599453, row < tokens)


@triton.jit
def attention_delta_kernel(dout, out, delta, n, BM: tl.constexpr, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    """delta[row] = sum of dout[row] * out[row]."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    at = row[:, None] * DIM + tl.arange(0, DIM)[None, :]
    inside = row[:, None] < n
    product = tl.load(dout + at, inside, other=0.0) * tl.load(out + at, inside, other=0.0)
    tl.store(delta + row, tl.sum(product, 1), row < n)


@triton.jit
def attention_backward_kernel(  # type: ignore[no-untyped-def]
    dout, q, k, v, logsum, delta, dq, dk, dv, tokens, scale,
    BM: tl.constexpr, BN: tl.constexpr, DIM: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """One head a program: five products a pair of blocks. A program for each block of keys would compute the scores a
    second time for dq or add to it with atomics; neither pays where there are no more cores than heads.

    Tensors are [heads, tokens, DIM], dq is zero before; tokens is a multiple of BM and of BN.
    """
    start = tl.program_id(0).to(tl.int64) * tokens
    rows, columns = tl.arange(0, BM), tl.arange(0, BN)
    lane = tl.arange(0, DIM)[None, :]
    for first in range(0, tokens, BN):
        column = first + columns
        k_at = (start + column)[:, None] * DIM + lane
        key, value = tl.load(k + k_at), tl.load(v + k_at)
        dkey, dvalue = tl.zeros((BN, DIM), tl.float32), tl.zeros((BN, DIM), tl.float32)
        for begin in range(first // BM * BM if CAUSAL else 0, tokens, BM):
            row = begin + rows
            q_at = (start + row)[:, None] * DIM + lane
            query, upper = tl.load(q + q_at), tl.load(dout + q_at)
            score = tl.dot(query, tl.trans(key)) * (scale * 1.4426950408889634)
            weight = tl.math.exp2(score - (tl.load(logsum + start + row) * 1.4426950408889634)[:, None])
            if CAUSAL:
                weight = tl.where(row[:, None] >= column[None, :], weight, 0.0)
            dvalue = tl.dot(tl.trans(weight), upper, dvalue)
            dweight = tl.dot(upper, tl.trans(value))
            dscore = weight * (dweight - tl.load(delta + start + row)[:, None]) * scale
            dkey = tl.dot(tl.trans(dscore), query, dkey)
            tl.store(dq + q_at, tl.dot(dscore, key, tl.load(dq + q_at)))
        tl.store(dk + k_at, dkey)
        tl.store(dv + k_at, dvalue)


def _shapes(sizes: Sizes) -> Iterator[tuple[int, bool, str]]:
    """Tokens, causal or not, label."""
    for tokens in TOKENS[: 1 if sizes.quick else None]:
        for causal in (False, True):
            yield tokens, causal, f"{tokens} tokens{' causal' if causal else ''}"


def _operations(tokens: int, causal: bool, products: int) -> int:
    """Multiplications and additions of `products` products of tokens x tokens x DIM for each head."""
    pairs = tokens * (tokens + 1) // 2 if causal else tokens * tokens
    return 2 * products * HEADS * pairs * DIM


def attention(sizes: Sizes) -> Iterator[Case]:
    def eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    for tokens, causal, label in _shapes(sizes):
        q, k, v = normal(3, 1, HEADS, tokens, DIM)
        out, logsum = torch.empty_like(q), torch.empty(1, HEADS, tokens)
        launch = Launch(
            attention_kernel, (triton.cdiv(tokens, 128), HEADS), q, k, v, out, logsum, tokens, LOG2_E / math.sqrt(DIM),
            BM=128, BN=64, DIM=DIM, CAUSAL=causal,
        )  # fmt: skip

        def expected(q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v, causal: bool = causal):  # type: ignore[no-untyped-def]
            right = ATEN._scaled_dot_product_flash_attention_for_cpu(q.double(), k.double(), v.double(), 0.0, causal)
            return right

        yield Case(
            "attention", label, ATTENTION, [launch], [out, logsum], eager, [q, k, v, causal], expected,
            moved=size_of(q, k, v, out), operations=_operations(tokens, causal, 2), compiled=False,
        )  # fmt: skip


def attention_backward(sizes: Sizes) -> Iterator[Case]:
    eager = ATEN._scaled_dot_product_flash_attention_for_cpu_backward
    forward = ATEN._scaled_dot_product_flash_attention_for_cpu
    for tokens, causal, label in _shapes(sizes):
        dout, q, k, v = normal(4, 1, HEADS, tokens, DIM)
        out, logsum = forward(q, k, v, 0.0, causal)
        delta, dq, dk, dv = torch.empty(1, HEADS, tokens), *normal(3, *q.shape)
        constants = {"BM": 128, "BN": 64, "DIM": DIM, "CAUSAL": causal}
        arguments = (dout, q, k, v, logsum.contiguous(), delta, dq, dk, dv, tokens, 1 / math.sqrt(DIM))
        rows = HEADS * tokens
        steps = [
            dq.zero_,
            Launch(attention_delta_kernel, (triton.cdiv(rows, 64),), dout, out, delta, rows, BM=64, DIM=DIM),
            Launch(attention_backward_kernel, (HEADS,), *arguments, **constants),
        ]

        def expected(inputs=(dout, q, k, v), causal: bool = causal):  # type: ignore[no-untyped-def]
            dout, q, k, v = (t.double() for t in inputs)
            return eager(dout, q, k, v, *forward(q, k, v, 0.0, causal), 0.0, causal)

        yield Case(
            "attention_backward", label, ATTENTION, steps, [dq, dk, dv], eager,
            [dout, q, k, v, out, logsum, 0.0, causal], expected, moved=size_of(dout, q, k, v, out, dq, dk, dv),
            operations=_operations(tokens, causal, 5), compiled=False,
        )  # fmt: skip
