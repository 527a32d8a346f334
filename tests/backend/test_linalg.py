"""Kernels whose addresses, masks and order are hard, on the second lowering and on the CPU target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

import torchport


def both(launch: Callable[[], Any]) -> None:
    """The same bits from both lowerings."""
    results = []
    for target in ("cpu", "linalg"):
        with torchport.use(target):
            results.append(launch())
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@triton.jit
def masks(x, z, n, KIND: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    if KIND == "even":
        mask = i % 2 == 0
    elif KIND == "or":
        mask = (i < 3) | (i >= n)
    elif KIND == "between":
        mask = (i >= n // 4) & (i < n) & (i > 2)
    elif KIND == "reversed":
        mask = n - i > 5
    elif KIND == "steps":
        mask = 3 * i + 1 <= n
    elif KIND == "back":
        mask = 7 - 3 * i < n - 40
    elif KIND == "one":
        mask = i == n // 2
    elif KIND == "scalar":
        mask = (i < 40) & (n > 3)
    elif KIND == "xor":
        mask = (i < n) ^ (i < 5)
    elif KIND == "wraps":
        mask = (i * 1000000007) % 7 < 3
    elif KIND == "unsigned":
        mask = (i - 5).to(tl.uint32) < tl.abs(n + 0 * i).to(tl.uint32)
    else:
        mask = i != n
    value = tl.load(x + i, mask=mask, other=-3.0)
    tl.store(z + i, value)
    tl.store(z + BLOCK + i, value + 1, mask=mask)


_KINDS = "even or between reversed steps back one scalar xor wraps unsigned other".split()


def some(names: list[str], quick: str) -> list[Any]:
    """Parameters, of which those that are not in ``quick`` are slow."""
    return [pytest.param(name, marks=() if name in quick.split() else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("kind", some(_KINDS, "even between back unsigned"))
def test_masks_that_are_intervals_and_others(kind: str) -> None:
    x = torch.randn(64)

    def launch() -> list[torch.Tensor]:
        made = []
        for n in (0, 1, 17, 63, 64, 200, -9):
            z = torch.full((128,), 9.0)
            masks[(1,)](x, z, n, KIND=kind, BLOCK=64)
            made.append(z)
        return made

    both(launch)


@triton.jit
def addresses(x, z, stride, n, KIND: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    rows, columns = tl.arange(0, 8), tl.arange(0, 8)
    if KIND == "backwards":
        tl.store(z + i, tl.load(x + (BLOCK - 1) - i))
    elif KIND == "negative":
        tl.store(z + i, tl.load(x + 63 + i * stride))
    elif KIND == "modulo":
        at = (tl.program_id(0) * 8 + rows) % n
        tl.store(z + rows[:, None] * 8 + columns[None, :], tl.load(x + at[:, None] * 8 + columns[None, :]))
    elif KIND == "quotients":
        tl.store(z + i, tl.load(x + (i % 8) * 8 + i // 8))
    elif KIND == "same":
        tl.store(z + i, tl.load(x + i * 0))
        tl.store(z + 64 + i * 0, i.to(tl.float32) * 0 + 4)
    elif KIND == "transposed":
        held = tl.load(x + rows[:, None] + columns[None, :] * 8)
        tl.store(z + rows[:, None] * 8 + columns[None, :], tl.trans(held))
    elif KIND == "overlapping":
        tl.store(z + rows[:, None] * 8 + columns[None, :], tl.load(x + rows[:, None] + columns[None, :]))
    elif KIND == "indirect":
        at = tl.load(x + i).to(tl.int32)
        tl.store(z + at, tl.load(x + at, mask=at > 3, other=1.5))
    elif KIND == "reshaped":
        tl.store(z + tl.reshape(i, (8, 8)), tl.load(x + tl.reshape(i, (8, 8)), mask=tl.reshape(i, (8, 8)) < n))


_ADDRESSES = "backwards negative modulo quotients same transposed overlapping indirect reshaped".split()


@pytest.mark.parametrize("kind", some(_ADDRESSES, "negative modulo same indirect"))
def test_addresses(kind: str) -> None:
    x = torch.randperm(64).float()

    def launch() -> list[torch.Tensor]:
        z = torch.full((80,), 9.0)
        addresses[(2,)](x, z, -1, 5, KIND=kind, BLOCK=64)
        return [z]

    both(launch)


@triton.jit
def in_order(x, y, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    first = tl.load(x + i)
    tl.store(x + i + 1, first * 2, mask=i < n)
    second = tl.load(x + i)
    tl.store(x + i, first + second)
    third = tl.load(y + i)  # y may be x
    tl.store(y + BLOCK - 1 - i, third - first)
    tl.store(x, tl.load(x + 5) + tl.load(y + 6))


@pytest.mark.parametrize("shift", [None, 0, 1, 7])
def test_stores_between_loads_of_overlapping_buffers(shift: int | None) -> None:
    """In the order of the program, whatever overlaps. The CPU target takes arguments not to, as Triton does."""
    torch.manual_seed(1)
    x = torch.randn(96)
    y = torch.randn(96) if shift is None else x[shift:]
    wanted_x = x.clone()
    wanted_y = y.clone() if shift is None else wanted_x[shift:]
    i = torch.arange(64)
    first = wanted_x[i]
    wanted_x[i[:20] + 1] = first[:20] * 2
    wanted_x[i] = first + wanted_x[i]
    wanted_y[63 - i] = wanted_y[i] - first
    wanted_x[0] = wanted_x[5] + wanted_y[6]
    with torchport.use("linalg"):
        in_order[(1,)](x, y, 20, BLOCK=64)
    assert torch.equal(x, wanted_x) and torch.equal(y, wanted_y)


@triton.jit
def loops(x, z, rows, steps, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    source, target = x + i, z + i
    total = tl.zeros((BLOCK,), tl.float32)
    for r in range(rows):
        inner = source
        for s in range(r, steps, 2):
            total += tl.load(inner, mask=i < steps * 8 - s, other=0.5)
            inner += 3
        source += BLOCK // 2
        tl.store(target, total)
        target += BLOCK
    count = 0
    while tl.sum(total, 0) > 10.0:
        total = total * 0.5
        count += 1
    at = z + rows * BLOCK
    while count > 0:
        tl.store(at + i, total + count)
        at += BLOCK
        count -= 2


@pytest.mark.parametrize(("rows", "steps"), [(0, 0), (1, 4), (4, 7)])
def test_loops_that_carry_pointers(rows: int, steps: int) -> None:
    x = torch.arange(128).float()

    def launch() -> list[torch.Tensor]:
        z = torch.zeros(1024)
        loops[(1,)](x, z, rows, steps, BLOCK=32)
        return [z]

    both(launch)


@triton.jit
def block_pointers(x, z, M, N, BM: tl.constexpr, BN: tl.constexpr):
    source = tl.make_block_ptr(x, (M, N), (N, 1), (tl.program_id(0) * BM - 1, -2), (BM, BN), (1, 0))
    target = tl.make_block_ptr(z, (M, N), (N, 1), (tl.program_id(0) * BM, 0), (BM, BN), (1, 0))
    for _ in range(0, N, BN):
        held = tl.load(source, boundary_check=(0, 1), padding_option="zero")
        tl.store(target, held + 1, boundary_check=(0, 1))
        source, target = tl.advance(source, (0, BN)), tl.advance(target, (0, BN))


@pytest.mark.parametrize("shape", [(1, 1), (5, 13), (16, 32)])
def test_block_pointers_that_leave_their_tensor(shape: tuple[int, int]) -> None:
    x = torch.randn(shape)

    def launch() -> list[torch.Tensor]:
        z = torch.zeros(shape)
        block_pointers[(triton.cdiv(shape[0], 8),)](x, z, *shape, BM=8, BN=16)
        return [z]

    both(launch)


@triton.jit
def typed(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a, b = tl.load(x + i, mask=i < n, other=1), tl.load(y + i, mask=i < n, other=0)
    tl.store(z + i, tl.where(a > b, a, b), mask=i < n + 3)
    tl.store(z + BLOCK, tl.load(x))


_TYPES = "bool int8 uint8 int16 int64 float16 bfloat16 float64".split()


@pytest.mark.parametrize("dtype", some(_TYPES, "bool int8 bfloat16"))
def test_types(dtype: str) -> None:
    x, y = ((torch.randn(64) * 3).to(getattr(torch, dtype)) for _ in range(2))

    def launch() -> list[torch.Tensor]:
        z = torch.zeros(65, dtype=x.dtype)
        typed[(1,)](x, y, z, 50, BLOCK=64)
        return [z]

    both(launch)


@pytest.mark.parametrize("grid", [(0,), (3, 0, 2), (2, 3, 2)])
def test_grids(grid: tuple[int, ...]) -> None:
    @triton.jit
    def numbers(z):
        at = tl.program_id(0) + tl.num_programs(0) * (tl.program_id(1) + tl.num_programs(1) * tl.program_id(2))
        tl.store(z + at, at + 100 * tl.num_programs(2))

    def launch() -> list[torch.Tensor]:
        z = torch.zeros(12, dtype=torch.int32)
        numbers[grid](z)
        return [z]

    both(launch)


def test_assertions_end_a_launch() -> None:
    @triton.jit
    def checks(x, z):
        value = tl.load(x + tl.arange(0, 16))
        tl.device_assert(value < 12, "too large")
        tl.store(z + tl.arange(0, 16), value)

    z = torch.zeros(16, dtype=torch.int32)
    with torchport.use("linalg"), pytest.raises(torchport.errors.KernelAssertionError, match="too large"):
        checks[(1,)](torch.arange(16, dtype=torch.int32), z, debug=True)
    assert not z.any()


@triton.jit
def functions(x, z, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    held = tl.load(x + i)
    tl.store(z + i, libdevice.expm1(held) + libdevice.log1p(held))
    tl.store(z + BLOCK + i, tl.rsqrt(held) + tl.floor(held * 9) + libdevice.rint(held * 9))
    tl.store(
        z + 2 * BLOCK + i, tl.abs(i - 7) + libdevice.popc(i) + libdevice.clz(i) + libdevice.isnan(held).to(tl.int32)
    )
    tl.store(z + 3 * BLOCK + i, libdevice.lgamma(held + 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_are_those_of_the_cpu_but_for_roundings(dtype: torch.dtype) -> None:
    x = torch.rand(64, dtype=dtype) * 1e-3 + 1e-4
    results = []
    for target in ("cpu", "linalg"):
        with torchport.use(target):
            z = torch.zeros(256, dtype=dtype)
            functions[(1,)](x, z, BLOCK=64)
            results.append(z)
    torch.testing.assert_close(*results, rtol=8 * torch.finfo(dtype).eps, atol=0)


@triton.jit
def carried(x, z, steps, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    before, now = tl.load(x + i), tl.load(x + BLOCK + i)
    total = tl.zeros((BLOCK,), tl.float32)
    for s in range(2, steps):
        after = tl.load(x + s * BLOCK + i, mask=i < BLOCK - s, other=-1.0)
        total += before * 2 + now - after
        before, now = now, after
    tl.store(z + i, total)
    tl.store(z + BLOCK + i, before)
    k = 0
    held = now
    while k < steps:
        held, now = tl.load(x + k * BLOCK + i) + now, held
        k += 1
    tl.store(z + 2 * BLOCK + i, held)
    tl.store(z + 3 * BLOCK + i, now)


@pytest.mark.parametrize("steps", [0, 3, 6])
def test_loops_that_carry_what_they_load(steps: int) -> None:
    """A local buffer of one iteration is read in the next ones."""
    x = torch.randn(6 * 32)

    def launch() -> list[torch.Tensor]:
        z = torch.zeros(128)
        carried[(1,)](x, z, steps, BLOCK=32)
        return [z]

    both(launch)
