"""Chooses the buffers of a dot: the layout of its operands, and where its sum is accumulated."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith

from torchport_passes.analysis.contiguity import all_coords, is_contiguous
from torchport_passes.bufferize.prefetch import next_rows, rows_of
from torchport_passes.ir.ops import (
    Coords,
    constant_float,
    constant_int,
    element_type,
    is_tensor,
    operand_coords,
    owner_of,
    shape_of,
    terminator_of,
)
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.tensors import transposed
from torchport_passes.ir.traits import EFFECTS, INDEX_MAPS, is_elementwise
from torchport_passes.ir.types import InsertionPoint, Op, Value

__all__ = ["DotOperands"]


class DotOperands:
    """Turns ``tt.dot`` into ``tp.dot a, b, c`` on buffers, which changes ``c`` in place.

    An operand whose loads are contiguous along its first dimension is stored transposed (``a_transposed``,
    ``b_transposed``), so that neither the loads nor the stores are scattered. An operand computed outside of the dot's
    loop is stored there, once. What lies in memory by rows as it is needed is not stored: the buffer has pointers to
    the rows (``a_rows``, ``b_rows``), which are along k, or along m with ``a_transposed``. The number of rows that are
    needed follows the buffers (``live_m``). A dot whose sum starts at 0 is ``fresh``: it writes a buffer that holds
    nothing before. One whose sum a loop carries from 0 on ``begins`` with the loop: in its first iteration it does so.
    """

    def __init__(self, memory: ProgramMemory) -> None:
        self.memory = memory
        # Keyed by a dot's result: an operation's hash changes with its operands.
        self.accumulators: dict[Value, Value] = {}  # -> the buffer in which a loop carries the sum
        self.begun: set[Value] = set()  # those whose buffer holds nothing before the loop's first iteration
        self.sums: set[Value] = set()  # buffers that hold nothing but the result of a dot
        self.operands: dict[tuple[Value, bool], Value] = {}  # (value, whether transposed) -> its buffer

    def lower(self, op: Op) -> None:
        """Replace a ``tt.dot``."""
        a, b, c, *live = op.operands  # the rows that are needed, if that is known
        point = ir.InsertionPoint(op)
        attributes = {
            "operand_types": ir.ArrayAttr.get([ir.TypeAttr.get(v.type) for v in (a, b, c)]),
            "result_types": ir.ArrayAttr.get([]),
        }
        for name in ("emulate", "chained", "live_k", "live_n"):
            if name in op.attributes:
                attributes[name] = op.attributes[name]
        buffers, ahead = [], []
        for name, value in (("a", a), ("b", b)):
            transpose = _contiguous_along_first(value)
            if transpose:
                attributes[f"{name}_transposed"] = ir.UnitAttr.get()
            in_place = None if "emulate" in attributes else self._rows(value, name, transpose, op)
            if in_place is not None:
                attributes[f"{name}_rows"] = ir.UnitAttr.get()
            buffers.append(in_place or self._operand(value, transpose, op))
            if name == "a" and in_place is not None:
                continue  # tiles of it are prefetched one ahead
            rows = None if "emulate" in attributes else self._next_rows(value, transpose, op)
            if rows is not None:
                ahead.append(rows)
                attributes[f"{name}_ahead"] = ir.UnitAttr.get()
        fresh = not {"emulate", "chained", "live_n"} & set(attributes) and constant_float(c) == 0.0
        if fresh:
            attributes["fresh"] = ir.UnitAttr.get()
            live = live if _of_floats(c) else []  # rows that are left out hold anything
        if live:
            attributes["live_m"] = ir.UnitAttr.get()
        total = self._accumulator(op, c, point, fresh)
        first = []
        if op.results[0] in self.begun:
            attributes["begins"] = ir.UnitAttr.get()
            index, (low, *_) = op.block.arguments[0], op.block.owner.operands
            first = [arith.CmpIOp(arith.CmpIPredicate.eq, index, low, ip=point).result]
        ir.Operation.create("tp.dot", [], [*buffers, total, *live, *first, *ahead], attributes, ip=point)
        op.results[0].replace_all_uses_with(self.memory.read(op.results[0].type, total, point))
        op.erase()

    def _operand(self, value: Value, transpose: bool, op: Op) -> Value:
        """The buffer that holds ``value`` or its transpose, filled where the value is defined or before ``op``."""
        key = (value, transpose)
        if key not in self.operands:
            owner = owner_of(value)
            outside = owner is not None and owner.block != op.block
            with ir.InsertionPoint.after(owner) if outside else ir.InsertionPoint(op):
                if transpose:
                    rank = len(value.type.shape)
                    value = transposed(value, [*range(rank - 2), rank - 1, rank - 2])
                self.operands[key] = self.memory.stored(value, ir.InsertionPoint.current)
        return self.operands[key]

    def _rows(self, value: Value, name: str, transpose: bool, op: Op) -> Value | None:
        """A buffer of pointers to the rows of memory that hold ``value`` at ``op``; None if none do.

        Rows are along k, and those of a transposed ``a`` along m. Those of a ``b`` whose pairs are interleaved on the
        way to its panel may be along n.
        """
        load = owner_of(value)
        along = 0 if transpose else 1  # the dimension of ``value`` that rows are along
        interleaved = element_type(value.type) == ir.BF16Type.get()
        if (name == "b" and not (transpose or interleaved)) or len(value.type.shape) != 2 or load is None:
            return None
        if load.name == "tt.trans":
            load, along = owner_of(load.operands[0]), 1 - along
        if load is None or load.name != "tt.load" or len(load.operands) > 1 or load.block != op.block:
            return None
        pointers, type_ = load.operands[0], load.results[0].type
        length = type_.shape[along]
        whole = is_contiguous(pointers, type_, along, all_coords(tuple(type_.shape)), length, lanes=length)
        if not whole or "volatile" in load.attributes or not _unwritten(load, op):
            return None
        with ir.InsertionPoint(op):
            rows = rows_of(load, along)
            return None if rows is None else self.memory.stored(rows, ir.InsertionPoint.current)

    def _next_rows(self, value: Value, transpose: bool, op: Op) -> Value | None:
        """A buffer of pointers to the rows of memory that ``value`` is loaded from in the loop's next iteration."""
        rank = len(value.type.shape)
        parent = op.block.owner.operation
        if parent.name != "scf.for" or rank != 2:
            return None
        with ir.InsertionPoint(op):
            rows = next_rows(value, 0 if transpose else 1, parent)
            return None if rows is None else self.memory.stored(rows, ir.InsertionPoint.current)

    def _accumulator(self, op: Op, c: Value, point: InsertionPoint, fresh: bool) -> Value:
        """The buffer that ``op`` adds to; it holds ``c`` at ``point``, or nothing if it is ``fresh``."""
        read = owner_of(c)
        source = read.operands[0] if read is not None and read.name == "tp.read" else None
        total = self.accumulators.get(op.results[0])
        if total is None and source in self.sums and len(list(c.uses)) == 1:
            total = source  # the result of another dot that nothing else uses
        if total is None:
            total = self.memory.buffer(c.type)
            self.sums.add(total)
        if not fresh and (source is None or total != source):
            self.memory.write(c, total, point)
        return total

    def accumulate_in(self, loop: Op, index: int, buffer: Value) -> bool:
        """Let the dot that computes the loop's carried value ``index`` accumulate in ``buffer``, which holds the value.

        Returns False, and changes nothing, if something else uses the old value, which the dot overwrites: only
        elementwise operations that lead to the dot may.
        """
        block = loop.regions[0].blocks[0]
        dot = owner_of(terminator_of(block).operands[index])
        if dot is None or dot.name != "tt.dot" or dot.block != block:
            return False
        work = [block.arguments[1 + index]]
        while work:
            value = work.pop()
            for use in value.uses:
                op = use.owner.operation
                if op == dot and use.operand_number == 2:
                    continue
                if not is_elementwise(op.name) or op.block != block or shape_of(op.results[0]) != shape_of(value):
                    return False
                work.append(op.results[0])
        self.accumulators[dot.results[0]] = buffer
        return True

    def begins(self, loop: Op, index: int) -> bool:
        """Let the dot that accumulates the loop's carried value ``index`` begin at 0 in the loop's first iteration.

        Returns False if it must find a value in its buffer: one that is not 0, that something else reads, that a loop
        without iterations leaves, or of which the dot computes a part.
        """
        block = loop.regions[0].blocks[0]
        argument, init = block.arguments[1 + index], loop.operands[3 + index]
        dot = owner_of(terminator_of(block).operands[index])
        low, high = (constant_int(bound) for bound in list(loop.operands)[:2])
        if dot is None or low is None or high is None or low >= high or constant_float(init) != 0.0:
            return False
        if not _of_floats(init) or {"emulate", "live_n"} & {name for name in dot.attributes}:
            return False
        if [use.owner.operation for use in argument.uses] != [dot]:
            return False
        self.begun.add(dot.results[0])
        return True


