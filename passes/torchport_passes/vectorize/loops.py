"""Emits the loops of a nest: one for each dimension, split where a mask is known to hold."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.analysis.masks import Comparison
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import numel, terminator_of
from torchport_passes.ir.types import Value
from torchport_passes.vectorize.body import NestBody
from torchport_passes.vectorize.bounds import Bound
from torchport_passes.vectorize.lane_values import LaneValues, Level, Place
from torchport_passes.vectorize.plan import Plan
from torchport_passes.vectorize.reductions import Reductions
from torchport_passes.vectorize.rows import prefetch_rows
from torchport_passes.vectorize.squares import Part, Squares

__all__ = ["NestLoops"]

_MOST_STEPS = 16


class NestLoops:
    """Replaces one ``tp.nest`` by loops."""

    def __init__(self, plan: Plan, next_tiles: bool = True) -> None:
        self._plan = plan
        self._reductions = Reductions(plan)
        self._body = NestBody(plan, self._reductions)
        self._levels = [Level(Place(ir.InsertionPoint(plan.nest.op)))]  # around the current place, outermost first
        self._masks: dict[Comparison, bool] = {}  # comparisons that are known to hold there
        self._ends: dict[int, int | Value] = {}  # where the loop ends whose body is at a depth, if it runs over rows
        self._in_registers = _in_registers(plan)
        self._squares = None if plan.turning is None else Squares(plan, plan.turning, self._reductions, next_tiles)

    def run(self) -> None:
        """Emit the loops, replace the nest's results, and erase the nest."""
        self._descend(0, [])
        nest = self._plan.nest.op
        terminator = terminator_of(self._plan.nest.block)
        for result, value in zip(nest.results, terminator.operands, strict=True):
            result.replace_all_uses_with(self._reductions.scalars[value])
        nest.erase()

    def _lanes(self, masks: dict[Comparison, bool]) -> LaneValues:
        return self._body.lane_values(self._levels, masks)

    def _descend(self, depth: int, carried: list[Value]) -> list[Value]:
        """Emit the loop at ``depth`` and everything inside; returns the accumulators after the innermost step."""
        plan = self._plan
        if depth == len(plan.vector.loops):
            return self._body.innermost(self._levels, self._masks, carried)
        if self._squares is not None and depth == len(plan.vector.loops) - 2:
            return self._tile(depth, self._squares)
        dim = plan.vector.loops[depth]
        if depth and depth == len(plan.vector.loops) - 1 and dim == plan.vector.dim and depth in self._ends:
            prefetch_rows(plan, self._lanes(self._masks), self._ends[depth])
        reducing = depth == len(plan.vector.loops) - 1 and bool(self._reductions)
        self._body.around_loop(depth, self._lanes(self._masks), before=True)
        starts = self._reductions.identities(self._levels[depth]) if reducing and not self._reductions.peeled else []
        ends = self._chunks(depth, starts) if dim == plan.vector.dim else self._rows(depth, dim, starts)
        if reducing:
            self._reductions.finish(self._levels[depth], ends)
        self._body.around_loop(depth, self._lanes(self._masks), before=False)
        return []

    def _tile(self, depth: int, squares: Squares) -> list[Value]:
        """A tile that squares make up. One that is not whole is turned, too, if nothing beyond its bounds is seen."""
        plan = self._plan
        assert plan.turning is not None
        dims = (plan.turning.dim, plan.vector.dim)
        bounds = (plan.bounds.outer.get(plan.turning.dim), plan.bounds.vector)
        if plan.bounds.vector is not None and not plan.bounds.trim:
            return self._plain(depth)
        if not any(bounds):
            squares.emit(self._levels, self._masks)
            return []
        inside = {**self._masks, **{one: True for bound in bounds if bound is not None for one in bound.comparisons}}
        rows, columns = (
            None if bound is None else self._active(bound, plan.nest.shape[dim])
            for dim, bound in zip(dims, bounds, strict=True)
        )
        side = plan.vector.lanes
        last = [bound.rest(side) if bound is not None and None in bounds else None for bound in bounds]
        whole = all(bound is None or bound.most is None or bound.most >= side for bound in bounds)
        squares.emit(self._levels, self._masks, Part(inside, rows, columns, last[0], last[1], whole))
        return []

    def _plain(self, depth: int) -> list[Value]:
        """The loops of a tile that is not turned."""
        squares, self._squares = self._squares, None
        ends = self._descend(depth, [])
        self._squares = squares
        return ends

    def _rows(self, depth: int, dim: int, starts: list[Value]) -> list[Value]:
        """A loop over single indices, which ends at a bound if nothing beyond it can be observed."""
        bound = self._plan.bounds.outer.get(dim)
        high: int | Value = self._plan.nest.shape[dim]
        if bound is not None:
            high = max(0, min(high, bound.constant)) if bound.constant is not None else self._active(bound, high)
        self._ends[depth + 1] = high
        if bound is None:
            return self._loop(depth, 0, high, 1, starts)
        return self._loop_within(bound, depth, high, 1, starts)

    def _chunks(self, depth: int, starts: list[Value]) -> list[Value]:
        """The loop over chunks: first those in which the bound holds for every lane, then the others under masks."""
        plan, level = self._plan, self._levels[depth]
        size, step = plan.nest.shape[plan.vector.dim], plan.vector.lanes
        if plan.bounds.vector is None:
            return self._loop(depth, 0, size, step, starts)
        known = plan.bounds.vector.constant
        full: int | Value
        end: int | Value
        if known is not None:
            active = max(0, min(size, known))
            full = active // step * step
            end = -(-active // step) * step if plan.bounds.trim else size
        else:
            active_value = self._active(plan.bounds.vector, size)
            with level.point:
                mask = _constant(~(step - 1))
                full = arith.AndIOp(active_value, mask).result
                up = arith.AndIOp(arith.AddIOp(active_value, _constant(step - 1)).result, mask).result
                end = up if plan.bounds.trim else size
        ends = self._loop_within(plan.bounds.vector, depth, full, step, starts)
        if isinstance(full, int) and full == end:
            return ends
        return self._loop(depth, full, end, step, ends)

    def _active(self, bound: Bound, size: int) -> Value:
        """How many indices of a dimension are below its bound, an i64 between 0 and ``size``."""
        first, limit = self._bound_scalars(bound)
        with self._levels[-1].point:
            i64 = integer_type(64)
            extend = arith.ExtUIOp if bound.unsigned else arith.ExtSIOp
            first, limit = (v if v.type == i64 else extend(i64, v).result for v in (first, limit))
            count = arith.SubIOp(limit, first).result
            return arith.MinSIOp(arith.MaxSIOp(count, _constant(0)).result, _constant(size)).result

    def _bound_scalars(self, bound: Bound) -> tuple[Value, Value]:
        """A bound's index where the dimension is 0, and its limit, both outside of the dimension's loop."""
        lanes = self._lanes({})
        op, coords = bound.comparisons[0]
        # evaluate as if the loops inside stood at 0
        with self._levels[-1].point:
            level = Level(self._levels[-1].place, _constant(0))
        lanes.levels = [*self._levels, *[level] * (len(self._plan.vector.loops) + 1 - len(self._levels))]
        return lanes.scalar(op.operands[0], coords), lanes.scalar(op.operands[1], coords)

    def _loop_within(self, bound: Bound, depth: int, high: int | Value, step: int, starts: list[Value]) -> list[Value]:
        """A loop from 0 to the bound, inside which the bound's comparisons hold."""
        outer = self._masks
        self._masks = {**outer, **dict.fromkeys(bound.comparisons, True)}
        ends = self._loop(depth, 0, high, step, starts)
        self._masks = outer
        return ends

    def _loop(self, depth: int, low: int | Value, high: int | Value, step: int, starts: list[Value]) -> list[Value]:
        """``for i in range(low, high, step)``; ``low`` and ``high`` are integers or i64 values.

        Returns the accumulators.
        """
        level = self._levels[depth]
        if depth == len(self._plan.vector.loops) - 1 and self._reductions.peeled:
            starts = self._peel(depth, low)
            low = low + step
            if isinstance(high, int) and low >= high:
                return starts
        if isinstance(low, int) and isinstance(high, int):
            if low >= high:
                return starts
            if low + step >= high:  # a single step needs no loop
                with level.point:
                    index = _constant(low)
                return self._inside(depth, Level(level.place, index), starts)
            if self._in_registers:
                for first in range(low, high, step):
                    with level.point:
                        index = _constant(first)
                    starts = self._inside(depth, Level(level.place, index), starts)
                return starts
        with level.point:
            loop = scf.ForOp(_constant(low), _constant(high), _constant(step), starts)
        with ir.InsertionPoint(loop.body):
            end = scf.YieldOp([])
        saved, level.place.point = level.point, ir.InsertionPoint(loop)
        inner = Level(Place(ir.InsertionPoint(end)), loop.induction_variable)
        ends = self._inside(depth, inner, list(loop.inner_iter_args))
        if ends:
            with ir.InsertionPoint(end):
                scf.YieldOp(ends)
            end.operation.erase()
        level.place.point = saved
        return list(loop.results)

    def _inside(self, depth: int, level: Level, carried: list[Value]) -> list[Value]:
        """Emit the body of the loop at ``depth``."""
        self._levels.append(level)
        try:
            return self._descend(depth + 1, carried)
        finally:
            self._levels.pop()

    def _peel(self, depth: int, low: int) -> list[Value]:
        """The first step of reductions without known identities: its values are the accumulators."""
        level = self._levels[depth]
        with level.point:
            index = _constant(low)
        return self._inside(depth, Level(level.place, index), [])


def _in_registers(plan: Plan) -> bool:
    """Whether the nest works on buffers of so few vectors that registers hold them if no index is left."""
    if not plan.nest.shape:  # one element
        return False
    steps = numel(plan.nest.shape) // plan.nest.shape[plan.vector.dim]
    steps *= -(-plan.nest.shape[plan.vector.dim] // plan.vector.lanes)
    return steps <= _MOST_STEPS and any(op.name in ("tp.read", "tp.write") for op, _ in plan.nest.uses)


def _constant(value: int | Value) -> Value:
    """An i64 constant for an integer; a value itself."""
    return arith.ConstantOp(integer_type(64), value).result if isinstance(value, int) else value
