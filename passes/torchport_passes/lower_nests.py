"""Turns ``tp.nest`` operations into loops over vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import arith, scf, vector

from torchport.errors import UnsupportedOperation
from torchport_passes import _atomics, _buffer_access, _memory
from torchport_passes._axis import Coords
from torchport_passes._combine import apply_region
from torchport_passes._emit import constant_like
from torchport_passes._lanes import Lanes, Level, Place
from torchport_passes._ops import element_type, numel, shape_of
from torchport_passes._plan import Plan, plan_function

__all__ = ["LowerNests"]


@dataclass(frozen=True)
class LowerNests:
    """Emit each nest as scf loops whose innermost step works on vectors.

    Takes what ``form-nests`` leaves; leaves no tensors. ``vector_bits``: width of the machine's vector registers. One
    dimension of each nest, the one most memory accesses are contiguous along, is cut into chunks of lanes. Bounds like
    ``index < n`` split its loop into a part without masks and a masked rest, which is cut off where nothing in it can
    be observed. Reductions keep a vector of partial results a lane, combined in a tree after the loop.
    """

    name: ClassVar[str] = "lower-nests"
    vector_bits: int = 256

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                if len(function.regions[0].blocks) == 0:
                    continue
                for plan in plan_function(function.operation, self.vector_bits):
                    _Emitter(plan).run()


class _Emitter:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.op = plan.op
        self.reduces = [a for a in plan.anchors if a.name == "tt.reduce"]
        self.count = plan.lanes
        self.accumulators = [v for r in self.reduces for v in r.operands]

    def run(self) -> None:
        outside = Level(Place(ir.InsertionPoint(self.op)))
        self.masks: dict[Any, bool] = {}
        self.results: dict[Any, Any] = {}  # result of a reduction -> scalar after the nest
        self.levels = [outside]
        self.descend(0, [])
        terminator = list(self.plan.block.operations)[-1].operation
        for result, value in zip(self.op.results, terminator.operands, strict=True):
            result.replace_all_uses_with(self.results[value])
        self.op.erase()

    # ---- loops

    def lanes(self, masks: dict[Any, bool], no_wrap: bool = False) -> Lanes:
        axis = self.plan.axis_no_wrap if no_wrap else self.plan.axis
        return Lanes(self.plan.loops, axis, self.levels, masks)

    def descend(self, depth: int, carried: list[Any]) -> list[Any]:
        """Emit the loop at ``depth`` and everything inside; returns the accumulators after it."""
        plan = self.plan
        if depth == len(plan.loops):
            return self.body(carried)
        dim = plan.loops[depth]
        innermost = depth == len(plan.loops) - 1
        self.emit_anchors(depth, before_loop=True)
        starts = self.start() if innermost and self.reduces and not self.peeled() else []
        if dim == plan.vec:
            ends = self.segments(depth, starts, innermost)
        else:
            ends = self.rows(depth, dim, starts, innermost)
        if innermost and self.reduces:
            self.finish_reductions(depth, ends)
        self.emit_anchors(depth, before_loop=False)
        return []

    def rows(self, depth: int, dim: int, starts: list[Any], innermost: bool) -> list[Any]:
        """A loop over single indices, cut at a bound where nothing beyond it can be observed."""
        bound = self.plan.outer.get(dim)
        high: Any = self.plan.shape[dim]
        if bound is None:
            return self.loop(depth, 0, high, 1, starts, innermost)
        high = max(0, min(high, bound.constant)) if bound.constant is not None else self.active(bound, high)
        outer = self.masks
        self.masks = {**outer, **dict.fromkeys(bound.comparisons, True)}
        ends = self.loop(depth, 0, high, 1, starts, innermost)
        self.masks = outer
        return ends

    def active(self, bound: Any, size: int) -> Any:
        """How many indices of a dimension are below its bound, an i64 between 0 and ``size``."""

        first, limit = self.bound_scalars(bound)
        with self.levels[-1].point:
            i64 = ir.IntegerType.get_signless(64)
            extend = arith.ExtUIOp if bound.unsigned else arith.ExtSIOp
            first, limit = (v if v.type == i64 else extend(i64, v).result for v in (first, limit))
            rest = arith.SubIOp(limit, first).result
            return arith.MinSIOp(arith.MaxSIOp(rest, self.constant(0)).result, self.constant(size)).result

    def peeled(self) -> bool:
        return any(self.plan.identities[r] is None for r in self.reduces)

    def loop(self, depth: int, low: Any, high: Any, step: int, starts: list[Any], innermost: bool) -> list[Any]:
        """``for i in range(low, high, step)``; bounds are integers or i64 values."""

        level = self.levels[depth]
        if innermost and self.reduces and self.peeled():
            starts = self.peel(depth, low)
            low = low + step
            if isinstance(high, int) and low >= high:
                return starts
        if isinstance(low, int) and isinstance(high, int):
            if low >= high:
                return starts
            if low + step >= high:  # a single step needs no loop
                with level.point:
                    index = self.constant(low)
                return self.inside(depth, Level(level.place, index), starts)
        with level.point:
            loop = scf.ForOp(self.constant(low), self.constant(high), self.constant(step), starts)
        with ir.InsertionPoint(loop.body):
            end = scf.YieldOp([])
        saved, level.place.point = level.point, ir.InsertionPoint(loop)
        ends = self.inside(
            depth, Level(Place(ir.InsertionPoint(end)), loop.induction_variable), list(loop.inner_iter_args)
        )
        if ends:
            with ir.InsertionPoint(end):
                scf.YieldOp(ends)
            end.operation.erase()
        level.place.point = saved
        return list(loop.results)

    def inside(self, depth: int, level: Level, carried: list[Any]) -> list[Any]:
        self.levels.append(level)
        try:
            return self.descend(depth + 1, carried)
        finally:
            self.levels.pop()

    def peel(self, depth: int, low: int) -> list[Any]:
        """The first step of a reduction without a known identity: its values are the accumulators."""
        level = self.levels[depth]
        with level.point:
            index = self.constant(low)
        return self.inside(depth, Level(level.place, index), [])

    @staticmethod
    def constant(value: Any) -> Any:
        return arith.ConstantOp(ir.IntegerType.get_signless(64), value).result if isinstance(value, int) else value

    def segments(self, depth: int, starts: list[Any], innermost: bool) -> list[Any]:
        """The loop over chunks: first the part where the bound holds for every lane, then the rest under masks."""

        plan, level = self.plan, self.levels[depth]
        size, step = plan.shape[plan.vec], self.count
        if plan.bound is None:
            return self.loop(depth, 0, size, step, starts, innermost)
        known = plan.bound.constant
        if known is not None:
            active = max(0, min(size, known))
            full = active // step * step
            end: Any = -(-active // step) * step if plan.trim else size
        else:
            active_value = self.active(plan.bound, size)
            with level.point:
                mask = self.constant(~(step - 1))
                full = arith.AndIOp(active_value, mask).result
                up = arith.AndIOp(arith.AddIOp(active_value, self.constant(step - 1)).result, mask).result
                end = up if plan.trim else size
        outer = self.masks
        self.masks = {**outer, **dict.fromkeys(plan.bound.comparisons, True)}
        ends = self.loop(depth, 0, full, step, starts, innermost)
        self.masks = outer
        ends = (
            self.loop(depth, full, end, step, ends, innermost) if not (isinstance(full, int) and full == end) else ends
        )
        return ends

    def bound_scalars(self, bound: Any) -> tuple[Any, Any]:
        """The index where the dimension is 0, and the limit, at the level outside of its loop."""
        lanes = self.lanes({})
        op, coords = bound.comparisons[0]
        # evaluated as if the loop stood at 0
        with self.levels[-1].point:
            level = Level(self.levels[-1].place, self.constant(0))
        lanes.levels = [*self.levels, level]
        return lanes.scalar(op.operands[0], coords), lanes.scalar(op.operands[1], coords)

    # ---- one step

    def body(self, carried: list[Any]) -> list[Any]:
        """The innermost step: anchors in order, then the reductions' new accumulators."""

        axis = self.plan.axis
        if not self.plan.wraps:
            return self.step(self.lanes(self.masks), carried)
        # a chunk that crosses a row boundary of a divided index takes the slow road
        lanes = self.lanes(self.masks)
        level = self.levels[-1]
        condition = self.no_wrap_condition(lanes)
        types = [ir.VectorType.get([axis.lanes], element_type(v.type)) for v in self.accumulators]
        with level.point:
            branch = scf.IfOp(condition, types, has_else=True)
        saved, level.place.point = level.point, ir.InsertionPoint(branch)
        for block, no_wrap in ((branch.then_block, True), (branch.else_block, False)):
            with ir.InsertionPoint(block):
                end = scf.YieldOp([])
            self.levels[-1] = Level(Place(ir.InsertionPoint(end)), level.index, dict(level.memo))
            ends = self.step(self.lanes(self.masks, no_wrap), carried)
            if ends:
                with ir.InsertionPoint(end):
                    scf.YieldOp(ends)
                end.operation.erase()
        self.levels[-1] = level
        level.place.point = saved
        return list(branch.results)

    def no_wrap_condition(self, lanes: Lanes) -> Any:
        total = None
        for value, coords, divisor in self.plan.wraps:
            first = lanes.scalar(value, coords)
            with self.levels[-1].point:
                rest = arith.RemUIOp(first, arith.ConstantOp(first.type, divisor)).result
                room = arith.ConstantOp(first.type, divisor - self.count).result
                fits = arith.CmpIOp(arith.CmpIPredicate.ule, rest, room).result
                total = fits if total is None else arith.AndIOp(total, fits).result
        return total

    def step(self, lanes: Lanes, carried: list[Any]) -> list[Any]:
        depth = len(self.plan.loops)
        level = self.levels[-1]
        for anchor in self.plan.anchors:
            if self.anchor_level(anchor) == depth and anchor.name != "tt.reduce":
                self.evaluate_loads_before(anchor, lanes)
                self.anchor(anchor, lanes, level)
        if not self.reduces:
            return []
        values = [lanes.vector(v, self.plan.coords[r]) for r in self.reduces for v in r.operands]
        if not carried:
            return values
        combined, at = [], 0
        for reduce in self.reduces:
            n = len(reduce.operands)
            with level.point:
                combined += apply_region(reduce.regions[0], carried[at : at + n] + values[at : at + n], self.count)
            at += n
        return combined

    def anchor_level(self, anchor: Any) -> int:
        coords = self.plan.coords[anchor]
        return max((self.plan.loops.index(c) + 1 for c in coords if c is not None), default=0)

    def emit_anchors(self, depth: int, before_loop: bool) -> None:
        """Anchors outside of deeper loops: those fed by this nest's reductions after the loop, others before."""
        lanes = None
        for anchor in self.plan.anchors:
            if anchor.name == "tt.reduce" or self.anchor_level(anchor) != depth:
                continue
            after = self.plan.after_reduction(anchor)
            if after == before_loop:
                continue
            lanes = lanes or self.lanes(self.masks)
            self.anchor(anchor, lanes, self.levels[depth])

    def evaluate_loads_before(self, anchor: Any, lanes: Lanes) -> None:
        """Loads that stand before a write read before it writes: kernel arguments may alias lane by lane."""
        if anchor.name not in ("tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tp.write"):
            return
        buffer = anchor.operands[1] if anchor.name == "tp.write" else None
        for op, coords in self.plan.loads_before(anchor):
            if (op.name == "tp.read") != (buffer is not None) or (buffer is not None and op.operands[0] != buffer):
                continue
            if self.plan.vec in coords:
                lanes.vector(op.results[0], coords)
            else:
                lanes.scalar(op.results[0], coords)

    def anchor(self, op: Any, lanes: Lanes, level: Level) -> None:
        coords = self.plan.coords[op]
        if op.name == "tt.store":
            _memory.store(lanes, op, coords, level)
        elif op.name == "tp.write":
            _buffer_access.write(lanes, op, coords, level)
        elif op.name in ("tt.atomic_rmw", "tt.atomic_cas"):
            _atomics.atomic(lanes, op, coords, level)
        elif op.name == "tt.assert":
            self.assertion(op, coords, lanes, level)
        else:
            raise UnsupportedOperation(op.name, "the CPU target has no lowering for it")

    def assertion(self, op: Any, coords: Coords, lanes: Lanes, level: Level) -> None:
        condition = op.operands[0]
        if lanes.known(condition, coords):
            return
        if self.plan.vec in coords and not lanes.axis.uniform(condition, coords):
            value = lanes.vector(condition, coords)
            with level.point:
                value = vector.ReductionOp(ir.IntegerType.get_signless(1), vector.CombiningKind.AND, value).result
        else:
            value = lanes.scalar(condition, coords)
        with level.point:
            ir.Operation.create("tt.assert", [], [value], {"message": op.attributes["message"]})

    # ---- reductions

    def start(self) -> list[Any]:
        """Accumulators that hold the identity in every lane."""

        starts = []
        with self.levels[-1].point:
            for reduce in self.reduces:
                identities = self.plan.identities[reduce]
                assert identities is not None  # else the first step is peeled
                for value, identity in zip(reduce.operands, identities, strict=True):
                    type_ = ir.VectorType.get([self.count], element_type(value.type))
                    starts.append(constant_like(type_, identity))
        return starts

    def finish_reductions(self, depth: int, ends: list[Any]) -> None:
        """Combine lanes where the reduced dimension is the vectorised one, and remember the results at this level."""
        level, at = self.levels[depth], 0
        for reduce in self.reduces:
            n = len(reduce.operands)
            values = ends[at : at + n]
            at += n
            coords = self.plan.result_coords(reduce)
            horizontal = self.plan.axis_dim == self.plan.vec
            if horizontal:
                with level.point:
                    values = self.horizontal(reduce, values)
            for result, value in zip(reduce.results, values, strict=True):
                level.memo[result, coords, "scalar" if horizontal else "vector"] = value
                if numel(shape_of(result) or ()) == 1:
                    self.results[result] = value

    def horizontal(self, reduce: Any, values: list[Any]) -> list[Any]:
        """A tree over the lanes: upper half with lower half until one is left."""

        width = self.count
        while width > 1:
            half = width // 2
            low = [vector.ShuffleOp(v, v, list(range(half))).result for v in values]
            high = [vector.ShuffleOp(v, v, list(range(half, width))).result for v in values]
            values = apply_region(reduce.regions[0], low + high, half)
            width = half
        assert isinstance(values[0].type, ir.VectorType)
        return [vector.ExtractOp(v, [], [0]).result for v in values]
