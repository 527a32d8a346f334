"""How a matrix product of batches is launched, whichever kernel computes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["MATRICES", "STRIDES", "TERMS", "block_rows", "grid", "strides"]

TERMS = 32
"""Terms that are added up before they join the sum of all, where no library computes the product."""

MATRICES = ("a", "b", "bias", "out")
STRIDES = tuple(f"{matrix}_{axis}" for matrix in MATRICES for axis in ("batch", "row", "column"))
"""The kernels' arguments for ``strides`` of MATRICES, in order."""


def strides(matrices: Sequence[torch.Tensor | None]) -> list[int]:
    """Strides of batch, row and column of each matrix; zeros for one that is missing."""
    return [stride for matrix in matrices for stride in _strides(matrix)]


def _strides(matrix: torch.Tensor | None) -> tuple[int, ...]:
    if matrix is None:
        return (0, 0, 0)
    return matrix.stride() if matrix.dim() == 3 else (0, *matrix.stride())


def block_rows(sizes: Sequence[int], rows: int) -> int:
    """The smallest of ``sizes`` that holds all rows of a result, or else the largest."""
    return next((size for size in sizes if size >= rows), sizes[-1])


def grid(shape: Sequence[int], rows: int, columns: int) -> tuple[int, int, int]:
    """The grid of a result in blocks of ``rows`` by ``columns``: columns, rows, batches."""
    return -(-shape[-1] // columns), -(-shape[-2] // rows), shape[0] if len(shape) == 3 else 1
