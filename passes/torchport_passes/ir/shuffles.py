"""Moves elements between vector registers."""

from __future__ import annotations

from mlir.dialects import vector

from torchport_passes.ir.types import Value

__all__ = ["transposed"]


def transposed(rows: list[Value], blocks: int = 0) -> list[Value]:
    """Transpose n vectors of n lanes, n a power of two, by swapping one bit of row and lane at a time.

    With ``blocks``, a power of two, only within squares of that size: where blocks have changed places already.
    """
    size, bit = len(rows), 1
    while bit < (blocks or size):
        low = [i if not i & bit else size + (i ^ bit) for i in range(size)]  # of the pair's first, then second vector
        high = [i | bit if not i & bit else size + i for i in range(size)]
        new = list(rows)
        for i in range(size):
            if not i & bit:
                pair = rows[i], rows[i | bit]
                new[i] = vector.ShuffleOp(*pair, low).result
                new[i | bit] = vector.ShuffleOp(*pair, high).result
        rows, bit = new, 2 * bit
    return rows
