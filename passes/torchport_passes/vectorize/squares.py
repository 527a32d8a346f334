"""Turns tiles of a nest in squares of registers: what is contiguous along their columns is read and written so.

A square has as many rows and columns as a vector has lanes. Its columns are read and turned, the nest's body is emitted
once for each row, and columns that it writes are turned back and written.
"""

from __future__ import annotations

from dataclasses import replace

from mlir import ir
from mlir.dialects import arith, llvm, scf

from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.analysis.masks import Comparison, Masks
from torchport_passes.ir.build import (
    as_integer,
    byte_width,
    from_storage,
    gep,
    integer_type,
    plain_load,
    storage_type,
    to_storage,
)
from torchport_passes.ir.ops import Coords, element_type
from torchport_passes.ir.shuffles import transposed
from torchport_passes.ir.traits import MASKS
from torchport_passes.ir.types import Op, Type, Value
from torchport_passes.vectorize.body import NestBody
from torchport_passes.vectorize.lane_values import LaneValues, Level, LoadLowering, Place
from torchport_passes.vectorize.lowerings import LOADS, WRITES
from torchport_passes.vectorize.plan import Plan
from torchport_passes.vectorize.pointers import first_pointer
from torchport_passes.vectorize.reductions import Reductions
from torchport_passes.vectorize.turning import Turning

__all__ = ["Squares"]

Use = tuple[Op, Coords]


