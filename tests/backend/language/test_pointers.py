"""Pointers: tables of them, as numbers, to other types, through control flow; arguments of kernels."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def copy(source, target, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=i < n), mask=i < n)


@triton.jit
def pointer_table(table, target, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(COUNT):
        row = tl.load(table + k).to(tl.pointer_type(tl.float32))
        total += tl.load(row + i)
    tl.store(target + i, total)


@triton.jit
def pointer_block(table, target, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.load(table + tl.arange(0, COUNT)).to(tl.pointer_type(tl.float32))
    i = tl.arange(0, BLOCK)
    x = tl.load(rows[:, None] + i[None, :])
    tl.store(target + i, tl.sum(x, axis=0))


@triton.jit
def store_through_table(table, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    k = tl.program_id(0)
    row = tl.load(table + k).to(tl.pointer_type(tl.float32))
    i = tl.arange(0, BLOCK)
    tl.store(row + i, tl.load(row + i) * (k + 2), mask=i < COUNT)


@triton.jit
def transposed_pointers(source, target, N: tl.constexpr):
    i = tl.arange(0, N)
    pointers = source + (tl.load(source + i[:, None] * N + i[None, :]) & (N - 1))
    tl.store(target + i[:, None] * N + i[None, :], tl.load(tl.trans(pointers)))


def test_blocks_of_pointers_are_moved() -> None:
    source = torch.randint(0, 100, (16, 16), dtype=torch.int32)
    target = torch.empty_like(source)
    transposed_pointers[(1,)](source, target, N=16)
    assert torch.equal(target, source.flatten()[source.T.long() & 15])


@pytest.mark.cpu_only("a device has addresses of its own")
@pytest.mark.parametrize("kernel", [pointer_table, pointer_block], ids=lambda k: k.__name__)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64], ids=str)
def test_tables_of_pointers(kernel: triton.JITFunction, dtype: torch.dtype) -> None:
    rows = [torch.randint(0, 100, (32,)).float() for _ in range(4)]
    table = torch.tensor([r.data_ptr() for r in rows]).view(dtype)
    target = torch.empty(32)
    kernel[(1,)](table, target, COUNT=4, BLOCK=32)
    assert torch.equal(target, torch.stack(rows).sum(0))


@pytest.mark.cpu_only("a device has addresses of its own")
def test_stores_through_a_table() -> None:
    rows = [torch.randn(16) for _ in range(3)]
    before = [r.clone() for r in rows]
    store_through_table[(3,)](torch.tensor([r.data_ptr() for r in rows]), COUNT=11, BLOCK=16)
    for k, (row, old) in enumerate(zip(rows, before, strict=True)):
        assert torch.equal(row, torch.cat((old[:11] * (k + 2), old[11:])))


@triton.jit
def address_arithmetic(source, target, addresses, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    numbers = (source + i).to(tl.int64)
    tl.store(addresses + i, numbers)
    again = (numbers + 4).to(tl.pointer_type(tl.int32))
    one = (source.to(tl.uint64) + 8).to(tl.pointer_type(tl.int32))
    tl.store(target + i, tl.load(again) + tl.load(one))


@pytest.mark.cpu_only("a device has addresses of its own")
def test_pointers_as_numbers() -> None:
    source, target = torch.arange(100, 117, dtype=torch.int32), torch.empty(16, dtype=torch.int32)
    addresses = torch.empty(16, dtype=torch.int64)
    address_arithmetic[(1,)](source, target, addresses, BLOCK=16)
    assert torch.equal(addresses, source.data_ptr() + 4 * torch.arange(16))
    assert torch.equal(target, source[1:17] + source[2])


@triton.jit
def other_pointee(source, target, BLOCK: tl.constexpr):
    halves = source.to(tl.pointer_type(tl.int16), bitcast=True)
    i = tl.arange(0, BLOCK)
    blocks = (source + i).to(tl.pointer_type(tl.int16), bitcast=True)
    tl.store(target + i, tl.load(halves + 2 * i + 1) + tl.load(blocks))


def test_pointers_to_another_type() -> None:
    source, target = torch.randint(-(2**31), 2**31, (32,), dtype=torch.int32), torch.empty(32, dtype=torch.int16)
    other_pointee[(1,)](source, target, BLOCK=32)
    halves = source.view(torch.int16).view(32, 2)
    assert torch.equal(target, halves[:, 1] + halves[:, 0])


@triton.jit
def carried_pointers(source, target, steps, width, CHOOSE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    blocks, scalar = source + i, source
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(steps):
        total += tl.load(blocks) + tl.load(scalar)
        blocks += width
        scalar += 1
    at = tl.where(i % 2 == 0, blocks, source + i) if CHOOSE else blocks
    if steps > 2:
        chosen = source + 1
    else:
        chosen = source + 2
    tl.store(target + i, total + tl.load(at) + tl.load(chosen))


@pytest.mark.parametrize("steps", [0, 2, 3])
@pytest.mark.parametrize("choose", [False, True])
def test_pointers_through_control_flow(steps: int, choose: bool) -> None:
    source, target = torch.arange(4 * 16).float(), torch.empty(16)
    carried_pointers[(1,)](source, target, steps, 16, CHOOSE=choose, BLOCK=16)
    rows, i = source.view(4, 16), torch.arange(16)
    last = torch.where(i % 2 == 0, rows[steps], rows[0]) if choose else rows[steps]
    expected = rows[:steps].sum(0) + source[:steps].sum() + last + source[1 if steps > 2 else 2]
    assert torch.equal(target, expected)


@triton.jit
def read_only(source: tl.const, target, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i))


@triton.jit
def write_read_only(source: tl.const, BLOCK: tl.constexpr):
    tl.store(source + tl.arange(0, BLOCK), 0.0)


def test_const_pointers() -> None:
    source, target = torch.randn(16), torch.empty(16)
    read_only[(1,)](source, target, BLOCK=16)
    assert torch.equal(target, source)
    with pytest.raises(triton.CompilationError, match="constant pointer"):
        write_read_only[(1,)](source, BLOCK=16)


@triton.jit
def all_arguments(target, i32, i64, u64, flag, f, none, ONE, BLOCK: tl.constexpr):
    if none is None:
        tl.store(target, i32)
    tl.store(target + 1, i64)
    tl.store(target + 2, u64.to(tl.int64, bitcast=True))
    tl.store(target + 3, flag)
    tl.store(target + 4, f)
    tl.store(target + 5, ONE)


@pytest.mark.parametrize("i32", [0, 1, 16, -7, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("flag", [True, False])
def test_scalar_arguments(i32: int, flag: bool) -> None:
    target = torch.zeros(6, dtype=torch.int64)
    all_arguments[(1,)](target, i32, -(2**40), 2**64 - 3, flag, 2.75, None, 1, BLOCK=16)
    assert target.tolist() == [i32, -(2**40), -3, int(flag), 2, 1]


def test_what_counts_as_a_pointer() -> None:
    """Addresses as integers, views into storage, and objects with data_ptr() are pointers too."""
    source, target = torch.arange(20.0), torch.zeros(16)
    copy[(1,)](source[3:], target, 16, BLOCK=16)
    assert torch.equal(target, source[3:19])
    copy[(1,)](triton.reinterpret(source, tl.float32), target, 16, BLOCK=16)
    assert torch.equal(target, source[:16])
    copy[(1,)](torch.empty(0), torch.empty(0), 0, BLOCK=16)
