"""Emits the transpose of a matrix from buffer to buffer, a square of vector registers at a time."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import llvm

from torchport_passes.ir.build import byte_width, gep, plain_load, storage_type
from torchport_passes.ir.shuffles import transposed
from torchport_passes.ir.types import Type, Value
from torchport_passes.loops.loop_builder import add, constant, end, loop, times

__all__ = ["transpose_buffer"]

_LARGEST = 16  # rows of a square: 64 shuffles


def transpose_buffer(source: Value, target: Value, rows: int, columns: int, element: Type, lanes: int) -> None:
    """``target[c, r] = source[r, c]``: (rows, columns) to (columns, rows), both powers of two and row-major.

    ``lanes``: elements of a vector register.
    """
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    side = min(lanes, rows, columns, _LARGEST)
    type_ = ir.VectorType.get([side], storage)
    down = loop(rows, side)
    with ir.InsertionPoint(down.body):
        across = loop(columns, side)
        with ir.InsertionPoint(across.body):
            row, column = down.induction_variable, across.induction_variable
            here = gep(source, add(times(row, columns), column), bytes_)
            there = gep(target, add(times(column, rows), row), bytes_)
            square = [plain_load(type_, gep(here, constant(i * columns), bytes_), bytes_) for i in range(side)]
            for i, turned in enumerate(transposed(square)):
                llvm.StoreOp(turned, gep(there, constant(i * rows), bytes_), alignment=bytes_)
            end()
        end()
