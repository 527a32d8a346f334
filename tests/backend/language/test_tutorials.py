"""Row kernels as people learn them: addition, softmax, dropout, layer norm with its gradients, a libdevice function.

Tolerances: float32 results of sums of n terms of order 1 are compared within n * 2**-24 of their scale.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

UNIT = 2.0**-24


@triton.jit
def add(X, Y, OUT, count, BLOCK: tl.constexpr):
    place = tl.program_id(axis=0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(OUT + place, tl.load(X + place, mask=inside) + tl.load(Y + place, mask=inside), mask=inside)


def test_vector_add() -> None:
    x, y = torch.rand(98432), torch.rand(98432)
    out = torch.empty_like(x)
    add[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, y, out, x.numel(), BLOCK=1024)
    assert torch.equal(out, x + y)


@triton.jit
def softmax(OUT, X, x_stride, out_stride, rows, columns, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    inside = lane < columns
    for row in tl.range(tl.program_id(0), rows, tl.num_programs(0), num_stages=STAGES):
        x = tl.load(X + row * x_stride + lane, mask=inside, other=-float("inf"))
        powers = tl.exp(x - tl.max(x, axis=0))
        tl.store(OUT + row * out_stride + lane, powers / tl.sum(powers, axis=0), mask=inside)


def test_fused_softmax() -> None:
    """Few programs walk all the rows; their length is no power of two."""
    x = torch.randn(183, 781)
    out = torch.empty_like(x)
    softmax[(7,)](out, x, x.stride(0), out.stride(0), *x.shape, BLOCK=1024, STAGES=2, num_warps=8)
    expected = torch.softmax(x.double(), dim=1)
    assert ((out - expected).abs() <= 16 * UNIT * expected).all()


@triton.jit
def dropout(X, KEPT, OUT, count, p, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    kept = tl.load(KEPT + place, mask=inside) != 0
    tl.store(OUT + place, tl.where(kept, tl.load(X + place, mask=inside) / (1 - p), 0.0), mask=inside)


@triton.jit
def seeded_dropout(X, OUT, count, p, seed, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    kept = tl.rand(seed, place) > p
    tl.store(OUT + place, tl.where(kept, tl.load(X + place, mask=inside) / (1 - p), 0.0), mask=inside)


def test_dropout_with_a_mask() -> None:
    x, p = torch.randn(1000), 0.5
    kept = (torch.rand(1000) > p).to(torch.int32)
    out = torch.empty_like(x)
    dropout[(triton.cdiv(1000, 256),)](x, kept, out, 1000, p, BLOCK=256)
    assert torch.equal(out, torch.where(kept != 0, x / (1 - p), 0.0))


def test_seeded_dropout() -> None:
    """The seed alone says what is kept, whatever the block size; p of the elements go, within 5 deviations."""
    n, p = 10_000, 0.3
    x = torch.ones(n)

    def run(seed: int, block: int) -> torch.Tensor:
        out = torch.empty_like(x)
        seeded_dropout[(triton.cdiv(n, block),)](x, out, n, p, seed, BLOCK=block)
        return out

    first = run(123, 1024)
    assert torch.equal(first, run(123, 256))
    assert not torch.equal(first, run(512, 1024))
    kept = first != 0
    assert torch.equal(first[kept], torch.full_like(first[kept], 1 / 0.7))
    assert abs(kept.sum().item() - n * (1 - p)) < 5 * (n * p * (1 - p)) ** 0.5


@triton.jit
def layer_norm(X, OUT, W, B, MEAN, SCALE, stride, columns, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    X += row * stride
    OUT += row * stride
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        lane = start + tl.arange(0, BLOCK)
        total += tl.load(X + lane, mask=lane < columns, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / columns
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        lane = start + tl.arange(0, BLOCK)
        x = tl.load(X + lane, mask=lane < columns, other=0.0).to(tl.float32)
        difference = tl.where(lane < columns, x - mean, 0.0)
        squares += difference * difference
    scale = 1 / tl.sqrt(tl.sum(squares, axis=0) / columns + eps)
    tl.store(MEAN + row, mean)
    tl.store(SCALE + row, scale)
    for start in range(0, columns, BLOCK):
        lane = start + tl.arange(0, BLOCK)
        inside = lane < columns
        x = tl.load(X + lane, mask=inside, other=0.0).to(tl.float32)
        y = (x - mean) * scale * tl.load(W + lane, mask=inside) + tl.load(B + lane, mask=inside)
        tl.store(OUT + lane, y, mask=inside)


@triton.jit
def layer_norm_dx(
    DX, DOUT, DW, DB, X, W, MEAN, SCALE, LOCK, stride, columns, GROUPS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The gradient of a row, and its part of those of weight and bias: rows of one group add theirs under a lock."""
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < columns
    x = tl.load(X + row * stride + lane, mask=inside, other=0).to(tl.float32)
    dout = tl.load(DOUT + row * stride + lane, mask=inside, other=0).to(tl.float32)
    w = tl.load(W + lane, mask=inside).to(tl.float32)
    mean = tl.load(MEAN + row)
    scale = tl.load(SCALE + row)
    normal = tl.where(inside, (x - mean) * scale, 0.0)
    weighted = tl.where(inside, w * dout, 0.0)
    along = tl.sum(normal * weighted, axis=0) / columns
    level = tl.sum(weighted, axis=0) / columns
    tl.store(DX + row * stride + lane, (weighted - (normal * along + level)) * scale, mask=inside)

    group = row % GROUPS
    lock, count = LOCK + group, LOCK + GROUPS + group
    dw_place = DW + group * columns + lane
    db_place = DB + group * columns + lane
    part_w = dout * normal
    part_b = dout
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    if tl.load(count) == 0:
        tl.atomic_xchg(count, 1)
    else:
        part_w += tl.load(dw_place, mask=inside)
        part_b += tl.load(db_place, mask=inside)
    tl.store(dw_place, part_w, mask=inside)
    tl.store(db_place, part_b, mask=inside)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


