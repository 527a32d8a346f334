"""Pointers that a kernel chooses between several arguments, exported as linalg and compared with the CPU target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

import torchport
from torchport.errors import TorchportError


@triton.jit
def by_scalar(x, y, z, which, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    source = x + 3 if which > 0 else y
    tl.store(z + i, tl.load(source + i))


@triton.jit
def by_one_of_three(x, y, z, which, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    source = x
    if which == 1:
        source = y + 1
    elif which > 1:
        source = z + 2
    tl.store(z + i, tl.load(source + i) + 1)


@triton.jit
def by_lane(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    source = tl.where(i % 3 == 0, x + i, y + 2 * i)
    tl.store(z + i, tl.load(source, mask=i < n, other=-1.0))


@triton.jit
def by_lane_between_three(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    source = tl.where(i < 4, x + i, tl.where(i < 9, y + i, z + i)) + 1
    tl.store(z + i, tl.load(source, mask=i < n, other=-1.0))


@triton.jit
def by_row(x, y, z, n, BLOCK: tl.constexpr):
    i, j = tl.arange(0, 4), tl.arange(0, BLOCK)
    rows = tl.where(i % 2 == 0, x + i * n, y + i * n)
    held = tl.load(rows[:, None] + j[None, :], mask=j[None, :] < n)
    tl.store(z + i[:, None] * n + j[None, :], held, mask=j[None, :] < n)


@triton.jit
def stores(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(tl.where(i % 2 == 0, y + i, z + i), tl.load(x + i, mask=i < n), mask=i < n)


@triton.jit
def adds(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    old = tl.atomic_add(tl.where(i % 2 == 0, y + i // 4, z + i), tl.load(x + i, mask=i < n), mask=i < n)
    tl.store(x + i, old, mask=i < n)


@triton.jit
def turns(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a, b = x + i, y + i
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(n):
        total += tl.load(a) * (step + 1)
        a, b = b + 1, a
    tl.store(z + i, total)


@triton.jit
def turns_while(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a, b = x, y
    total = tl.zeros((BLOCK,), tl.float32)
    step = 0
    while step < n:
        total += tl.load(a + i) * (step + 1)
        a, b = b + 1, a
        step += 1
    tl.store(z + i, total)
    tl.store(a + i, total)


@triton.jit
def compares(x, y, z, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.atomic_cas(tl.where(i % 2 == 0, x + i, y + i), tl.load(z + i), tl.load(z + i))


def run(kernel: Any, number: int, target: str) -> list[torch.Tensor]:
    tensors = [torch.arange(64.0) + 100 * k for k in range(3)]
    with torchport.use(target):
        kernel[(1,)](*tensors, number, BLOCK=16)
    return tensors


LANES = (by_lane, by_lane_between_three, by_row, stores, adds)
SCALARS = (by_scalar, by_one_of_three, turns, turns_while)


SLOW = (by_lane_between_three, adds, by_scalar, turns)  # the others have most of their points
CASES = [
    *((kernel, "linalg") for kernel in (*LANES, *SCALARS)),
    (by_one_of_three, "linalg:shared"),
    (turns_while, "linalg:shared"),
]


@pytest.mark.parametrize(
    "kernel, target",
    [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in SLOW else []) for case in CASES],
    ids=[f"{kernel.__name__}-{target}" for kernel, target in CASES],
)
def test_it_equals_the_cpu(kernel: Any, target: str) -> None:
    for number in (0, 1, 2, 13) if kernel in LANES else (0, 1, 2, 3):
        for mine, other in zip(run(kernel, number, target), run(kernel, number, "cpu"), strict=True):
            assert torch.equal(mine, other), number


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TorchportError, match=r"atomic_cas.* its lanes choose between pointers to different arguments"):
        run(compares, 1, "linalg")
