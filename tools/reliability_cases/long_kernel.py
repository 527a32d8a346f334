"""A Triton kernel that takes as long as it is told."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["count"]


@triton.jit
def count(out, steps):
    """Each program instance counts to ``steps``, a nanosecond each or so."""
    total = 0.0
    for _ in range(steps):
        total += 1.0
    tl.store(out + tl.program_id(0), total)
