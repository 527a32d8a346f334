"""Decides how a nest becomes loops: one plan a nest, filled in by the modules _vector_dimension and _bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlir import ir

from torchport_passes.analysis.strides import Axis
from torchport_passes.ir.identities import identities
from torchport_passes.ir.ops import INDEX_MAPS, Coords, operand_coords, owner_of, shape_of, space_of, squeezed
from torchport_passes.nests.nest import ANCHORS
from torchport_passes.vectorize.bounds import Bound, decide_trimming, find_bounds
from torchport_passes.vectorize.vector_dimension import choose_vector_dimension

__all__ = ["Plan", "plan_function"]


@dataclass
class Plan:
    """Everything the emitter needs to know about one ``tp.nest``."""

    op: Any
    block: Any
    shape: tuple[int, ...]
    anchors: list[Any]
    coords: dict[Any, Coords]
    uses: dict[tuple[Any, Coords], None]  # every operation of the nest with the coordinates it is evaluated at
    axis_dim: int | None
    vec: int = -1
    lanes: int = 1
    loops: list[int] = field(default_factory=list)
    axis: Axis = field(default_factory=lambda: Axis(-1, 1))
    axis_no_wrap: Axis = field(default_factory=lambda: Axis(-1, 1))
    wraps: list[tuple[Any, Coords, int]] = field(default_factory=list)
    identities: dict[Any, list[Any] | None] = field(default_factory=dict)
    bound: Bound | None = None
    trim: bool = False
    outer: dict[int, Bound] = field(default_factory=dict)

    def result_coords(self, reduce: Any) -> Coords:
        """Coordinates of a reduction's result: those of its operand without the reduced dimension."""
        axis = _axis_position(reduce)
        coords = self.coords[reduce]
        return coords[:axis] + coords[axis + 1 :]

    def after_reduction(self, anchor: Any) -> bool:
        """Whether an anchor uses a result of one of this nest's reductions."""
        work, seen = list(anchor.operands), set()
        while work:
            op = owner_of(work.pop())
            if op is None or op in seen or op.block != self.block:
                continue
            if op.name == "tt.reduce":
                return True
            seen.add(op)
            work.extend(op.operands)
        return False

    def loads_before(self, anchor: Any) -> list[tuple[Any, Coords]]:
        """Loads of the nest that stand before ``anchor``, with their coordinates."""
        before: dict[Any, None] = {}
        for view in self.block.operations:
            if view.operation == anchor:
                break
            before[view.operation] = None
        return [(op, coords) for op, coords in self.uses if op.name in ("tt.load", "tp.read") and op in before]


def _axis_position(reduce: Any) -> int:
    return int(ir.IntegerAttr(reduce.attributes["axis"]).value)


def plan_function(function: Any, vector_bits: int) -> list[Plan]:
    """Plans for every ``tp.nest`` of a function, in order; what is cut off is decided over all of them together."""
    plans: list[Plan] = []
    readers: list[Any] = []

    def visit(op: Any) -> None:
        if op.name == "tp.nest":
            plans.append(_plan(op, vector_bits))
            return
        if op.name.startswith("tp.") and op.name not in ("tp.buffer",):
            readers.append(op)
        for region in op.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner.operation)

    visit(function)
    decide_trimming(plans, readers)
    return plans


def _plan(op: Any, vector_bits: int) -> Plan:
    block = op.regions[0].blocks[0]
    shape = tuple(ir.DenseI64ArrayAttr(op.attributes["shape"]))
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value) if "axis" in op.attributes else None
    operations = [o.operation for o in block.operations]
    anchors = [o for o in operations if o.name in ANCHORS]
    coords = _anchor_coords(anchors, shape)
    plan = Plan(op, block, shape, anchors, coords, _uses(anchors, coords, block), axis)
    for anchor in anchors:
        if anchor.name == "tt.reduce":
            plan.identities[anchor] = identities(anchor)
    if shape:
        choose_vector_dimension(plan, vector_bits)
        find_bounds(plan)
    return plan


def _anchor_coords(anchors: list[Any], shape: tuple[int, ...]) -> dict[Any, Coords]:
    coords: dict[Any, Coords] = {}
    full = [s for s in (space_of(a) for a in anchors) if squeezed(s) == shape]
    for anchor in anchors:
        producer = owner_of(anchor.operands[0]) if anchor.name == "tp.write" else None
        space = space_of(anchor)
        if producer is not None and producer.name == "tt.reduce" and producer in coords:
            axis = _axis_position(producer)
            coords[anchor] = coords[producer][:axis] + coords[producer][axis + 1 :]
            continue
        if squeezed(space) == shape:
            dims = iter(range(len(shape)))
            coords[anchor] = tuple(next(dims) if s != 1 else None for s in space)
        else:  # a smaller value kept by this nest: dimensions match by position
            whole = next(f for f in full if len(f) == len(space))
            dims = iter(range(len(shape)))
            all_coords = [next(dims) if s != 1 else None for s in whole]
            coords[anchor] = tuple(None if s == 1 else c for s, c in zip(space, all_coords, strict=True))
    return coords


def _uses(anchors: list[Any], coords: dict[Any, Coords], block: Any) -> dict[tuple[Any, Coords], None]:
    uses: dict[tuple[Any, Coords], None] = {}
    work = [(a, coords[a]) for a in reversed(anchors)]
    while work:
        op, at = work.pop()
        if (op, at) in uses:
            continue
        uses[op, at] = None
        inner = operand_coords(op, at) if op.name in INDEX_MAPS else at
        if op.name == "tt.reduce" and at != coords.get(op):
            inner = coords[op]
        for value in op.operands:
            producer = owner_of(value)
            if producer is not None and producer.block == block and shape_of(value) is not None:
                work.append((producer, coords[producer] if producer.name == "tt.reduce" else inner))
    return uses
