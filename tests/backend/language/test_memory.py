"""Loads and stores of Triton kernels on CPU tensors: dtypes, masks, strides, pointers made in the kernel."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

DTYPES = [
    torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip
SOME = [torch.bool, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def random_bits(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Any bit pattern of the dtype (0 and 1 for booleans)."""
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).to(torch.bool)
    count = torch.Size(shape).numel()
    return torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8).view(dtype).view(shape)


def assert_same_bits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.dtype == expected.dtype
    bits = [t.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8) for t in (actual, expected)]
    assert torch.equal(*bits)


@triton.jit
def copy(source, target, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=i < n), mask=i < n)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 37, 64, 200])
def test_copy_keeps_every_bit(dtype: torch.dtype, n: int) -> None:
    source, target = random_bits((n,), dtype), random_bits((n + 5,), dtype)
    untouched = target[n:].clone()
    copy[(triton.cdiv(n, 64),)](source, target, n, BLOCK=64)
    assert_same_bits(target[:n], source)
    assert_same_bits(target[n:], untouched)


@triton.jit
def load_other(source, target, n, OTHER: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=i < n, other=OTHER))


@pytest.mark.parametrize("dtype", SOME, ids=str)
@pytest.mark.parametrize("n", [0, 1, 63, 64, 100, 128])
@pytest.mark.parametrize("other", [0, 1])
def test_masked_lanes_get_other(dtype: torch.dtype, n: int, other: int) -> None:
    source = torch.ones(n, dtype=dtype) if dtype == torch.bool else torch.arange(n).to(dtype)
    target = torch.empty(128, dtype=dtype)
    load_other[(1,)](source, target, n, OTHER=other, BLOCK=128)
    assert torch.equal(target, torch.cat((source, torch.full((128 - n,), other, dtype=dtype))))


@triton.jit
def row_sums(source, target, rows, columns: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    r, c = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    mask = (c[None, :] < columns) & (r[:, None] < rows)
    tl.store(target + r, tl.sum(tl.load(source + r[:, None] * columns + c[None, :], mask, 0), 1), mask=r < rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("columns", "block"), [(6, 16), (9, 16), (4, 32), (17, 32), (20, 32), (24, 32)])
def test_lanes_that_never_load_add_nothing(dtype: torch.dtype, columns: int, block: int) -> None:
    """LLVM loads such lanes in some widths (passes/torchport_passes/ir/build.py)."""
    source, target = torch.randint(-3, 4, (7, columns)).to(dtype), torch.zeros(8, dtype=dtype)
    row_sums[(1,)](source, target, 7, columns, block, 8)
    assert torch.equal(target[:7], source.sum(1, dtype=dtype))


@triton.jit
def load_other_tensor(source, others, target, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=(i < n) & (i % 3 != 1), other=tl.load(others + i)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float64], ids=str)
def test_other_differs_from_lane_to_lane(dtype: torch.dtype) -> None:
    source, others, target = (torch.arange(first, first + 64).to(dtype) for first in (0, 64, 0))
    load_other_tensor[(1,)](source, others, target, 50, BLOCK=64)
    i = torch.arange(64)
    assert torch.equal(target, torch.where((i < 50) & (i % 3 != 1), source, others))


@triton.jit
def constant_masks(source, target, LOAD: tl.constexpr, STORE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=LOAD, other=7), mask=STORE)


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("store", [True, False])
def test_constant_masks(load: bool, store: bool) -> None:
    source, target = torch.arange(32.0), torch.full((32,), -1.0)
    constant_masks[(1,)](source, target, LOAD=load, STORE=store, BLOCK=32)
    loaded = source if load else torch.full((32,), 7.0)
    assert torch.equal(target, loaded if store else torch.full((32,), -1.0))


@triton.jit
def scalar_masks(source, index, target, n, count, BLOCK: tl.constexpr):
    at = tl.load(index)
    value = tl.load(source + at, mask=at < n, other=-5)
    tl.store(target, value, mask=count > 0)
    i = tl.arange(0, BLOCK)
    tl.store(target + 1 + i, tl.load(source + i, mask=at < n, other=9), mask=count > 1)


@pytest.mark.parametrize("at", [3, 40])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_scalar_masks(at: int, count: int) -> None:
    source, target = torch.arange(32, dtype=torch.int32), torch.zeros(33, dtype=torch.int32)
    scalar_masks[(1,)](source, torch.tensor([at]), target, 32, count, BLOCK=32)
    inside = at < 32
    block = source if inside else torch.full_like(source, 9)
    expected = torch.zeros_like(target)
    expected[0] = (at if inside else -5) if count > 0 else 0
    expected[1:] = block if count > 1 else 0
    assert torch.equal(target, expected)


