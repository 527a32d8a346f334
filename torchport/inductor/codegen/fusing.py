"""Which nodes are not one kernel although they could be: reductions, and what turns a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import sympy

from torchport.inductor.compat import V

__all__ = ["turns_beside_a_reduction"]

_LEAST = 1 << 14
"""Elements; fewer stay in the first-level cache, in whatever order they are stored."""


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
    if body is None:
        return False
    sizes = {variable: size for variable, size in body.var_ranges.items() if size != 1}
    if len(sizes) < 2 or not V.graph.sizevars.statically_known_geq(prod(sizes.values()), _LEAST):
        return False
    read, written = (_directions(indices, sizes) for indices in (body.get_read_exprs(), body.get_write_exprs()))
    return bool(read and written and not read & written)


def _directions(indices: Iterable[sympy.Expr], sizes: Mapping[Any, Any]) -> set[Any]:
    """The variables that neighbours in memory follow, of tensors that are accessed as wholes."""
    whole = [index for index in indices if all(index.has(variable) for variable in sizes)]
    return {variable for index in whole for variable in sizes if index.coeff(variable) == 1}
