"""Orders deep expressions of a loop nest, so that their evaluation on demand does not recurse to the bottom."""

from __future__ import annotations

from torchport_passes.ir.build import is_pointer
from torchport_passes.ir.ops import Coords, element_type, operand_coords, owner_of, shape_of
from torchport_passes.ir.traits import INDEX_MAPS, is_elementwise
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.plan import Plan

__all__ = ["EvaluationOrder"]

_DEEP = 100  # operations in a chain; each takes some three frames of Python's stack, which holds 1000


class EvaluationOrder:
    """The order in which a nest's values are evaluated; nothing to do for nests without long chains of operations."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._position: dict[Op, int] = {}
        depths: dict[Op, int] = {}
        for i, view in enumerate(plan.nest.block.operations):
            op = view.operation
            self._position[op] = i
            depths[op] = 1 + max((depths.get(owner_of(v), 0) for v in op.operands), default=0)
        self._deep = max(depths.values()) > _DEEP

    def before(self, anchor: Op) -> list[tuple[Value, Coords]]:
        """The elementwise results that ``anchor`` needs, with their coordinates, in program order.

        What reductions are computed from is left out.
        """
        if not self._deep:
            return []
        needed: dict[tuple[Op, Coords], None] = {}
        work = [(anchor, self._plan.nest.coords[anchor])]
        while work:
            op, coords = work.pop()
            inner = operand_coords(op, coords) if op.name in INDEX_MAPS else coords
            for value in op.operands:
                producer = owner_of(value)
                if producer is None or producer not in self._position or producer.name == "tt.reduce":
                    continue
                if shape_of(value) is not None and (producer, inner) not in needed:
                    needed[producer, inner] = None
                    work.append((producer, inner))
        ordered = sorted(needed, key=lambda use: self._position[use[0]])
        return [(op.results[0], coords) for op, coords in ordered if _is_arithmetic(op)]


def _is_arithmetic(op: Op) -> bool:
    return is_elementwise(op.name) and not is_pointer(element_type(op.results[0].type))
