"""Functions mapped over elements, logical operators, and operations written as methods."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from kernel_text import evaluate


@triton.jit
def compare(a, b):
    if a < b:
        return -1
    elif a > b:
        return 1
    return 0


@triton.jit
def collatz(n):
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@triton.jit
def sum_and_difference(a, b):
    return a + b, a - b


def test_map_elementwise() -> None:
    """Control flow that differs from lane to lane; several results; two elements at a time; 2-D blocks."""
    x, y = (torch.randint(-5, 5, (8, 16), dtype=torch.int32) for _ in range(2))
    n = torch.arange(1, 129, dtype=torch.int32).reshape(8, 16)
    int32 = ((8, 16), torch.int32)
    got = evaluate(
        """
        a = tl.map_elementwise(compare, x, y)
        b, c = tl.map_elementwise(sum_and_difference, x, y)
        d, = tl.map_elementwise(sum_and_difference, x, pack=2)
        e = tl.map_elementwise(collatz, n)
        """,
        {"x": x, "y": y, "n": n}, dict.fromkeys("abcde", int32),
        compare=compare, sum_and_difference=sum_and_difference, collatz=collatz,
    )  # fmt: skip

    def steps(v: int) -> int:
        count = 0
        while v > 1:
            v, count = (v // 2 if v % 2 == 0 else 3 * v + 1), count + 1
        return count

    pairs = x.reshape(-1, 2)
    packed = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(8, 16)
    lengths = torch.tensor([steps(v) for v in n.flatten().tolist()], dtype=torch.int32).reshape(8, 16)
    for one, wanted in zip(got, [torch.sign(x - y), x + y, x - y, packed, lengths], strict=True):
        assert torch.equal(one, wanted)


def test_logical_operators() -> None:
    x, y = (torch.randint(-2, 3, (64,), dtype=torch.int32) for _ in range(2))
    boolean = ((64,), torch.bool)
    got = evaluate(
        """
        p = x > 0
        q = y > 0
        a = p & q
        b = p | q
        c = p ^ q
        d = not p
        e = p.logical_and(q)
        f = p.logical_or(q)
        g = p + q
        h = p * y
        """,
        {"x": x, "y": y}, {**dict.fromkeys("abcdefg", boolean), "h": ((64,), torch.int32)},
    )  # fmt: skip
    p, q = x > 0, y > 0
    for one, wanted in zip(got, [p & q, p | q, p ^ q, ~p, p & q, p | q, p ^ q, p * y], strict=True):
        assert torch.equal(one, wanted)


def test_methods() -> None:
    x = torch.randint(-99, 99, (8, 16), dtype=torch.int32)
    whole, row = ((8, 16), torch.int32), ((8,), torch.int32)
    got = evaluate(
        """
        a = x.sum(1)
        b = x.max(1)
        c = x.argmin(1)
        d = x.cumsum(1)
        e = x.trans().reshape(8, 16)
        f = x.ravel()
        g = x.abs().cdiv(3)
        h = x.flip(0).to(tl.int64)
        i = x.expand_dims(0).broadcast_to(2, 8, 16)
        """,
        {"x": x},
        {"a": row, "b": row, "c": row, "d": whole, "e": whole, "f": ((128,), torch.int32), "g": whole,
         "h": ((8, 16), torch.int64), "i": ((2, 8, 16), torch.int32)},
    )  # fmt: skip
    wanted = [x.sum(1).int(), x.amax(1), x.argmin(1).int(), x.cumsum(1).int(), x.t().reshape(8, 16), x.flatten(),
              -(-x.abs() // 3), x.flip(0).long(), x.expand(2, 8, 16)]  # fmt: skip
    assert torch.equal(x.gather(1, got[2].long()[:, None])[:, 0], x.amin(1))
    for i, (one, expected) in enumerate(zip(got, wanted, strict=True)):
        assert i == 2 or torch.equal(one, expected)


@triton.jit
def narrow_ranges(sums, remainders, products, hashes, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums + i, (i.to(tl.uint8) + tl.full([1], 250, tl.uint8)).to(tl.int64), mask=i < n)
    tl.store(remainders + i, i.to(tl.int8) % 16, mask=i < n)
    tl.store(products + i, (i.to(tl.int8) * tl.full([1], 100, tl.int8)).to(tl.int64), mask=i < n)
    tl.store(hashes + i, (i * -1640531535).to(tl.int64), mask=i < n)


@pytest.mark.parametrize("block", [16, 512])
def test_narrow_integers_wrap_between_neighbours(block: int) -> None:
    """A range of bytes that wraps inside a vector is no range once it is widened."""
    n = 300
    got = [torch.zeros(n, dtype=torch.int64) for _ in range(4)]
    narrow_ranges[(triton.cdiv(n, block),)](*got, n, BLOCK=block)
    i = torch.arange(n)
    wanted = [
        (i.to(torch.uint8) + 250).long(),
        torch.fmod(i.to(torch.int8), 16).long(),
        (i.to(torch.int8) * 100).long(),
        (i.int() * -1640531535).long(),
    ]
    for one, want in zip(got, wanted, strict=True):
        assert torch.equal(one, want)
