"""Blocks of one element where a kernel needs a scalar (conditions, ``item()``); what a kernel says about its loops."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

# `if block:` is allowed for a block of one element; Triton asks to write `.item()`.
pytestmark = pytest.mark.filterwarnings("ignore:If conditional called with multidimensional Tensor")


@triton.jit
def clamp_one(X, limit, ITEM: tl.constexpr):
    above = tl.load(X + tl.arange(0, 1)) > limit
    if ITEM:
        above = above.item()
    if above:
        tl.store(X, limit)


@pytest.mark.parametrize("item", [False, True])
@pytest.mark.parametrize("value, left", [(41, 41), (42, 42), (43, 42), (-(2**31), -(2**31))])
def test_condition_of_one_element(value: int, left: int, item: bool) -> None:
    x = torch.tensor([value, 7], dtype=torch.int32)
    clamp_one[(1,)](x, 42, item)
    assert x.tolist() == [left, 7]


@triton.jit
def halve(X, STEPS):
    x = tl.load(X + tl.arange(0, 1))
    steps = 0
    while (x > 1).item():
        x = x // 2
        steps += 1
    tl.store(STEPS, steps)
    tl.store(X + tl.arange(0, 1), x)


@pytest.mark.parametrize("value", [0, 1, 2, 1000])
def test_loop_until_one_element_is_small(value: int) -> None:
    x, steps = torch.tensor([value]), torch.zeros(1, dtype=torch.int32)
    halve[(1,)](x, steps)
    assert steps.item() == max(value.bit_length() - 1, 0)
    assert x.item() == min(value, 1)


@triton.jit
def total_of_row(X, OUT, n, N: tl.constexpr):
    lane = tl.arange(0, N)[None, :]
    total = tl.sum(tl.load(X + lane, lane < n, other=0.0), axis=1)
    tl.store(OUT + tl.arange(0, N), tl.full((N,), 1, tl.float32) * total.item())


def test_element_of_a_reduction_is_a_scalar() -> None:
    x, out = torch.arange(1.0, 12.0), torch.zeros(16)
    total_of_row[(1,)](x, out, 11, 16)
    assert (out == 66.0).all()


@triton.jit
def hinted_loops(X, n):
    for i in tl.range(0, n, disable_licm=True):
        tl.store(X + i, i * n)
    i = n
    while tl.condition(i < 2 * n, disable_licm=True):
        tl.store(X + i, i + n)
        i += 1


def test_loop_hints_change_no_value() -> None:
    x = torch.zeros(20, dtype=torch.int32)
    hinted_loops[(1,)](x, 10)
    assert x.tolist() == [i * 10 for i in range(10)] + [i + 10 for i in range(10, 20)]
