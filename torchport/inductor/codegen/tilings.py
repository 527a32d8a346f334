"""Tilings of kernels: Inductor's choice, made once for what it asks again and again.

Inductor asks for the tilings of every pair of nodes that it thinks of fusing, so a graph of a thousand nodes asks tens
of thousands of times. What they follow from is kept here, for one compilation: results are the same, and come sooner.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy

from torchport.inductor.compat import (
    BlockPatternMatcher,
    EnableReduction,
    FloorDiv,
    MemoryDep,
    ModularIndexing,
    SchedulerNode,
    TritonScheduling,
    V,
)
from torchport.inductor.scope import Scope, current
from torchport.phases import Phase, phase

__all__ = ["TiledScheduling"]


class TiledScheduling(TritonScheduling):
    """Inductor's Triton scheduling, which remembers tilings."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        _match_only_blocks()

    @classmethod
    def get_nd_tilings(cls, node_schedule: Any, pointwise_numel: Any, reduction_numel: Any) -> list[Any]:
        """Candidate tilings of a kernel: those of its nodes.

        Matching a node's indices against block patterns takes milliseconds. The tilings follow from the node's ranges
        and indices, so equal ones (those of the next layer, too) are matched once.
        """
        scope = current()
        if scope is None:
            candidates: list[Any] = super().get_nd_tilings(node_schedule, pointwise_numel, reduction_numel)
            return candidates
        tilings: dict[Any, None] = {}
        nodes: list[Any] = list(EnableReduction.filter(node_schedule))
        for node in nodes:
            if not isinstance(node, SchedulerNode):
                continue
            shape = _shape(node, scope)
            key = (shape, pointwise_numel, reduction_numel)
            if key not in scope.tilings:
                with phase(Phase.TILINGS):
                    found = super().get_nd_tilings([node], pointwise_numel, reduction_numel) if _ends(shape) else []
                scope.tilings[key] = found
            tilings.update(dict.fromkeys(scope.tilings[key]))
        return sorted(tilings, key=len, reverse=True)

    @classmethod
    def candidate_tilings(cls, node: Any, numel: Any, reduction_numel: Any) -> list[Any]:
        """Inductor's own candidates for one node; they depend on which buffers have been removed, too."""
        scope = current()
        if scope is None or not isinstance(node, SchedulerNode):
            candidates: list[Any] = super().candidate_tilings(node, numel, reduction_numel)
            return candidates
        key = (node, _shape(node, scope), numel, reduction_numel, len(V.graph.removed_buffers))
        if key not in scope.tilings:
            scope.tilings[key] = super().candidate_tilings(node, numel, reduction_numel)
        return scope.tilings[key]

    @classmethod
    def tiling_is_compatible(cls, node_schedule: Any, numel: Any, reduction_numel: Any, tiling: Any) -> bool:
        """Whether a tiling divides the ranges of all nodes; those of most are equal."""
        scope = current()
        if scope is None:
            compatible: bool = super().tiling_is_compatible(node_schedule, numel, reduction_numel, tiling)
            return compatible
        nodes = {_shape(node, scope).ranges: node for node in node_schedule if isinstance(node, SchedulerNode)}
        sizes = tuple(tiling.values())
        for ranges, node in nodes.items():
            key = (sizes, ranges, reduction_numel)
            if key not in scope.divisible:
                scope.divisible[key] = super().tiling_is_compatible([node], numel, reduction_numel, tiling)
            if not scope.divisible[key]:
                return False
        return True


@dataclass(frozen=True)
class _Shape:
    """What the tilings of a node follow from. Its hash is computed once.

    ranges: of its loops.
    accesses: for each, its index, and variables with their ranges.
    """

    ranges: tuple[tuple[Any, ...], ...]
    accesses: tuple[tuple[Any, tuple[Any, ...]], ...]
    digest: int

    def __hash__(self) -> int:
        return self.digest


def _shape(node: Any, scope: Scope) -> _Shape:
    """The shape of a node; Inductor gives it a new body or new accesses where it reorders its loops."""
    known: tuple[Any, Any, _Shape] | None = scope.shapes.get(node)
    if known is not None and known[0] is node.read_writes and known[1] is node._body:
        return known[2]
    ranges = tuple(map(tuple, node.get_ranges()))
    accesses = tuple(
        (dep.index, tuple(dep.ranges.items()))
        for dep in node.read_writes.reads_and_writes()
        if isinstance(dep, MemoryDep)
    )
    shape = _Shape(ranges, accesses, hash((ranges, accesses)))
    scope.shapes[node] = node.read_writes, node._body, shape
    return shape


@functools.cache
def _match_only_blocks() -> None:
    """Have Inductor compare an index with its pattern of blocks only where it can match.

    The pattern is a sum of quotients and remainders of the variable. SymPy takes 10 to 50 ms to find that an index
    without any does not match. Inductor is as it was wherever no graph of torchport's is compiled.
    """
    stock: Callable[..., Any] = BlockPatternMatcher.match_mod_div_block_expr

    def match(index: sympy.Expr, index_var: sympy.Symbol, numel: sympy.Expr, num_dims: int) -> Any:
        plain = not any(index_var in part.free_symbols for part in index.atoms(FloorDiv, ModularIndexing))
        if current() is not None and plain and index_var in index.free_symbols:
            return None
        return stock(index, index_var, numel, num_dims)

    BlockPatternMatcher.match_mod_div_block_expr = match


def _ends(shape: _Shape) -> bool:
    """Whether matching its indices ends soon. It takes minutes where sizes are quotients, as those of ``F.unfold``."""
    return not any(
        index.count(FloorDiv) + index.count(ModularIndexing) > 6
        and not index.free_symbols <= {name for name, _ in ranges}
        for index, ranges in shape.accesses
    )
