"""The machine's own limits, measured beside each kernel: copying as many bytes, and multiply-adds in registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from kernel_bench.case import Launch

CHAINS, STEPS, LANES, PROGRAMS = 12, 32, 1024, 64
FMA_OPERATIONS = 2 * CHAINS * STEPS * LANES * PROGRAMS


def copy_of(moved: int) -> Callable[[], Any]:
    """A copy that reads and writes `moved` bytes in all, by torch on all its threads."""
    source = torch.ones(max(1, moved // 8))
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


@triton.jit
def fma_kernel(out, a, STEPS: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Twelve sums in registers, enough to hide 4 cycles of two units. Each takes in its neighbour: LLVM's scheduler
    puts sums that do not meet one after the other, and each then waits for itself."""
    x0 = tl.arange(0, LANES).to(tl.float32)
    x1, x2, x3, x4, x5 = x0 + 1, x0 + 2, x0 + 3, x0 + 4, x0 + 5
    x6, x7, x8, x9, x10, x11 = x0 + 6, x0 + 7, x0 + 8, x0 + 9, x0 + 10, x0 + 11
    for _ in tl.static_range(STEPS):
        x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = (
            tl.fma(x0, a, x1), tl.fma(x1, a, x2), tl.fma(x2, a, x3), tl.fma(x3, a, x4), tl.fma(x4, a, x5),
            tl.fma(x5, a, x6), tl.fma(x6, a, x7), tl.fma(x7, a, x8), tl.fma(x8, a, x9), tl.fma(x9, a, x10),
            tl.fma(x10, a, x11), tl.fma(x11, a, x0),
        )  # fmt: skip
    total = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10 + x11
    tl.store(out + tl.program_id(0) * LANES + tl.arange(0, LANES), total)


def fma_peak() -> Launch:
    """A launch of FMA_OPERATIONS float32 operations that stay in registers.

    Raises ValueError where the result is wrong, so that nothing can have been left out.
    """
    out, a = torch.empty(PROGRAMS, LANES), 1 / 64
    launch = Launch(fma_kernel, (PROGRAMS,), out, a, STEPS=STEPS, LANES=LANES)
    first = torch.arange(LANES).double()[:, None] + torch.arange(CHAINS)
    right = first.sum(1) * (1 + a) ** STEPS  # each step multiplies the sum of all by 1 + a
    if not torch.allclose(out.double(), right.expand(PROGRAMS, LANES), rtol=1e-5):
        raise ValueError("the multiply-add kernel computed something else")
    return launch
