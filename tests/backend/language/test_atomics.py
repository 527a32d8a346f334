"""Atomic operations: every kind, dtype, ordering and scope that Triton has; one lane, many lanes, many programs."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

INTEGERS = [torch.int32, torch.int64, torch.uint32, torch.uint64]
FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]


@triton.jit
def rmw(pointer, value, mask, KIND: tl.constexpr, SEM: tl.constexpr, SCOPE: tl.constexpr):
    if KIND == "add":
        return tl.atomic_add(pointer, value, mask=mask, sem=SEM, scope=SCOPE)
    elif KIND == "max":
        return tl.atomic_max(pointer, value, mask=mask, sem=SEM, scope=SCOPE)
    elif KIND == "min":
        return tl.atomic_min(pointer, value, mask=mask, sem=SEM, scope=SCOPE)
    elif KIND == "and":
        return tl.atomic_and(pointer, value, mask=mask, sem=SEM, scope=SCOPE)
    elif KIND == "or":
        return tl.atomic_or(pointer, value, mask=mask, sem=SEM, scope=SCOPE)
    elif KIND == "xor":
        return tl.atomic_xor(pointer, value, mask=mask, sem=SEM, scope=SCOPE)
    else:
        return tl.atomic_xchg(pointer, value, mask=mask, sem=SEM, scope=SCOPE)


@triton.jit
def scalars(x, out, old, KIND: tl.constexpr, SEM: tl.constexpr, SCOPE: tl.constexpr):
    pid = tl.program_id(0)
    tl.store(old + pid, rmw(out, tl.load(x + pid), None, KIND, SEM, SCOPE))


@triton.jit
def blocks(x, out, old, n, KIND: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n, other=0)
    previous = rmw(out + i, value, (i < n) & (i % 5 != 2), KIND, None, None)
    tl.store(old + i, previous, mask=(i < n) & (i % 5 != 2))


def values(count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return (torch.randint(-40, 40, (count,), generator=generator) / 4).to(dtype)
    bits = torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)
    return bits.view(dtype)[:: 8 // dtype.itemsize].contiguous()


def python(tensor: torch.Tensor) -> list[int | float]:
    return tensor.tolist()  # exact for every dtype, unsigned ones too


def combine(kind: str, old: int | float, new: int | float, dtype: torch.dtype) -> int | float:
    result = {
        "add": lambda: old + new, "max": lambda: max(old, new), "min": lambda: min(old, new), "xchg": lambda: new,
        "and": lambda: int(old) & int(new), "or": lambda: int(old) | int(new), "xor": lambda: int(old) ^ int(new),
    }[kind]()  # fmt: skip
    if dtype.is_floating_point:
        return torch.tensor(result, dtype=dtype).item()
    bits = 8 * dtype.itemsize
    result = int(result) % (1 << bits)
    return result - (1 << bits) if torch.iinfo(dtype).min < 0 and result >= 1 << (bits - 1) else result


CASES = [
    *((kind, dtype) for kind in ("add", "max", "min", "and", "or", "xor", "xchg") for dtype in INTEGERS),
    *((kind, dtype) for kind in ("add", "max", "min", "xchg") for dtype in FLOATS),
    *(("add", dtype) for dtype in HALVES),
]


@pytest.mark.parametrize("kind, dtype", CASES, ids=str)
def test_one_location_many_programs(kind: str, dtype: torch.dtype) -> None:
    x, start = values(50, dtype, 0), values(1, dtype, 1)
    out, old = start.clone(), torch.empty_like(x)
    scalars[(50,)](x, out, old, KIND=kind, SEM=None, SCOPE=None)
    if kind == "xchg":  # what was put in comes out once, in whatever order
        assert sorted(python(old) + python(out)) == sorted(python(x) + python(start))
        return
    total = start.item()
    for value in python(x):
        total = combine(kind, total, value, dtype)
    assert out.item() == total
    assert start.item() in python(old)


@pytest.mark.parametrize("kind, dtype", CASES, ids=str)
@pytest.mark.parametrize("n", [64, 41])
def test_blocks_return_old_values(kind: str, dtype: torch.dtype, n: int) -> None:
    x, start, unused = values(64, dtype, 2), values(64, dtype, 3), values(64, dtype, 4)
    out, old = start.clone(), unused.clone()
    blocks[(1,)](x, out, old, n, KIND=kind, BLOCK=64)
    for i, (a, b) in enumerate(zip(python(start), python(x), strict=True)):
        active = i < n and i % 5 != 2
        assert out[i].item() == (combine(kind, a, b, dtype) if active else a)
        assert old[i].item() == (a if active else unused[i].item())


@pytest.mark.parametrize("sem", ["acquire", "release", "acq_rel", "relaxed"])
@pytest.mark.parametrize("scope", ["gpu", "cta", "sys"])
def test_orderings_and_scopes(sem: str, scope: str) -> None:
    for dtype in (torch.int32, torch.float32):
        x, out, old = torch.arange(20).to(dtype), torch.zeros(1, dtype=dtype), torch.empty(20, dtype=dtype)
        scalars[(20,)](x, out, old, KIND="add", SEM=sem, SCOPE=scope)
        assert out.item() == 190


@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_extremes(kind: str, dtype: torch.dtype) -> None:
    special = torch.tensor([-torch.inf, torch.inf, -0.0, 0.0, 5e-324, 1e-45, -3.0, 2.5], dtype=dtype).tolist()
    for start in special:
        for value in special:
            x, out = torch.tensor([value], dtype=dtype), torch.tensor([start], dtype=dtype)
            old = torch.empty_like(x)
            scalars[(1,)](x, out, old, KIND=kind, SEM=None, SCOPE=None)
            assert old.item() == start
            assert out.item() == (max if kind == "max" else min)(start, value)


@triton.jit
def histogram(x, counts, sums, weights, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bucket = tl.load(x + i, mask=i < n, other=0)
    tl.atomic_add(counts + bucket, 1, mask=i < n)
    tl.atomic_add(sums + bucket, tl.load(weights + i, mask=i < n), mask=i < n, sem="relaxed")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64], ids=str)
def test_lanes_and_programs_meet_in_one_place(dtype: torch.dtype) -> None:
    n = 3000
    x, weights = torch.randint(0, 37, (n,)), torch.randint(0, 3, (n,)).to(dtype)
    counts, sums = torch.zeros(37, dtype=torch.int32), torch.zeros(37, dtype=dtype)
    histogram[(triton.cdiv(n, 128),)](x, counts, sums, weights, n, BLOCK=128)
    assert torch.equal(counts.long(), torch.bincount(x, minlength=37))
    expected = torch.bincount(x, weights.double(), minlength=37)  # sums below 256: exact in every dtype
    assert torch.equal(sums.double(), expected)


@triton.jit
def halves_meet(x, value, N: tl.constexpr):
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    tl.atomic_add(x + at // 2, tl.load(value + at))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("n", [2, 32])
def test_neighbouring_lanes_share_an_address(dtype: torch.dtype, n: int) -> None:
    value, x = torch.randn(n * n).to(dtype), torch.zeros(n * n // 2, dtype=dtype)
    halves_meet[(1,)](x, value, N=n)
    assert torch.equal(x, value[0::2] + value[1::2])


@triton.jit
def branch(x):
    pid = tl.program_id(0)
    if pid < 64:
        tl.atomic_max(x, pid)


def test_an_atomic_in_a_branch() -> None:
    x = torch.zeros(1, dtype=torch.int32)
    branch[(4096,)](x)
    assert x.item() == 63


@triton.jit
def cas_scalar(x, expected, new, old):
    tl.store(old, tl.atomic_cas(x, tl.load(expected), tl.load(new)))


@triton.jit
def cas_block(x, expected, new, old, SEM: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(old + i, tl.atomic_cas(x + i, tl.load(expected + i), tl.load(new + i), sem=SEM))


CAS_DTYPES = [*INTEGERS, *FLOATS, *HALVES, torch.int16, torch.uint16]


@pytest.mark.parametrize("dtype", CAS_DTYPES, ids=str)
@pytest.mark.parametrize("hit", [True, False])
def test_compare_and_swap_of_one(dtype: torch.dtype, hit: bool) -> None:
    x, new = torch.tensor([7]).to(dtype), torch.tensor([9]).to(dtype)
    old = torch.zeros_like(x)
    cas_scalar[(1,)](x, torch.tensor([7 if hit else 8]).to(dtype), new, old)
    assert (x.item(), old.item()) == (9 if hit else 7, 7)


@pytest.mark.parametrize("dtype", CAS_DTYPES, ids=str)
@pytest.mark.parametrize("sem", [None, "acquire", "release", "acq_rel", "relaxed"])
def test_compare_and_swap_of_blocks(dtype: torch.dtype, sem: str | None) -> None:
    start = torch.arange(64, dtype=torch.int32) % 3
    x, old = start.to(dtype).clone(), torch.zeros(64, dtype=dtype)
    expected, new = torch.ones(64).to(dtype), torch.arange(64).to(dtype)
    cas_block[(2,)](x, expected, new, old, SEM=sem, BLOCK=32)
    assert torch.equal(old, start.to(dtype))
    assert torch.equal(x, torch.where(start == 1, torch.arange(64), start).to(dtype))


@triton.jit
def bytes_refused(x):
    tl.atomic_add(x, 1)


def test_bytes_are_refused() -> None:
    with pytest.raises(triton.CompilationError):
        bytes_refused[(1,)](torch.zeros(1, dtype=torch.int8))


@triton.jit
def with_lock(data, lock, SEM: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    while tl.atomic_cas(lock, 0, 1, sem=SEM) == 1:
        pass
    x = tl.load(data + i)
    tl.store(data + i, x * 3 - 2 * x + 1)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


@pytest.mark.parametrize("sem", [None, "acquire", "acq_rel"])
def test_a_spin_lock_guards_plain_memory(sem: str | None) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        data, lock = torch.zeros(128), torch.zeros(1, dtype=torch.int32)
        with_lock[(2000,)](data, lock, SEM=sem, BLOCK=128)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(data, torch.full((128,), 2000.0))
    assert lock.item() == 0


@triton.jit
def last_block_sums(x, partial, counter, out, n, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr):
    pid = tl.program_id(0)
    i = pid * BLOCK + tl.arange(0, BLOCK)
    tl.store(partial + pid, tl.sum(tl.load(x + i, mask=i < n, other=0)))
    done = tl.atomic_add(counter, 1, sem="acq_rel")
    if done == tl.num_programs(0) - 1:
        p = tl.arange(0, PROGRAMS)
        tl.store(out, tl.sum(tl.load(partial + p, mask=p < tl.num_programs(0), other=0)))


def test_the_last_program_sees_the_others() -> None:
    x = torch.randint(-100, 100, (5000,))
    out = torch.zeros(1, dtype=torch.int64)
    for _ in range(20):
        partial, counter = torch.full((64,), 10**9), torch.zeros(1, dtype=torch.int32)
        last_block_sums[(40,)](x, partial, counter, out, 5000, BLOCK=128, PROGRAMS=64)
        assert out.item() == x.sum().item()


@triton.jit
def handed_on(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    before = tl.load(x + i)
    tl.atomic_add(x + i, 5)
    tl.store(out + i, before * 100 + tl.load(x + i))


def test_loads_before_and_after_an_atomic() -> None:
    x, out = torch.arange(32, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    handed_on[(1,)](x, out, BLOCK=32)
    i = torch.arange(32, dtype=torch.int32)
    assert torch.equal(out, i * 100 + i + 5)
