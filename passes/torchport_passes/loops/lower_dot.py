"""Lowers dots of buffers to loops over register tiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from torchport_passes.ir.build import byte_width, gep, integer_type, load_pointer, plain_load, zero_of
from torchport_passes.ir.ops import function_of, matching
from torchport_passes.ir.program_memory import create_buffer
from torchport_passes.ir.types import Module, Op, Type, Value
from torchport_passes.loops.loop_builder import add, constant, end, loop, loop_from, times
from torchport_passes.loops.pairs import add_pairs, interleave_buffer, interleave_rows
from torchport_passes.loops.transpose import transpose_buffer, transpose_rows

__all__ = ["LowerDot"]

_TILES = {16: (12, 3), 32: (16, 4)}  # by registers: those that hold a tile, vectors side by side in it at most
_PAIRS_OF_16 = (8, 2)  # the same for pairs of i16, whose products take a register before they are added
_CHUNK = 64  # steps of k that are summed before they are added to c: the tile's part of b stays in the first cache
_LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class LowerDot:
    """Emit each ``tp.dot`` as loops around a register tile.

    Takes ``tp.dot a, b, c`` of buffers of f32, f64 or i32, which means ``c += a @ b`` in place. ``a`` has the shape
    (batch.., M, K) or, with ``a_transposed``, (batch.., K, M); ``b`` likewise (K, N) or (N, K). Up to 64 products are
    summed at a time, in the order of k, with fused multiply-adds if the machine has them, and then added to ``c``. With
    ``chained``, ``c`` begins a chain of fused multiply-adds over all of k. With ``a_rows`` and ``b_rows`` the buffer of
    an operand holds pointers to its rows, which are read where they are: along k, or along m with ``a_transposed``;
    those of ``b``, which is transposed then, are packed, a panel for each tile's columns. With ``live_m`` an integer
    follows the three buffers: of the rows of ``c``, whole tiles from there on are left out. With ``a_ahead`` and
    ``b_ahead`` there are more operands: buffers of pointers to the rows that the next iteration of the loop around
    loads. Each tile prefetches its share of these, and the rows of ``a_rows`` for the next tile. With ``fresh``, ``c``
    holds nothing before, and becomes the product; with ``begins`` where an i1, the operand before these buffers, is
    true. Columns of ``b`` from ``live_n`` on, and steps of k from ``live_k`` on, are 0 and left out, but for what
    fills a vector.

    Operands of bf16, of an even number of terms and a ``c`` of f32, are read as words of two terms, which one
    instruction multiplies and adds up (``pairs``), and so are those of i16 with a ``c`` of i32: k counts words then,
    and ``c`` begins each sum. Where terms of a pair are not neighbours, their rows are interleaved first, and
    ``b_rows`` may be along n.

    ``vector_bits``, ``registers``: width and number of the machine's vector registers.
    """

    name: ClassVar[str] = "lower-dot"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.dot"})
    vector_bits: int = 256
    registers: int = 16

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tp.dot".__eq__):
                with ir.InsertionPoint(op):
                    _TiledDot(op, self.vector_bits, self.registers).emit()
                op.erase()


class _TiledDot:
    def __init__(self, op: Op, vector_bits: int, registers: int) -> None:
        self.op = op
        self.a, self.b, self.c, *ahead = op.operands
        types = [ir.RankedTensorType(ir.TypeAttr(t).value) for t in ir.ArrayAttr(op.attributes["operand_types"])]
        result = list(types[2].shape)
        self.batch, (self.m, self.n) = prod(result[:-2]), result[-2:]
        self.k = prod(list(types[0].shape)) // (self.batch * self.m)
        self.a_transposed = "a_transposed" in op.attributes
        self.b_transposed = "b_transposed" in op.attributes
        self.a_rows, self.b_rows = "a_rows" in op.attributes, "b_rows" in op.attributes
        self.fresh, self.chained = "fresh" in op.attributes, "chained" in op.attributes
        self.element = types[2].element_type
        self.bytes = byte_width(self.element)
        self.pairs = types[0].element_type in (ir.BF16Type.get(), integer_type(16))
        self.terms = 2 if self.pairs else 1  # of a word
        self.k //= self.terms
        self.onward = self.chained or (self.pairs and not self.fresh)  # sums begin with c
        self.word = integer_type(32) if self.pairs else self.element  # of an operand
        self.aligned = self.bytes // self.terms
        self.lanes = min(self.n, max(1, vector_bits // (8 * self.bytes)))
        self.most, self.side = _TILES[registers]
        if types[0].element_type == integer_type(16) and registers == 16:
            self.most, self.side = _PAIRS_OF_16
        across = -(-self.live("live_n", self.n) // self.lanes)  # vectors of a row
        whole = across // self.side * self.side
        self.spans = [(first, stop) for first, stop in ((0, whole), (whole, across)) if first < stop]
        steps = -(-self.live("live_k", self.k * self.terms) // self.terms)
        parts = -(-steps // _CHUNK)
        self.chunk = -(-steps // parts)
        self.steps = self.chunk * parts
        if self.steps > self.k:  # the last part would go beyond the operands
            self.chunk, self.steps = min(self.k, _CHUNK), self.k
        self.shaped(*self.spans[0])
        self.live_m = ahead.pop(0) if "live_m" in op.attributes else None
        self.begins = ahead.pop(0) if "begins" in op.attributes else None
        self.ahead = []  # (buffer of pointers to rows, number of rows, bytes of a row)
        shapes = {"a": (self.m, self.k * self.terms), "b": (self.k * self.terms, self.n)}
        for name in (name for name in shapes if f"{name}_ahead" in op.attributes):
            rows, length = reversed(shapes[name]) if f"{name}_transposed" in op.attributes else shapes[name]
            self.ahead.append((ahead.pop(0), rows, length * self.aligned))

    def live(self, name: str, size: int) -> int:
        """Of ``size`` columns or steps, those up to the last that is not 0; at least one."""
        return max(1, ir.IntegerAttr(self.op.attributes[name]).value) if name in self.op.attributes else size

    def shaped(self, first: int, stop: int) -> None:
        """Choose the tile for the vectors of a row from ``first`` to ``stop``."""
        self.columns = min(stop - first, self.side)
        self.wide = self.columns * self.lanes
        rows = self.most // self.columns
        if self.a_rows and self.a_transposed:
            rows = 1 << (rows.bit_length() - 1)  # tiles share lines along m
        self.rows = min(self.m, max(1, rows // 2 * 2))  # what is left, one tile more, is even, too
        self.whole = self.m // self.rows * self.rows

    def emit(self) -> None:
        packed = self.buffer(self.n) if self.b_transposed or self.pairs else None
        words = self.buffer(self.m) if self.a_transposed and self.pairs else None
        batch = loop(self.batch)
        with ir.InsertionPoint(batch.body):
            a, b = self.a, self.b  # rows are those of matrices, which have no batch
            if not self.a_rows:
                a = gep(a, times(batch.induction_variable, self.m * self.k), self.bytes)
            if not self.b_rows:
                b = gep(b, times(batch.induction_variable, self.k * self.n), self.bytes)
            c = gep(self.c, times(batch.induction_variable, self.m * self.n), self.bytes)
            if packed is not None:
                self.pack(b, packed)
                b = packed
            if words is not None:
                self.interleave(a, words, self.m, self.a_rows)
                a, self.a_rows = words, False
            for first, stop in self.spans:
                self.shaped(first, stop)
                across = loop((stop - first) * self.lanes, self.wide)
                with ir.InsertionPoint(across.body):
                    along = loop(self.steps, self.chunk)
                    with ir.InsertionPoint(along.body):
                        n, k = across.induction_variable, along.induction_variable
                        at = add(n, constant(first * self.lanes)) if first else n
                        down = loop_from(0, self.up_to(self.whole), [], self.rows)
                        with ir.InsertionPoint(down.body):
                            if first == 0:
                                self.prefetch(down.induction_variable, k, n)
                            self.tile(a, b, c, down.induction_variable, k, at)
                            end()
                        if self.whole < self.m:
                            whole, self.rows = self.whole, self.m - self.whole
                            down = loop_from(whole, self.up_to(self.m), [], self.rows)
                            with ir.InsertionPoint(down.body):
                                self.tile(a, b, c, down.induction_variable, k, at)
                                end()
                        end()
                    end()
            end()

    def up_to(self, rows: int) -> int | Value:
        """``rows``, or those of ``c`` that are needed where these are fewer."""
        return rows if self.live_m is None else arith.MinSIOp(self.live_m, constant(rows)).result

    def pack(self, b: Value, packed: Value) -> None:
        """Fill ``packed`` with the words of ``b``: (K, N), or where columns lie in memory as rows, panel after panel.

        A panel has the columns of a tile, (K, columns), and a tile reads it from its beginning to its end: lines that
        it shares with no other, and that fill all sets of the first cache alike. Columns that are not needed have none.
        """
        if not self.b_transposed:
            self.interleave(b, packed, self.n, self.b_rows)
            return
        transpose, step = (transpose_rows, 8) if self.b_rows else (transpose_buffer, self.k * self.bytes)
        for first, stop in self.spans:
            self.shaped(first, stop)
            panels = loop_from(first * self.lanes, stop * self.lanes, [], self.wide)
            with ir.InsertionPoint(panels.body):
                n = panels.induction_variable
                target = gep(packed, times(n, self.k), self.bytes)
                transpose(gep(b, n, step), target, self.wide, self.k, self.word, self.lanes)
                end()

    def interleave(self, source: Value, target: Value, columns: int, pointers: bool) -> None:
        """Fill ``target`` with the (K, ``columns``) words of an operand whose rows are along ``columns``."""
        interleave = interleave_rows if pointers else interleave_buffer
        interleave(source, target, self.k * self.terms, columns, self.lanes)

    def tile(self, a: Value, b: Value, c: Value, m: Value, start: Value, n: Value) -> None:
        """One tile of ``c`` plus one chunk of k, summed in registers."""
        vectors = ir.VectorType.get([self.lanes], self.element)
        zero = zero_of(vectors)
        stop = add(start, constant(self.chunk))
        begin = [zero] * (self.rows * self.columns)
        first = self.first(start)
        if self.onward:
            begin = self.found(vectors, self.places(c, m, n), first, begin)
        left_at = self.left_rows(a, m, start)
        steps = loop_from(start, stop, begin)
        with ir.InsertionPoint(steps.body):
            k, sums = steps.induction_variable, list(steps.inner_iter_args)
            if self.b_transposed:  # one panel after another
                row_of_b = gep(b, add(times(n, self.k), times(k, self.wide)), self.bytes)
            else:
                row_of_b = gep(b, add(times(k, self.n), n), self.bytes)
            words = ir.VectorType.get([self.lanes], self.word)
            right = [
                plain_load(words, self.at(row_of_b, column * self.lanes), self.aligned)
                for column in range(self.columns)
            ]
            column_of_a = self.left_column(left_at, k)
            for row in range(self.rows):
                left = vector.BroadcastOp(words, plain_load(self.word, column_of_a[row], self.aligned)).result
                for column in range(self.columns):
                    i = row * self.columns + column
                    if self.pairs:
                        sums[i] = add_pairs(left, right[column], sums[i])
                    else:
                        sums[i] = _multiply_add(left, right[column], sums[i], fused=self.chained)
            end(sums)
        places = self.places(c, m, n)
        if self.onward:
            self.store(steps.results, places, add=False)
        elif first is None:
            self.store(steps.results, places, add=not self.fresh)
        else:
            branch = scf.IfOp(first, has_else=True)
            for block, add_ in ((branch.then_block, False), (branch.else_block, True)):
                with ir.InsertionPoint(block):
                    self.store(steps.results, places, add_)
                    end()

    def first(self, start: Value) -> Value | None:
        """Whether ``c`` holds nothing at the chunk that begins at ``start``; None if that is the same for all."""
        if not self.fresh and self.begins is None:
            return None
        if self.steps == self.chunk:
            return self.begins
        first = arith.CmpIOp(arith.CmpIPredicate.eq, start, constant(0)).result
        return first if self.begins is None else arith.AndIOp(first, self.begins).result

    def found(self, vectors: Type, places: list[Value], first: Value | None, zeros: list[Value]) -> list[Value]:
        """What a tile of ``c`` holds; ``zeros`` where it is the ``first`` time."""
        if first is None:
            return [plain_load(vectors, place, self.bytes) for place in places]
        branch = scf.IfOp(first, [vectors] * len(places), has_else=True)
        with ir.InsertionPoint(branch.then_block):
            end(zeros)
        with ir.InsertionPoint(branch.else_block):
            end([plain_load(vectors, place, self.bytes) for place in places])
        return list(branch.results)

    def places(self, c: Value, m: Value, n: Value) -> list[Value]:
        """Where the vectors of the tile at (m, n) of ``c`` are, row by row."""
        first = gep(c, add(times(m, self.n), n), self.bytes)
        return [
            self.at(first, row * self.n + column * self.lanes)
            for row in range(self.rows)
            for column in range(self.columns)
        ]

    def store(self, sums: Iterable[Value], places: Iterable[Value], add: bool) -> None:
        """Write a tile's vectors, or add them to what is there."""
        for value, place in zip(sums, places, strict=True):
            total = _sum(plain_load(value.type, place, self.bytes), value) if add else value
            llvm.StoreOp(total, place, alignment=self.bytes)

    def left_rows(self, a: Value, m: Value, start: Value) -> list[Value]:
        """Where the rows of ``a`` begin that the tile at row ``m`` reads; the next tile's are prefetched.

        What takes the place of their addresses where ``a_rows`` are along m: the buffer of pointers and ``m``.
        """
        if self.a_rows and self.a_transposed:
            self.prefetch_columns(a, m, start)
            return [a, m]
        if not self.a_rows:
            step = 1 if self.a_transposed else self.k
            return [self.at(gep(a, times(m, step), self.bytes), row * step) for row in range(self.rows)]
        found = [load_pointer(a, add(m, constant(row))) for row in range(self.rows)]
        for row in range(self.rows):
            following = arith.AndIOp(add(m, constant(self.rows + row)), constant(self.m - 1)).result
            line = gep(load_pointer(a, following), start, self.bytes)
            for offset in range(0, self.chunk * self.bytes, _LINE):
                llvm.Prefetch(gep(line, constant(offset), 1), 0, 3, 1)
        return found

    def prefetch_columns(self, a: Value, m: Value, start: Value) -> None:
        """This tile's share of the lines along m that follow those of its own, in the rows of this chunk of k."""
        wide = _LINE // self.bytes
        share, tiles = self.chunk * self.rows // wide, wide // self.rows  # tiles that read the same lines
        if not 0 < share * tiles <= self.chunk:
            return
        tile = arith.RemUIOp(arith.DivUIOp(m, constant(self.rows)).result, constant(tiles)).result
        following = arith.AndIOp(add(m, constant(wide)), constant(self.m - 1)).result
        first = add(start, times(tile, share))
        for i in range(share):
            line = gep(load_pointer(a, add(first, constant(i))), following, self.bytes)
            llvm.Prefetch(line, 0, 3, 1)

    def left_column(self, left_at: list[Value], k: Value) -> list[Value]:
        """Where the elements k are of the rows that ``left_rows`` found."""
        if self.a_rows and self.a_transposed:
            pointers, m = left_at
            first = gep(load_pointer(pointers, k), m, self.bytes)
            return [self.at(first, row) for row in range(self.rows)]
        index = times(k, self.m) if self.a_transposed else k
        return [gep(row, index, self.bytes) for row in left_at]

    def at(self, base: Value, offset: int) -> Value:
        """``base + offset``, in elements."""
        return base if offset == 0 else gep(base, constant(offset), self.bytes)

    def prefetch(self, m: Value, k: Value, n: Value) -> None:
        """This tile's share of the lines that the loop's next iteration loads."""
        width = (self.spans[0][1] - self.spans[0][0]) * self.lanes
        tiles = [size // step for size, step in ((width, self.wide), (self.steps, self.chunk), (self.m, self.rows))]
        number = None  # of this tile
        for index, step, count in zip((n, k, m), (self.wide, self.chunk, self.rows), tiles, strict=True):
            position = arith.DivUIOp(index, constant(step)).result
            number = position if number is None else add(times(number, count), position)
        for rows, count, bytes_ in self.ahead:
            lines = max(1, bytes_ // _LINE)  # of a row
            share = max(1, count * lines // prod(tiles))  # lines of a tile: whole rows, or part of one
            first = times(number, share)
            row = arith.AndIOp(arith.DivUIOp(first, constant(lines)).result, constant(count - 1)).result
            within = times(arith.AndIOp(first, constant(lines - 1)).result, _LINE)
            pointers = gep(rows, row, 8)
            for next_row in range(max(1, share // lines)):
                start = add(plain_load(integer_type(64), gep(pointers, constant(next_row), 8), 8), within)
                line = llvm.IntToPtrOp(ir.Type.parse("!llvm.ptr"), start).result
                for i in range(min(share, lines)):
                    llvm.Prefetch(gep(line, constant(i * _LINE), 1), 0, 3, 1)

    def buffer(self, columns: int) -> Value:
        """A buffer for words of an operand, (K, ``columns``)."""
        return create_buffer(function_of(self.op).regions[0].blocks[0], self.k * columns, self.word)


def _multiply_add(a: Value, b: Value, c: Value, *, fused: bool) -> Value:
    if isinstance(c.type.element_type, ir.IntegerType):
        return arith.AddIOp(c, arith.MulIOp(a, b).result).result
    return ir.Operation.create("llvm.intr.fma" if fused else "llvm.intr.fmuladd", [c.type], [a, b, c]).results[0]


def _sum(a: Value, b: Value) -> Value:
    return (arith.AddIOp if isinstance(a.type.element_type, ir.IntegerType) else arith.AddFOp)(a, b).result