def _of_floats(value: Value) -> bool:
    return isinstance(element_type(value.type), ir.FloatType)


def _unwritten(load: Op, op: Op) -> bool:
    """Whether nothing between ``load`` and ``op``, in one block, writes memory that is not the program's own."""
    operations = [view.operation for view in op.block.operations]
    between = operations[operations.index(load) + 1 : operations.index(op)]
    return not any(len(one.regions) or one.name in EFFECTS or one.name.endswith("call") for one in between)


def _contiguous_along_first(value: Value) -> bool:
    """Whether more loads behind a matrix are contiguous along its first dimension than along its last."""
    rank = len(value.type.shape)
    first, last = (_contiguous_loads(value, dim) for dim in (rank - 2, rank - 1))
    return first > last


def _contiguous_loads(value: Value, dim: int) -> int:
    """How many loads and reads behind ``value`` are contiguous along ``dim``."""
    size = value.type.shape[dim]
    count, seen = 0, set()
    work: list[tuple[Value, Coords]] = [(value, all_coords(tuple(value.type.shape)))]
    while work:
        value, at = work.pop()
        op = owner_of(value)
        if op is None or op in seen or not is_tensor(value):
            continue
        seen.add(op)
        if op.name == "tt.load":
            count += is_contiguous(op.operands[0], value.type, dim, at, size)
        elif op.name in INDEX_MAPS:
            work.append((op.operands[0], operand_coords(op, at)))
        elif is_elementwise(op.name):
            work.extend((v, at) for v in op.operands)
        elif op.name == "tp.read":
            count += at[-1] == dim
    return count
