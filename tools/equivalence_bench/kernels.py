"""Kernels whose mutants are refuted: what a recording of the zoo does not have as Triton kernels of this kind."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

__all__ = ["CASES"]


@triton.jit
def attention(q, k, v, out, lse, n, scale, BLOCK: tl.constexpr, KEYS: tl.constexpr, HEAD: tl.constexpr):
    """Causal attention of one head with an online softmax."""
    rows, at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, HEAD)
    query = tl.load(q + rows[:, None] * HEAD + at, mask=rows[:, None] < n, other=0.0)
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    result = tl.zeros((BLOCK, HEAD), tl.float32)
    for start in range(0, n, KEYS):
        keys = start + tl.arange(0, KEYS)
        key = tl.load(k + keys[None, :] * HEAD + at[:, None], mask=keys[None, :] < n, other=0.0)
        value = tl.load(v + keys[:, None] * HEAD + at, mask=keys[:, None] < n, other=0.0)
        scores = tl.dot(query, key) * scale
        scores = tl.where((keys[None, :] <= rows[:, None]) & (keys[None, :] < n), scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        rescale = tl.exp(most - larger)
        total = total * rescale + tl.sum(weights, 1)
        result = result * rescale[:, None] + tl.dot(weights, value)
        most = larger
    tl.store(out + rows[:, None] * HEAD + at, result / total[:, None], mask=rows[:, None] < n)
    tl.store(lse + rows, most + tl.log(total), mask=rows < n)


@triton.jit
def product(a, b, bias, c, M, N, K, BLOCK: tl.constexpr):
    rows, columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, BLOCK):
        at = start + tl.arange(0, BLOCK)
        left = tl.load(a + rows[:, None] * K + at, mask=(rows[:, None] < M) & (at < K), other=0.0)
        right = tl.load(b + at[:, None] * N + columns, mask=(at[:, None] < K) & (columns < N), other=0.0)
        total = tl.dot(left, right, total)
    total += tl.load(bias + columns, mask=columns < N, other=0.0)
    total = 0.5 * total * (1 + tl.erf(total * 0.7071067811865476))
    tl.store(c + rows[:, None] * N + columns, total, mask=(rows[:, None] < M) & (columns < N))


@triton.jit
def norms(x, y, z, n, BLOCK: tl.constexpr):
    """A square tile: its columns' norms, and rows normalised."""
    rows, columns = tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    inside = (rows[:, None] < n) & (columns < n)
    value = tl.load(x + rows[:, None] * n + columns, mask=inside, other=0.0)
    tl.store(z + columns, tl.sqrt(tl.sum(value * value, 0)), mask=columns < n)
    mean = tl.sum(value, 1) / n
    centred = tl.where(inside, value - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / n
    tl.store(y + rows[:, None] * n + columns, centred * tl.rsqrt(variance + 1e-5)[:, None], mask=inside)


def _attention(block: int, keys: int) -> Any:
    n, head = 45, 16
    q, k, v = (torch.randn(n, head, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    tensors = {"q": q, "k": k, "v": v, "out": torch.zeros(n, head), "lse": torch.zeros(n)}
    return attention, (-(-n // block),), {**tensors, "n": n, "scale": 0.25, "BLOCK": block, "KEYS": keys, "HEAD": head}


def _product(block: int) -> Any:
    m, n, k = 33, 20, 40
    a, b, bias = torch.randn(m, k), torch.randn(k, n), torch.randn(n)
    sizes = {"M": m, "N": n, "K": k, "BLOCK": block}
    return product, (-(-m // block), -(-n // block)), {"a": a, "b": b, "bias": bias, "c": torch.zeros(m, n), **sizes}


def _norms(block: int) -> Any:
    n = 15
    return norms, (1,), {"x": torch.randn(n, n), "y": torch.zeros(n, n), "z": torch.zeros(n), "n": n, "BLOCK": block}


CASES = {
    "attention": (lambda: _attention(16, 16), lambda: _attention(32, 16)),
    "product": (lambda: _product(16), lambda: _product(32)),
    "norms": (lambda: _norms(16), lambda: _norms(32)),
}
"""By name, the case of ``torchport equal`` with two block sizes."""