@triton.jit
def move_2d(source, target, rows, columns, s0, s1, t0, t1, R: tl.constexpr, C: tl.constexpr):
    r = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    c = tl.program_id(1) * C + tl.arange(0, C)[None, :]
    inside = (r < rows) & (c < columns)
    tl.store(target + r * t0 + c * t1, tl.load(source + r * s0 + c * s1, mask=inside), mask=inside)


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (33, 17), (64, 64)])
@pytest.mark.parametrize("layout", ["rows", "columns", "both", "reversed", "every other", "zero stride"])
def test_strides(shape: tuple[int, int], layout: str) -> None:
    rows, columns = shape
    source = random_bits((rows, columns), torch.float32)
    target = torch.zeros(shape)
    strides = {"rows": (columns, 1), "both": (1, rows)}
    if layout in ("columns", "both"):
        source = source.t().contiguous().t()
    if layout == "both":
        target = target.t().contiguous().t()
    s, t = source.stride(), target.stride()
    start, expected = source, source
    if layout == "reversed":
        start, s, expected = source.flatten()[-1:], (-columns, -1), source.flip(0, 1)
    if layout == "every other":
        start = random_bits((rows, 2 * columns), torch.float32)
        s, expected = (2 * columns, 2), start[:, ::2]
    if layout == "zero stride":
        s, expected = (columns, 0), source[:, :1].expand(rows, columns)
    assert layout not in strides or tuple(t) == strides[layout]
    move_2d[(triton.cdiv(rows, 16), triton.cdiv(columns, 32))](
        start, target, rows, columns, *s, *t, R=16, C=32
    )  # fmt: skip
    assert_same_bits(target, expected)


@triton.jit
def move_5d(source, target, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr, E: tl.constexpr):
    a = tl.arange(0, A)[:, None, None, None, None]
    b = tl.arange(0, B)[None, :, None, None, None]
    c = tl.arange(0, C)[None, None, :, None, None]
    d = tl.arange(0, D)[None, None, None, :, None]
    e = tl.arange(0, E)[None, None, None, None, :]
    x = tl.load(source + (((a * B + b) * C + c) * D + d) * E + e)
    tl.store(target + (((e * D + d) * C + c) * B + b) * A + a, x)


def test_five_dimensions() -> None:
    shape = (2, 4, 2, 8, 4)
    source = random_bits(shape, torch.int16)
    target = torch.empty(shape[::-1], dtype=torch.int16)
    move_5d[(1,)](source, target, *shape)
    assert torch.equal(target, source.permute(4, 3, 2, 1, 0))


