"""Memory-bound kernels: halves of rows in place, rows found by number, results larger than the caches."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def turn_halves(x, cos, sin, out, HEADS: tl.constexpr, HALF: tl.constexpr):
    token = tl.program_id(0)
    lane = tl.arange(0, HALF)
    at = token * HEADS * 2 * HALF + tl.arange(0, HEADS)[:, None] * 2 * HALF + lane[None, :]
    c, s = tl.load(cos + token * HALF + lane)[None, :], tl.load(sin + token * HALF + lane)[None, :]
    first, second = tl.load(x + at), tl.load(x + at + HALF)
    tl.store(out + at, first * c - second * s)
    tl.store(out + at + HALF, second * c + first * s)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("half", [8, 64])
def test_halves_of_rows(half: int, in_place: bool) -> None:
    x, angle = torch.randn(5, 4, 2 * half), torch.rand(5, half)
    out = x.clone() if in_place else torch.empty_like(x)
    c, s = angle.cos(), angle.sin()
    turn_halves[(5,)](out if in_place else x, c, s, out, HEADS=4, HALF=half)
    (a, b), c, s = x.double().chunk(2, -1), c.double()[:, None], s.double()[:, None]
    torch.testing.assert_close(out.double(), torch.cat([a * c - b * s, b * c + a * s], -1), rtol=1e-5, atol=1e-6)


@triton.jit
def spread(x, N: tl.constexpr):
    """What is stored second reads, and overwrites, lanes of what is stored first."""
    i = tl.arange(0, N)
    tl.store(x + i, i.to(tl.float32))
    tl.store(x + i + N - 1, tl.load(x + i) + 100)


def test_later_stores_to_the_same_elements_stay_later() -> None:
    x = torch.full((64,), -1.0)
    spread[(1,)](x, N=32)
    right = torch.cat([torch.arange(31.0), torch.arange(32.0) + 100, torch.tensor([-1.0])])
    assert torch.equal(x, right)


@triton.jit
def move_rows(x, sources, targets, out, n, ROWS: tl.constexpr, DIM: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, DIM)[None, :]
    inside = row < n
    source, target = tl.load(sources + row, inside, other=0), tl.load(targets + row, inside, other=0)
    value = tl.load(x + source[:, None] * DIM + lane, inside[:, None])
    tl.store(out + target[:, None] * DIM + lane, value, inside[:, None])


@pytest.mark.parametrize("n", [1, 15, 16, 17, 83])
@pytest.mark.parametrize("dim", [4, 32, 512])
def test_rows_found_by_number(n: int, dim: int) -> None:
    x, sources, targets = torch.randn(40, dim), torch.randint(40, (n,)), torch.randperm(n)
    out = torch.full((n + 1, dim), 7.0)
    move_rows[(triton.cdiv(n, 16),)](x, sources, targets, out, n, ROWS=16, DIM=dim)
    right = torch.full((n + 1, dim), 7.0).index_copy_(0, targets, x[sources])
    assert torch.equal(out, right)


@triton.jit
def scale(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) * 2, i < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("offset", [0, 3])
def test_results_larger_than_the_caches(dtype: torch.dtype, offset: int) -> None:
    """Aligned lines go around the caches, others do not; the rest of the last block is left alone."""
    n = 36 * 2**20 // dtype.itemsize + 5
    memory = torch.zeros(n + offset + 1, dtype=dtype)
    x, out = torch.arange(1009).to(dtype).remainder(50).repeat(n // 1009 + 1)[:n], memory[offset:-1]
    scale[(triton.cdiv(n, 4096),)](x, out, n, BLOCK=4096)
    assert torch.equal(out, x * 2)
    assert not memory[:offset].any()
    assert memory[-1] == 0
