"""Moving elements: transposes, embeddings (gather), their gradients (scatter)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kernel_bench.case import MEMORY, OTHER, Case, Launch, Sizes, bytes_text, normal, rows_of, size_of

DIM = 128


@triton.jit
def transpose_kernel(x, out, m, n, BM: tl.constexpr, BN: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = (row[:, None] < m) & (column[None, :] < n)
    tile = tl.load(x + row[:, None] * n + column[None, :], inside)
    tl.store(out + column[:, None] * m + row[None, :], tl.trans(tile), tl.trans(inside))


@triton.jit
def swap_heads_kernel(x, out, tokens, HEADS: tl.constexpr, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0)
    head, lane = tl.arange(0, HEADS)[:, None], tl.arange(0, DIM)[None, :]
    value = tl.load(x + token * HEADS * DIM + head * DIM + lane)
    tl.store(out + head * tokens * DIM + token * DIM + lane, value)


@triton.jit
def gather_kernel(table, index, out, n, ROWS: tl.constexpr, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, DIM)[None, :]
    inside = row < n
    source = tl.load(index + row, inside, other=0)
    value = tl.load(table + source[:, None] * DIM + lane, inside[:, None])
    tl.store(out + row[:, None] * DIM + lane, value, inside[:, None])


@triton.jit
def scatter_kernel(x, index, out, n, ROWS: tl.constexpr, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, DIM)[None, :]
    inside = row < n
    target = tl.load(index + row, inside, other=0)
    value = tl.load(x + row[:, None] * DIM + lane, inside[:, None])
    tl.store(out + target[:, None] * DIM + lane, value, inside[:, None])


@triton.jit
def scatter_add_kernel(x, index, out, n, ROWS: tl.constexpr, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, DIM)[None, :]
    inside = row < n
    target = tl.load(index + row, inside, other=0)
    value = tl.load(x + row[:, None] * DIM + lane, inside[:, None])
    tl.atomic_add(out + target[:, None] * DIM + lane, value, inside[:, None], sem="relaxed")


def transpose(sizes: Sizes) -> Iterator[Case]:
    def eager(x: torch.Tensor) -> torch.Tensor:
        return x.t().contiguous()

    for size in sizes.working_sets:
        n = max(64, math.isqrt(size // 8) // 64 * 64)
        x, out = normal(2, n, n)
        launch = Launch(transpose_kernel, (n // 64, n // 64), x, out, n, n, BM=64, BN=64)
        yield Case(
            "transpose", f"{bytes_text(size)}, {n} x {n}", MEMORY, [launch], [out], eager, [x],
            lambda x=x: [x.t().double()], moved=size_of(x, out),
        )  # fmt: skip


def swap_heads(sizes: Sizes) -> Iterator[Case]:
    def eager(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).contiguous()

    heads, dim = 8, 64
    for size in sizes.working_sets:
        x = torch.randn(rows_of(size, 8 * heads * dim), heads, dim)
        out = torch.empty(heads, x.shape[0], dim)
        launch = Launch(swap_heads_kernel, (x.shape[0],), x, out, x.shape[0], HEADS=heads, DIM=dim)
        yield Case(
            "swap_heads", f"{bytes_text(size)}, {heads} heads of {dim}", MEMORY, [launch], [out], eager, [x],
            lambda x=x: [x.transpose(0, 1).double()], moved=size_of(x, out),
        )  # fmt: skip


def gather(sizes: Sizes) -> Iterator[Case]:
    for size in sizes.working_sets:
        n = rows_of(size, 8 * DIM + 8)
        table, index, out = torch.randn(n, DIM), torch.randperm(n), torch.empty(n, DIM)
        launch = Launch(gather_kernel, (triton.cdiv(n, 32),), table, index, out, n, ROWS=32, DIM=DIM)
        yield Case(
            "gather", f"{bytes_text(size)}, rows of {DIM}", MEMORY, [launch], [out], torch.nn.functional.embedding,
            [index, table], lambda t=table, i=index: [t[i].double()], moved=size_of(table, index, out),
        )  # fmt: skip


def scatter(sizes: Sizes) -> Iterator[Case]:
    def eager(out: torch.Tensor, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return out.index_copy_(0, index, x)

    for size in sizes.working_sets:
        n = rows_of(size, 8 * DIM + 8)
        x, index, out, other = torch.randn(n, DIM), torch.randperm(n), torch.empty(n, DIM), torch.empty(n, DIM)
        launch = Launch(scatter_kernel, (triton.cdiv(n, 32),), x, index, out, n, ROWS=32, DIM=DIM)
        yield Case(
            "scatter", f"{bytes_text(size)}, rows of {DIM}", MEMORY, [launch], [out], eager, [other, index, x],
            lambda x=x, i=index: [torch.zeros_like(x).index_copy_(0, i, x).double()], moved=size_of(x, index, out),
        )  # fmt: skip


def scatter_add(sizes: Sizes) -> Iterator[Case]:
    def eager(out: torch.Tensor, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return out.zero_().index_add_(0, index, x)

    for size in sizes.working_sets:
        n = rows_of(size, 8 * DIM + 8)
        x, index, out, other = torch.randn(n, DIM), torch.randint(n, (n,)), torch.empty(n, DIM), torch.empty(n, DIM)
        launch = Launch(scatter_add_kernel, (triton.cdiv(n, 32),), x, index, out, n, ROWS=32, DIM=DIM)
        zeros = torch.zeros((), dtype=torch.float64).expand(n, DIM)
        yield Case(
            "scatter_add", f"{bytes_text(size)}, rows of {DIM}", OTHER, [out.zero_, launch], [out], eager,
            [other, index, x], lambda x=x, i=index, zeros=zeros: [zeros.index_add(0, i, x.double())],
            moved=size_of(x, index, out, out),
        )  # fmt: skip
