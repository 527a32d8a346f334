"""Aggregates: classes of Triton values. (Their fields' types are read at run time: no postponed annotations here.)"""

import pytest
import torch
import triton
import triton.language as tl


@tl.core._aggregate
class Span:
    start: tl.tensor
    width: tl.constexpr

    @triton.constexpr_function
    def __init__(self, start, width):  # type: ignore[no-untyped-def]
        self.start = start
        self.width = tl.constexpr(width)

    @triton.jit
    def indices(self):  # type: ignore[no-untyped-def]
        return self.start + tl.arange(0, self.width)

    @triton.jit
    def moved(self, by):  # type: ignore[no-untyped-def]
        return Span(self.start + by, self.width)


@triton.jit
def widest(a, b):  # type: ignore[no-untyped-def]
    if a.width > b.width:
        return a
    else:
        return b


@triton.jit
def sum_spans(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    first = Span(tl.full((), 0, tl.int32), tl.constexpr(BLOCK))
    span = widest(first, Span(tl.full((), 3, tl.int32), tl.constexpr(2)))
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(n):
        total += tl.load(x + span.indices())
        if k % 2 == 0:
            span = span.moved(BLOCK)
        else:
            span = span.moved(2 * BLOCK)
    tl.store(out + tl.arange(0, BLOCK), total)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_aggregates_cross_loops_branches_and_calls(n: int) -> None:
    x, out = torch.randint(0, 99, (8, 16)).float(), torch.empty(16)
    sum_spans[(1,)](x, out, n, BLOCK=16)
    assert torch.equal(out, x[[0, 1, 3, 4][:n]].sum(0))
