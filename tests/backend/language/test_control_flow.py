"""Control flow: loops, branches, early returns, program ids."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def sum_range(out, lo, hi, STEP: tl.constexpr):
    total = tl.full((), 0, tl.int64)
    for i in range(lo, hi, STEP):
        total += i
    tl.store(out, total)


@pytest.mark.parametrize(
    "bounds", [(2**35, 2**35 + 20, 3), (15, -16, -1), (15, -16, -3), (-18, -22, -1), (0, 0, 1), (5, 2, 1), (2, 5, -1)]
)
def test_for(bounds: tuple[int, int, int]) -> None:
    out = torch.zeros(1, dtype=torch.int64)
    sum_range[(1,)](out, bounds[0], bounds[1], STEP=bounds[2])
    assert out.item() == sum(range(*bounds))


@triton.jit
def dynamic_step(x, out, n, step, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(1, n, step):
        total += tl.load(x + k * BLOCK + i)
        if k % 2 == 0:
            total *= 2
    tl.store(out + i, total)


@pytest.mark.parametrize("n, step", [(0, 1), (1, 1), (7, 1), (8, 3), (8, 100)])
def test_for_with_dynamic_step(n: int, step: int) -> None:
    x, out = torch.randint(0, 9, (8, 32)).float(), torch.empty(32)
    dynamic_step[(1,)](x, out, n, step, BLOCK=32)
    total = torch.zeros(32)
    for k in range(1, n, step):
        total += x[k]
        if k % 2 == 0:
            total *= 2
    assert torch.equal(out, total)


@triton.jit
def range_options(out, n, STAGES: tl.constexpr, UNROLL: tl.constexpr, FLAG: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.int32)
    for a in tl.range(
        0, n, num_stages=STAGES, loop_unroll_factor=UNROLL, flatten=FLAG, warp_specialize=FLAG,
        disallow_acc_multi_buffer=FLAG, disable_licm=FLAG,
    ):  # fmt: skip
        for b in tl.range(a, n, 2, flatten=FLAG):
            total += a * 100 + b + i
        tl.atomic_add(out, 1)
    tl.store(out + 1 + i, total)


@pytest.mark.parametrize("stages", [None, 1, 4])
@pytest.mark.parametrize("unroll", [None, 1, 2, 4])
@pytest.mark.parametrize("flag", [False, True])
def test_range_options(stages: int | None, unroll: int | None, flag: bool) -> None:
    out = torch.zeros(17, dtype=torch.int32)
    compiled = range_options[(1,)](out, 7, STAGES=stages, UNROLL=unroll, FLAG=flag, BLOCK=16)
    pairs = [(a, b) for a in range(7) for b in range(a, 7, 2)]
    expected = sum(100 * a + b for a, b in pairs) + len(pairs) * torch.arange(16)
    assert out[0].item() == 7
    assert torch.equal(out[1:], expected.int())
    assert compiled.asm["ttir"].count("tt.atomic_rmw") >= (unroll or 1)


@triton.jit
def static_loop(out, N: tl.constexpr, STEP: tl.constexpr):
    total = 0
    for i in tl.static_range(1, N, step=STEP):
        for j in tl.static_range(2):
            tl.static_assert(i % STEP == 1 % STEP)
            total += i * j
    tl.store(out, total)


def test_static_range() -> None:
    out = torch.zeros(1, dtype=torch.int32)
    static_loop[(1,)](out, N=20, STEP=6)
    assert out.item() == sum(range(1, 20, 6))


@triton.jit
def collatz(x, steps, most, BLOCK: tl.constexpr):
    i = tl.program_id(0)
    n = tl.load(x + i)
    count = 0
    peak = tl.full((BLOCK,), 0, tl.int64)
    while n != 1:
        peak = tl.maximum(peak, n + tl.arange(0, BLOCK))
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        count += 1
    tl.store(steps + i, count)
    tl.store(most + i * BLOCK + tl.arange(0, BLOCK), peak)


def test_while() -> None:
    x = torch.tensor([1, 2, 7, 27, 97])
    steps, most = torch.zeros(5, dtype=torch.int32), torch.zeros(5, 16, dtype=torch.int64)
    collatz[(5,)](x, steps, most, BLOCK=16)
    for i, n in enumerate(x.tolist()):
        count = peak = 0
        while n != 1:
            peak = max(peak, n)
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            count += 1
        assert steps[i].item() == count
        assert torch.equal(most[i], peak + torch.arange(16) if count else torch.zeros(16, dtype=torch.int64))


@triton.jit
def nested_while(x, rounds):
    for _ in range(4):
        left = tl.load(rounds)
        while left > 0:
            inner = left
            while inner > 2 and left < 100:
                tl.store(x, tl.load(x) + inner)
                inner -= 3
            left -= 2


def test_nested_while() -> None:
    x = torch.zeros(1)
    nested_while[(1,)](x, torch.tensor([8], dtype=torch.int32))
    total = 0
    for left in range(8, 0, -2):
        inner = left
        while inner > 2:
            total += inner
            inner -= 3
    assert x.item() == 4 * total


@triton.jit
def loop_until(x, limit, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    while tl.sum(value) < tl.load(limit):
        value = value * 2 + 1
    tl.store(out + i, value)


def test_while_with_a_reduction_in_its_condition() -> None:
    x, out = torch.arange(16.0), torch.empty(16)
    loop_until[(1,)](x, torch.tensor([5000.0]), out, BLOCK=16)
    value = x
    while value.sum() < 5000:
        value = value * 2 + 1
    assert torch.equal(out, value)


@triton.jit
def branches(x, out, MODE: tl.constexpr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    if MODE == "chain":
        if pid == 0:
            value += 1
        elif pid == 1:
            value = value * tl.sum(value)
        else:
            value = tl.zeros_like(value)
    elif MODE == "expression":
        value = value + 5 if pid % 2 == 0 else tl.load(x + BLOCK - 1 - i)
    elif MODE == "and":
        if pid > 0 and not (pid == 2 or (pid > 2 and pid < 3)):
            value = -value
    elif pid > 0:
        if pid > 1:
            value += 100
        else:
            value += 10
        value *= 2
    tl.store(out + pid * BLOCK + i, value)


@pytest.mark.parametrize("mode", ["chain", "expression", "and", "nested"])
def test_if(mode: str) -> None:
    x, out = torch.arange(1.0, 33), torch.empty(4, 32)
    branches[(4,)](x, out, MODE=mode, BLOCK=32)
    expected = {
        "chain": [x + 1, x * x.sum(), x * 0, x * 0],
        "expression": [x + 5, x.flip(0), x + 5, x.flip(0)],
        "and": [x, -x, x, -x],
        "nested": [x, (x + 10) * 2, (x + 100) * 2, (x + 100) * 2],
    }[mode]
    assert torch.equal(out, torch.stack(expected))


@triton.jit
def costly_in_a_branch(x, out, flag, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a = tl.sqrt(tl.load(x + i))
    b = a / (1 + a)
    if flag > 0:
        tl.store(out + i, a * b)
    tl.store(out + BLOCK + i, a + b)


@pytest.mark.parametrize("flag", [0, 2])
def test_values_used_in_and_after_a_branch(flag: int) -> None:
    x, out = torch.arange(16.0) ** 2, torch.zeros(2, 16)
    costly_in_a_branch[(1,)](x, out, flag, BLOCK=16)
    a = x.sqrt()
    b = a / (1 + a)
    assert torch.equal(out, torch.stack([a * b if flag else torch.zeros(16), a + b]))


@triton.jit
def early_return(x, out, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    total = tl.sum(value)
    if pid >= n:
        tl.store(out + pid * BLOCK + i, value - 1)
        return
    value = value + total
    tl.store(x + BLOCK + i, value)
    if pid == 1:
        return
    tl.store(out + pid * BLOCK + i, value + tl.max(value))


def test_early_return() -> None:
    x, out = torch.randint(0, 50, (64,)).float(), torch.full((4, 32), -7.0)
    row = x[:32].clone()
    early_return[(4,)](x, out, 3, BLOCK=32)
    full = row + row.sum()
    assert torch.equal(out, torch.stack([full + full.max(), torch.full((32,), -7.0), full + full.max(), row - 1]))
    assert torch.equal(x[32:], full)


@triton.jit
def nested_returns(conditions, values, out):
    result = 0
    if tl.load(conditions):
        if tl.load(conditions + 1):
            result = tl.load(values)
        else:
            return
    else:
        if tl.load(conditions + 2):
            result = tl.load(values + 1)
        else:
            result = tl.load(values + 2)
    tl.store(out, result)


@pytest.mark.parametrize("bits", range(8))
def test_nested_returns(bits: int) -> None:
    a, b, c = (bool(bits & m) for m in (1, 2, 4))
    out = torch.tensor([-1])
    nested_returns[(1,)](torch.tensor([a, b, c]), torch.tensor([10, 20, 30], dtype=torch.int32), out)
    assert out.item() == ((10 if b else -1) if a else (20 if c else 30))


@triton.jit
def return_in_order(x, out, counter, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    if pid == 5:
        return
    i = pid * BLOCK + tl.arange(0, BLOCK)
    done = tl.atomic_add(counter, 1)
    if done + 1 > n:
        return
    y = tl.cumsum(tl.load(x + i), axis=0)
    if tl.sum(y) < 0:
        tl.store(out + i, -y)
        return
    tl.store(out + i, y)


def test_returns_between_effects_and_scans() -> None:
    x, out, counter = torch.randint(-9, 9, (8, 64)), torch.zeros(8, 64, dtype=torch.int64), torch.zeros(1).int()
    return_in_order[(8,)](x, out, counter, 7, BLOCK=64)
    sums = x.cumsum(1)
    expected = torch.where(sums.sum(1, keepdim=True) < 0, -sums, sums)
    expected[5] = 0
    assert torch.equal(out, expected)
    assert counter.item() == 7


@triton.jit
def ids(out, sizes):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    nx, ny = tl.num_programs(0), tl.num_programs(1)
    tl.store(out + (z * ny + y) * nx + x, x + 100 * y + 10000 * z)
    for axis in tl.static_range(3):
        tl.store(sizes + axis, tl.num_programs(axis))


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 4), (0,), (3, 0, 2)])
def test_program_ids(grid: tuple[int, ...]) -> None:
    nx, ny, nz = (*grid, 1, 1)[:3]
    out, sizes = torch.full((nz, ny, nx), -1), torch.full((3,), -1)
    ids[grid](out, sizes)
    x, y, z = torch.arange(nx), torch.arange(ny)[:, None], torch.arange(nz)[:, None, None]
    assert torch.equal(out, x + 100 * y + 10000 * z)
    assert sizes.tolist() == ([nx, ny, nz] if out.numel() else [-1] * 3)