@triton.jit
def column_sums(PARTS, OUT, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        total += tl.load(PARTS + row[:, None] * columns + column[None, :], mask=inside, other=0.0)
    tl.store(OUT + column, tl.sum(total, axis=0), mask=column < columns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_layer_norm(dtype: torch.dtype) -> None:
    rows, columns, groups, eps = 151, 200, 16, 1e-5
    x = (-2.3 + 0.5 * torch.randn(rows, columns)).to(dtype)
    w, b = torch.rand(columns).to(dtype), torch.rand(columns).to(dtype)
    dout = 0.1 * torch.randn_like(x)
    out, dx = torch.empty_like(x), torch.empty_like(x)
    mean, scale = torch.empty(rows), torch.empty(rows)
    layer_norm[(rows,)](x, out, w, b, mean, scale, columns, columns, eps, BLOCK=128)

    parts_w, parts_b = torch.full((2, groups, columns), float("nan"))
    locks = torch.zeros(2 * groups, dtype=torch.int32)
    layer_norm_dx[(rows,)](
        dx, dout, parts_w, parts_b, x, w, mean, scale, locks, columns, columns, GROUPS=groups, BLOCK=256
    )
    dw, db = torch.empty(columns), torch.empty(columns)
    for parts, total in ((parts_w, dw), (parts_b, db)):
        column_sums[(triton.cdiv(columns, 128),)](parts, total, groups, columns, ROWS=32, COLUMNS=128)

    exact = [v.double().requires_grad_() for v in (x, w, b)]
    expected = torch.nn.functional.layer_norm(exact[0], (columns,), exact[1], exact[2], eps)
    expected.backward(dout.double())
    unit = UNIT if dtype == torch.float32 else 2.0**-11
    for got, want, terms, rounding in (
        (out, expected, columns, unit),
        (dx, exact[0].grad, columns, unit),
        (dw, exact[1].grad, rows, UNIT),
        (db, exact[2].grad, rows, UNIT),
    ):
        assert want is not None
        # the scale of the terms is at most a few times that of the results: 8
        error = (got - want).abs().max().item()
        assert error <= (rounding + 8 * terms * UNIT) * want.abs().max().item()


@triton.jit
def arcsine(X, OUT, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(OUT + place, libdevice.asin(tl.load(X + place, mask=inside)), mask=inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_libdevice_asin(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-1, 1, 8001, dtype=dtype), torch.tensor([1.5, float("nan"), -0.0], dtype=dtype)])
    out = torch.empty_like(x)
    arcsine[(triton.cdiv(x.numel(), 1024),)](x, out, x.numel(), BLOCK=1024)
    expected = torch.asin(x.double())
    assert torch.equal(out.isnan(), expected.isnan())
    unit = UNIT if dtype == torch.float32 else 2.0**-53
    assert ((out.double() - expected).nan_to_num().abs() <= 4 * unit * expected.nan_to_num().abs()).all()
