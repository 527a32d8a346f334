"""Describes a loop nest: its operations and the coordinates that they are evaluated at."""

from __future__ import annotations

from dataclasses import dataclass

from mlir import ir

from torchport_passes.ir.identities import identities
from torchport_passes.ir.ops import Coords, int_attribute, operand_coords, owner_of, shape_of, space_of, squeezed
from torchport_passes.ir.slices import backward_slice
from torchport_passes.ir.traits import ANCHORS, INDEX_MAPS, LOADS
from torchport_passes.ir.types import Attribute, Block, Op

__all__ = ["NestInfo", "nest_info"]


@dataclass(frozen=True)
class NestInfo:
    """A ``tp.nest``: its iteration space, and the coordinates that its operations are evaluated at.

    ``op``: the operation.
    ``block``: its body.
    ``shape``: sizes of the iteration space.
    ``anchors``: operations with an effect (stores, atomics, assertions), and reductions. Every other operation is
    evaluated where one of them needs its value.
    ``coords``: the coordinates of each anchor.
    ``uses``: every operation of the nest with the coordinates it is evaluated at, a set in insertion order.
    ``reduced_dim``: the dimension that the nest's reductions run along; None without reductions.
    ``identities``: for each reduction the constants that it may start from, None if they are not known.
    """

    op: Op
    block: Block
    shape: tuple[int, ...]
    anchors: tuple[Op, ...]
    coords: dict[Op, Coords]
    uses: dict[tuple[Op, Coords], None]
    reduced_dim: int | None
    identities: dict[Op, list[Attribute] | None]

    def result_coords(self, reduce: Op) -> Coords:
        """Coordinates of a reduction's result: those of its operand without the reduced dimension."""
        axis = _axis_position(reduce)
        coords = self.coords[reduce]
        return coords[:axis] + coords[axis + 1 :]

    def after_reduction(self, anchor: Op) -> bool:
        """Whether an anchor needs a result of one of this nest's reductions."""
        return any(
            op.name == "tt.reduce" and op.block == self.block
            for operand in anchor.operands
            for op in backward_slice(operand, lambda op: op.operands if op.block == self.block else [])
        )

    def loads_before(self, anchor: Op) -> list[tuple[Op, Coords]]:
        """Loads of the nest that stand before ``anchor``, with their coordinates."""
        before: dict[Op, None] = {}
        for view in self.block.operations:
            if view.operation == anchor:
                break
            before[view.operation] = None
        return [(op, coords) for op, coords in self.uses if op.name in LOADS and op in before]


def nest_info(op: Op) -> NestInfo:
    """The description of a ``tp.nest``."""
    block = op.regions[0].blocks[0]
    shape = tuple(ir.DenseI64ArrayAttr(op.attributes["shape"]))
    reduced_dim = int_attribute(op, "axis") if "axis" in op.attributes else None
    operations = [view.operation for view in block.operations]
    anchors = tuple(operation for operation in operations if operation.name in ANCHORS)
    coords = _anchor_coords(anchors, shape)
    known = {anchor: identities(anchor) for anchor in anchors if anchor.name == "tt.reduce"}
    return NestInfo(op, block, shape, anchors, coords, _uses(anchors, coords, block), reduced_dim, known)


def _axis_position(reduce: Op) -> int:
    return int_attribute(reduce, "axis")


def _anchor_coords(anchors: tuple[Op, ...], shape: tuple[int, ...]) -> dict[Op, Coords]:
    coords: dict[Op, Coords] = {}
    full = [space for space in map(space_of, anchors) if squeezed(space) == shape]
    for anchor in anchors:
        producer = owner_of(anchor.operands[0]) if anchor.name == "tp.write" else None
        if producer is not None and producer.name == "tt.reduce" and producer in coords:
            axis = _axis_position(producer)
            coords[anchor] = coords[producer][:axis] + coords[producer][axis + 1 :]
        else:
            coords[anchor] = _space_coords(space_of(anchor), shape, full)
    return coords


def _space_coords(space: tuple[int, ...], shape: tuple[int, ...], full: list[tuple[int, ...]]) -> Coords:
    """Coordinates of a space in a nest of ``shape``. A smaller space is matched by position with ``full``."""
    whole = space if squeezed(space) == shape else next(other for other in full if len(other) == len(space))
    dims = iter(range(len(shape)))
    coords = [next(dims) if size != 1 else None for size in whole]
    return tuple(None if size == 1 else coord for size, coord in zip(space, coords, strict=True))


def _uses(anchors: tuple[Op, ...], coords: dict[Op, Coords], block: Block) -> dict[tuple[Op, Coords], None]:
    uses: dict[tuple[Op, Coords], None] = {}
    work = [(anchor, coords[anchor]) for anchor in reversed(anchors)]
    while work:
        op, at = work.pop()
        if (op, at) in uses:
            continue
        uses[op, at] = None
        inner = _coords_of_operands(op, at, coords)
        producers = [owner_of(value) for value in op.operands if shape_of(value) is not None]
        here = [p for p in producers if p is not None and p.block == block]
        work += [(p, coords[p] if p.name == "tt.reduce" else inner) for p in here]
    return uses


def _coords_of_operands(op: Op, at: Coords, coords: dict[Op, Coords]) -> Coords:
    """Coordinates of the operands of an operation that is evaluated ``at``. A reduction's are those of its space."""
    if op.name == "tt.reduce":
        return coords[op]
    return operand_coords(op, at) if op.name in INDEX_MAPS else at
