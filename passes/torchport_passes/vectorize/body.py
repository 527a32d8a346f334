"""Emits the body of a loop nest: one step of its innermost loop, and anchors outside of it."""

from __future__ import annotations

from collections.abc import Mapping

from mlir import ir
from mlir.dialects import arith, scf
from mlir.dialects import vector as vector_dialect

from torchport.errors import UnsupportedOperation
from torchport_passes.analysis.masks import Comparison, Masks
from torchport_passes.analysis.strides import NOT_BELOW, StrideAnalysis
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import Coords
from torchport_passes.ir.traits import WRITES
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.evaluation_order import EvaluationOrder
from torchport_passes.vectorize.lane_values import Known, LaneValues, Level, LoadLowering, Place
from torchport_passes.vectorize.lowerings import LOADS, WriteLowering
from torchport_passes.vectorize.lowerings import WRITES as WRITE_LOWERINGS
from torchport_passes.vectorize.plan import Plan
from torchport_passes.vectorize.reductions import Reductions

__all__ = ["NestBody"]


class NestBody:
    """Emits the anchors of a nest, each in the loop it belongs to."""

    def __init__(self, plan: Plan, reductions: Reductions) -> None:
        self._plan = plan
        self._reductions = reductions
        self._order = EvaluationOrder(plan)
        self._known: dict[frozenset[tuple[Comparison, bool]], Known] = {}

    def lane_values(
        self,
        levels: list[Level],
        masks: dict[Comparison, bool],
        strides: StrideAnalysis | None = None,
        loads: Mapping[str, LoadLowering] = LOADS,
    ) -> LaneValues:
        """The nest's values inside ``levels``; ``masks``: comparisons whose results are known there."""
        vector = self._plan.vector
        key = frozenset(masks.items())
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Known(Masks(masks))
        return LaneValues(vector.loops, strides or vector.strides, levels, known, loads)

    def innermost(
        self,
        levels: list[Level],
        masks: dict[Comparison, bool],
        carried: list[Value],
        loads: Mapping[str, LoadLowering] = LOADS,
        writes: Mapping[str, WriteLowering] = WRITE_LOWERINGS,
    ) -> list[Value]:
        """One step of the innermost loop. Returns the new accumulators of the reductions.

        ``loads``, ``writes``: what emits the operations that read and write memory.

        If there are divisions or signs to guard, chunks that cross a multiple of a divisor, or zero, take a slower
        branch.
        """
        vector = self._plan.vector
        values = self.lane_values(levels, masks, loads=loads)
        if not vector.wraps:
            return self._step(values, carried, writes)
        level = levels[-1]
        condition = self._no_wrap(values)
        with level.point:
            branch = scf.IfOp(condition, self._reductions.types, has_else=True)
        saved, level.place.point = level.point, ir.InsertionPoint(branch)
        for block, strides in ((branch.then_block, vector.strides_no_wrap), (branch.else_block, vector.strides)):
            with ir.InsertionPoint(block):
                end = scf.YieldOp([])
            levels[-1] = Level(Place(ir.InsertionPoint(end)), level.index, dict(level.memo))
            ends = self._step(self.lane_values(levels, masks, strides, loads), carried, writes)
            if ends:
                with ir.InsertionPoint(end):
                    scf.YieldOp(ends)
                end.operation.erase()
        levels[-1] = level
        level.place.point = saved
        return list(branch.results)

    def around_loop(self, depth: int, lanes: LaneValues, before: bool) -> None:
        """Anchors that stand outside of the loop at ``depth``: after it if they use its reductions, else before."""
        for anchor in self._plan.nest.anchors:
            if anchor.name == "tt.reduce" or self._depth(anchor) != depth:
                continue
            if self._plan.nest.after_reduction(anchor) != before:
                self._operands(anchor, lanes)
                self._anchor(anchor, lanes, lanes.levels[depth])

    def _step(self, lanes: LaneValues, carried: list[Value], writes: Mapping[str, WriteLowering]) -> list[Value]:
        """Anchors in order, then the reductions."""
        for anchor in self._plan.nest.anchors:
            if self._depth(anchor) == len(self._plan.vector.loops) and anchor.name != "tt.reduce":
                self._operands(anchor, lanes)
                self._loads_before(anchor, lanes)
                self._anchor(anchor, lanes, lanes.levels[-1], writes)
        for anchor in self._plan.nest.anchors:
            if anchor.name == "tt.reduce":
                self._operands(anchor, lanes)
        return self._reductions.combine(lanes, carried)

    def _no_wrap(self, lanes: LaneValues) -> Value:
        """Whether no guarded division steps inside the chunk, and no guarded sign changes, an i1."""
        total = None
        for value, coords, divisor in self._plan.vector.wraps:
            first = lanes.scalar(value, coords)
            with lanes.levels[-1].point:
                fits = self._one_sign(first, value, coords, divisor) if divisor <= 0 else self._fits(first, divisor)
                total = fits if total is None else arith.AndIOp(total, fits).result
        return total

    def _fits(self, first: Value, divisor: int) -> Value:
        """Whether a chunk ends before the next multiple of ``divisor``."""
        remainder = arith.RemUIOp(first, arith.ConstantOp(first.type, divisor).result).result
        last_start = arith.ConstantOp(first.type, divisor - self._plan.vector.lanes).result
        return arith.CmpIOp(arith.CmpIPredicate.ule, remainder, last_start).result

    def _one_sign(self, first: Value, value: Value, coords: Coords, sign: int) -> Value:
        """Whether no lane of a chunk is below zero (NOT_BELOW) or none above (NOT_ABOVE)."""
        vector = self._plan.vector
        i64 = integer_type(64)
        span = (vector.strides_no_wrap.of(value, coords).stride or 0) * (vector.lanes - 1)
        farthest = min(0, span) if sign == NOT_BELOW else max(0, span)
        wide = first if first.type == i64 else arith.ExtSIOp(i64, first).result
        extreme = arith.AddIOp(wide, arith.ConstantOp(i64, farthest).result).result
        predicate = arith.CmpIPredicate.sge if sign == NOT_BELOW else arith.CmpIPredicate.sle
        return arith.CmpIOp(predicate, extreme, arith.ConstantOp(i64, 0).result).result

    def _depth(self, anchor: Op) -> int:
        """How many loops an anchor stands in."""
        coords = self._plan.nest.coords[anchor]
        return max((self._plan.vector.loops.index(c) + 1 for c in coords if c is not None), default=0)

    def _loads_before(self, anchor: Op, lanes: LaneValues) -> None:
        """Emit the loads before a write first: they may read, lane by lane, the memory that it writes."""
        if anchor.name not in WRITES:
            return
        buffer = anchor.operands[1] if anchor.name == "tp.write" else None
        for op, coords in self._plan.nest.loads_before(anchor):
            if (op.name == "tp.read") != (buffer is not None) or (buffer is not None and op.operands[0] != buffer):
                continue
            self._evaluate(op.results[0], coords, lanes)

    def _operands(self, anchor: Op, lanes: LaneValues) -> None:
        """If expressions are deep, emit what ``anchor`` is computed from, operands first."""
        for value, coords in self._order.before(anchor):
            self._evaluate(value, coords, lanes)

    def _evaluate(self, value: Value, coords: Coords, lanes: LaneValues) -> None:
        if self._plan.vector.dim in coords:
            lanes.vector(value, coords)
        else:
            lanes.scalar(value, coords)

    def _anchor(
        self, op: Op, lanes: LaneValues, level: Level, writes: Mapping[str, WriteLowering] = WRITE_LOWERINGS
    ) -> None:
        coords = self._plan.nest.coords[op]
        if op.name in writes:
            writes[op.name](lanes, op, coords, level)
        elif op.name == "tt.assert":
            self._assertion(op, coords, lanes, level)
        else:
            raise UnsupportedOperation(op.name, "the CPU target has no lowering for it")

    def _assertion(self, op: Op, coords: Coords, lanes: LaneValues, level: Level) -> None:
        condition = op.operands[0]
        if lanes.masks.known(condition, coords):
            return
        if self._plan.vector.dim in coords and not lanes.strides.uniform(condition, coords):
            value = lanes.vector(condition, coords)
            with level.point:
                value = vector_dialect.ReductionOp(integer_type(1), vector_dialect.CombiningKind.AND, value).result
        else:
            value = lanes.scalar(condition, coords)
        with level.point:
            ir.Operation.create("tt.assert", [], [value], {"message": op.attributes["message"]})
