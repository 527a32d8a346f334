"""Expressions of many operations, as unrolled loops make them: the passes must not recurse along them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

STEPS = 500


@triton.jit
def iterate(x_ptr, y_ptr, n, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    mask = index < n
    x = tl.load(x_ptr + index, mask=mask, other=1)
    for _ in tl.static_range(STEPS):
        x = x * 1664525 + 1013904223
        x = x ^ (x >> 7)
    total = tl.sum(x, axis=0)
    y = x + total
    for _ in tl.static_range(STEPS):
        y = y * 22695477 + total
    tl.store(y_ptr + index, y, mask=mask)


@triton.jit
def walk(steps_ptr, out_ptr, STEPS: tl.constexpr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    for _ in tl.static_range(STEPS):
        at = (at * 5 + 3) % SIZE
        at = tl.load(steps_ptr + at)
    tl.store(out_ptr + tl.arange(0, SIZE), at)


def test_arithmetic_before_and_after_a_reduction() -> None:
    n, block = 50, 64
    x = torch.randint(-(2**31), 2**31, (n,), dtype=torch.int32)
    y = torch.empty_like(x)
    iterate[(1,)](x, y, n, STEPS=STEPS, BLOCK=block)
    modulus = 2**32  # products of 32-bit numbers: Python's integers hold them

    def signed(value: int) -> int:
        return (value + 2**31) % modulus - 2**31

    values = [*x.tolist(), *[1] * (block - n)]
    for _ in range(STEPS):
        values = [signed(v * 1664525 + 1013904223) for v in values]
        values = [v ^ (v >> 7) for v in values]
    total = signed(sum(values))
    values = [signed(v + total) for v in values]
    for _ in range(STEPS):
        values = [signed(v * 22695477 + total) for v in values]
    assert y.tolist() == values[:n]


def test_addresses_that_were_loaded() -> None:
    size, steps = 64, 150
    table = torch.randperm(size, dtype=torch.int32)
    out = torch.empty_like(table)
    walk[(1,)](table, out, STEPS=steps, SIZE=size)
    at = torch.arange(size)
    for _ in range(steps):
        at = table[(at * 5 + 3) % size].long()
    assert torch.equal(out.long(), at)
