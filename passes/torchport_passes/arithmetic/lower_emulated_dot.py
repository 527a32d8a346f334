"""Lowers dots with a matrix unit's arithmetic to loops over vectors of f64."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, llvm, vector

from torchport_passes.arithmetic.dot_mark import DotMark
from torchport_passes.arithmetic.dot_step import Rows, Step
from torchport_passes.arithmetic.formats import exponent, rounded
from torchport_passes.ir.build import byte_width, gep, plain_load
from torchport_passes.ir.ops import function_of, matching
from torchport_passes.ir.program_memory import create_buffer
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.loops.loop_builder import add, constant, end, loop, loop_from, times
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["LowerEmulatedDot"]

_NAN = 0x7FFFFFFFE0000000  # of f64: in narrower types, too, all bits but the sign are set
_ROWS = 4  # of a tile: sums, largest exponents and scales of its rows stay in registers


@dataclass(frozen=True)
class LowerEmulatedDot:
    """Emit each ``tp.dot`` that has the attribute ``emulate`` as loops that add up by its rule.

    Takes the dots that ``emulate-dot`` marked, as ``buffers`` left them: ``tp.dot a, b, c`` of buffers of f32, in the
    layouts that ``lower-dot`` describes. Products of f32 numbers are exact in f64, and so are their sums once they are
    truncated to the step's unit.

    ``vector_bits``: width of the machine's vector registers.
    """

    name: ClassVar[str] = "lower-emulated-dot"
    vector_bits: int = 256

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tp.dot".__eq__):
                if "emulate" in op.attributes:
                    with ir.InsertionPoint(op):
                        _EmulatedDot(op, self.vector_bits).emit()
                    op.erase()


class _EmulatedDot:
    def __init__(self, op: Op, vector_bits: int) -> None:
        mark = DotMark.of(op)
        self.op, self.rule, self.least = op, mark.rule, mark.least
        self.a, self.b, self.c = op.operands
        types = [ir.RankedTensorType(ir.TypeAttr(t).value) for t in ir.ArrayAttr(op.attributes["operand_types"])]
        result = list(types[2].shape)
        self.batch, (self.m, self.n) = prod(result[:-2]), result[-2:]
        self.k = prod(list(types[0].shape)) // (self.batch * self.m)
        self.lanes = min(self.n, vector_bits // 64)
        self.rows = min(self.m, _ROWS)
        self.runs = 1  # parts of k that are summed separately
        order, _, count = (self.rule.order or "forward").partition(":")
        self.order = order
        if count:
            self.runs = max(n for n in range(1, min(int(count), self.k) + 1) if self.k % n == 0)
        # Of the instruction's terms at a time, a part ends with the first that is enough.
        group = max(1, self.rule.group)
        self.part = -(-mark.promoted // group) * group
        self.vectors = ir.VectorType.get([self.lanes], ir.F64Type.get())

    def emit(self) -> None:
        entry = function_of(self.op).regions[0].blocks[0]
        self.left = create_buffer(entry, 2 * self.m * self.k, ir.F64Type.get())  # numbers, then powers
        self.right = create_buffer(entry, 2 * self.k * self.n, ir.F64Type.get())
        batch = loop(self.batch)
        with ir.InsertionPoint(batch.body):
            i = batch.induction_variable
            a = gep(self.a, times(i, self.m * self.k), 4)
            b = gep(self.b, times(i, self.k * self.n), 4)
            c = gep(self.c, times(i, self.m * self.n), 4)
            self.pack(a, self.left, "a_transposed" not in self.op.attributes, self.m, along_rows=True)
            self.pack(b, self.right, "b_transposed" in self.op.attributes, self.n, along_rows=False)
            across = loop(self.n, self.lanes)
            with ir.InsertionPoint(across.body):
                down = loop(self.m, self.rows)
                with ir.InsertionPoint(down.body):
                    self.tile(c, down.induction_variable, across.induction_variable)
                    end()
                end()
            end()

    def pack(self, source: Value, target: Value, k_last: bool, size: int, *, along_rows: bool) -> None:
        """Write an operand as f64 in the order of summation, followed by the powers of two of its elements."""
        outer = loop(size)
        with ir.InsertionPoint(outer.body):
            inner = loop(self.k)
            with ir.InsertionPoint(inner.body):
                other, k = outer.induction_variable, inner.induction_variable
                place = add(times(other, self.k), k) if k_last else add(times(k, size), other)
                number = VectorValue(plain_load(ir.F32Type.get(), gep(source, place, 4), 4)).extend_float(
                    ir.F64Type.get()
                )
                at = self.position(k)
                there = add(times(other, self.k), at) if along_rows else add(times(at, size), other)
                llvm.StoreOp(number.value, gep(target, there, 8), alignment=8)
                power = exponent(number, self.least[not along_rows])
                llvm.StoreOp(power.value, gep(target, add(there, constant(size * self.k)), 8), alignment=8)
                end()
            end()

    def position(self, k: Value) -> Value:
        """The position of term ``k`` in the order of summation."""
        if self.order == "reversed":
            return add(constant(self.k - 1), times(k, -1))
        if self.order == "swapped" and self.k % 2 == 0:
            return arith.XOrIOp(k, constant(1)).result
        if self.order == "strided":  # terms k, k + runs, ... follow each other
            runs = constant(self.runs)
            return add(times(arith.RemUIOp(k, runs).result, self.k // self.runs), arith.DivUIOp(k, runs).result)
        return k

    def tile(self, c: Value, m: Value, n: Value) -> None:
        """A tile of ``c`` for all of k, one run after another."""
        f32 = ir.VectorType.get([self.lanes], ir.F32Type.get())
        at = add(times(m, self.n), n)
        places = [gep(c, add(at, constant(row * self.n)), 4) for row in range(self.rows)]
        totals = [VectorValue(plain_load(f32, place, 4)).extend_float(ir.F64Type.get()) for place in places]
        step = Step(self.rule, self.least)
        if self.part:
            zeros = [total.const(0.0) for total in totals]
            for first in range(0, self.k, self.part):
                parts = self.run(step, zeros, m, n, first, min(self.part, self.k - first))
                totals = [rounded(a + b, "f32", "rne") for a, b in zip(totals, parts, strict=True)]
        elif self.runs == 1:
            totals = self.run(step, totals, m, n, 0, self.k)
        else:
            zeros = [total.const(0.0) for total in totals]
            for run in range(self.runs):
                length = self.k // self.runs
                parts = self.run(step, zeros, m, n, run * length, length)
                totals = [step.round(total + part) for total, part in zip(totals, parts, strict=True)]
        for place, total in zip(places, totals, strict=True):
            if self.rule.nan == "ones":
                ones = total.to_bits().const(_NAN).cast_bits(total.element)
                total = select(total.isnan(), ones, total)
            llvm.StoreOp(total.truncate_float(ir.F32Type.get()).value, place, alignment=byte_width(ir.F32Type.get()))

    def run(self, step: Step, totals: Rows, m: Value, n: Value, first: int, length: int) -> Rows:
        """``totals`` plus the ``length`` terms of one run, which begins at ``first``."""
        group = min(self.rule.group or length, length)
        whole = length // group * group
        steps = loop_from(0, whole // group, [total.value for total in totals])
        with ir.InsertionPoint(steps.body):
            start = add(times(steps.induction_variable, group), constant(first))
            terms = _Terms(self, m, n, start, group)
            end([total.value for total in step.add([VectorValue(v) for v in steps.inner_iter_args], terms)])
        totals = [VectorValue(v) for v in steps.results]
        if whole < length:
            totals = step.add(totals, _Terms(self, m, n, constant(first + whole), length - whole))
        return totals


@dataclass(frozen=True)
class _Terms:
    """The terms of one step: products of a tile's rows with a vector of columns."""

    dot: _EmulatedDot
    m: Value
    n: Value
    start: Value
    count: int

    def products(self, offset: Value, *, powers: bool = False) -> Rows:
        """Term ``offset`` of each row: the product, or with ``powers`` that of the powers of two."""
        dot = self.dot
        k = add(self.start, offset)
        columns = add(times(k, dot.n), self.n, constant(powers * dot.k * dot.n))
        right = VectorValue(plain_load(dot.vectors, gep(dot.right, columns, 8), 8))
        products = []
        for row in range(dot.rows):
            at = add(times(self.m, dot.k), k, constant(row * dot.k + powers * dot.m * dot.k))
            left = plain_load(ir.F64Type.get(), gep(dot.left, at, 8), 8)
            products.append(VectorValue(vector.BroadcastOp(dot.vectors, left).result) * right)
        return products