@triton.jit
def permute(source, index, target, SCATTER: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    j = tl.load(index + i)
    if SCATTER:
        tl.store(target + j, tl.load(source + i))
    else:
        tl.store(target + i, tl.load(source + j))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_gather_and_scatter(dtype: torch.dtype, scatter: bool, index_dtype: torch.dtype) -> None:
    source, target, order = random_bits((64,), dtype), random_bits((64,), dtype), torch.randperm(64)
    permute[(1,)](source, order.to(index_dtype), target, SCATTER=scatter, BLOCK=64)
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    source, target = source.view(integers), target.view(integers)
    assert torch.equal(target[order] if scatter else target, source if scatter else source[order])


@triton.jit
def hinted(source, target, n, CACHE: tl.constexpr, EVICT: tl.constexpr, STORE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.max_contiguous(tl.multiple_of(tl.arange(0, BLOCK), 8), 8)
    x = tl.load(source + i, mask=i < n, cache_modifier=CACHE, eviction_policy=EVICT)
    y = tl.load(source, cache_modifier=CACHE, eviction_policy=EVICT)
    tl.store(target + i, x + y, mask=i < n, cache_modifier=STORE, eviction_policy=EVICT)


@pytest.mark.parametrize(
    "load, evict, store",
    [("", "", ""), (".ca", "evict_first", ".wb"), (".cg", "evict_last", ".cg"), (".cv", "", ".cs"), ("", "", ".wt")],
)
def test_hints_change_nothing(load: str, evict: str, store: str) -> None:
    source, target = torch.arange(32.0) + 1, torch.zeros(32)
    hinted[(1,)](source, target, 20, CACHE=load, EVICT=evict, STORE=store, BLOCK=32)
    assert torch.equal(target, torch.where(torch.arange(32) < 20, source + 1, 0))


@triton.jit
def volatile(source, scalar, target, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(source + i, volatile=True) + tl.load(source + i, mask=i < n, other=3, volatile=True)
    tl.store(target + i, x + tl.load(scalar, volatile=True) + tl.load(source + (i * 7) % BLOCK, volatile=True))


@pytest.mark.cpu_only("it reads the LLVM IR")
def test_volatile_loads() -> None:
    source, target = torch.arange(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    compiled = volatile[(1,)](source, torch.tensor([100], dtype=torch.int32), target, 40, BLOCK=64)
    i = torch.arange(64)
    expected = i + torch.where(i < 40, i, 3) + 100 + (i * 7) % 64
    assert torch.equal(target, expected.to(torch.int32))
    assert "load volatile" in compiled.asm["llir"]


@triton.jit
def in_place(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(x + i, mask=i < n)
    tl.store(y + i, first + 1, mask=i < n)
    tl.debug_barrier()
    second = tl.load(x + i, mask=i < n)
    tl.store(x + i, first * 10 + second, mask=i < n)


@pytest.mark.parametrize("n", [7, 64, 100])
def test_order_of_loads_and_stores_through_aliases(n: int) -> None:
    x = torch.arange(n, dtype=torch.int64)
    in_place[(triton.cdiv(n, 64),)](x, x, n, BLOCK=64)
    old = torch.arange(n)
    assert torch.equal(x, old * 10 + old + 1)


@triton.jit
def shifted_within_a_program(x, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    moved = tl.load(x + i)
    tl.store(x + i + 1, moved)
    tl.debug_barrier()
    tl.store(x + i, tl.load(x + (BLOCK - 1) - i))


def test_a_block_is_loaded_before_it_is_stored() -> None:
    x = torch.arange(33, dtype=torch.int32)
    shifted_within_a_program[(1,)](x, BLOCK=32)
    moved = torch.cat((torch.tensor([0]), torch.arange(32)))
    moved[:32] = moved[:32].flip(0)
    assert torch.equal(x, moved.to(torch.int32))


@triton.jit
def transposed_in_place(x, y, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(x + at, tl.load(x + at).T)
    value = tl.load(y + at)
    for _ in range(3):
        value = value.T + 1
    tl.store(y + at, value)


def test_transposes_in_place() -> None:
    x, y = torch.randn(32, 32), torch.randn(32, 32)
    expected = x.t().clone(), y.t() + 1 + 1 + 1
    transposed_in_place[(1,)](x, y, N=32)
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])


@triton.jit
def write_twice(target, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, 1.0)
    tl.store(target + i, 2.0, mask=i < n)
    tl.store(target + 3, 5.0)
    tl.store(target + i, tl.load(target + i) + 0.5, mask=i >= n)


def test_later_stores_win() -> None:
    target = torch.zeros(32)
    write_twice[(1,)](target, 9, BLOCK=32)
    expected = torch.where(torch.arange(32) < 9, 2.0, 1.5)
    expected[3] = 5
    assert torch.equal(target, expected)


@triton.jit
def implicit_casts(source, target, value, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i))
    tl.store(target + BLOCK, value)


@pytest.mark.parametrize("from_", [torch.int8, torch.int64, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("to", [torch.int16, torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_values_are_converted_to_the_pointee(from_: torch.dtype, to: torch.dtype) -> None:
    source, target = (torch.arange(16) * 5 - 30).to(from_), torch.zeros(17, dtype=to)
    implicit_casts[(1,)](source, target, 3.0, BLOCK=16)
    assert torch.equal(target, torch.cat((source, torch.tensor([3.0]).to(from_))).to(to))


@triton.jit
def scattered_in_place(x, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(x + tl.load(x + i), i)


def test_a_tensor_that_says_where_it_is_written() -> None:
    x = torch.randperm(256, generator=torch.Generator().manual_seed(0)).int()
    expected = x.clone()
    expected[x.long()] = torch.arange(256, dtype=torch.int32)
    scattered_in_place[(1,)](x, N=256)
    assert torch.equal(x, expected)


@triton.jit
def turned_through_chosen_pointers(x, y, z, n, KIND: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    source, target = x + i, x + (N - 1 - i)
    if KIND == "loads":
        source = tl.where(i % 3 == 0, x + i, y + i)
    elif KIND == "branch":
        if n > 7:
            base = x
        else:
            base = y
        source = base + i
    tl.debug_barrier()
    held = tl.load(source)
    if KIND == "stores":
        target = tl.where(held > 0, target, z + i)
    tl.debug_barrier()
    tl.store(target, held)


@pytest.mark.parametrize("kind", ["loads", "branch", "stores"])
def test_a_block_is_loaded_before_it_is_stored_through_chosen_pointers(kind: str) -> None:
    x, y, z = (torch.randn(64, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    i = torch.arange(64)
    held = torch.where(i % 3 == 0, x, y) if kind == "loads" else x.clone()
    there = held > 0 if kind == "stores" else i >= 0
    expected_x, expected_z = x.clone(), torch.where(there, z, held)
    expected_x[63 - i[there]] = held[there]
    turned_through_chosen_pointers[(1,)](x, y, z, 8, KIND=kind, N=64)
    assert torch.equal(x, expected_x) and torch.equal(z, expected_z)
