"""Which products torchport's kernels compute faster than aten, by shapes, types and the CPU's vectors alone.

Measured by tools/bench_products.py; the table is in docs/performance.md. float32 with a row or two stays with aten: it
reads the weights as fast as memory gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Choice", "choose", "next_power"]

MOST_ROWS = 16
"""Of a product that a block of weights in registers pays for."""

_NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Choice:
    """A kernel of ``templates`` and its block: ``columns`` of the result, ``terms`` of a step of its loop.

    ``least_rows``: of a block of the result.
    """

    kernel: str
    columns: int
    terms: int
    least_rows: int = 1


_DOT = Choice("DOT", 32, 64, 4)
_SUMS = {4: 8, 8: 8, 16: 16}
"""Vectors of sums in registers, by lanes: half of the registers, or fewer."""
_LARGE = 600_000
"""Weights of float32 that caches do not hold from one product to the next."""


def choose(m: int, n: int, k: int, strides: tuple[int, int], dtype: torch.dtype, lanes: int) -> Choice | None:
    """The kernel for [m, k] x [k, n] of ``dtype``, where the second operand has ``strides``; None for aten's product.

    ``lanes``: float32 elements of a vector register.
    """
    if not 0 < m <= MOST_ROWS or k < lanes or n < lanes:
        return None
    if dtype == torch.float32:
        return _wide(m, n, k, lanes) if strides[0] == 1 else None
    if dtype not in _NARROW:
        return None
    if strides[0] == 1:
        if m > 4:
            return _DOT if k >= _DOT.terms else None
        return Choice("ROWS", _SUMS[lanes] // next_power(m), lanes)
    if strides[1] == 1:
        return Choice("COLUMNS", max(lanes, 16 * lanes // next_power(m)), 1)
    return None


def _wide(m: int, n: int, k: int, lanes: int) -> Choice | None:
    """Of float32: where weights come from memory, and the library's kernels do not wait for it alone."""
    if lanes < 16 or m < 4 or n * k < _LARGE:
        return None
    return _DOT if m > 8 else Choice("ROWS", _SUMS[lanes] // next_power(m), lanes)


def next_power(number: int) -> int:
    """The least power of two that is not less than ``number``."""
    return 1 << (number - 1).bit_length()
