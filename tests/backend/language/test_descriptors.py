"""Tensor descriptors, made on the host and in the kernel: load, store, gather, scatter, atomic reductions."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

DTYPES = [
    torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32, torch.float16, torch.bfloat16,
    torch.float32,
]  # fmt: skip


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 100, shape).to(dtype)


@triton.jit
def copy_tiles(source, target, M, N, BM: tl.constexpr, BN: tl.constexpr):
    a = tl.make_tensor_descriptor(source, shape=[M, N], strides=[N, 1], block_shape=[BM, BN])
    b = tl.make_tensor_descriptor(target, shape=[M, N], strides=[N, 1], block_shape=[BM, BN])
    tl.static_assert(a.block_shape == [BM, BN])
    at = [tl.program_id(0) * BM, tl.program_id(1) * BN]
    b.store(at, a.load(at) + (a.shape[0] - M).to(a.dtype) + (b.strides[0] - N).to(a.dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(16, 64), (21, 80)])
def test_descriptors_of_the_kernel(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    source, target = numbers(shape, dtype), torch.zeros(shape, dtype=dtype)
    copy_tiles[(triton.cdiv(shape[0], 8), triton.cdiv(shape[1], 32))](source, target, *shape, BM=8, BN=32)
    assert torch.equal(target, source)


@triton.jit
def copy_host(source, target, BM: tl.constexpr, BN: tl.constexpr):
    at = [tl.program_id(0) * BM, tl.program_id(1) * BN]
    tl.store_tensor_descriptor(target, at, tl.load_tensor_descriptor(source, at))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_descriptors_of_the_host(dtype: torch.dtype) -> None:
    source, target = numbers((21, 80), dtype), torch.zeros(21, 80, dtype=dtype)
    descriptors = [TensorDescriptor.from_tensor(t, [8, 32]) for t in (source, target)]
    copy_host[(3, 3)](*descriptors, BM=8, BN=32)
    assert torch.equal(target, source)


@triton.jit
def load_nd(source, target, shape, strides, target_strides, BLOCK):
    whole = tl.make_tensor_descriptor(source, shape=shape, strides=strides, block_shape=BLOCK)
    block = whole.load((1,) * len(BLOCK))
    out = tl.make_tensor_descriptor(target, shape=BLOCK, strides=target_strides, block_shape=BLOCK)
    out.store((0,) * len(BLOCK), block)


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32], ids=str)
def test_ranks_and_what_lies_outside(rank: int, dtype: torch.dtype) -> None:
    shape, block = (2, 3, 5, 7, 45)[-rank:], (2, 2, 4, 8, 64)[-rank:]
    storage = numbers((*shape[:-1], 48), dtype)  # strides of descriptors are multiples of 16 bytes
    source = storage[..., :45]
    target = torch.full(block, 5, dtype=dtype)
    load_nd[(1,)](storage, target, shape, source.stride(), target.stride(), tuple(tl.constexpr(b) for b in block))
    expected = torch.zeros(block, dtype=dtype)
    inner = source[tuple(slice(1, 1 + b) for b in block)]
    expected[tuple(slice(0, s) for s in inner.shape)] = inner
    assert torch.equal(target, expected)


@triton.jit
def padded(host, source, out, out_host, M, N, BM: tl.constexpr, BN: tl.constexpr, PAD: tl.constexpr):
    made = tl.make_tensor_descriptor(source, [M, N], [N, 1], [BM, BN], padding_option=PAD)
    at = [tl.program_id(0) * BM, tl.program_id(1) * BN]
    m, n = tl.arange(0, BM)[:, None], tl.arange(0, BN)[None, :]
    place = (at[0] + m) * 64 + at[1] + n
    tl.store(out + place, made.load(at))
    tl.store(out_host + place, host.load(at))


@pytest.mark.parametrize("padding", ["zero", "nan"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_padding(padding: str, dtype: torch.dtype) -> None:
    source = torch.randn(40, 48).to(dtype)
    out, out_host = torch.empty(64, 64, dtype=dtype), torch.empty(64, 64, dtype=dtype)
    host = TensorDescriptor.from_tensor(source, [32, 32], padding=padding)
    padded[(2, 2)](host, source, out, out_host, 40, 48, BM=32, BN=32, PAD=padding)
    expected = torch.full((64, 64), torch.nan if padding == "nan" else 0.0, dtype=dtype)
    expected[:40, :48] = source
    for result in (out, out_host):
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


@triton.jit
def gather_rows(source, rows, out, column, X, Y, BX: tl.constexpr, BY: tl.constexpr):
    table = tl.make_tensor_descriptor(source, [X, Y], [Y, 1], [1, BY])
    block = table.gather(tl.load(rows + tl.arange(0, BX)), column)
    tl.store(out + tl.arange(0, BX)[:, None] * BY + tl.arange(0, BY)[None, :], block)


@triton.jit
def scatter_rows(source, rows, out, column, X, Y, BX: tl.constexpr, BY: tl.constexpr):
    table = tl.make_tensor_descriptor(out, [X, Y], [Y, 1], [1, BY])
    block = tl.load(source + tl.arange(0, BX)[:, None] * BY + tl.arange(0, BY)[None, :])
    table.scatter(block, tl.load(rows + tl.arange(0, BX)), column)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("column", [0, 16, 48])
def test_gather_and_scatter(dtype: torch.dtype, column: int) -> None:
    table, rows = numbers((32, 64), dtype), torch.randperm(32, dtype=torch.int32)[:16]
    gathered = torch.full((16, 32), 3, dtype=dtype)
    gather_rows[(1,)](table, rows, gathered, column, 32, 64, BX=16, BY=32)
    inside = min(32, 64 - column)
    expected = torch.zeros(16, 32, dtype=dtype)
    expected[:, :inside] = table[rows.long(), column : column + inside]
    assert torch.equal(gathered, expected)
    scattered = table.clone()
    scatter_rows[(1,)](gathered + 1, rows, scattered, column, 32, 64, BX=16, BY=32)
    expected = table.clone()
    expected[rows.long(), column : column + inside] = (gathered + 1)[:, :inside]
    assert torch.equal(scattered, expected)


@triton.jit
def reduce_into(host, target, source, M, N, BM: tl.constexpr, BN: tl.constexpr, KIND: tl.constexpr):
    if host is None:
        out = tl.make_tensor_descriptor(target, [M, N], [N, 1], [BM, BN])
    else:
        out = host
    at = [tl.program_id(0) * BM, 0]
    m, n = at[0] + tl.arange(0, BM)[:, None], tl.arange(0, BN)[None, :]
    value = tl.load(source + m * N + n, mask=(m < M) & (n < N), other=0)
    if KIND == "add":
        out.atomic_add(at, value)
    elif KIND == "min":
        out.atomic_min(at, value)
    elif KIND == "max":
        out.atomic_max(at, value)
    elif KIND == "and":
        out.atomic_and(at, value)
    elif KIND == "or":
        out.atomic_or(at, value)
    else:
        out.atomic_xor(at, value)


REDUCTIONS = {
    "add": torch.add, "min": torch.minimum, "max": torch.maximum,
    "and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor,
}  # fmt: skip
SUPPORTED = {"add": [torch.int32, torch.uint32, torch.float16, torch.bfloat16, torch.float32]}


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint32, torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("host", [True, False])
def test_atomic_reductions(kind: str, dtype: torch.dtype, host: bool) -> None:
    source, target = numbers((13, 24), dtype), numbers((13, 24), dtype)
    descriptor = TensorDescriptor.from_tensor(target, [8, 32]) if host else None
    arguments = (descriptor, target, source, 13, 24)
    if dtype not in SUPPORTED.get(kind, [torch.int32, torch.uint32]):
        with pytest.raises(triton.CompilationError):
            reduce_into[(2,)](*arguments, BM=8, BN=32, KIND=kind)
        return
    wide = [t.to(torch.int64) if not dtype.is_floating_point else t for t in (target, source)]
    expected = REDUCTIONS[kind](*wide).to(dtype)
    reduce_into[(2,)](*arguments, BM=8, BN=32, KIND=kind)
    assert torch.equal(target, expected)


@triton.jit(noinline=True)
def double_tile(source, target, row):
    target.store([row, 0], source.load([row, 0]) * 2)


@triton.jit(noinline=True)
def describe(pointer, M, N, BM: tl.constexpr, BN: tl.constexpr):
    return tl.make_tensor_descriptor(pointer, [M, N], [N, 1], [BM, BN])


@triton.jit
def descriptors_and_functions(source, target, M, N, BM: tl.constexpr, BN: tl.constexpr):
    a, b = describe(source, M, N, BM, BN), describe(target, M, N, BM, BN)
    double_tile(a, b, tl.program_id(0) * BM)


def test_descriptors_cross_function_calls() -> None:
    source, target = torch.randn(16, 32), torch.zeros(16, 32)
    descriptors_and_functions[(2,)](source, target, 16, 32, BM=8, BN=32)
    assert torch.equal(target, source * 2)


@triton.jit
def remade_in_loops(x, M, N, BM: tl.constexpr, BN: tl.constexpr):
    row = tl.program_id(0) * BM
    tile = tl.make_tensor_descriptor(x, [M, N], [N, 1], [BM, BN])
    for i in range(0, N, BN):
        if i % (2 * BN) == 0:
            tile = tl.make_tensor_descriptor(x, [M, N], [N, 1], [BM, BN])
        tile.store([row, i], tile.load([row, i]) + 10)
    n = 0
    while n < N:
        if n % (2 * BN) == 0:
            tile = tl.make_tensor_descriptor(x, [M, N], [N, 1], [BM, BN])
        tile.store([row, n], tile.load([row, n]) * 2)
        n += BN


def test_descriptors_carried_by_loops() -> None:
    x = torch.randn(16, 96)
    expected = (x + 10) * 2
    remade_in_loops[(2,)](x, 16, 96, BM=8, BN=32)
    assert torch.equal(x, expected)


class Tiles(NamedTuple):
    source: object
    targets: tuple[object, ...]
    by: int


@triton.jit
def grouped(tiles):
    value = tiles.source.load([8, 0]) * tiles.by
    tiles.targets[0].store([0, 0], value)
    tiles.targets[1].store([0, 0], value + 1)


def test_descriptors_inside_tuples() -> None:
    source, first, second = torch.randn(16, 16), torch.zeros(8, 16), torch.zeros(8, 16)
    a, b, c = (TensorDescriptor.from_tensor(t, [8, 16]) for t in (source, first, second))
    grouped[(1,)](Tiles(a, (b, c), 3))
    assert torch.equal(first, source[8:] * 3)
    assert torch.equal(second, source[8:] * 3 + 1)


@triton.jit
def load_rounded(source, out):
    r, c = tl.arange(0, 8)[:, None], tl.arange(0, 16)[None, :]
    tl.store(out + r * 16 + c, source.load([0, 0]))


@pytest.mark.skipif("round_f32_to_tf32" not in TensorDescriptor.__dataclass_fields__, reason="from Triton 3.7 on")
def test_rounding_to_tf32() -> None:
    source, out = torch.randn(8, 16), torch.zeros(8, 16)
    load_rounded[(1,)](TensorDescriptor.from_tensor(source, [8, 16], round_f32_to_tf32=True), out)
    assert (out.view(torch.int32) & 0x1FFF).max() == 0  # 10 bits of significand are left
    assert ((out - source).abs() <= source.abs() * 2.0**-11).all()


@triton.jit
def host_matmul(a, b, c):
    BM: tl.constexpr = c.block_shape[0]
    BN: tl.constexpr = c.block_shape[1]
    BK: tl.constexpr = a.block_shape[1]
    m, n = tl.program_id(0) * BM, tl.program_id(1) * BN
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, a.shape[1], BK):
        total = tl.dot(a.load([m, k]), b.load([k, n]), acc=total)
    c.store([m, n], total.to(c.dtype))


def test_matmul() -> None:
    a, b, c = torch.randint(-8, 8, (40, 72)).float(), torch.randint(-8, 8, (72, 48)).float(), torch.zeros(40, 48)
    blocks = ([16, 32], [32, 16], [16, 16])
    descriptors = [TensorDescriptor.from_tensor(t, block) for t, block in zip((a, b, c), blocks, strict=True)]
    host_matmul[(3, 3)](*descriptors)
    assert torch.equal(c, a @ b)


@triton.jit
def too_narrow(x):
    tl.make_tensor_descriptor(x, [128, 128], [128, 1], [1, 2]).load([0, 0])


def test_narrow_blocks_are_refused() -> None:
    with pytest.raises(triton.CompilationError) as error:
        too_narrow[(1,)](torch.empty(128, 128, dtype=torch.int32))
    assert "at least 16 bytes" in str(error.value.__cause__)
