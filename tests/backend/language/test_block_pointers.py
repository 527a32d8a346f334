"""Block pointers: make_block_ptr, advance, boundary checks and padding."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def copy_1d(a, b, n, from_, to, PAD: tl.constexpr, BLOCK: tl.constexpr):
    source = tl.make_block_ptr(a, shape=(n,), strides=(1,), offsets=(from_,), block_shape=(BLOCK,), order=(0,))
    target = tl.make_block_ptr(b, shape=(BLOCK,), strides=(1,), offsets=(to,), block_shape=(BLOCK,), order=(0,))
    tl.store(target, tl.load(source, boundary_check=(0,), padding_option=PAD), boundary_check=(0,))


@pytest.mark.parametrize(
    "dtype, padding",
    [
        *((dtype, padding) for dtype in (torch.bool, torch.int16, torch.int32) for padding in ("", "zero")),
        *((d, p) for d in (torch.float16, torch.bfloat16, torch.float32) for p in ("", "zero", "nan")),
    ],
)
@pytest.mark.parametrize("from_", [-64, -3, 0, 20, 37, 64])
def test_bounds_on_both_sides(dtype: torch.dtype, padding: str, from_: int) -> None:
    a = torch.randint(0, 2, (37,)).to(dtype)
    b = torch.zeros(64, dtype=dtype)
    copy_1d[(1,)](a, b, 37, from_, 0, PAD=padding, BLOCK=64)
    index = torch.arange(64) + from_
    inside = (index >= 0) & (index < 37)
    wanted = a[index.clamp(0, 36)]
    if padding:
        outside = torch.full((64,), torch.nan if padding == "nan" else 0, dtype=dtype)
        torch.testing.assert_close(b, torch.where(inside, wanted, outside), rtol=0, atol=0, equal_nan=True)
    else:
        assert torch.equal(b[inside], wanted[inside])


@pytest.mark.parametrize("to", [-64, -5, 0, 7, 64])
def test_stores_stay_inside(to: int) -> None:
    a, b = torch.arange(1.0, 65), torch.zeros(3 * 64)
    copy_1d[(1,)](a, b[64:], 64, 0, to, PAD="zero", BLOCK=64)
    expected = torch.zeros(3 * 64)
    for i in range(64):
        if 0 <= i + to < 64:
            expected[64 + i + to] = a[i]
    assert torch.equal(b, expected)


@triton.jit
def transpose(a, b, M, N, sm, sn, BM: tl.constexpr, BN: tl.constexpr):
    m, n = tl.program_id(0) * BM, tl.program_id(1) * BN
    source = tl.make_block_ptr(a, (M, N), (sm, sn), (m, n), (BM, BN), (1, 0))
    target = tl.make_block_ptr(b, (N, M), (M, 1), (n, m), (BN, BM), (1, 0))
    tl.store(target, tl.load(source, boundary_check=(0, 1)).T, boundary_check=(0, 1))


@pytest.mark.parametrize("shape", [(16, 32), (33, 70), (1, 5)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_transposed_tiles(shape: tuple[int, int], contiguous: bool) -> None:
    a = torch.randn(shape) if contiguous else torch.randn(shape[::-1]).t()
    b = torch.empty(shape[::-1])
    M, N = shape
    transpose[(triton.cdiv(M, 16), triton.cdiv(N, 32))](a, b, M, N, *a.stride(), BM=16, BN=32)
    assert torch.equal(b, a.t())


@triton.jit
def row_sums(a, out, M, N, BM: tl.constexpr, BN: tl.constexpr):
    tile = tl.make_block_ptr(a, (M, N), (N, 1), (tl.program_id(0) * BM, 0), (BM, BN), (1, 0))
    total = tl.zeros((BM,), tl.float32)
    for _ in range(0, N, BN):
        total += tl.sum(tl.load(tile, boundary_check=(0, 1), padding_option="zero"), axis=1)
        tile = tl.advance(tile, (0, BN))
    sums = tl.make_block_ptr(out, (M,), (1,), (0,), (BM,), (0,))
    sums = tl.advance(tl.advance(sums, (2 * BM,)), ((tl.program_id(0) - 2) * BM,))
    tl.store(sums, total, boundary_check=(0,))


def test_advance_in_a_loop() -> None:
    a, out = torch.randint(-50, 50, (37, 100)).float(), torch.zeros(37)
    row_sums[(3,)](a, out, 37, 100, BM=16, BN=32)
    assert torch.equal(out, a.sum(1))


@triton.jit
def corner(a, b, D0, D1, D2, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    source = tl.make_block_ptr(a, (D0, D1, D2), (D1 * D2, D2, 1), (D0 - 1, 0, D2 - 2), (BM, BN, BK), (2, 1, 0))
    target = tl.make_block_ptr(b, (D0, D1, D2), (D1 * D2, D2, 1), (D0 - 1, 0, D2 - 2), (BM, BN, BK), (2, 1, 0))
    tl.store(target, tl.load(source, boundary_check=(0, 2), padding_option="zero"), boundary_check=(0, 2))


def test_three_dimensions() -> None:
    a, b = torch.randn(3, 4, 5), torch.zeros(3, 4, 5)
    corner[(1,)](a, b, 3, 4, 5, BM=2, BN=4, BK=4)
    expected = torch.zeros_like(a)
    expected[2:, :, 3:] = a[2:, :, 3:]
    assert torch.equal(b, expected)


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m, n = tl.program_id(0) * BM, tl.program_id(1) * BN
    left = tl.make_block_ptr(a, (M, K), (K, 1), (m, 0), (BM, BK), (1, 0))
    right = tl.make_block_ptr(b, (K, N), (N, 1), (0, n), (BK, BN), (1, 0))
    total = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, K, BK):
        x = tl.load(left, boundary_check=(0, 1), padding_option="zero")
        y = tl.load(right, boundary_check=(0, 1), padding_option="zero")
        total += tl.dot(x, y)
        left, right = tl.advance(left, (0, BK)), tl.advance(right, (BK, 0))
    out = tl.make_block_ptr(c, (M, N), (N, 1), (m, n), (BM, BN), (1, 0))
    tl.store(out, total.to(c.dtype.element_ty), boundary_check=(0, 1))


def test_matmul() -> None:
    a, b, c = torch.randint(-8, 8, (50, 70)).float(), torch.randint(-8, 8, (70, 33)).float(), torch.empty(50, 33)
    matmul[(4, 3)](a, b, c, 50, 33, 70, BM=16, BN=16, BK=32)
    assert torch.equal(c, a @ b)  # small integers: every order of additions is exact


@triton.jit
def swapped(a, out, flag, N, BLOCK: tl.constexpr):
    first = tl.make_block_ptr(a, (N,), (1,), (0,), (BLOCK,), (0,))
    if flag > 0:
        first = tl.advance(first, (BLOCK,))
    tl.store(out + tl.arange(0, BLOCK), tl.load(first, boundary_check=(0,), padding_option="zero"))


@pytest.mark.parametrize("flag", [0, 2])
def test_block_pointers_through_branches(flag: int) -> None:
    a, out = torch.randn(24), torch.empty(16)
    swapped[(1,)](a, out, flag, 24, BLOCK=16)
    assert torch.equal(out, torch.cat((a[16:], torch.zeros(8))) if flag else a[:16])
