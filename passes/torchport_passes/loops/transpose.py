"""Emits the transpose of a matrix from buffer to buffer, a square of vector registers at a time."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import llvm

from torchport_passes.ir.build import byte_width, gep, integer_type, plain_load, storage_type
from torchport_passes.ir.shuffles import transposed
from torchport_passes.ir.types import Type, Value
from torchport_passes.loops.loop_builder import add, constant, end, loop, times

__all__ = ["transpose_buffer", "transpose_rows"]

_LARGEST = 16  # rows of a square: 64 shuffles


def transpose_buffer(source: Value, target: Value, rows: int, columns: int, element: Type, lanes: int) -> None:
    """``target[c, r] = source[r, c]``: (rows, columns) to (columns, rows), both powers of two and row-major.

    ``lanes``: elements of a vector register.
    """
    bytes_ = byte_width(storage_type(element))

    def row_at(row: Value, i: int) -> Value:
        return gep(gep(source, times(row, columns), bytes_), constant(i * columns), bytes_)

    _transpose(row_at, target, rows, columns, element, lanes)


def transpose_rows(pointers: Value, target: Value, rows: int, columns: int, element: Type, lanes: int) -> None:
    """As ``transpose_buffer``, of rows that ``pointers``, a buffer of addresses, points to."""

    def row_at(row: Value, i: int) -> Value:
        address = plain_load(integer_type(64), gep(pointers, add(row, constant(i)), 8), 8)
        return llvm.IntToPtrOp(ir.Type.parse("!llvm.ptr"), address).result

    _transpose(row_at, target, rows, columns, element, lanes)


def _transpose(
    row_at: Callable[[Value, int], Value], target: Value, rows: int, columns: int, element: Type, lanes: int
) -> None:
    """``row_at(row, i)``: the address of row ``row + i`` of the source."""
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    side = min(lanes, rows, columns, _LARGEST)
    type_ = ir.VectorType.get([side], storage)
    down = loop(rows, side)
    with ir.InsertionPoint(down.body):
        row = down.induction_variable
        starts = [row_at(row, i) for i in range(side)]
        across = loop(columns, side)
        with ir.InsertionPoint(across.body):
            column = across.induction_variable
            there = gep(target, add(times(column, rows), row), bytes_)
            square = [plain_load(type_, gep(start, column, bytes_), bytes_) for start in starts]
            for i, turned in enumerate(transposed(square)):
                llvm.StoreOp(turned, gep(there, constant(i * rows), bytes_), alignment=bytes_)
            end()
        end()
