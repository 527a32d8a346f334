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

_MOST_ALIKE = 4
"""Reductions whose lanes are combined together: with more, too few lanes of a vector are left to each."""


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
        found: dict[Op, list[Value]] = {}
        for reduce in self._reduces:
            found[reduce] = ends[at : at + len(reduce.operands)]
            at += len(reduce.operands)
        if horizontal:
            with level.point:
                for alike in _alike(self._reduces):
                    found.update(zip(alike, _scalars(alike, [found[r] for r in alike]), strict=True))
        for reduce, values in found.items():
            coords = self._plan.nest.result_coords(reduce)
            for result, value in zip(reduce.results, values, strict=True):
                level.memo[result, coords, "scalar" if horizontal else "vector"] = value
                if numel(shape_of(result) or ()) == 1:
                    self.scalars[result] = value


def _alike(reduces: list[Op]) -> list[list[Op]]:
    """Reductions of one operand by the same single operation, two or four at a time; others alone."""
    groups: dict[str, list[list[Op]]] = {}
    for reduce in reduces:
        *body, _ = reduce.regions[0].blocks[0].operations
        single = len(reduce.operands) == 1 and len(body) == 1
        kind = f"{body[0].operation.name} {element_type(reduce.operands[0].type)}" if single else str(id(reduce))
        same = groups.setdefault(kind, [[]])
        if len(same[-1]) == _MOST_ALIKE:
            same.append([])
        same[-1].append(reduce)
    result = []
    for group in (group for same in groups.values() for group in same):
        whole = len(group) if len(group) != 3 else 2
        result += [group[:whole], group[whole:]] if whole < len(group) else [group]
    return result


def _scalars(reduces: list[Op], ends: list[list[Value]]) -> list[list[Value]]:
    """All lanes of accumulators combined, of reductions that are alike."""
    width = ir.VectorType(ends[0][0].type).shape[0]
    if len(reduces) == 1 or width < len(reduces):
        return [_across_lanes(reduce, values, width) for reduce, values in zip(reduces, ends, strict=True)]
    return [[value] for value in _together(reduces[0], [value for [value] in ends], width)]


def _together(reduce: Op, vectors: list[Value], width: int) -> list[Value]:
    """As ``_across_lanes`` for each of several vectors, whose halves share registers: the same sums in fewer steps."""
    region, parts, part = reduce.regions[0], 1, width  # a vector has so many parts, each of so many lanes
    while len(vectors) > 1:
        half = part // 2
        starts = [first + i * part for first in (0, width) for i in range(parts)]
        low, high = ([start + i for start in starts for i in range(at, at + half)] for at in (0, half))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        sides = [[vector.ShuffleOp(*pair, lanes).result for lanes in (low, high)] for pair in pairs]
        vectors = [apply_region(region, both, width)[0] for both in sides]
        parts, part = 2 * parts, half
    [value], step = vectors, part // 2
    while step > 0:
        other = vector.ShuffleOp(value, value, [lane ^ step for lane in range(width)]).result
        value, step = apply_region(region, [value, other], width)[0], step // 2
    return [vector.ExtractOp(value, [], [i * part]).result for i in range(parts)]


def _across_lanes(reduce: Op, values: list[Value], width: int) -> list[Value]:
    """Combine all lanes in a tree: the lower half with the upper half until one lane is left."""
    while width > 1:
        half = width // 2
        low = [vector.ShuffleOp(v, v, list(range(half))).result for v in values]
        high = [vector.ShuffleOp(v, v, list(range(half, width))).result for v in values]
        values = apply_region(reduce.regions[0], low + high, half)
        width = half
    return [vector.ExtractOp(v, [], [0]).result for v in values]
