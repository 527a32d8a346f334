"""Layouts and block sizes that kernels of the operator library share."""

from __future__ import annotations

import math

import torch

__all__ = ["MAX_BLOCK", "block_for", "empty_like", "parts_of", "row_block", "rows_of"]

MAX_BLOCK = 4096
"""Elements of the largest block: what a program instance holds on every target; longer rows take several."""

_CPU_BLOCK = 256
_PARTS = 64


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """``x`` as a matrix of its rows along the last dimension, each contiguous; copied only where no view has them so.

    Rows may lie anywhere, also all at one address (an expanded tensor).
    """
    if x.dim() == 2 and x.stride(1) == 1:
        return x
    count = math.prod(x.shape[:-1])
    matrix = x.reshape(count, x.shape[-1])
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def empty_like(x: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor of ``x``'s shape, dtype and device."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def block_for(length: int, most: int = MAX_BLOCK) -> int:
    """The smallest power of two that holds ``length`` elements, at most ``most``."""
    block = 16
    while block < length and block < most:
        block *= 2
    return block


def row_block(x: torch.Tensor) -> int:
    """The block in which kernels go along the rows of ``x``: on a CPU what its vector registers hold, sums included."""
    return block_for(x.shape[-1], _CPU_BLOCK if x.device.type == "cpu" else MAX_BLOCK)


def parts_of(count: int) -> tuple[int, int]:
    """Divide ``count`` rows, whose results are added up, into parts: how many, and how many rows each has.

    The same on every machine, so that sums are, too.
    """
    each = -(-count // _PARTS) if count > _PARTS else 1
    return -(-count // each), each
