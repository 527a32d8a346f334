"""Emits the reductions of a loop nest: accumulators of one vector each, and the tree that combines their lanes."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import vector

from torchport_passes.ir.build import constant_like
from torchport_passes.ir.combine import apply_region
from torchport_passes.ir.ops import element_type, numel, shape_of
from torchport_passes.ir.types import Op, Type, Value
from torchport_passes.vectorize.lane_values import LaneValues, Level
from torchport_passes.vectorize.plan import Plan

__all__ = ["Reductions"]


class Reductions:
    """The reductions of one nest, whose accumulators are listed in order, one for each operand.

    ``scalars``: for each result of one element its scalar after the nest; filled in by ``finish``.
    """

    def __init__(self, plan: Plan) -> None:
        self.scalars: dict[Value, Value] = {}
        self._plan = plan
        self._reduces = [a for a in plan.nest.anchors if a.name == "tt.reduce"]

    def __bool__(self) -> bool:
        return bool(self._reduces)

    @property
    def peeled(self) -> bool:
        """Whether the first step computes the accumulators, as an identity is not known."""
        return any(self._plan.nest.identities[r] is None for r in self._reduces)

    @property
    def types(self) -> list[Type]:
        """Vector types of the accumulators."""
        lanes = [self._plan.vector.lanes]
        return [ir.VectorType.get(lanes, element_type(v.type)) for r in self._reduces for v in r.operands]

    def identities(self, level: Level) -> list[Value]:
        """Accumulators that hold the identity in every lane. Not for peeled reductions."""
        values = []
        for reduce in self._reduces:
            identities = self._plan.nest.identities[reduce]
            assert identities is not None  # else the first step is peeled
            values += identities
        with level.point:
            return [constant_like(type_, value) for type_, value in zip(self.types, values, strict=True)]

    def combine(self, lanes: LaneValues, carried: list[Value]) -> list[Value]:
        """The accumulators after one more step. ``carried``: those before it; empty in a peeled first step."""
        values = [lanes.vector(v, self._plan.nest.coords[r]) for r in self._reduces for v in r.operands]
        if not carried:
            return values
        combined, at = [], 0
        for reduce in self._reduces:
            n = len(reduce.operands)
            with lanes.levels[-1].point:
                arguments = carried[at : at + n] + values[at : at + n]
                combined += apply_region(reduce.regions[0], arguments, self._plan.vector.lanes)
            at += n
        return combined

    def finish(self, level: Level, ends: list[Value]) -> None:
        """Combine lanes if the reduced dimension is the vector dimension, and remember the results at this level."""
        at = 0
        horizontal = self._plan.nest.reduced_dim == self._plan.vector.dim
        for reduce in self._reduces:
            n = len(reduce.operands)
            values = ends[at : at + n]
            at += n
            coords = self._plan.nest.result_coords(reduce)
            if horizontal:
                with level.point:
                    values = _across_lanes(reduce, values, self._plan.vector.lanes)
            for result, value in zip(reduce.results, values, strict=True):
                level.memo[result, coords, "scalar" if horizontal else "vector"] = value
                if numel(shape_of(result) or ()) == 1:
                    self.scalars[result] = value


def _across_lanes(reduce: Op, values: list[Value], width: int) -> list[Value]:
    """Combine all lanes in a tree: the lower half with the upper half until one lane is left."""
    while width > 1:
        half = width // 2
        low = [vector.ShuffleOp(v, v, list(range(half))).result for v in values]
        high = [vector.ShuffleOp(v, v, list(range(half, width))).result for v in values]
        values = apply_region(reduce.regions[0], low + high, half)
        width = half
    return [vector.ExtractOp(v, [], [0]).result for v in values]