class Squares:
    """The tiles of one nest that has a ``turning``; ``next_tiles``: whether they prefetch."""

    def __init__(self, plan: Plan, turning: Turning, reductions: Reductions, next_tiles: bool) -> None:
        *outer, across, along = plan.vector.loops
        # Rows inside: what depends on the column alone is computed once for all of them.
        self._plan = replace(plan, vector=replace(plan.vector, loops=(*outer, along, across)))
        self._turning = turning
        self._next_tiles = next_tiles
        self._body = NestBody(self._plan, reductions)
        self._side = plan.vector.lanes
        self._rows, self._columns = (plan.nest.shape[dim] for dim in (across, along))
        self._loads = {**LOADS, "tt.load": LoadLowering(LOADS["tt.load"].scalar, self._load)}
        self._writes = {**WRITES, "tt.store": self._store}
        self._read: dict[Use, list[Value]] = {}  # of the square: its rows
        self._written: dict[Use, list[Value]] = {}  # the same, so far
        self._row = 0

    def emit(self, levels: list[Level], masks: dict[Comparison, bool]) -> None:
        """A whole tile. ``levels``: around its loops; ``masks``: what is known of all of it."""
        around = levels[-1]
        with around.point:
            right = scf.ForOp(_constant(0), _constant(self._rows), _constant(self._side))
        with ir.InsertionPoint(right.body):
            down = scf.ForOp(_constant(0), _constant(self._columns), _constant(self._side))
            scf.YieldOp([])
        with ir.InsertionPoint(down.body):
            end = scf.YieldOp([])
        saved, around.place.point = around.point, ir.InsertionPoint(right)
        place = Place(ir.InsertionPoint(end))
        self._square([*levels, Level(place, down.induction_variable)], right.induction_variable, masks)
        around.place.point = saved

    def _square(self, levels: list[Level], row: Value, masks: dict[Comparison, bool]) -> None:
        """``levels``: the last is that of the columns; ``row``: the square's first."""
        corner = [*levels, Level(levels[-1].place, row)]
        turned = [use for use in self._turning.strides if _always(Masks(masks), *use)]
        pointers = {use: self._pointers(use, corner, masks) for use in turned}
        with levels[-1].point:
            self._read = {use: self._rows_of(use, found) for use, found in pointers.items() if use[0].name == "tt.load"}
        self._written = {use: [] for use in pointers if use[0].name == "tt.store"}
        for number in range(self._side):
            self._row = number
            with levels[-1].point:
                here = Level(levels[-1].place, arith.AddIOp(row, _constant(number)).result)
            self._body.innermost([*levels, here], masks, [], self._loads, self._writes)
        with levels[-1].point:
            for use, rows in self._written.items():
                for column, pointer in zip(transposed(rows), pointers[use], strict=True):
                    llvm.StoreOp(column, pointer, alignment=byte_width(column.type.element_type))
                    self._prefetch(use, pointer, self._turning.strides[use])

    def _rows_of(self, use: Use, pointers: list[Value]) -> list[Value]:
        """The rows of a square whose columns are read, from ``pointers``."""
        type_ = ir.VectorType.get([self._side], storage_type(_element(use[0])))
        columns = [plain_load(type_, pointer, byte_width(type_.element_type)) for pointer in pointers]
        for pointer in pointers:
            self._prefetch(use, pointer, self._turning.strides[use])
        return transposed(columns)

    def _pointers(self, use: Use, corner: list[Level], masks: dict[Comparison, bool]) -> list[Value]:
        """Where each column of a square begins. ``corner``: the levels of its first element."""
        stride = self._turning.strides[use]
        if stride is not None:
            first = self._pointer(use, corner, masks)
            with corner[-1].point:
                return [gep(first, _constant(i * stride), 1) for i in range(self._side)]
        further = range(self._side) if use not in self._turning.even else range(2)
        found = []
        for i in further:
            with corner[-1].point:
                column = Level(corner[-1].place, arith.AddIOp(corner[-2].index, _constant(i)).result)
            found.append(self._pointer(use, [*corner[:-2], column, Level(corner[-1].place, corner[-1].index)], masks))
        with corner[-1].point:
            if len(found) < self._side:
                step = arith.SubIOp(as_integer(found[1]), as_integer(found[0])).result
            while len(found) < self._side:
                found.append(gep(found[-1], step, 1))
        return found

    def _pointer(self, use: Use, levels: list[Level], masks: dict[Comparison, bool]) -> Value:
        op, at = use
        lanes = self._body.lane_values(levels, masks)
        return first_pointer(lanes, address_of(lanes.masks, op.operands[0], at), levels[-1])

    def _load(self, lanes: LaneValues, op: Op, at: Coords, level: Level, wanted: Type) -> Value:
        if (op, at) not in self._read:
            return LOADS[op.name].vector(lanes, op, at, level, wanted)
        with level.point:
            return from_storage(self._read[op, at][self._row], wanted.element_type)

    def _store(self, lanes: LaneValues, op: Op, at: Coords, level: Level) -> None:
        if (op, at) in self._written:
            value = lanes.vector(op.operands[1], at)
            with level.point:
                self._written[op, at].append(to_storage(value))
            return
        WRITES[op.name](lanes, op, at, level)
        address = address_of(lanes.masks, op.operands[0], at)
        if byte_stride(lanes.strides, address) == byte_width(_element(op)):
            pointer = first_pointer(lanes, address, level)
            with level.point:
                self._prefetch((op, at), pointer, byte_width(_element(op)))

    def _prefetch(self, use: Use, pointer: Value, stride: int | None) -> None:
        """Prefetch what the next tile down, which most often the next program has, takes from there."""
        if self._next_tiles and "stream" in use[0].attributes and stride is not None:
            ahead = gep(pointer, _constant(stride * self._columns), 1)
            llvm.Prefetch(ahead, int(use[0].name == "tt.store"), 3, 1)


def _always(masks: Masks, op: Op, at: Coords) -> bool:
    """Whether no mask leaves out elements."""
    place = MASKS[op.name]
    return len(op.operands) <= place or masks.known(op.operands[place], at) is True


def _element(op: Op) -> Type:
    """The type of the elements that are read or written."""
    return element_type(op.results[0].type if op.name == "tt.load" else op.operands[1].type)


def _constant(value: int) -> Value:
    return arith.ConstantOp(integer_type(64), value).result
