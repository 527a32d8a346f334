"""Emits the transpose of a matrix from buffer to buffer, a square of vector registers at a time."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import llvm, vector

from torchport_passes.ir.build import byte_width, gep, load_pointer, plain_load, storage_type
from torchport_passes.ir.shuffles import transposed
from torchport_passes.ir.types import Type, Value
from torchport_passes.loops.loop_builder import add, constant, end, loop, times

__all__ = ["transpose_buffer", "transpose_rows"]

_PART = 16  # bytes that a load puts anywhere in a vector, in the unit of loads
_LARGEST = 16  # rows of a square: 64 shuffles


def transpose_buffer(source: Value, target: Value, rows: int, columns: int, element: Type, lanes: int) -> None:
    """``target[c, r] = source[r, c]``: (rows, columns) to (columns, rows), row-major.

    ``lanes``: elements of a vector register. ``rows`` and ``columns`` are powers of two, or multiples of one.
    """
    bytes_ = byte_width(storage_type(element))

    def row_at(row: Value, i: int) -> Value:
        return gep(gep(source, times(row, columns), bytes_), constant(i * columns), bytes_)

    _transpose(row_at, target, rows, columns, element, lanes)


def transpose_rows(pointers: Value, target: Value, rows: int, columns: int, element: Type, lanes: int) -> None:
    """As ``transpose_buffer``, of rows that ``pointers``, a buffer of addresses, points to."""

    def row_at(row: Value, i: int) -> Value:
        return load_pointer(pointers, add(row, constant(i)))

    _transpose(row_at, target, rows, columns, element, lanes)


def _transpose(
    row_at: Callable[[Value, int], Value], target: Value, rows: int, columns: int, element: Type, lanes: int
) -> None:
    """``row_at(row, i)``: the address of row ``row + i`` of the source."""
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    side = min(lanes, rows, columns, _LARGEST)
    down = loop(rows, side)
    with ir.InsertionPoint(down.body):
        row = down.induction_variable
        starts = [row_at(row, i) for i in range(side)]
        across = loop(columns, side)
        with ir.InsertionPoint(across.body):
            column = across.induction_variable
            there = gep(target, add(times(column, rows), row), bytes_)
            rows_of = [gep(start, column, bytes_) for start in starts]
            square, part = _in_parts(rows_of, storage, side, bytes_)
            for i, turned in enumerate(transposed(square, part)):
                llvm.StoreOp(turned, gep(there, constant(i * rows), bytes_), alignment=bytes_)
            end()
        end()


def _in_parts(starts: list[Value], storage: Type, side: int, bytes_: int) -> tuple[list[Value], int]:
    """Vectors of a square whose parts, smaller squares, have changed places, and the rows of a part.

    A load puts a part anywhere in a vector, where the units that shuffle would be waited for.
    """
    part = min(side, max(1, _PART // bytes_))
    narrow = ir.VectorType.get([part], storage)
    square = []
    for across in range(side // part):
        for row in range(part):
            places = [gep(starts[down * part + row], constant(across * part), bytes_) for down in range(side // part)]
            square.append(_joined([plain_load(narrow, place, bytes_) for place in places]))
    return square, part


def _joined(parts: list[Value]) -> Value:
    """One vector of a power of two of them."""
    while len(parts) > 1:
        length = 2 * parts[0].type.shape[0]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [vector.ShuffleOp(*pair, list(range(length))).result for pair in pairs]
    return parts[0]
