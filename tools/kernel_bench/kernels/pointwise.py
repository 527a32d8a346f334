"""Element by element: addition, GELU, dropout, rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import triton
import triton.language as tl

from kernel_bench.case import MEMORY, OTHER, TRANSCENDENTAL, Case, Launch, Sizes, bytes_text, normal, rows_of, size_of

BLOCK = 4096
DROPPED, SEED = 0.25, 1234


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < n
    tl.store(out + index, tl.load(x + index, inside) + tl.load(y + index, inside), inside)


@triton.jit
def gelu_kernel(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < n
    value = tl.load(x + index, inside)
    tl.store(out + index, 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476)), inside)


@triton.jit
def dropout_kernel(x, out, n, p, seed, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < n
    value = tl.load(x + index, inside)
    kept = tl.rand(seed, index) > p
    tl.store(out + index, tl.where(kept, value / (1 - p), 0.0), inside)


@triton.jit
def rotary_kernel(x, cos, sin, out, HEADS: tl.constexpr, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0)
    lane = tl.arange(0, HALF)
    offset = token * HEADS * 2 * HALF + tl.arange(0, HEADS)[:, None] * 2 * HALF + lane[None, :]
    c = tl.load(cos + token * HALF + lane)[None, :]
    s = tl.load(sin + token * HALF + lane)[None, :]
    first, second = tl.load(x + offset), tl.load(x + offset + HALF)
    tl.store(out + offset, first * c - second * s)
    tl.store(out + offset + HALF, second * c + first * s)


def add(sizes: Sizes) -> Iterator[Case]:
    for size in sizes.working_sets:
        x, y, out = normal(3, size // 12 // 16 * 16)
        n = x.numel()
        launch = Launch(add_kernel, (triton.cdiv(n, BLOCK),), x, y, out, n, BLOCK=BLOCK)
        yield Case(
            "add", bytes_text(size), MEMORY, [launch], [out], torch.add, [x, y],
            lambda x=x, y=y: [x.double() + y.double()], moved=12 * n,
        )  # fmt: skip


def gelu(sizes: Sizes) -> Iterator[Case]:
    for size in sizes.working_sets:
        x, out = normal(2, size // 8)
        n = x.numel()
        launch = Launch(gelu_kernel, (triton.cdiv(n, BLOCK),), x, out, n, BLOCK=BLOCK)
        function = torch.nn.functional.gelu
        yield Case(
            "gelu", bytes_text(size), TRANSCENDENTAL, [launch], [out], function, [x],
            lambda x=x: [torch.nn.functional.gelu(x.double())], moved=8 * n,
        )  # fmt: skip


def philox_uniform(seed: int, count: int) -> np.ndarray:
    """What `tl.rand(seed, arange(count))` gives: Philox 4x32-10 (Salmon et al. 2011) with the offset as its counter."""
    mask = np.uint64(0xFFFFFFFF)
    counter = [np.arange(count, dtype=np.uint64)] + [np.zeros(count, np.uint64) for _ in range(3)]
    low, high = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(10):
        a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        counter = [(b >> shift) ^ counter[1] ^ low, b & mask, (a >> shift) ^ counter[3] ^ high, a & mask]
        low, high = (low + np.uint64(0x9E3779B9)) & mask, (high + np.uint64(0xBB67AE85)) & mask
    signed = counter[0].astype(np.uint32).view(np.int32)
    # Triton folds negative numbers over and scales 31 bits to [0, 1).
    return np.where(signed < 0, -(signed + 1), signed).astype(np.float32) * np.float32(4.6566127342e-10)


def dropout(sizes: Sizes) -> Iterator[Case]:
    for size in sizes.working_sets:
        x, out = normal(2, size // 8)
        n = x.numel()
        launch = Launch(dropout_kernel, (triton.cdiv(n, BLOCK),), x, out, n, DROPPED, SEED, BLOCK=BLOCK)

        def expected(x: torch.Tensor = x) -> list[torch.Tensor]:
            kept = torch.from_numpy(philox_uniform(SEED, x.numel()) > np.float32(DROPPED))
            return [torch.where(kept, x.double() / (1 - DROPPED), 0.0)]

        # torch draws other numbers, from other generators; the work is the same.
        yield Case(
            "dropout", bytes_text(size), OTHER, [launch], [out], torch.nn.functional.dropout, [x, DROPPED], expected,
            moved=8 * n,
        )  # fmt: skip


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [tokens, heads, 2 half] by angles [tokens, half], halves apart (GPT-NeoX)."""
    first, second = x.chunk(2, -1)
    c, s = cos[:, None], sin[:, None]
    return torch.cat([first * c - second * s, second * c + first * s], -1)


def rotary(sizes: Sizes) -> Iterator[Case]:
    heads, half = 8, 64
    for size in sizes.working_sets:
        tokens = rows_of(size, (4 * heads + 2) * half * 4)
        x = torch.randn(tokens, heads, 2 * half)
        angle = torch.rand(tokens, half) * 2 * math.pi
        cos, sin, out = angle.cos(), angle.sin(), torch.empty_like(x)
        launch = Launch(rotary_kernel, (tokens,), x, cos, sin, out, HEADS=heads, HALF=half)
        yield Case(
            "rotary", bytes_text(size), MEMORY, [launch], [out], rotate, [x, cos, sin],
            lambda x=x, cos=cos, sin=sin: [rotate(x.double(), cos.double(), sin.double())],
            moved=size_of(x, cos, sin, out),
        )  # fmt: skip
