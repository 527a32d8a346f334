"""Which nodes are not one kernel although they could be: reductions, and what turns a tensor."""

from __future__ import annotations

from math import prod
from typing import Any

from torchport.inductor.codegen.directions import FEW, directions
from torchport.inductor.compat import V

__all__ = ["turns_beside_a_reduction"]


def turns_beside_a_reduction(*fused: Any) -> bool:
    """Whether some of the nodes reduce, and another reads a tensor along one dimension and stores it along another.

    A reduction goes through its rows. A tensor that it would store across them is stored element by element, each in a
    line of its own; a kernel of tiles turns squares in registers.
    """
    nodes = [node for one in fused for node in one.get_nodes()]
    if not any(node.is_reduction() for node in nodes):
        return False
    return any(not node.is_reduction() and _turns(node) for node in nodes)


def _turns(node: Any) -> bool:
    body = getattr(node, "_body", None)  # nodes that no code is generated for have none
    if body is None or not V.graph.sizevars.statically_known_geq(prod(body.var_ranges.values()), FEW):
        return False
    accesses = (body.get_read_exprs(), body.get_write_exprs())
    read, written = (directions(indices, body.var_ranges) for indices in accesses)
    return bool(read and written and not read & written)
