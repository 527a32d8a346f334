"""Turns tiles of a nest in squares of registers: what is contiguous along their columns is read and written so.

A square has as many rows and columns as a vector has lanes. Its columns are read and turned, the nest's body is emitted
once for each row, and columns that it writes are turned back and written. Where a tile reaches beyond a bound, they are
read and written under masks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    lane_steps,
    masked_load,
    masked_store,
    plain_load,
    splat,
    storage_type,
    to_storage,
    zero_of,
)
from torchport_passes.ir.ops import Coords, element_type, owner_of
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

__all__ = ["Part", "Squares"]

Use = tuple[Op, Coords]


@dataclass(frozen=True)
class Part:
    """What is inside of the bounds of a tile, beyond which nothing can be observed.

    ``inside``: the comparisons that hold there.
    ``rows``, ``columns``: how many are inside, i64 values; None for all of them.
    ``last_rows``, ``last_columns``: how many the last square has in every tile that has one which is not whole; None if
    that is not known, or if squares may lack both.
    ``whole``: whether there are squares that are.
    """

    inside: dict[Comparison, bool]
    rows: Value | None
    columns: Value | None
    last_rows: int | None = None
    last_columns: int | None = None
    whole: bool = True


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

    def emit(self, levels: list[Level], masks: dict[Comparison, bool], part: Part | None = None) -> None:
        """A tile. ``levels``: around its loops; ``masks``: known of all of it; ``part``: None if it is whole."""
        around = levels[-1]
        rows, columns = (None, None) if part is None else (part.rows, part.columns)
        with around.point:
            rows = _constant(self._rows) if rows is None else rows
            columns = _constant(self._columns) if columns is None else columns
            right = scf.ForOp(_constant(0), rows, _constant(self._side))
        with ir.InsertionPoint(right.body):
            down = scf.ForOp(_constant(0), columns, _constant(self._side))
            scf.YieldOp([])
        with ir.InsertionPoint(down.body):
            end = scf.YieldOp([])
        saved, around.place.point = around.point, ir.InsertionPoint(right)
        row, column = right.induction_variable, down.induction_variable
        if part is None or not part.whole:
            self._square([*levels, Level(Place(ir.InsertionPoint(end)), column)], row, masks, part)
        else:
            with ir.InsertionPoint(end):
                branch = scf.IfOp(self._is_whole(part, row, column), has_else=True)
            for block, known, rest in ((branch.then_block, part.inside, None), (branch.else_block, masks, part)):
                with ir.InsertionPoint(block):
                    place = Place(ir.InsertionPoint(scf.YieldOp([])))
                self._square([*levels, Level(place, column)], row, known, rest)
        around.place.point = saved

    def _is_whole(self, part: Part, row: Value, column: Value) -> Value:
        """Whether a square is inside of all bounds, an i1."""
        whole = None
        for first, count in ((row, part.rows), (column, part.columns)):
            if count is not None:
                last = arith.AddIOp(first, _constant(self._side)).result
                fits = arith.CmpIOp(arith.CmpIPredicate.sle, last, count).result
                whole = fits if whole is None else arith.AndIOp(whole, fits).result
        return whole

    def _square(self, levels: list[Level], row: Value, masks: dict[Comparison, bool], part: Part | None) -> None:
        """``levels``: the last is that of the columns; ``row``: the square's first; ``part``: None if it is whole."""
        known = Masks(masks if part is None else part.inside)
        rows = self._side
        if part is not None and part.last_rows is not None:
            rows, masks = part.last_rows, part.inside
        corner = [*levels, Level(levels[-1].place, row)]
        turned = [
            use for use in self._turning.strides if _always(known, *use) and (part is None or not _is_found(use[0]))
        ]
        pointers = {use: self._pointers(use, corner, masks) for use in turned}
        with levels[-1].point:
            active = [None] * self._side if part is None else self._active(part, row, levels[-1].index)
            self._read = {
                use: self._rows_of(use, found, active) for use, found in pointers.items() if use[0].name == "tt.load"
            }
        self._written = {use: [] for use in pointers if use[0].name == "tt.store"}
        for number in range(rows):
            self._row = number
            with levels[-1].point:
                here = Level(levels[-1].place, arith.AddIOp(row, _constant(number)).result)
            self._body.innermost([*levels, here], masks, [], self._loads, self._writes)
        with levels[-1].point:
            for use, written in self._written.items():
                written = written + [zero_of(written[0].type)] * (self._side - len(written))
                for column, pointer, lanes in zip(transposed(written), pointers[use], active, strict=False):
                    if lanes is not None:
                        masked_store(column, pointer, lanes)
                    else:
                        llvm.StoreOp(column, pointer, alignment=byte_width(column.type.element_type))
                    self._prefetch(use, pointer, self._turning.strides[use])

    def _active(self, part: Part, row: Value, column: Value) -> list[Value | None]:
        """For each column of a square that may be inside, a mask of its rows that are; None if all of them are.

        ``row``, ``column``: the square's first.
        """
        steps, rows = lane_steps(self._side, 1), None
        if part.rows is not None:
            left = _constant(part.last_rows) if part.last_rows is not None else arith.SubIOp(part.rows, row).result
            rows = arith.CmpIOp(arith.CmpIPredicate.slt, steps, splat(left, self._side)).result
        if part.columns is None or part.last_columns is not None:
            return [rows] * (self._side if part.last_columns is None else part.last_columns)
        found = []
        for number in range(self._side):
            at = arith.AddIOp(column, _constant(number)).result
            inside = splat(arith.CmpIOp(arith.CmpIPredicate.slt, at, part.columns).result, self._side)
            found.append(inside if rows is None else arith.AndIOp(rows, inside).result)
        return found

    def _rows_of(self, use: Use, pointers: list[Value], active: list[Value | None]) -> list[Value]:
        """The rows of a square whose columns are read, from ``pointers``, under the masks ``active``."""
        type_ = ir.VectorType.get([self._side], storage_type(_element(use[0])))
        columns = [
            plain_load(type_, pointer, byte_width(type_.element_type))
            if lanes is None
            else masked_load(type_, pointer, lanes, zero_of(type_))
            for pointer, lanes in zip(pointers, active, strict=False)  # none of columns that are never inside
        ]
        for pointer in pointers[: len(columns)]:
            self._prefetch(use, pointer, self._turning.strides[use])
        return transposed(columns + [zero_of(type_)] * (self._side - len(columns)))

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


def _is_found(op: Op) -> bool:
    """Whether where ``op`` reads or writes was read itself: beyond a bound there may be nothing to be read."""
    left, seen = [owner_of(op.operands[0])], set()
    while left:
        one = left.pop()
        if one is None or one in seen:
            continue
        if one.name == "tt.load":
            return True
        seen.add(one)
        left += [owner_of(operand) for operand in one.operands]
    return False


def _always(masks: Masks, op: Op, at: Coords) -> bool:
    """Whether no mask leaves out elements."""
    place = MASKS[op.name]
    return len(op.operands) <= place or masks.known(op.operands[place], at) is True


def _element(op: Op) -> Type:
    """The type of the elements that are read or written."""
    return element_type(op.results[0].type if op.name == "tt.load" else op.operands[1].type)


def _constant(value: int) -> Value:
    return arith.ConstantOp(integer_type(64), value).result
