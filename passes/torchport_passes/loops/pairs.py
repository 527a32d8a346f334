"""Emits what products of pairs of bf16 or i16 need: their sums, and rows of elements interleaved to rows of pairs.

A pair is a 32-bit word: the lower half is the element with the even number along k, the upper half the one after it.
"""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import arith, llvm, vector

from torchport_passes.ir.build import gep, integer_type, load_pointer, plain_load
from torchport_passes.ir.types import Value
from torchport_passes.loops.loop_builder import add, constant, end, loop, times

__all__ = ["add_pairs", "interleave_buffer", "interleave_rows"]

_ELEMENT, _PAIR = 2, 4  # bytes
_MULTIPLY_ADD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
"""By words of a vector."""


def add_pairs(a: Value, b: Value, c: Value) -> Value:
    """``c`` plus both products of each pair of ``a`` and ``b``, vectors of as many words.

    Pairs are of bf16 where ``c`` is of f32 (``lower-pairs``), and of i16 where it is of i32: x86's ``vpmaddwd``, which
    LLVM makes one ``vpdpwssd`` with the addition, where the CPU has it.
    """
    if isinstance(c.type.element_type, ir.IntegerType):
        halves = ir.VectorType.get([2 * c.type.shape[0]], integer_type(16))
        operands = [llvm.BitcastOp(halves, value).result for value in (a, b)]
        intrinsic = ir.StringAttr.get(_MULTIPLY_ADD[c.type.shape[0]])
        products = llvm.CallIntrinsicOp(c.type, intrinsic, operands, [], []).operation.results[0]
        return arith.AddIOp(c, products).result
    return ir.Operation.create("tp.add_pairs", [c.type], [a, b, c]).results[0]


def interleave_buffer(source: Value, target: Value, rows: int, columns: int, lanes: int) -> None:
    """``target[r, c]`` is the pair ``source[2 * r, c], source[2 * r + 1, c]``: (rows, columns) to (rows / 2, columns).

    ``source``: of elements of 16 bits, row-major. ``lanes``: words of a vector register.
    """
    _interleave(lambda row: gep(source, times(row, columns), _ELEMENT), target, rows, columns, lanes)


def interleave_rows(pointers: Value, target: Value, rows: int, columns: int, lanes: int) -> None:
    """As ``interleave_buffer``, of rows that ``pointers``, a buffer of addresses, points to."""
    _interleave(lambda row: load_pointer(pointers, row), target, rows, columns, lanes)


def _interleave(row_at: Callable[[Value], Value], target: Value, rows: int, columns: int, lanes: int) -> None:
    wide = min(lanes, columns)
    element = integer_type(8 * _ELEMENT)
    halves = ir.VectorType.get([wide], element)
    down = loop(rows // 2)
    with ir.InsertionPoint(down.body):
        pair = down.induction_variable
        first = times(pair, 2)
        starts = [row_at(first), row_at(add(first, constant(1)))]
        across = loop(columns, wide)
        with ir.InsertionPoint(across.body):
            column = across.induction_variable
            even, odd = (plain_load(halves, gep(start, column, _ELEMENT), _ELEMENT) for start in starts)
            mixed = [half for i in range(wide) for half in (i, wide + i)]
            there = gep(target, add(times(pair, columns), column), _PAIR)
            llvm.StoreOp(vector.ShuffleOp(even, odd, mixed).result, there, alignment=_PAIR)
            end()
        end()
