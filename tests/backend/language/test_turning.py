"""Tiles that are read along one dimension and written along the other, at sizes around those of a square."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

SIZES = [(64, 96), (32, 32), (33, 70), (7, 5), (100, 31), (1, 64)]


@triton.jit
def tiles(x, y, out, m, n, stride, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (row[:, None] < m) & (column[None, :] < n)
    a = tl.load(x + row[:, None] * stride + column[None, :], inside, other=3)
    b = tl.load(y + column[None, :] * m + row[:, None], inside, other=1)
    tl.store(out + column[None, :] * m + row[:, None], a + b, inside)


@triton.jit
def rows_by_index(x, index, out, n, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, WIDTH)
    at = tl.load(index + row, row < n, other=0)
    value = tl.load(x + at[:, None] * WIDTH + lane[None, :], (row < n)[:, None])
    tl.store(out + lane[None, :] * n + row[:, None], value, (row < n)[:, None])


@triton.jit
def written_twice(x, out, BLOCK: tl.constexpr):
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    value = tl.load(x + i * BLOCK + j)
    tl.store(out + j * BLOCK + i, value)
    tl.store(out + i * BLOCK + j, value * 2)


@triton.jit
def written_and_read(x, out, BLOCK: tl.constexpr):
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    tl.store(out + i * BLOCK + j, tl.load(x + i * BLOCK + j) + 1)
    tl.debug_barrier()
    tl.store(x + i * BLOCK + j, tl.load(out + j * BLOCK + i))


@triton.jit
def masked_inside(x, out, keep, BLOCK: tl.constexpr):
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    kept = tl.load(keep + j * BLOCK + i)
    value = tl.load(x + i * BLOCK + j, kept, other=-1)
    tl.store(out + j * BLOCK + i, value, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8, torch.int64])
@pytest.mark.parametrize(("m", "n"), SIZES)
def test_a_transpose_and_a_sum(m: int, n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, y = ((torch.randn(shape) * 8).to(dtype) for shape in ((m, n + 3), (n, m)))
    out = torch.empty_like(y)
    tiles[(triton.cdiv(m, 32), triton.cdiv(n, 64))](x, y, out, m, n, n + 3, 32, 64)
    torch.testing.assert_close(out, x[:, :n].t() + y, rtol=0, atol=0)


@pytest.mark.parametrize("n", [64, 50, 33, 7])
def test_rows_by_index_become_columns(n: int) -> None:
    x, index = torch.randn(200, 32), torch.randint(0, 200, (n,))
    out = torch.empty(32, n)
    rows_by_index[(triton.cdiv(n, 32),)](x, index, out, n, 32, 32)
    torch.testing.assert_close(out, x[index].t(), rtol=0, atol=0)


def test_the_second_of_two_stores_wins() -> None:
    x = torch.randn(32, 32)
    out = torch.empty_like(x)
    written_twice[(1,)](x, out, 32)
    torch.testing.assert_close(out, x * 2, rtol=0, atol=0)


def test_what_is_written_is_read_after_it() -> None:
    x = torch.randn(32, 32)
    expected, out = (x + 1).t().clone(), torch.zeros_like(x)
    written_and_read[(1,)](x, out, 32)
    torch.testing.assert_close(x, expected, rtol=0, atol=0)


def test_masks_that_vary() -> None:
    x, keep = torch.randn(32, 32), torch.rand(32, 32) < 0.5
    out = torch.full_like(x, 7)
    masked_inside[(1,)](x, out, keep, 32)
    torch.testing.assert_close(out, torch.where(keep, x.t(), 7), rtol=0, atol=0)
