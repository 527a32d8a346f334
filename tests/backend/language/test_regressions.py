"""Kernels that once went wrong, each cut down to what it took."""

from __future__ import annotations

import functools
import operator

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def total_and_most(X, SUM, MOST, n, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    tl.store(SUM, tl.sum(tl.load(X + lane, inside, other=0.0)))
    tl.store(MOST, tl.max(tl.load(X + lane, inside, other=float("-inf")), axis=0) + 1)


@pytest.mark.parametrize("block", [1, 2])
def test_reduction_of_a_block_of_one(block: int) -> None:
    x = torch.tensor([-3.5, 7.25])[:block].contiguous()
    total, most = torch.zeros(1), torch.zeros(1)
    total_and_most[(1,)](x, total, most, block, block)
    assert total.item() == x.sum().item()
    assert most.item() == x.max().item() + 1


@triton.jit
def totals_of_one_element(X, OUT, steps, N: tl.constexpr):
    total = tl.zeros([1], tl.float32)
    most = tl.full([1], -1.0e9, tl.float32)
    for step in range(steps):
        x = tl.load(X + step * N + tl.arange(0, N))
        total += tl.sum(x)
        most = tl.maximum(most, tl.max(x))
    total *= 2.0
    tl.store(OUT + tl.arange(0, 1), total)
    tl.store(OUT + 1 + tl.arange(0, 1), most)


def test_loop_that_carries_tensors_of_one_element() -> None:
    x = torch.arange(48, dtype=torch.float32).reshape(3, 16)
    out = torch.zeros(2)
    totals_of_one_element[(1,)](x, out, 3, 16)
    assert out.tolist() == [2 * x.sum().item(), 47.0]


@triton.jit
def recurrent_state(Q, K, V, OUT, steps, N: tl.constexpr, M: tl.constexpr):
    n, m = tl.arange(0, N), tl.arange(0, M)
    state = tl.zeros([N, M], tl.float32)
    for step in range(steps):
        state += tl.load(K + step * N + n)[:, None] * tl.load(V + step * M + m)[None, :]
        tl.store(OUT + step * M + m, tl.sum(state * tl.load(Q + step * N + n)[:, None], axis=0))


def test_sum_that_its_loop_reads() -> None:
    """More than 64 steps: a sum that is only read after its loop would be kept in two parts."""
    q, k, v = (torch.randint(-3, 4, (100, n)).float() for n in (8, 8, 16))
    out = torch.empty(100, 16)
    recurrent_state[(1,)](q, k, v, out, 100, 8, 16)
    states = (k[:, :, None] * v[:, None, :]).cumsum(dim=0)
    assert torch.equal(out, (states * q[:, :, None]).sum(dim=1))


@triton.jit
def scatter_by_block(BLOCKS, START, CURSOR, OUT, n, count, blocks, N: tl.constexpr, M: tl.constexpr):
    row = tl.arange(0, N).to(tl.int64)
    column = tl.arange(0, M)
    block = tl.load(BLOCKS + row[:, None] * M + column[None, :], mask=(row < n)[:, None], other=-1).to(tl.int64)
    chosen = (row < n)[:, None] & (column[None, :] < count)
    chosen = chosen & (block >= 0) & (block < blocks) & (block * 16 <= row[:, None])
    place = tl.load(START + block, mask=chosen, other=0) + tl.atomic_add(CURSOR + block, 1, mask=chosen)
    tl.store(OUT + place, tl.broadcast_to(row[:, None], (N, M)).to(tl.int32), mask=chosen)


def test_masked_load_before_an_atomic_with_its_mask() -> None:
    """The load runs in a nest before the atomic's; its mask must not be read from where the atomic's nest keeps it."""
    chosen = torch.randint(0, 8, (128, 4), generator=torch.Generator().manual_seed(0))
    chosen[::3, 1] = 1 << 40  # no such block: loading there is a fault
    pairs = [[row for row in range(128) for b in chosen[row].tolist() if b == block <= row // 16] for block in range(8)]
    counts = torch.tensor([len(rows) for rows in pairs])
    start = (counts.cumsum(0) - counts).int()
    cursor, out = torch.zeros(8, dtype=torch.int32), torch.full((512,), -1, dtype=torch.int32)
    scatter_by_block[(1,)](chosen, start, cursor, out, 128, 4, 8, 128, 4)
    assert cursor.tolist() == counts.tolist()
    for block, rows in enumerate(pairs):
        assert sorted(out[start[block] : start[block] + len(rows)].tolist()) == rows


@triton.jit
def causal_row_maxima(SCORES, GROUPS, OUT, rows, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    inside = row < rows
    position, batch = row % LENGTH, row // (4 * LENGTH)
    own = tl.load(GROUPS + position + batch * LENGTH, inside)
    best = tl.full([BLOCK, 1], float("-inf"), tl.float32)
    for column in range(LENGTH):
        score = tl.load(SCORES + column + row * LENGTH, inside, other=0.0)
        group = tl.load(GROUPS + column + batch * LENGTH, inside, other=0)
        visible = (column <= position.to(tl.int64)) & (own == group)
        candidate = score + tl.where(visible, 0.0, float("-inf"))
        best = tl.where(inside, tl.maximum(best, candidate), best)
    tl.store(OUT + row, best, inside)


def test_remainder_that_no_address_needs_steps_inside_a_vector() -> None:
    """Addresses are guarded against a step of ``%``; a comparison of the same remainder has no guard of its own."""
    length, rows = 19, 152
    scores = torch.randn(rows, length, generator=torch.Generator().manual_seed(0))
    groups, out = torch.zeros(2, length, dtype=torch.int64), torch.empty(rows)
    causal_row_maxima[(3,)](scores, groups, out, rows, length, 64)
    visible = torch.arange(length) <= (torch.arange(rows) % length)[:, None]
    assert torch.equal(out, scores.masked_fill(~visible, -torch.inf).amax(1))


@triton.jit
def look_up_between(X, TABLE, COPY, OUT, N: tl.constexpr):
    row, column = tl.arange(0, N), tl.arange(0, N)
    x = tl.load(X + row[:, None] * N + column[None, :])
    found = tl.load(TABLE + (tl.xor_sum(x, 1) & 7))
    tl.store(COPY + row[:, None] * N + column[None, :], x)
    tl.store(OUT + row, found)


def test_load_at_a_reductions_result_before_memory_is_written() -> None:
    """The store of the block would join the reduction's nest, and the load has to come between the two."""
    x = torch.arange(64, dtype=torch.int32).reshape(8, 8) ** 2
    table = torch.arange(100, 108, dtype=torch.int32)
    expected = [table[functools.reduce(operator.xor, row) & 7].item() for row in x.tolist()]
    copy, out = torch.empty_like(x), torch.empty(8, dtype=torch.int32)
    look_up_between[(1,)](x, table, copy, out, 8)
    assert torch.equal(copy, x)
    assert out.tolist() == expected


@triton.jit
def look_up_after_stores(X, TABLE, COPY, LAST, OUT, N: tl.constexpr):
    i = tl.arange(0, N)
    block = i[:, None] * N + i[None, :]
    most = tl.max(tl.load(X + block), 1)
    tl.store(COPY + block, block)
    found = tl.load(TABLE + most)
    tl.store(LAST + block, block)
    tl.store(OUT + i, found)


def test_load_at_the_result_of_a_reduction_that_shares_its_nest_with_a_store() -> None:
    """Its place was sought before that store, as if the reduction, not the load, had to come first: refused."""
    x = torch.randint(0, 16, (16, 16), dtype=torch.int32)
    table = torch.randperm(16, dtype=torch.int32)
    copy, last, out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(table)
    look_up_after_stores[(1,)](x, table, copy, last, out, N=16)
    assert torch.equal(out, table[x.amax(1).long()])
    assert torch.equal(copy.flatten(), torch.arange(256, dtype=torch.int32)) and torch.equal(copy, last)


@triton.jit
def look_up_in_other_shape(X, INDEX, FIRST, OUT, N: tl.constexpr):
    block = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    index = tl.reshape(tl.load(INDEX + block), (1, N * N))
    found = tl.load(X + index)
    tl.store(FIRST + block, 1.0)
    tl.store(OUT + tl.arange(0, N * N)[None, :], found)


def test_load_at_indices_in_another_shape_before_memory_is_written() -> None:
    """The indices go through a buffer, which has to be written before the load and not together with the store."""
    x, index = torch.randn(256), torch.randperm(256).int()
    first, out = torch.zeros(256), torch.zeros(256)
    look_up_in_other_shape[(1,)](x, index, first, out, 16)
    assert torch.equal(out, x[index.long()])
    assert torch.equal(first, torch.ones(256))


@triton.jit
def convert_some(X, OUT, N: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    tl.store(OUT + lane, tl.load(X + lane, lane < N).to(OUT.dtype.element_ty), lane < N)


@pytest.mark.parametrize("count", [1, 9, 17])
@pytest.mark.parametrize(("wide", "narrow"), [("float32", "bfloat16"), ("int32", "int16"), ("int64", "int8")])
def test_narrowed_store_of_one_lane_leaves_its_neighbours(wide: str, narrow: str, count: int) -> None:
    """LLVM's AVX-512 instruction selection stores a single lane as wide as it was before it was narrowed."""
    x = torch.arange(1, 65).to(getattr(torch, wide))
    out = torch.full((80,), -1, dtype=getattr(torch, narrow))
    convert_some[(1,)](x, out, count, 64)
    assert torch.equal(out[:count], x[:count].to(out.dtype))
    assert torch.equal(out[count:], torch.full_like(out[count:], -1))


@triton.jit
def reversed_sums_at_least(X, LEAST, BYTES, COPY, OUT, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    sums = tl.cumsum(tl.load(X + i), 0, reverse=True)
    least = tl.load(LEAST + tl.program_id(0))
    copy = tl.load(BYTES + i)
    largest = tl.maximum(sums, least)
    tl.store(COPY + i, copy)
    tl.store(OUT + i, largest)


def test_vectors_stored_last_first_and_read_as_one() -> None:
    """LLVM 22.1 joined them before the last one was computed, and ended the process (llvm/llvm-project#189680)."""
    x, bytes_ = torch.arange(16), torch.arange(16, dtype=torch.int8)
    out, copy = torch.empty_like(x), torch.empty_like(bytes_)
    floats = [t.view(torch.float8_e5m2) for t in (bytes_, copy)]
    reversed_sums_at_least[(1,)](x, torch.tensor([100]), *floats, out, N=16)
    assert torch.equal(out, x.flip(0).cumsum(0).flip(0).clamp(min=100)) and torch.equal(copy, bytes_)
